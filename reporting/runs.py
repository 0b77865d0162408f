"""The files of a run that has ended and was judged, and what is told of several at once."""

import csv
import dataclasses
import pathlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from errors import UserError
from training.run_folder import RunFolder, read_run

_SPLIT = 'validation'  # The test split is for the last look, which `result.json` holds.
_NEEDED = ('diagnosis', 'net', 'data_splits')  # Keys that evaluations of earlier versions lack.


@dataclasses.dataclass(frozen=True)
class Judged:
    """What a run said of each example of the split, in stored order.

    Attributes:
      keys: content hash, and the how manieth example with this hash it is.
      groups: number of each example's group.
      scores: 1 where a class is right, 0 where not; of numbers the absolute error.
    """

    keys: list[tuple[str, int]]
    groups: np.ndarray
    scores: np.ndarray


@dataclasses.dataclass(frozen=True)
class Run:
    """A run that has ended and was judged.

    Attributes:
      path: of the run folder.
      config: every field by dotted name.
      result: `result.json`.
      lines: of `metrics.jsonl`.
      splits: `splits.json`.
      folder: of the evaluation.
      content: `evaluation.json`.
    """

    path: pathlib.Path
    config: dict[str, Any]
    result: dict[str, Any]
    lines: list[dict[str, Any]]
    splits: dict[str, Any]
    folder: pathlib.Path
    content: dict[str, Any]

    @property
    def name(self) -> str:
        """What the run is called on the page."""
        return self.path.resolve().name

    @property
    def class_names(self) -> list[str]:
        """Name of each label; empty where labels are numbers."""
        return self.result['class_names']

    def judged(self) -> Judged:
        """Reads `predictions.csv` of the evaluation."""
        with (self.folder / 'predictions.csv').open(newline='') as file:
            rows = list(csv.DictReader(file))
        seen: Counter[str] = Counter()
        keys = []
        for row in rows:
            keys.append((row['hash'], seen[row['hash']]))
            seen[row['hash']] += 1
        if self.class_names:
            scores = [float(row['label'] == row['prediction']) for row in rows]
        else:
            scores = [abs(float(row['target']) - float(row['prediction'])) for row in rows]
        return Judged(keys, np.asarray([int(row['group']) for row in rows]), np.asarray(scores))


def to_be_judged(path: str) -> str:
    """Says why a run must be evaluated before it can be reported; '' where it need not.

    Raises:
      UserError: there is no run that has ended well.
    """
    folder = RunFolder(path)
    read_run(folder)
    file = folder.path / 'evaluation' / _SPLIT / 'evaluation.json'
    if not file.is_file():
        return 'was not evaluated yet'
    if file.stat().st_mtime < (folder.path / 'result.json').stat().st_mtime:
        return 'was evaluated before it ended'
    content = RunFolder(file.parent).read_json(file.name)
    if any(key not in content for key in _NEEDED):
        return 'was evaluated by an earlier version of Leadline'
    return ''


def read(path: str, split: str = _SPLIT) -> Run:
    """Reads a run that was evaluated.

    Args:
      path: of the run folder.
      split: whose evaluation is read.

    Raises:
      UserError: there is no run that has ended well.
    """
    folder = RunFolder(path)
    config, result = read_run(folder)
    evaluation = folder.path / 'evaluation' / split
    return Run(
        path=folder.path,
        config=_flat(config),
        result=result,
        lines=folder.read_metrics(),
        splits=folder.read_json('splits.json'),
        folder=evaluation,
        content=RunFolder(evaluation).read_json('evaluation.json'),
    )


def check_same_data(runs: Sequence[Run]) -> None:
    """Checks that runs can stand side by side.

    Raises:
      UserError: two of them have other classes, or not one example in common.
    """
    first = runs[0]
    for run in runs[1:]:
        names = f'{first.path} ({first.result["dataset"]}) and {run.path} ({run.result["dataset"]})'
        if run.class_names != first.class_names:
            raise UserError(f'{names} have other classes: report them one by one.')
        if not _hashes(run) & _hashes(first):
            raise UserError(f'{names} have not one example in common: report them one by one.')


def by_config(runs: Sequence[Run]) -> list[list[Run]]:
    """Groups runs that differ in the seed alone."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        key = repr(sorted((n, v) for n, v in run.config.items() if n != 'seed'))
        groups.setdefault(key, []).append(run)
    return list(groups.values())


def _hashes(run: Run) -> set[str]:
    return {h for split in run.content['data_splits'] for h in run.splits[split]}


def _flat(config: dict[str, Any], prefix: str = '') -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in config.items():
        flat |= _flat(value, f'{prefix}{name}.') if isinstance(value, dict) else {
            f'{prefix}{name}': value
        }  # fmt: skip
    return flat
