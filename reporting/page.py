"""The page: figures and pictures of runs, through one template."""

import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from console import interval, percent
from errors import UserError
from evaluation.metrics import HEADINGS, SHARES
from reporting import comparison, drawings, template
from reporting.runs import Run, check_same_data


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
        curves=drawings.curves(runs) if compared else None,
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
        'curves': drawings.curves([run]),
        'norms': drawings.norms(run),
        'confusion': drawings.confusion(run) if classes else None,
        'reliability': drawings.reliability(run) if classes else None,
        'recalls': drawings.recalls(run) if classes else None,
        'two_classes': drawings.two_classes(run) if content.get('two_classes') else None,
        'numbers': None if classes else drawings.numbers(run),
        'sheets': drawings.sheets(run) if classes else [],
        'layer_pictures': drawings.layer_pictures(run),
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
