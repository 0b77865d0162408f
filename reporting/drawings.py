"""Pictures of a run that was evaluated, as its page shows them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from console import percent
from evaluation import plots
from reporting import pictures
from reporting.pictures import Picture
from reporting.runs import Run

_LAYERS = (
    ('layers*.png', 'what each block brings', True),
    ('filters*.png', 'filters of the first layer', False),
    ('feature*.png', 'feature maps through the depth', False),
    ('grad*cam*.png', 'what decided (Grad-CAM)', False),
    ('receptive*.png', 'receptive fields on an image', False),
)


def curves(runs: Sequence[Run]) -> list[Picture]:
    """Returns the learning curves of one run, or of several in one plot."""
    drawn = []
    for name in ('loss', 'accuracy') if runs[0].class_names else ('loss',):
        ends = '; '.join(
            f'{run.name} from {run.lines[0][key]:.3f} to {run.lines[-1][key]:.3f}'
            for run in runs
            if run.lines
            for key in [f'validation_{name}']
        )
        figure = pictures.curve(name, {run.name: run.lines for run in runs if run.lines})
        drawn.append(pictures.drawn(figure, f'Learning curve, validation {name}: {ends}.'))
    return drawn


def norms(run: Run) -> Picture | None:
    """Returns the norms of gradients and weights by epoch; None where none were kept."""
    if not run.lines or 'gradient_norms' not in run.lines[0]:
        return None  # A run of an earlier version.
    parts = ', '.join(run.lines[0]['gradient_norms'])
    alt = f'Norms of the gradients and of the weights of {parts}, by epoch.'
    return pictures.drawn(pictures.norms(run.lines), alt)


def confusion(run: Run) -> Picture:
    """Returns the confusion matrix."""
    pairs = run.content['mistakes']['pairs']
    most = ', '.join(f'{p["label"]} as {p["prediction"]} {p["count"]}' for p in pairs[:3])
    alt = f'Confusion matrix; most often confused: {most or "none"}. All counts: confusion.csv.'
    return pictures.drawn(plots.confusion(run.content), alt)


def reliability(run: Run) -> Picture:
    """Returns the reliability diagram."""
    calibration = run.content['calibration']
    alt = (
        'Reliability diagram: accuracy against probability; calibration error '
        f'{percent(calibration["plain"]["expected_calibration_error"])}, with temperature '
        f'{percent(calibration["scaled"]["expected_calibration_error"])}.'
    )
    return pictures.drawn(plots.reliability(calibration), alt)


def recalls(run: Run) -> Picture:
    """Returns the recall of each class."""
    alt = 'Recall of each class with its interval; the figures are in the table.'
    return pictures.drawn(plots.recalls(run.content), alt)


def two_classes(run: Run) -> Picture:
    """Returns ROC and precision-recall curve of the second of two classes."""
    figures, name = run.content['two_classes'], run.class_names[1]
    alt = f'ROC and precision-recall curve of {name}; area {figures["roc_auc"]["value"]:.3f}.'
    return pictures.drawn(plots.two_classes(figures, name), alt)


def numbers(run: Run) -> Picture:
    """Returns predictions against targets, of labels that are numbers."""
    table = np.genfromtxt(
        run.folder / 'predictions.csv', delimiter=',', names=True, usecols=(-2, -1)
    )
    table = np.atleast_1d(table)
    alt = f'Predictions against targets of {len(table)} examples.'
    return pictures.drawn(plots.errors_of_numbers(table['prediction'], table['target']), alt)


def sheets(run: Run) -> list[dict[str, Any]]:
    """Returns the contact sheets of mistakes, with what they show."""
    mistakes, suspects = run.content['mistakes'], run.content['suspects']
    named = [
        ('Most confident mistakes', mistakes['most_confident']),
        *((f'{p["label"]} taken for {p["prediction"]} ({p["count"]})', p['sheet'])
          for p in mistakes['pairs']),
        ('Least sure, right or wrong', mistakes['least_sure']),
        (f'Labels to look at ({suspects["flagged"]} of {suspects["examined"]})',
         suspects['sheet']),
    ]  # fmt: skip
    return [
        {'title': title, 'picture': pictures.stored(run.folder / file, f'Photos: {title}')}
        for title, file in named
        if file and (run.folder / file).is_file()
    ]


def layer_pictures(run: Run) -> list[dict[str, Any]]:
    """Returns the pictures that `evaluate.py --layers` left, by their file names."""
    return [
        {'title': title, 'picture': pictures.stored(file, f'{file.stem}: {title}', plot)}
        for pattern, title, plot in _LAYERS
        for file in sorted(run.folder.glob(pattern))
    ]
