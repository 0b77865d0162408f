"""Plots of an evaluation, from the figures of `evaluation.json`; Matplotlib figures, no pyplot."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from training.figures import confusion_figure

BLUE, GREY = '#1f5fa8', '#8a8a8a'


def confusion(content: dict[str, Any]) -> Figure:
    """Draws the confusion matrix: counts, coloured by the share of the true class."""
    return confusion_figure(np.asarray(content['confusion']['counts']), content['class_names'])


def reliability(calibration: dict[str, Any]) -> Figure:
    """Draws the reliability diagram, before and after the temperature, over the counts."""
    figure = Figure(figsize=(4.6, 5.2), layout='constrained')
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    top.plot([0, 1], [0, 1], color=GREY, linestyle='--', label='perfectly calibrated')
    for name, label, colour in (('plain', 'as trained', BLUE), ('scaled', 'with temperature',
                                                                '#c26a12')):  # fmt: skip
        bins = [b for b in calibration[name]['bins'] if b['examples']]
        error = 100 * calibration[name]['expected_calibration_error']
        value, low, high = (
            np.asarray([b['accuracy'][k] for b in bins]) for k in ('value', 'low', 'high')
        )
        top.errorbar([b['confidence'] for b in bins], value, [value - low, high - value],
                     fmt='o', markersize=4, capsize=2, linewidth=1, color=colour,
                     label=f'{label} (error {error:.1f} %)')  # fmt: skip
    bins = calibration['plain']['bins']
    bottom.bar([b['from'] for b in bins], [b['examples'] for b in bins],
               width=bins[0]['to'], align='edge', color=BLUE, edgecolor='white')  # fmt: skip
    top.set(ylabel='accuracy', ylim=(-0.02, 1.02))
    bottom.set(xlabel='probability of the prediction', ylabel='examples', xlim=(0, 1))
    figure.legend(fontsize='small', loc='outside upper center')
    return figure


def two_classes(figures: dict[str, Any], name: str) -> Figure:
    """Draws the ROC curve and the precision-recall curve of the class `name`."""
    figure = Figure(figsize=(8, 4), layout='constrained')
    left, right = figure.subplots(1, 2)
    roc, pr = figures['roc'], figures['pr']
    left.plot([0, 1], [0, 1], color=GREY, linestyle='--')
    left.plot(roc['false_positive_rate'], roc['true_positive_rate'], color=BLUE)
    left.set(xlabel='false positive rate', ylabel='true positive rate')
    title = f'ROC of {name}, area {figures["roc_auc"]["value"]:.3f}'
    left.set_title(title, parse_math=False)  # A name with two dollar signs is no formula.
    right.step(pr['recall'], pr['precision'], where='post', color=BLUE)
    right.set(xlabel='recall', ylabel='precision', ylim=(0, 1.02),
              title=f'average precision {figures["average_precision"]:.3f}')  # fmt: skip
    return figure


def recalls(content: dict[str, Any]) -> Figure:
    """Draws the recall of each class with its interval, lowest first."""
    rows = [row for row in content['per_class'] if row['recall']['value'] is not None]
    rows.sort(key=lambda row: -row['recall']['value'])
    figure = Figure(figsize=(5.5, min(12.0, 1.2 + 0.3 * len(rows))), layout='constrained')
    axes = figure.subplots()
    values, low, high = (
        np.asarray([row['recall'][k] for row in rows]) for k in ('value', 'low', 'high')
    )
    errors = np.clip([values - low, high - values], 0, None)
    axes.errorbar(values, range(len(rows)), xerr=errors, fmt='o', color=BLUE, capsize=3)
    axes.set_yticks(range(len(rows)), [row['name'] for row in rows], parse_math=False)
    axes.set(xlabel='recall, with its interval of 95 %', xlim=(-0.02, 1.02))
    return figure


def errors_of_numbers(predictions_N: np.ndarray, targets_N: np.ndarray) -> Figure:
    """Draws predictions against targets."""
    figure = Figure(figsize=(4.6, 4.6), layout='constrained')
    axes = figure.subplots()
    both = np.concatenate([predictions_N, targets_N])
    axes.plot([both.min(), both.max()], [both.min(), both.max()], color=GREY, linestyle='--')
    axes.scatter(targets_N, predictions_N, s=6, color=BLUE, alpha=0.5)
    axes.set(xlabel='target', ylabel='prediction')
    return figure
