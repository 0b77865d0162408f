"""Pictures for TensorBoard: a sheet of training images and the confusion matrix."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from training import step
from training.recipe import Recipe


def contact_sheet(images_NHWC: np.ndarray, columns: int = 8, min_side: int = 32) -> np.ndarray:
    """Tiles uint8 images into one picture [H, W, 3], enlarging small ones by whole pixels."""
    images = np.repeat(images_NHWC, 3, axis=-1) if images_NHWC.shape[-1] == 1 else images_NHWC
    factor = max(1, -(-min_side // images.shape[1]))
    images = images.repeat(factor, axis=1).repeat(factor, axis=2)
    images = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=255)
    rows = -(-len(images) // columns)
    blank = np.full((rows * columns - len(images), *images.shape[1:]), 255, np.uint8)
    grid = np.concatenate([images, blank]).reshape(rows, columns, *images.shape[1:])
    return np.concatenate(np.concatenate(grid, axis=1), axis=1)


def training_sheet(recipe: Recipe, pipeline: Any) -> np.ndarray:
    """Draws the first images of training as the net sees them, augmented."""
    index = pipeline.train_batch(0)['index'][:64]
    chosen = jnp.arange(len(index))
    resident = pipeline.resident()
    resident['image'] = resident['image'][index]
    images_NHWC = step.training_images(
        recipe,
        jax.tree.map(jnp.asarray, resident),
        {'index': chosen, 'position': chosen},
        jnp.zeros((), jnp.int32),
    )
    offset, scale = pipeline.normalization
    levels = np.asarray(images_NHWC, np.float64) * scale + offset
    return contact_sheet(np.round(levels).clip(0, 255).astype(np.uint8))


def confusion_matrix(logits: np.ndarray, labels: np.ndarray, class_names: list[str]) -> np.ndarray:
    """Draws counts of (true, predicted) as uint8 [H, W, 3], coloured by the share of the class."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from sklearn import metrics

    classes = range(len(class_names))
    counts = metrics.confusion_matrix(labels, logits.argmax(-1), labels=classes)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(12.0, 3.0 + 0.4 * len(class_names))
    figure = Figure(figsize=(side, side), layout='constrained')
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot(xlabel='predicted', ylabel='true')
    axes.imshow(shares, cmap='Blues', vmin=0, vmax=1)
    if len(class_names) <= 30:
        axes.set_xticks(classes, class_names, rotation=60, ha='right')
        axes.set_yticks(classes, class_names)
        for row, column in np.argwhere(counts):
            dark = shares[row, column] > 0.5
            axes.text(column, row, counts[row, column], ha='center', va='center',
                      fontsize=7, color='white' if dark else 'black')  # fmt: skip
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]
