"""Reference tables: what each net of a grid came to on a data set, image by image.

A table is one small file, so that replays need neither the data set nor JAX. Axes: N images that
are searched with, T images of the test split, K folds, S judges.
"""

import dataclasses
import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from benchmarks.regret_cells import Cell, as_cell, cell_of
from errors import UserError

FULL, THIRD, NINTH, TWIN = KINDS = ('full', 'third', 'ninth', 'twin')
JUDGE = 8000  # From this number on runs judge: no chooser reads them.


class Key(NamedTuple):
    """A run: of a cell, its number as in `selection.record.Run`, and its kind.

    `full`; `third` and `ninth`, whose schedule is so much shorter; `twin`: the same but for its
    seed.
    """

    cell: Cell
    number: int
    kind: str = FULL


@dataclasses.dataclass(frozen=True)
class Stored:
    """What came of a run.

    Attributes:
      right: bool [n]: of each image of the fold that was left out, and behind those, of runs that
        judge, of each image of the test split. All wrong where the run failed.
      seconds: without compiling.
      compile_seconds: 0 where the program was there.
      failed: whether it diverged.
    """

    right: np.ndarray
    seconds: float
    compile_seconds: float = 0.0
    failed: bool = False


class Judged(NamedTuple):
    """What judges saw.

    Attributes:
      cells: that were judged by all of them.
      scores_CSN: share of right answers of cell c in the eyes of judge s, for each judged image.
      groups_N: number of each image's group.
    """

    cells: tuple[Cell, ...]
    scores_CSN: np.ndarray
    groups_N: np.ndarray


