"""The confusion matrix as a Matplotlib figure, for TensorBoard and for evaluations."""

import warnings
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

_MOST_NAMED = 30  # Classes that fit as names and counts.


def confusion_figure(counts_KK: np.ndarray, class_names: Sequence[str]) -> Figure:
    """Draws counts [true, predicted], coloured by the share of the true class."""
    # Names in scripts that the font lacks are drawn as boxes.
    warnings.filterwarnings('ignore', message='Glyph .* missing from font')
    classes = range(len(class_names))
    shares = counts_KK / np.maximum(counts_KK.sum(axis=1, keepdims=True), 1)
    side = min(12.0, 3.0 + 0.4 * len(class_names))
    figure = Figure(figsize=(side, side), layout='constrained')
    axes = figure.add_subplot(xlabel='predicted', ylabel='true')
    axes.imshow(shares, cmap='Blues', vmin=0, vmax=1)
    if len(class_names) <= _MOST_NAMED:
        # A name with two dollar signs is no formula.
        axes.set_xticks(classes, class_names, rotation=60, ha='right', parse_math=False)
        axes.set_yticks(classes, class_names, parse_math=False)
        for row, column in np.argwhere(counts_KK):
            dark = shares[row, column] > 0.5
            axes.text(column, row, counts_KK[row, column], ha='center', va='center',
                      fontsize=7, color='white' if dark else 'black')  # fmt: skip
    return figure
