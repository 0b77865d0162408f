"""What the layers see, in pictures: filters, feature maps, what decided, receptive fields."""

import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from scipy.special import softmax

from data.contact_sheet import captioned_sheet, contact_sheet
from evaluation import blocks as net_blocks
from evaluation.blocks import Block
from evaluation.outputs import Outputs
from evaluation.trained import Trained

_CLASSES, _MISTAKES = 8, 4  # Images that are shown: one of each class, and wrong ones.
_DEPTHS = 7  # Blocks whose maps are shown.
_FILTERS = 64
_SIDE = 96  # Least width of a picture of a map, in pixels.


def write(net: Trained, outputs: Outputs, folder: pathlib.Path) -> dict[str, str | None]:
    """Writes the pictures of a convolutional net that classifies images.

    Returns:
      File names: `filters` of the first layer (None where it has other than 1 or 3 channels),
      `feature_maps`, `grad_cam` and `receptive_fields`. {} for other nets.
    """
    if not net_blocks.has_blocks(net.recipe.model, net.input_shape) or not net.class_names:
        return {}
    blocks = net_blocks.find(net.recipe.model, net.input_shape)
    chosen = _chosen(outputs)
    variables = jax.tree.map(np.asarray, net.variables)
    images = np.stack([outputs.source.inputs[i] for i in outputs.members[chosen]])
    captions = _captions(outputs, chosen)
    # Of all maps and the gradient one program each: what is shown is a handful of images.
    seen = jax.jit(lambda variables, batch: net_blocks.maps(net.recipe, blocks, variables, batch))(
        variables, {'input': images}
    )
    seen = [np.asarray(x, np.float32) for x in seen]
    classes = outputs.values_NK[chosen].argmax(axis=1)
    gradients = _gradients(net, variables, images, seen[-1].shape, classes)
    pictures = {
        'filters': _filters(net, blocks[0]),
        'feature_maps': _feature_maps(images, captions, blocks, seen),
        'grad_cam': _overlaid(images, captions, grad_cam(seen[-1], gradients)),
    }
    names: dict[str, str | None] = {}
    for name, picture in pictures.items():
        names[name] = f'{name}.png' if picture is not None else None
        if picture is not None:
            Image.fromarray(picture).save(folder / f'{name}.png')
    _receptive_fields(images[0], blocks).savefig(folder / 'receptive_fields.png', dpi=110)
    return names | {'receptive_fields': 'receptive_fields.png'}


def _chosen(outputs: Outputs) -> np.ndarray:
    """Returns the surest right image of each of the first classes, then the surest wrong ones."""
    probability_N = softmax(outputs.values_NK.astype(np.float64), axis=1).max(axis=1)
    right_N = outputs.values_NK.argmax(axis=1) == outputs.labels_N
    surest = np.argsort(-probability_N, kind='stable')
    typical = [
        next((i for i in surest if right_N[i] and outputs.labels_N[i] == label), None)
        for label in range(min(_CLASSES, outputs.values_NK.shape[1]))
    ]
    wrong = [i for i in surest if not right_N[i]][:_MISTAKES]
    return np.asarray([i for i in [*typical, *wrong] if i is not None], int)


def _captions(outputs: Outputs, chosen: np.ndarray) -> list[tuple[str, str]]:
    classes, guesses_N = outputs.pipeline.class_names, outputs.values_NK.argmax(axis=1)
    return [(f'is {classes[outputs.labels_N[i]]}', f'said {classes[guesses_N[i]]}') for i in chosen]


def _filters(net: Trained, first: Block) -> np.ndarray | None:
    """Draws the kernels of the first layer; grey is 0."""
    tree = net.variables['params']
    for part in first.name.split('/'):
        tree = tree[part]
    kernel_HWIO = np.asarray(tree['kernel'], np.float32)[..., :_FILTERS]
    if kernel_HWIO.shape[2] not in (1, 3):
        return None
    largest = np.abs(kernel_HWIO).max(axis=(0, 1, 2)) + 1e-12
    levels = np.rint(127.5 + 127.5 * kernel_HWIO / largest).astype(np.uint8)
    return contact_sheet(levels.transpose(3, 0, 1, 2), min_side=48)


def _feature_maps(
    images: np.ndarray,
    captions: Sequence[Sequence[str]],
    blocks: Sequence[Block],
    seen: Sequence[np.ndarray],
) -> np.ndarray:
    """Draws a row for each image: it, and the four strongest channels behind some blocks."""
    places = np.unique(np.linspace(0, len(blocks) - 1, min(_DEPTHS, len(blocks))).round())
    side = max(_SIDE, images.shape[2])
    tiles, texts = [], []
    for i, (image, caption) in enumerate(zip(images, captions, strict=True)):
        tiles.append(_resized(np.broadcast_to(image[..., -3:], (*image.shape[:2], 3)), side))
        texts.append(tuple(caption))
        for place in places.astype(int):
            tiles.append(_resized(_strongest(seen[place + 1][i]), side))
            height, width = seen[place + 1].shape[1:3]
            texts.append((blocks[place].name, f'{height}x{width} pixels'))
    return captioned_sheet(np.stack(tiles), texts, columns=1 + len(places))


