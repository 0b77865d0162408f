"""A point as a config file that `train.py` trains, and a point trained once more."""

import pathlib
import statistics
from collections.abc import Mapping
from typing import Any

from configs import default
from console import Console
from errors import UserError
from sweeping import points
from sweeping.reading import summary, words
from sweeping.study import Study
from sweeping.table import Point, Table

_FILE = 'best_config.py'


def best(study: Study, console: Console) -> pathlib.Path:
    """Writes the config of the best point into the study folder and returns the file.

    Of several objectives the first one decides.

    Raises:
      UserError: no point is complete.
    """
    table = study.table()
    complete = summary.complete(table)
    if not complete:
        raise UserError(f'No point of {study.folder} is complete yet: the same sweep goes on.')
    point = complete[0]
    said = words.figure(table.objectives[0], summary.estimate(table, point, table.objectives[0]))
    what = (
        f'The best of {words.count(len(complete), "point")} of a sweep: '
        f'{words.values(table, point)}.\n\n'
        f'{words.heading(table.objectives[0]).capitalize()} {said} '
        f'({words.count(len(point.replicates), "run")}); the best of many is partly the luckiest.'
    )
    (config,) = points.configs(study.config, point.values, [0])
    for name in points.OF_RUNS:
        config[name] = study.config.base[name]
    path = study.folder / _FILE
    path.write_text(config_file(config, what))
    console.line(
        f'Point {point.number} ({words.values(table, point)}) is in {path}. This trains it and '
        f'opens its test split:\n  python train.py --config={path} '
        f'--workdir={study.folder / "best"}',
        always=True,
    )
    return path


def config_file(config: Any, what: str) -> str:
    """Returns the text of a config file: the fields that differ from the defaults of its data set.

    Args:
      config: a training config.
      what: its docstring.
    """
    name, family = config.dataset.name, config.model.family
    before = default.flatten(default.get_config(name, family))
    changed = {n: v for n, v in default.flatten(config).items() if v != before[n]}
    lines = ''.join(f'        {n!r}: {v!r},\n' for n, v in changed.items())
    return (
        f'"""{what}"""\n\nfrom configs import default\n\n\n'
        f'def get_config(dataset={name!r}):\n'
        f'    """Returns the config."""\n'
        f'    config = default.get_config(dataset, family={family!r})\n'
        f'    config.update_from_flattened_dict({{\n{lines}    }})\n'
        f'    return config\n'
    )


def rerun(study: Study, number: int, console: Console) -> bool:
    """Trains the runs of a point once more, in folders of their own, and compares.

    Returns:
      Whether every figure of the validation split came out the same.

    Raises:
      UserError: there is no such point.
    """
    from training.many import train_many

    table = study.table()
    if not 0 <= number < len(table.points):
        raise UserError(
            f'There is no point {number} in {study.folder}: they are numbered 0 to '
            f'{len(table.points) - 1}.'
        )
    point = table.points[number]
    folder = _free(study.folder / 'reruns', points.folder_name(point.values))
    replicates = range(table.replicates)
    runs = train_many(
        points.configs(study.config, point.values, replicates),
        [folder / str(r) for r in replicates],
    )
    if None in runs.results or any(r and r['status'] == 'interrupted' for r in runs.results):
        return True
    again = {r: result['validation'] for r, result in enumerate(runs.results) if result}
    return _compared(table, point, again, console)


def _free(within: pathlib.Path, name: str) -> pathlib.Path:
    """Returns the folder of the first rerun that has not ended, or of a new one."""
    number = 1
    while any((within / f'{name}-{number}').glob('*/result.json')):
        number += 1
    return within / f'{name}-{number}'


def _compared(
    table: Table, point: Point, again: Mapping[int, Mapping[str, Any]], console: Console
) -> bool:
    """Says what came out, beside what did before."""
    objective = next((o for o in table.objectives if o.startswith(summary.OF_RUNS)), None)
    before = {r.number: r.validation for r in point.replicates}
    name = (objective or 'validation_loss').removeprefix(summary.OF_RUNS)
    rows = [
        [str(r), words.number(f'validation_{name}', before.get(r, {}).get(name)),
         words.number(f'validation_{name}', figures[name])]
        for r, figures in again.items()
    ]  # fmt: skip
    console.table(['run', f'{words.heading(f"validation_{name}")} then', 'now'], rows)
    if not before:
        return True
    same = all(before.get(r) == dict(figures) for r, figures in again.items())
    mean = statistics.fmean(figures[name] for figures in again.values())
    verdict = 'the same, figure by figure' if same else 'other figures'
    console.line(
        f'Point {point.number} again: {words.number(f"validation_{name}", mean)}, {verdict}.',
        always=True,
    )
    return same
