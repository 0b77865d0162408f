"""Pictures for TensorBoard: training images, the confusion matrix, the most confident mistakes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from data.contact_sheet import captioned_sheet, contact_sheet
from training import step
from training.recipe import Recipe

_MISTAKES = 32  # Images on their sheet.


def training_sheet(recipe: Recipe, pipeline: Any) -> np.ndarray:
    """Draws the first images of training as the net sees them, augmented."""
    batch = {name: values[:64] for name, values in pipeline.train_batch(0).items()}
    # Only these images go to the device, whether the set streams or not.
    batch['input'] = pipeline.source.inputs[batch['index']]
    resident = {'seed': np.uint32(pipeline.seed)}
    statistics = pipeline.normalization._asdict()
    statistics, resident, batch = jax.tree.map(jnp.asarray, (statistics, resident, batch))
    images_NHWC = np.asarray(
        step.training_inputs(recipe, statistics, resident, batch, jnp.zeros((), jnp.int32))
    )
    if recipe.normalization == 'image':  # The levels are lost: spread what there is.
        low, high = (f(axis=(1, 2, 3), keepdims=True) for f in (images_NHWC.min, images_NHWC.max))
        levels = 255 * (images_NHWC - low) / np.maximum(high - low, 1e-6)
    else:
        offset, scale = pipeline.normalization
        levels = np.asarray(images_NHWC, np.float64) * scale + offset
    return contact_sheet(np.round(levels).clip(0, 255).astype(np.uint8))


def confusion_matrix(logits: np.ndarray, labels: np.ndarray, class_names: list[str]) -> np.ndarray:
    """Draws counts of (true, predicted) as uint8 [H, W, 3], coloured by the share of the class."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from sklearn import metrics

    from training.figures import confusion_figure

    counts = metrics.confusion_matrix(labels, logits.argmax(-1), labels=range(len(class_names)))
    canvas = FigureCanvasAgg(confusion_figure(counts, class_names))
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def mistakes(logits: np.ndarray, pipeline: Any, split: str) -> np.ndarray:
    """Draws the images of a split that are wrong by the largest margin, as uint8 [H, W, 3]."""
    labels, guesses = pipeline.labels_of(split), logits.argmax(-1)
    rows = np.arange(len(labels))
    wrong = np.flatnonzero(guesses != labels)
    by_margin = np.argsort(logits[rows, labels] - logits[rows, guesses], kind='stable')
    shown = by_margin[np.isin(by_margin, wrong)][:_MISTAKES]
    names = pipeline.class_names
    captions = [(f'is {names[labels[i]]}', f'said {names[guesses[i]]}') for i in shown]
    images = np.stack([pipeline.source.inputs[i] for i in pipeline.members[split][shown]])
    return captioned_sheet(images, captions)
