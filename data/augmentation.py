"""Augmentation on the device, inside the step, by a key for each example.

All moves of an image (flips, rotation, translation, zoom, shear, crops) are composed into one
affine map and sampled once, bilinearly. Operations work on a whole batch of levels from 0 to 1 in
floating point. A policy is one line of text: `photos`, `light,hue=0.05`, `padded_crop=4`.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from errors import UserError, did_you_mean


class Operation(NamedTuple):
    """The largest value of a setting, and what it means."""

    most: float
    meaning: str


OPERATIONS = {
    'horizontal_flip': Operation(1, 'share of images mirrored left to right'),
    'vertical_flip': Operation(1, 'share of images mirrored top to bottom'),
    'rotation': Operation(180, 'largest angle in degrees, either way'),
    'translation': Operation(1, 'largest shift, as a share of the side'),
    'zoom': Operation(1, 'largest change of size: from 1 / (1 + zoom) to 1 + zoom'),
    'shear': Operation(60, 'largest angle in degrees, in either direction'),
    'padded_crop': Operation(64, 'largest shift in whole pixels'),
    'resized_crop': Operation(1, 'smallest share of the area that a random resized crop keeps'),
    'brightness': Operation(1, 'factors from 1 - x to 1 + x'),
    'contrast': Operation(1, 'factors from 1 - x to 1 + x, about the mean grey'),
    'saturation': Operation(1, 'factors from 1 - x to 1 + x, about the grey image'),
    'hue': Operation(0.5, 'largest turn of the hue, as a share of the circle'),
    'noise': Operation(1, 'standard deviation of Gaussian noise, on levels of 0 to 1'),
    'erasing': Operation(1, 'share of images with a rectangle of their mean colour'),
    'mixup': Operation(10, 'alpha of mixup'),
    'cutmix': Operation(10, 'alpha of cutmix; with mixup, each image gets one of the two'),
    'randaugment': Operation(9, 'operations for each image: RandAugment\'s N'),
    'magnitude': Operation(1, 'strength of randaugment\'s operations: M on a scale of 0 to 1'),
}  # fmt: skip
FILLS = ('reflect', 'edge', 'black')
PRESETS: dict[str, dict[str, float | str]] = {
    'none': {},
    'light': {'horizontal_flip': 0.5, 'translation': 0.06},
    'photos': {
        'horizontal_flip': 0.5, 'rotation': 15, 'resized_crop': 0.5, 'brightness': 0.2,
        'contrast': 0.2, 'saturation': 0.2,
    },
    'digits': {'rotation': 10, 'translation': 0.08, 'zoom': 0.1, 'shear': 5, 'fill': 'black'},
}  # fmt: skip

# RandAugment's operations at magnitude 1 (the ranges of Cubuk et al. 2020, section 3, as given in
# its reference implementation), without those that are no affine map or colour factor.
_STRONGEST = {
    'rotation': 30.0, 'shear_x': math.degrees(math.atan(0.3)),
    'shear_y': math.degrees(math.atan(0.3)), 'shift_x': 0.3, 'shift_y': 0.3, 'zoom': 0.3,
    'brightness': 0.9, 'contrast': 0.9, 'saturation': 0.9,
}  # fmt: skip
_ERASED_AREA = (0.02, 0.33)  # Zhong et al. 2017, section 4.1.
_ASPECT = 4 / 3  # Of random resized crops, and its inverse: Szegedy et al. 2015, section 6.


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """A policy: a value for each of OPERATIONS (0: off), and what lies outside of the image."""

    values: Mapping[str, float]
    fill: str

    def __getitem__(self, name: str) -> float:
        return self.values[name]

    @property
    def mixes(self) -> bool:
        """Whether images are mixed with others."""
        return bool(self['mixup'] or self['cutmix'])


def parse(text: str) -> Augmentation:
    """Reads a policy: presets and NAME=VALUE, separated by commas; what comes later wins.

    Raises:
      UserError: an unknown name, or a value out of range.
    """
    values: dict[str, float] = dict.fromkeys(OPERATIONS, 0.0)
    values['magnitude'] = 0.5
    fill = 'reflect'
    for part in filter(None, (part.strip() for part in text.split(','))):
        name, given, value = (piece.strip() for piece in part.partition('='))
        if not given and name in PRESETS:
            changes: Mapping[str, float | str] = PRESETS[name]
        else:
            changes = {name: value}
        for key, setting in changes.items():
            if key == 'fill' and setting in FILLS:
                fill = str(setting)
            elif key == 'fill':
                raise UserError(f'config.augment: fill is one of {", ".join(FILLS)}; {part!r}.')
            else:
                values[key] = _value(key, setting, bool(given) or name in PRESETS)
    return Augmentation(values, fill)


def _value(name: str, text: float | str, given: bool) -> float:
    if name not in OPERATIONS or not given:
        known = [*PRESETS, *OPERATIONS, 'fill']
        hint = f'; write {name}=VALUE' if name in OPERATIONS else did_you_mean(name, known)
        if name in PRESETS:
            raise UserError(f'config.augment: the preset {name} takes no value; it has {text!r}.')
        raise UserError(
            f'config.augment: {name!r} is no preset ({", ".join(PRESETS)}){hint or "."}'
            f' Operations: {", ".join(OPERATIONS)}, fill.'
        )
    most = OPERATIONS[name].most
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= most:
        raise UserError(f'config.augment: {name} must be between 0 and {most:g}; it is {text!r}.')
    if name == 'randaugment' and value != round(value):
        raise UserError(f'config.augment: randaugment is a whole number; it is {text!r}.')
    return value


def describe(policy: Augmentation) -> str:
    """Returns the operations that are on, as text that `parse` reads."""
    on = [
        f'{name}={value:g}'
        for name, value in policy.values.items()
        if value and (name != 'magnitude' or policy['randaugment'])
    ]
    return ','.join([*on, f'fill={policy.fill}']) if on else 'none'


def augment(images_BHWC: jax.Array, keys: jax.Array, policy: Augmentation) -> jax.Array:
    """Changes each image by its own key.

    Args:
      images_BHWC: levels from 0 to 1, in floating point.
      keys: [B].
      policy: what to do.

    Returns:
      Images of the same shape, levels from 0 to 1.
    """
    draws = _draw(keys, policy)
    matrix, shift = _affine(draws, policy, images_BHWC.shape[1:3])
    if matrix is not None and shift is not None:
        images_BHWC = warp(images_BHWC, matrix, shift, policy.fill)
    for name, operation in (('brightness', brightness), ('contrast', contrast),
                            ('saturation', saturation)):  # fmt: skip
        if name in draws:
            images_BHWC = operation(images_BHWC, draws[name])
    if 'hue' in draws:
        images_BHWC = hue(images_BHWC, draws['hue'])
    if policy['noise']:
        noise_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, 1)
        images_BHWC = noise(images_BHWC, noise_keys, policy['noise'])
    if policy['erasing']:
        images_BHWC = erase(images_BHWC, draws['erasing'])
    return images_BHWC


def _draw(keys: jax.Array, policy: Augmentation) -> dict[str, jax.Array]:
    """Draws the settings of every operation that is on, [B] each (erasing [B, 5])."""
    # One call for all, so that a draw does not depend on what else is on.
    count = len(_NUMBERS) + len(_STRONGEST)
    uniform = jax.vmap(lambda key: jax.random.uniform(key, (count,), jnp.float32))(keys)
    between = dict(zip(_NUMBERS, jnp.moveaxis(2 * uniform - 1, 1, 0), strict=False))
    draws = {}
    for name in ('rotation', 'zoom', 'brightness', 'contrast', 'saturation', 'hue'):
        if policy[name]:
            draws[name] = policy[name] * between[name]
    for name, axes in (('shear', ('shear_x', 'shear_y')), ('translation', ('shift_x', 'shift_y'))):
        if policy[name]:
            draws |= {axis: policy[name] * between[axis] for axis in axes}
    for name in ('horizontal_flip', 'vertical_flip'):
        if policy[name]:
            draws[name] = (between[name] + 1) / 2 < policy[name]
    for name in ('crop_x', 'crop_y', 'crop_area', 'crop_aspect'):
        if policy['padded_crop'] or policy['resized_crop']:
            draws[name] = between[name]
    if policy['randaugment']:
        for name, value in _randaugment(uniform[:, len(_NUMBERS) :], between, policy).items():
            draws[name] = draws.get(name, 0.0) + value
    if policy['erasing']:
        erase_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, 2)
        five = jax.vmap(lambda key: jax.random.uniform(key, (5,), jnp.float32))(erase_keys)
        draws['erasing'] = five.at[:, 0].set((five[:, 0] < policy['erasing']).astype(jnp.float32))
    return draws


_NUMBERS = (
    'rotation', 'zoom', 'brightness', 'contrast', 'saturation', 'hue', 'shear_x', 'shear_y',
    'shift_x', 'shift_y', 'horizontal_flip', 'vertical_flip', 'crop_x', 'crop_y', 'crop_area',
    'crop_aspect',
)  # fmt: skip


def _randaugment(
    uniform: jax.Array, between: Mapping[str, jax.Array], policy: Augmentation
) -> dict[str, jax.Array]:
    """Chooses N operations for each image, all at magnitude M with a random sign.

    Cubuk et al. 2020, "RandAugment", section 3; the chosen operations are composed in one fixed
    order.
    """
    rank = uniform.argsort(axis=1).argsort(axis=1)
    chosen = rank < policy['randaugment']
    return {
        name: chosen[:, i] * jnp.sign(between[name]) * policy['magnitude'] * strongest
        for i, (name, strongest) in enumerate(_STRONGEST.items())
    }


# Moves.


def _affine(
    draws: Mapping[str, jax.Array], policy: Augmentation, size: tuple[int, ...]
) -> tuple[jax.Array | None, jax.Array | None]:
    """Composes the moves: where each output pixel comes from, about the centre of the image.

    Returns matrix [B, 2, 2] and shift [B, 2] (row, column; in pixels), or None where all are off.
    """
    moves = {'rotation', 'zoom', 'shear_x', 'shift_x', 'horizontal_flip', 'vertical_flip', 'crop_x'}
    used = [draws[name] for name in moves & draws.keys()]
    if not used:
        return None, None
    count = len(used[0])
    zero, one = jnp.zeros(count, jnp.float32), jnp.ones(count, jnp.float32)
    matrix, shift = jnp.stack([one, zero, zero, one], 1).reshape(-1, 2, 2), jnp.zeros((count, 2))

    def then(matrix: jax.Array, rows: tuple[jax.Array, ...]) -> jax.Array:
        a, b, c, d = rows
        p, q, r, s = (matrix[:, i, j] for i in (0, 1) for j in (0, 1))
        # Written out: exact for flips and shifts on every device, which a matrix product is not.
        product = [p * a + q * c, p * b + q * d, r * a + s * c, r * b + s * d]
        return jnp.stack(product, 1).reshape(-1, 2, 2)

    if policy['resized_crop']:
        matrix, shift = _resized_crop(draws, policy['resized_crop'], size)
    if 'zoom' in draws:
        factor = jnp.where(draws['zoom'] > 0, 1 / (1 + draws['zoom']), 1 - draws['zoom'])
        matrix = then(matrix, (factor, zero, zero, factor))
    if 'shear_x' in draws:
        down, right = (jnp.tan(jnp.radians(draws[n])) for n in ('shear_y', 'shear_x'))
        # One after the other: together they would mirror the image at large angles.
        matrix = then(matrix, (one, zero, right, one))
        matrix = then(matrix, (one, down, zero, one))
    if 'rotation' in draws:
        angle = jnp.radians(draws['rotation'])
        cosine, sine = jnp.cos(angle), jnp.sin(angle)
        matrix = then(matrix, (cosine, -sine, sine, cosine))
    if 'horizontal_flip' in draws or 'vertical_flip' in draws:
        down, right = (jnp.where(draws.get(name, zero > 0), -1.0, 1.0)
                       for name in ('vertical_flip', 'horizontal_flip'))  # fmt: skip
        matrix = then(matrix, (down, zero, zero, right))
    if 'shift_x' in draws:
        shift += jnp.stack([draws['shift_y'] * size[0], draws['shift_x'] * size[1]], 1)
    if policy['padded_crop']:
        reach = policy['padded_crop'] + 0.5
        shift += jnp.stack([jnp.round(draws[n] * reach) for n in ('crop_y', 'crop_x')], 1)
    return matrix.astype(jnp.float32), shift.astype(jnp.float32)


def _resized_crop(
    draws: Mapping[str, jax.Array], smallest: float, size: tuple[int, ...]
) -> tuple[jax.Array, jax.Array]:
    """Draws area, aspect ratio and place of a part that is then seen in full size."""
    area = smallest + (1 - smallest) * (draws['crop_area'] + 1) / 2
    aspect = jnp.exp(draws['crop_aspect'] * math.log(_ASPECT))
    rows = jnp.minimum(1.0, jnp.sqrt(area / aspect))
    columns = jnp.minimum(1.0, jnp.sqrt(area * aspect))
    zero = jnp.zeros_like(area)
    shift = [draws['crop_y'] * (1 - rows) * size[0] / 2,
             draws['crop_x'] * (1 - columns) * size[1] / 2]  # fmt: skip
    return jnp.stack([rows, zero, zero, columns], 1).reshape(-1, 2, 2), jnp.stack(shift, 1)


def warp(
    images_BHWC: jax.Array, matrix_B22: jax.Array, shift_B2: jax.Array, fill: str
) -> jax.Array:
    """Samples each image bilinearly at matrix @ (row, column) + shift, about its centre.

    Args:
      images_BHWC: in floating point.
      matrix_B22: from places in the output to places in the input.
      shift_B2: rows and columns to add, in pixels.
      fill: what lies outside: reflect (mirrored about the edge), edge (the nearest pixel), black.
    """
    height, width = images_BHWC.shape[1:3]
    centre = ((height - 1) / 2, (width - 1) / 2)
    rows = jnp.arange(height, dtype=jnp.float32)[:, None] - centre[0]
    columns = jnp.arange(width, dtype=jnp.float32)[None, :] - centre[1]

    def one(image: jax.Array, matrix: jax.Array, shift: jax.Array) -> jax.Array:
        low, high, weight, inside = [], [], [], jnp.ones((height, width), bool)
        for axis, length in enumerate((height, width)):
            place = matrix[axis, 0] * rows + matrix[axis, 1] * columns
            place = place + shift[axis] + centre[axis]
            if fill == 'black':
                inside &= (place >= -0.5) & (place <= length - 0.5)
            if fill == 'reflect':
                place = length - jnp.abs((place + 0.5) % (2 * length) - length) - 0.5
            place = jnp.clip(place, 0, length - 1)
            below = jnp.floor(place)
            low.append(below.astype(jnp.int32))
            high.append(jnp.minimum(low[-1] + 1, length - 1))
            weight.append((place - below).astype(image.dtype)[..., None])
        flat = image.reshape(height * width, -1)
        upper = flat[low[0] * width + low[1]] * (1 - weight[1])
        upper += flat[low[0] * width + high[1]] * weight[1]
        lower = flat[high[0] * width + low[1]] * (1 - weight[1])
        lower += flat[high[0] * width + high[1]] * weight[1]
        return (upper * (1 - weight[0]) + lower * weight[0]) * inside[..., None]

    return jax.vmap(one)(images_BHWC, matrix_B22, shift_B2)


# Colour. The first three are those of Pillow's ImageEnhance: Brightness, Contrast, Color.


def brightness(images_BHWC: jax.Array, change_B: jax.Array) -> jax.Array:
    """Multiplies the levels by 1 + change."""
    return jnp.clip(images_BHWC * _factor(change_B, images_BHWC), 0, 1)


def contrast(images_BHWC: jax.Array, change_B: jax.Array) -> jax.Array:
    """Multiplies the distance from the mean grey level by 1 + change."""
    mean = _grey(images_BHWC).mean(axis=(1, 2, 3), keepdims=True)
    return jnp.clip(mean + (images_BHWC - mean) * _factor(change_B, images_BHWC), 0, 1)


def saturation(images_BHWC: jax.Array, change_B: jax.Array) -> jax.Array:
    """Multiplies the distance from the grey image by 1 + change."""
    if images_BHWC.shape[-1] == 1:
        return images_BHWC
    grey = _grey(images_BHWC)
    return jnp.clip(grey + (images_BHWC - grey) * _factor(change_B, images_BHWC), 0, 1)


def hue(images_BHWC: jax.Array, turn_B: jax.Array) -> jax.Array:
    """Turns the colours about the grey axis, in YIQ, by so many full circles."""
    if images_BHWC.shape[-1] == 1:
        return images_BHWC
    dtype = images_BHWC.dtype
    # The matrices of Python's colorsys.
    to_yiq = jnp.asarray([[0.30, 0.59, 0.11], [0.599, -0.2773, -0.3217], [0.213, -0.5251, 0.3121]])
    back = jnp.linalg.inv(to_yiq)
    angle = 2 * math.pi * turn_B
    zero, one = jnp.zeros_like(angle), jnp.ones_like(angle)
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    turned = jnp.stack([one, zero, zero, zero, cosine, -sine, zero, sine, cosine], 1)
    matrix = jnp.einsum(
        'ij,bjk,kl->bil', back, turned.reshape(-1, 3, 3), to_yiq, precision='highest'
    )
    matrix = matrix.astype(dtype)
    channels = [
        sum(images_BHWC[..., j] * matrix[:, i, j, None, None] for j in range(3)) for i in range(3)
    ]
    return jnp.clip(jnp.stack(channels, -1), 0, 1)


def noise(images_BHWC: jax.Array, keys: jax.Array, deviation: float) -> jax.Array:
    """Adds Gaussian noise to each level."""
    shape = images_BHWC.shape[1:]
    drawn = jax.vmap(lambda key: jax.random.normal(key, shape, jnp.float32))(keys)
    return jnp.clip(images_BHWC + (deviation * drawn).astype(images_BHWC.dtype), 0, 1)


def erase(images_BHWC: jax.Array, draws_B5: jax.Array) -> jax.Array:
    """Lays a rectangle of the image's mean colour over a part of it.

    Zhong et al. 2017, "Random Erasing"; cutout (DeVries and Taylor 2017) is the same with a square.

    Args:
      images_BHWC: levels.
      draws_B5: whether (0 or 1), then area, aspect ratio, row and column, from 0 to 1.
    """
    whether, area, aspect, row, column = jnp.moveaxis(draws_B5, 1, 0)
    share = _ERASED_AREA[0] + area * (_ERASED_AREA[1] - _ERASED_AREA[0])
    ratio = jnp.exp((2 * aspect - 1) * math.log(1 / 0.3))
    rectangle = _rectangle(
        images_BHWC.shape[1:3], row, column, jnp.sqrt(share / ratio), jnp.sqrt(share * ratio)
    )
    mean = images_BHWC.mean(axis=(1, 2), keepdims=True)
    return jnp.where(rectangle & (whether > 0)[:, None, None, None], mean, images_BHWC)


def mix(
    images_BHWC: jax.Array, targets_BK: jax.Array, keys: jax.Array, policy: Augmentation
) -> tuple[jax.Array, jax.Array]:
    """Mixes each image and its target with its neighbour in the batch: 0 with 1, 2 with 3, ...

    Mixup: Zhang et al. 2017, "mixup: Beyond Empirical Risk Minimization", equation 1, with a
    weight of its own for each example; cutmix: Yun et al. 2019, "CutMix", section 3.1.

    Args:
      images_BHWC: normalised images; B is even.
      targets_BK: shares of the classes.
      keys: [B].
      policy: its mixup and cutmix.
    """

    def swap(x: jax.Array) -> jax.Array:
        return x.reshape(-1, 2, *x.shape[1:])[:, ::-1].reshape(x.shape)

    beta, numbers = _mixing(keys, policy)
    weight = jnp.zeros_like(beta)  # Of the neighbour.
    mixed = images_BHWC
    cuts = numbers[:, 2] < 0.5 if policy['mixup'] else jnp.ones(len(beta), bool)
    if policy['cutmix']:
        side = jnp.sqrt(1 - beta)
        rectangle = _rectangle(images_BHWC.shape[1:3], numbers[:, 0], numbers[:, 1], side, side)
        rectangle &= cuts[:, None, None, None]
        mixed = jnp.where(rectangle, swap(images_BHWC), images_BHWC)
        weight = rectangle.mean(axis=(1, 2, 3))
    if policy['mixup']:
        part = jnp.where(cuts, 0.0, 1 - beta) if policy['cutmix'] else 1 - beta
        share = _each(part, images_BHWC)
        mixed = (1 - share) * mixed + share * swap(images_BHWC)
        weight = weight + part
    weight = weight.astype(targets_BK.dtype)[:, None]
    return mixed, (1 - weight) * targets_BK + weight * swap(targets_BK)


def _mixing(keys: jax.Array, policy: Augmentation) -> tuple[jax.Array, jax.Array]:
    """Draws the weight of each example, by its kind's alpha, and three numbers from 0 to 1."""

    def one(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        numbers = jax.random.uniform(jax.random.fold_in(key, 3), (3,), jnp.float32)
        alpha = jnp.float32(policy['mixup'] or policy['cutmix'])
        if policy['mixup'] and policy['cutmix']:
            cut, mix = jnp.float32(policy['cutmix']), jnp.float32(policy['mixup'])
            alpha = jnp.where(numbers[2] < 0.5, cut, mix)
        return jax.random.beta(jax.random.fold_in(key, 4), alpha, alpha, (), jnp.float32), numbers

    return jax.vmap(one)(keys)


def _rectangle(
    size: tuple[int, ...], row: jax.Array, column: jax.Array, height: jax.Array, width: jax.Array
) -> jax.Array:
    """Returns masks [B, H, W, 1] of rectangles given by centre and sides, as shares of the size."""
    masks = []
    for length, centre, side in ((size[0], row, height), (size[1], column, width)):
        places = (jnp.arange(length, dtype=jnp.float32) + 0.5) / length
        masks.append(jnp.abs(places - centre[:, None]) < side[:, None] / 2)
    return (masks[0][:, :, None] & masks[1][:, None, :])[..., None]


def _grey(images_BHWC: jax.Array) -> jax.Array:
    """Returns luma (ITU-R BT.601, as Pillow has it) with one channel."""
    if images_BHWC.shape[-1] == 1:
        return images_BHWC
    red, green, blue = (images_BHWC[..., i : i + 1] for i in range(3))
    return 0.299 * red + 0.587 * green + 0.114 * blue


def _factor(change_B: jax.Array, images_BHWC: jax.Array) -> jax.Array:
    # Changes of a preset and of randaugment add up: a negative factor would invert the image.
    return _each(jnp.maximum(1 + change_B, 0.05), images_BHWC)


def _each(values_B: jax.Array, images_BHWC: jax.Array) -> jax.Array:
    return values_B.astype(images_BHWC.dtype)[:, None, None, None]