def _strongest(map_HWC: np.ndarray) -> np.ndarray:
    """Returns four channels of the largest mean size beside and below one another, uint8."""
    order = np.argsort(-np.abs(map_HWC).mean(axis=(0, 1)), kind='stable')[:4]
    channels = np.zeros((4, *map_HWC.shape[:2]))
    channels[: len(order)] = map_HWC[..., order].transpose(2, 0, 1)
    low, high = (f(channels, axis=(1, 2), keepdims=True) for f in (np.min, np.max))
    levels = (255 * (channels - low) / np.maximum(high - low, 1e-12)).astype(np.uint8)
    quarters = np.block([[levels[0], levels[1]], [levels[2], levels[3]]])
    return np.repeat(quarters[..., None], 3, axis=-1)


def _resized(picture: np.ndarray, side: int) -> np.ndarray:
    height = round(side * picture.shape[0] / picture.shape[1])
    small = Image.fromarray(np.ascontiguousarray(picture))
    return np.asarray(small.resize((side, height), Image.Resampling.NEAREST))


def _gradients(
    net: Trained,
    variables: dict[str, Any],
    images: np.ndarray,
    shape: tuple[int, ...],
    classes: np.ndarray,
) -> np.ndarray:
    """Returns the gradients of the logits of these classes by the last map, [N, H, W, C]."""
    rows = np.arange(len(classes))

    def scores(change: jax.Array, variables: Any, batch: Any) -> jax.Array:
        logits = net_blocks.with_change(net.recipe, change, variables, batch)
        return logits[rows, classes].sum()

    nothing = jnp.zeros(shape, net.recipe.model.dtype)
    return np.asarray(jax.jit(jax.grad(scores))(nothing, variables, {'input': images}), np.float32)


def grad_cam(maps_NHWC: np.ndarray, gradients_NHWC: np.ndarray) -> np.ndarray:
    """Returns where the evidence for a class lies, [N, H, W] from 0 to 1.

    Selvaraju et al. 2017, "Grad-CAM", section 3, equations 1 and 2; each divided by its maximum.
    """
    weights_N11C = gradients_NHWC.mean(axis=(1, 2), keepdims=True)
    heat = np.maximum((weights_N11C * maps_NHWC).sum(axis=3), 0)
    return heat / np.maximum(heat.max(axis=(1, 2), keepdims=True), 1e-12)


def _overlaid(
    images: np.ndarray, captions: Sequence[Sequence[str]], heat_NHW: np.ndarray
) -> np.ndarray:
    """Draws each image, and beside it its heat upon it."""
    side = max(_SIDE, images.shape[2])
    tiles: list[np.ndarray] = []
    texts: list[tuple[str, ...]] = []
    for image, caption, heat in zip(images, captions, heat_NHW, strict=True):
        plain = _resized(np.broadcast_to(image[..., -3:], (*image.shape[:2], 3)), side)
        smooth = Image.fromarray(heat).resize(plain.shape[1::-1], Image.Resampling.BILINEAR)
        colours = matplotlib.colormaps['inferno'](np.asarray(smooth))[..., :3] * 255
        tiles += [plain, (0.45 * plain + 0.55 * colours).astype(np.uint8)]
        texts += [tuple(caption), ('what decided', '')]
    return captioned_sheet(np.stack(tiles), texts)


def _receptive_fields(image: np.ndarray, blocks: Sequence[Block]) -> Figure:
    """Draws on an image what the middle output of each block sees of it."""
    height, width = image.shape[:2]
    figure = Figure(figsize=(7, 4.5), layout='constrained')
    axes = figure.subplots()
    axes.imshow(image[..., 0] if image.shape[2] == 1 else image[..., -3:], cmap='gray',
                extent=(0, width, height, 0))  # fmt: skip
    known = [block for block in blocks if block.receptive_field]
    colours = matplotlib.colormaps['plasma'](np.linspace(0, 0.9, max(1, len(known))))
    for block, colour in zip(known, colours, strict=True):
        side = block.receptive_field or 0
        axes.add_patch(Rectangle(((width - side) / 2, (height - side) / 2), side, side, fill=False,
                                 edgecolor=colour, label=f'{block.name}: {side} px'))  # fmt: skip
    reach = min(
        max([block.receptive_field or 0 for block in known], default=0), 2 * max(width, height)
    )
    margin = max(0.0, (reach - min(height, width)) / 2) + 1
    axes.set(xlim=(-margin, width + margin), ylim=(height + margin, -margin),
             title='What one output of each block sees')  # fmt: skip
    figure.legend(loc='outside right upper', fontsize='x-small')
    return figure
