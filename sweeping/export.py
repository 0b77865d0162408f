"""A point as a config file that `train.py` trains."""

import pathlib
from typing import Any

from configs import default
from console import Console
from errors import UserError
from sweeping import points
from sweeping.reading import summary, words
from sweeping.study import Study


def export(study: Study, number: int, console: Console) -> pathlib.Path:
    """Writes the config of a point into the study folder and returns the file.

    Raises:
      UserError: there is no such point, or it is not complete.
    """
    table = study.table()
    point = table.point(number)
    complete = summary.complete(table)
    if point not in complete:
        known = f': choose one of {words.numbers(complete)}' if complete else ''
        raise UserError(
            f'Point {number} of {study.folder} is {point.outcome}, not complete{known}.'
        )
    said = words.figure(table.objectives[0], summary.estimate(table, point, table.objectives[0]))
    what = (
        f'Point {number} of a sweep: {words.values(table, point)}.\n\n'
        f'{words.heading(table.objectives[0]).capitalize()} {said} '
        f'({words.count(len(point.replicates), "run")}), one of '
        f'{words.count(len(complete), "point")}. The best of many is partly the luckiest.'
    )
    (config,) = points.configs(study.config, point.values, [0])
    for name in points.OF_RUNS:
        config[name] = study.config.base[name]
    path = study.folder / f'point_{number}_config.py'
    path.write_text(config_file(config, what))
    console.line(
        f'Point {number} ({words.values(table, point)}) is in {path}. This trains it and '
        f'opens its test split:\n  python train.py --config={path} '
        f'--workdir={study.folder / f"point_{number}"}',
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