class Table:
    """All runs of a data set.

    Args:
      about: JSON: `name`, `folds` K, `rate` of the recipe, `width` of the ladder, `facts` (as of
        `selection.facts.Facts`), `constant` (score of the largest class), `official` (whether the
        test split is the set's own), `judges` S, `returned` (cells that replays have returned),
        `made` (the commands, with versions and hardware).
      groups_N, test_groups_T: number of each image's group.

    Attributes:
      folds: from a repeat to the fold of each image, [N].
      facts: parameters and FLOPs, by shape.
      compile_seconds: by shape, of the first run that compiled.
    """

    def __init__(self, about: dict[str, Any], groups_N: np.ndarray, test_groups_T: np.ndarray):
        self.about, self.groups_N, self.test_groups_T = about, groups_N, test_groups_T
        self.K: int = about['folds']
        self.folds: dict[int, np.ndarray] = {}
        self.facts: dict[Cell, tuple[int, int]] = {}
        self.compile_seconds: dict[Cell, float] = {}
        self._runs: dict[tuple[Cell, str], dict[int, Stored]] = {}
        self._seconds: dict[tuple[Cell, str], float] = {}
        self._cells: dict[Cell, None] = {}

    def add(self, key: Key, stored: Stored) -> None:
        """Takes what came of a run."""
        self._runs.setdefault((key.cell, key.kind), {})[key.number] = stored
        self._seconds.pop((key.cell, key.kind), None)
        if key.kind == FULL and key.number < JUDGE:
            self._cells[key.cell] = None
        if not self.compile_seconds.get(key.cell.shape):
            self.compile_seconds[key.cell.shape] = stored.compile_seconds

    def get(self, key: Key) -> Stored | None:
        """Returns what came of a run; None where it is not in the table."""
        return self._runs.get((key.cell, key.kind), {}).get(key.number)

    def runs(self) -> list[Key]:
        """Returns all runs."""
        return [Key(of[0], n, of[1]) for of, runs in self._runs.items() for n in runs]

    @property
    def cells(self) -> list[Cell]:
        """The cells of which a chooser may have a run."""
        return [*self._cells]

    def cell(self, fields: Mapping[str, Any]) -> Cell | None:
        """Returns the cell with these config fields; None where there can be none."""
        return cell_of(fields, self.about['rate'])

    def images(self, number: int) -> np.ndarray:
        """Returns which images a run leaves out, sorted."""
        repeat, fold = divmod(number, self.K)
        return np.flatnonzero(self.folds[repeat] == fold)

    def seconds(self, cell: Cell, kind: str = FULL) -> float:
        """Returns the median seconds of a run that does not judge; infinite where there is none."""
        of = (cell, kind)
        if of not in self._seconds:
            seconds = [run.seconds for n, run in self._runs.get(of, {}).items() if n < JUDGE]
            self._seconds[of] = float(np.median(seconds)) if seconds else math.inf
        return self._seconds[of]

    def whole(self) -> float:
        """Returns C: the seconds of one run of every cell, and of compiling each shape once."""
        shapes = {cell.shape for cell in self.cells}
        return sum(self.seconds(cell) for cell in self.cells) + sum(
            self.compile_seconds[shape] for shape in shapes
        )

    def score(self, cell: Cell) -> float:
        """Returns the share of right answers in the first repeat; -inf where a run failed."""
        runs = [self.get(Key(cell, number)) for number in range(self.K)]
        there = [run for run in runs if run]
        if not there or any(run.failed for run in there):
            return -math.inf
        return float(np.concatenate([run.right for run in there]).mean())

    def repeats(self, cell: Cell, kind: str = FULL) -> int:
        """Returns how many repeats of a cell are complete without a failure, from the first on."""
        runs, count = self._runs.get((cell, kind), {}), 0
        numbers = {number for number, run in runs.items() if not run.failed}
        while numbers >= {*range(count * self.K, (count + 1) * self.K)}:
            count += 1
        return count

    def by_repeat(self, cell: Cell, repeats: int, kind: str = FULL) -> np.ndarray:
        """Returns right or wrong of image i in repeat m, by the run that left it out."""
        scores_MN = np.zeros((repeats, len(self.groups_N)))
        for number in range(repeats * self.K):
            run = self.get(Key(cell, number, kind))
            assert run is not None
            scores_MN[number // self.K, self.images(number)] = run.right
        return scores_MN

    def judge_numbers(self, judge: int) -> list[int]:
        """Returns the runs of a judge: one where the test split is the set's own, else a repeat."""
        if self.about['official']:
            return [JUDGE + judge]
        return [JUDGE + judge * self.K + fold for fold in range(self.K)]

    def judged(self) -> Judged:
        """Returns the cells that all judges have judged.

        They judge the set's own test split where it has one; else every image: those that are
        searched with by the run that left them out, those of the test split by all K runs.
        """
        judges = range(self.about['judges'])
        numbers = {n for judge in judges for n in self.judge_numbers(judge)}
        cells = tuple(cell for (cell, kind), runs in self._runs.items()
                      if kind == FULL and runs.keys() >= numbers)  # fmt: skip
        scores = [[self._seen(cell, judge) for judge in judges] for cell in cells]
        groups = self.test_groups_T
        if not self.about['official']:
            groups = np.concatenate([self.groups_N, self.test_groups_T])
        return Judged(cells, np.asarray(scores, np.float32), groups)

    def _seen(self, cell: Cell, judge: int) -> np.ndarray:
        """Returns the scores of the images by one judge."""
        left_out_N, test = np.zeros(len(self.groups_N)), []
        for number in self.judge_numbers(judge):
            run, images = self.get(Key(cell, number)), self.images(number)
            assert run is not None
            left_out_N[images] = run.right[: len(images)]
            test.append(run.right[len(images) :])
        seen_T = np.mean(test, axis=0)
        return seen_T if self.about['official'] else np.concatenate([left_out_N, seen_T])


def write(table: Table, path: pathlib.Path) -> None:
    """Writes a table, atomically; right and wrong as single bits."""
    keys = table.runs()
    runs = [table.get(key) for key in keys]
    cells = [*dict.fromkeys(key.cell for key in keys)]
    place = {cell: i for i, cell in enumerate(cells)}
    shapes = [*table.facts]
    about = json.dumps({'about': table.about, 'cells': cells, 'shapes': shapes})
    arrays = {
        'about': np.frombuffer(about.encode(), np.uint8),
        'groups': table.groups_N.astype(np.int32),
        'test_groups': table.test_groups_T.astype(np.int32),
        'repeats': np.asarray([*table.folds], np.int32),
        'folds': np.asarray([*table.folds.values()], np.uint8),
        'facts': np.asarray([*table.facts.values()], np.int64),
        'cell': np.asarray([place[key.cell] for key in keys], np.int32),
        'number': np.asarray([key.number for key in keys], np.int32),
        'kind': np.asarray([KINDS.index(key.kind) for key in keys], np.uint8),
        'seconds': np.asarray([run.seconds for run in runs if run], np.float32),
        'compile': np.asarray([run.compile_seconds for run in runs if run], np.float32),
        'failed': np.asarray([run.failed for run in runs if run], bool),
        'count': np.asarray([len(run.right) for run in runs if run], np.int32),
        'right': np.concatenate([np.zeros(0, np.uint8)] +
                                [np.packbits(run.right) for run in runs if run]),
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix('.partial.npz')
    np.savez_compressed(partial, **arrays)  # type: ignore[arg-type]
    partial.replace(path)


def read(path: pathlib.Path) -> Table:
    """Reads a table.

    Raises:
      UserError: there is none.
    """
    if not path.is_file():
        raise UserError(f'There is no table {path}: make it with --do=make --set={path.stem}.')
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    text = json.loads(arrays['about'].tobytes())
    table = Table(text['about'], arrays['groups'], arrays['test_groups'])
    table.folds = dict(zip(arrays['repeats'].tolist(), arrays['folds'], strict=True))
    shapes = map(as_cell, text['shapes'])
    table.facts = dict(zip(shapes, map(tuple, arrays['facts'].tolist()), strict=True))
    cells = [as_cell(values) for values in text['cells']]
    end = np.cumsum(-(-arrays['count'] // 8))
    columns = ('cell', 'number', 'kind', 'seconds', 'compile', 'failed', 'count')
    rows = zip(*(arrays[name].tolist() for name in columns), np.split(arrays['right'], end[:-1])
               if len(end) else [], strict=True)  # fmt: skip
    for cell, number, kind, seconds, compiled, failed, count, bits in rows:
        right = np.unpackbits(bits, count=count).astype(bool)
        table.add(Key(cells[cell], number, KINDS[kind]), Stored(right, seconds, compiled, failed))
    return table
