"""The page: figures and pictures of runs, through one template."""

import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from console import interval, percent
from errors import UserError
from evaluation import plots
from evaluation.metrics import HEADINGS, SHARES
from reporting import comparison, pictures, template
from reporting.pictures import Picture
from reporting.runs import Run, check_same_data

_LAYERS = (
    ('layers*.png', 'what each block brings', True),
    ('filters*.png', 'filters of the first layer', False),
    ('feature*.png', 'feature maps through the depth', False),
    ('grad*cam*.png', 'what decided (Grad-CAM)', False),
    ('receptive*.png', 'receptive fields on an image', False),
)


def write(runs: Sequence[Run], output: pathlib.Path) -> None:
    """Writes the page, and its figures as JSON of the same name.

    Args:
      runs: that were evaluated; several stand side by side.
      output: the HTML file.

    Raises:
      UserError: the runs are of different data, or the file cannot be written.
    """
    check_same_data(runs)
    compared = comparison.compare(runs) if len(runs) > 1 else None
    text = template.render(
        pathlib.Path(__file__).with_name('page.html.jinja'),
        runs=[_described(run, i) for i, run in enumerate(runs, 1)],
        compared=compared,
        curves=_curves(runs) if compared else None,
    )
    figures = {
        'runs': [
            {'path': os.fspath(run.path), 'config': run.config, 'result': run.result,
             'metrics': run.lines, 'evaluation': run.content}
            for run in runs
        ],
        'comparison': compared,
    }  # fmt: skip
    try:
        output.write_text(text, encoding='utf-8', errors='backslashreplace')
        output.with_suffix('.json').write_text(json.dumps(figures, indent=1) + '\n')
    except FileNotFoundError as error:
        raise UserError(f'There is no folder {output.parent} for the report: make it.') from error


def _described(run: Run, number: int) -> dict[str, Any]:
    """Returns what the template shows of one run."""
    content, classes = run.content, run.class_names
    return {
        'id': f'run{number}',
        'name': run.name,
        'path': os.fspath(run.path),
        'run': run,
        'content': content,
        'classes': classes,
        'holds': 'images' if len(run.result['input_shape']) == 3 else 'examples',
        'summary': _summary(run),
        'figures': _figures(content['figures'], content['training']),
        'curves': _curves([run]),
        'norms': _norms(run),
        'confusion': _confusion(run) if classes else None,
        'reliability': _reliability(run) if classes else None,
        'recalls': _recalls(run) if classes else None,
        'two_classes': _two_classes(run) if content.get('two_classes') else None,
        'numbers': None if classes else _numbers(run),
        'sheets': _sheets(run) if classes else [],
        'layer_pictures': _layer_pictures(run),
        'recognised': sorted(
            (row for row in content.get('per_class', ()) if row['recall']['value'] is not None),
            key=lambda row: row['recall']['value'],
        ),
    }


def _summary(run: Run) -> list[str]:
    """Says in plain words what came out."""
    figures, result = run.content['figures'], run.result
    examples, test = figures['examples'], result['test']
    if not run.class_names:
        lines = [
            f'The net predicts numbers. On {examples:,} validation examples it is wrong by '
            f'{template.number(figures["mae"]["value"])} on average, and explains '
            f'{percent(figures["r2"]["value"])} of the variance.'
        ]
        if test['rmse'] is not None:
            lines.append(f'On the test split its RMSE is {template.number(test["rmse"])}.')
        return lines
    right = round(figures['accuracy']['value'] * examples)
    lines = [
        f'The net tells {len(run.class_names)} classes apart. Of {examples:,} validation images '
        f'that it has not learned from, {right:,} are right: {interval(figures["accuracy"])}, '
        'where the brackets hold what chance in the choice of images leaves open (95 %).'
    ]
    if test['accuracy'] is not None:
        lines.append(
            f'Of {test["examples"]:,} test images, looked at once after training, '
            f'{percent(test["accuracy"])} are right.'
        )
    pairs = run.content['mistakes']['pairs']
    if pairs:
        worst = pairs[0]
        lines.append(
            f'The most common mistake: {worst["label"]} taken for {worst["prediction"]}, '
            f'{"once" if worst["count"] == 1 else str(worst["count"]) + " times"}.'
        )
    return lines


def _figures(figures: Mapping[str, Any], training: Mapping[str, Any]) -> list[dict[str, str]]:
    """Returns rows of the table of figures: of the judged split, with bounds, and of training."""
    rows = []
    for name, heading in HEADINGS.items():
        if not figures.get(name):
            continue
        written = percent if name in SHARES else template.number
        f, t = figures[name], training.get(name)
        rows.append({
            'heading': heading,
            'value': written(f['value']),
            'bounds': f'{written(f["low"])} to {written(f["high"])}',
            'training': written(t['value']) if t else '-',
        })  # fmt: skip
    return rows


# Pictures.


def _curves(runs: Sequence[Run]) -> list[Picture]:
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


def _norms(run: Run) -> Picture | None:
    if not run.lines or 'gradient_norms' not in run.lines[0]:
        return None  # A run of an earlier version.
    parts = ', '.join(run.lines[0]['gradient_norms'])
    alt = f'Norms of the gradients and of the weights of {parts}, by epoch.'
    return pictures.drawn(pictures.norms(run.lines), alt)


def _confusion(run: Run) -> Picture:
    pairs = run.content['mistakes']['pairs']
    most = ', '.join(f'{p["label"]} as {p["prediction"]} {p["count"]}' for p in pairs[:3])
    alt = f'Confusion matrix; most often confused: {most or "none"}. All counts: confusion.csv.'
    return pictures.drawn(plots.confusion(run.content), alt)


def _reliability(run: Run) -> Picture:
    calibration = run.content['calibration']
    alt = (
        'Reliability diagram: accuracy against probability; calibration error '
        f'{percent(calibration["plain"]["expected_calibration_error"])}, with temperature '
        f'{percent(calibration["scaled"]["expected_calibration_error"])}.'
    )
    return pictures.drawn(plots.reliability(calibration), alt)


def _recalls(run: Run) -> Picture:
    alt = 'Recall of each class with its interval; the figures are in the table.'
    return pictures.drawn(plots.recalls(run.content), alt)


def _two_classes(run: Run) -> Picture:
    figures, name = run.content['two_classes'], run.class_names[1]
    alt = f'ROC and precision-recall curve of {name}; area {figures["roc_auc"]["value"]:.3f}.'
    return pictures.drawn(plots.two_classes(figures, name), alt)


def _numbers(run: Run) -> Picture:
    table = np.genfromtxt(
        run.folder / 'predictions.csv', delimiter=',', names=True, usecols=(-2, -1)
    )
    table = np.atleast_1d(table)
    alt = f'Predictions against targets of {len(table)} examples.'
    return pictures.drawn(plots.errors_of_numbers(table['prediction'], table['target']), alt)


def _sheets(run: Run) -> list[dict[str, Any]]:
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


def _layer_pictures(run: Run) -> list[dict[str, Any]]:
    """Returns the pictures that `evaluate.py --layers` left, by their file names."""
    return [
        {'title': title, 'picture': pictures.stored(file, f'{file.stem}: {title}', plot)}
        for pattern, title, plot in _LAYERS
        for file in sorted(run.folder.glob(pattern))
    ]
