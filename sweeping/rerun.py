"""A point trained once more, and what came out beside what did before."""

import pathlib
from collections.abc import Mapping
from typing import Any

from console import Console
from sweeping import points
from sweeping.reading import summary, words
from sweeping.study import Study
from sweeping.table import Point, Replicate, Table
from training.run_folder import FINAL, RunFolder

# What came of it.
SAME, OTHER, INTERRUPTED = 'same', 'other', 'interrupted'


def rerun(study: Study, number: int, console: Console) -> str:
    """Trains the runs of a point once more, in folders of their own, and compares.

    A call after an interruption goes on with the same folders.

    Returns:
      `SAME` where every figure of the validation split, and how each run ended, came out the same,
      or where the study has no run of the point to compare with; else `OTHER`, or `INTERRUPTED`.

    Raises:
      UserError: there is no such point.
    """
    from training.many import train_many

    table = study.table()
    point = table.point(number)
    replicates = range(table.replicates)
    folder = _free(study.folder / 'reruns', points.folder_name(point.values), table.replicates)
    runs = train_many(
        points.configs(study.config, point.values, replicates),
        [folder / str(r) for r in replicates],
    )
    again = {r: result for r, result in enumerate(runs.results) if result and _ended(result)}
    if len(again) < table.replicates:
        console.line(
            f'Interrupted; {len(again)} of {words.count(table.replicates, "run")} ended. The same '
            f'command goes on in {folder}.',
            always=True,
        )
        return INTERRUPTED
    return _compared(table, point, again, console)


def _free(within: pathlib.Path, name: str, replicates: int) -> pathlib.Path:
    """Returns the folder of the first rerun that has not ended, or of a new one."""
    number = 1
    while all(
        _ended(RunFolder(within / f'{name}-{number}' / str(r)).read_json('result.json'))
        for r in range(replicates)
    ):
        number += 1
    return within / f'{name}-{number}'


def _ended(result: Mapping[str, Any] | None) -> bool:
    return result is not None and result['status'] in FINAL


def _compared(
    table: Table, point: Point, again: Mapping[int, Mapping[str, Any]], console: Console
) -> str:
    """Says what came out, beside what did before."""
    objective = next((o for o in table.objectives if o.startswith(summary.OF_RUNS)), None)
    objective = objective or 'validation_loss'
    before = {run.number: run for run in point.replicates}
    rows = [
        [
            str(r),
            _said(objective, before[r].status, before[r].validation) if r in before else '-',
            _said(objective, result['status'], result['validation']),
        ]
        for r, result in again.items()
    ]
    console.table(['run', f'{words.heading(objective)} then', 'now'], rows)
    if not before:
        console.line(
            f'Point {point.number} again: the study has no run of it that ended, so there is '
            'nothing to compare.',
            always=True,
        )
        return SAME
    other = [r for r, run in before.items() if not _same(run, again[r])]
    verdict = 'the same, figure by figure'
    if other:
        verdict = f'{len(other)} of {words.count(len(before), "run")} came out otherwise'
    console.line(f'Point {point.number} again: {verdict}.', always=True)
    return OTHER if other else SAME


def _same(run: Replicate, result: Mapping[str, Any]) -> bool:
    return (run.status, run.validation) == (result['status'], dict(result['validation']))


def _said(objective: str, status: str, figures: Mapping[str, Any]) -> str:
    """Returns the figure of a run, or how it ended where it has none."""
    value = figures.get(objective.removeprefix(summary.OF_RUNS))
    return status if value is None else words.number(objective, value)
