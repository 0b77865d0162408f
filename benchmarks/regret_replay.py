"""Replays: what choosers would have returned, had they trained what a reference table holds."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from benchmarks.regret_cells import DENSE_UNITS, Cell
from benchmarks.regret_table import FULL, NINTH, THIRD, Key, Stored, Table
from selection import stages
from selection.candidates import Net, Question, Space
from selection.facts import Facts
from selection.record import Outcome, Record, Run
from selection.search import Search, Settings

REPEATS = 3  # Of the cells that have most.
SEARCHED = 2  # Runs that all cells have.
DELTA = 0.01
_ETA = 3  # Of successive halving: one in three goes on, three times as long.
_RATES = (0, -1, 1)  # In this order where a net is given and its learning rate is not.


class TableSpace(Space):
    """The nets of a space that are in a table."""

    def __init__(self, table: Table):
        facts = Facts(*table.about['facts'])
        sizes = sorted({cell.size for cell in table.cells}) if facts.resizable else None
        super().__init__(facts, table.about['width'], sizes)
        self._table = table
        self._shapes = {cell.shape for cell in table.cells}

    def _there(self, net: Net) -> bool:
        cell = self._table.cell(net.fields)
        return cell is not None and cell.shape in self._shapes

    def ladder(self, size: int | None) -> list[Net]:
        rungs = [net for net in super().ladder(size) if self._there(net)]
        return [dataclasses.replace(net, rung=i) for i, net in enumerate(rungs)]

    def baselines(self, size: int | None) -> list[Net]:
        """Returns the one of those of choose.py that has its like in a table: two flat blocks."""
        two = next(net for net in super().ladder(size) if net.depth == 2)
        flat = {'model.head.pooling': 'flatten', 'model.head.dense_units': DENSE_UNITS}
        two = two.changed('flatten', 'with flatten and a dense layer', flat)
        return [two] if self._there(two) else []

    def questions(self, net: Net) -> list[Question]:
        return [question for question in super().questions(net) if self._there(question.net)]

    def around(self, net: Net) -> list[Net]:
        return [near for near in super().around(net) if self._there(near)]


class Replay:
    """What a chooser may spend, and which of the stored runs it finds; a `search.Budget`.

    The folds of each repeat are permuted, and so are the repeats that not all cells have, in the
    same way for all cells: what is compared stays paired. A run costs the median seconds of its
    cell, the first of a shape its compilation too. What the final fit of the costliest net so far
    would take is kept back. What is not in the table cannot be bought.

    Args:
      table: with the runs.
      budget: in seconds, with the final fit.
      seed: of what is drawn.

    Attributes:
      asked: cell and repeat of runs that could be paid for and are not in the table.
    """

    def __init__(self, table: Table, budget: float, seed: int):
        self.table, self.budget, self._seed = table, budget, seed
        self.rng = np.random.default_rng(seed)
        self._repeats = {0: 0, **dict(enumerate(1 + self.rng.permutation(REPEATS - 1), 1))}
        self.spent = 0.0
        self._kept_back = 0.0
        self._compiled: set[Cell] = set()
        self.asked: set[tuple[Cell, int]] = set()

    @property
    def total(self) -> float:
        """What there is for the search."""
        return self.budget - self._kept_back

    def left(self) -> float:
        """Returns what is left for the search."""
        return max(0.0, self.total - self.spent)

    def price(self, runs: Sequence[Run], record: Record) -> float:
        """Returns the seconds of runs; infinite where one is not in the table."""
        del record
        cells = [(self.table.cell(run.net.fields), run.number) for run in runs]
        keys = [self._key(cell, number) for cell, number in cells if cell]
        return math.inf if len(keys) < len(cells) else self._price(keys)

    def _key(self, cell: Cell, number: int, kind: str = FULL) -> Key:
        return Key(cell, self.stored(number) if kind == FULL else number, kind)

    def stored(self, number: int) -> int:
        """Returns the number of the stored run that a chooser finds as its run of a number.

        The runs that all cells have come first, whatever their order.
        """
        repeat, fold = divmod(number, self.table.K)
        repeat = int(self._repeats.get(repeat, repeat))
        rng = np.random.default_rng([self._seed, repeat])
        folds = [*rng.permutation(SEARCHED), *rng.permutation(np.arange(SEARCHED, self.table.K))]
        return repeat * self.table.K + int(folds[fold])

    def _price(self, keys: Sequence[Key]) -> float:
        """Returns the seconds of runs; infinite where one is not in the table."""
        missing = {(key.cell, key.number // self.table.K)
                   for key in keys if self.table.get(key) is None}  # fmt: skip
        cells = {key.cell for key in keys}
        seconds = sum(self.table.seconds(key.cell, key.kind) for key in keys)
        compiling = {cell.shape for cell in cells} - self._compiled
        seconds += sum(self.table.compile_seconds.get(shape, math.inf) for shape in compiling)
        costliest = max((self.final_fit(cell) for cell in cells), default=0.0)
        seconds += max(0.0, costliest - self._kept_back)
        if missing and seconds <= self.left():
            self.asked |= missing
        return math.inf if missing else seconds

    def final_fit(self, cell: Cell) -> float:
        """Returns the seconds of a run on the images of all folds."""
        return self.table.K / (self.table.K - 1) * self.table.seconds(cell)

    def train(self, cell: Cell, number: int = 0, kind: str = FULL) -> Stored | None:
        """Buys a run; None where it is not in the table or costs more than is left."""
        key = self._key(cell, number, kind)
        if not self._price([key]) <= self.left():
            return None
        self.spent += self.table.seconds(cell, kind)
        if cell.shape not in self._compiled:
            self.spent += self.table.compile_seconds[cell.shape]
            self._compiled.add(cell.shape)
        self._kept_back = max(self._kept_back, self.final_fit(cell))
        return self.table.get(key)

    def returned(self, cell: Cell) -> Cell | None:
        """Pays for the final fit; None where it costs more than there is."""
        compiling = 0.0 if cell.shape in self._compiled else self.table.compile_seconds[cell.shape]
        price = self.final_fit(cell) + compiling
        if not self.spent + price <= self.budget:
            return None
        self.spent += price
        return cell


def score(stored: Stored) -> float:
    """Returns the share of right answers; -inf of a run that failed."""
    return -math.inf if stored.failed else float(stored.right.mean())


Chooser = Callable[[Replay], Cell | None]


def leadline(replay: Replay) -> Cell | None:
    """Goes through the stages of choose.py."""
    table = replay.table
    record = Record(table.K, table.groups_N, np.ones(len(table.groups_N)))
    space = TableSpace(table)
    settings = Settings(delta=DELTA, folds=table.K, rate=table.about['rate'],
                        constant=table.about['constant'])  # fmt: skip
    search = Search(space, settings, record, replay)
    search.propose(space.ladder(space.sizes[0])[:1], 'ladder')
    for runs in stages.choose(search):
        for run in runs:
            outcome = _outcome(replay, run)
            if outcome:
                record.add(run, outcome)
    found = search.recommended() or next(iter(search.alive()), None)
    cell = table.cell(search.tuned(found).fields) if found else None
    return replay.returned(cell) if cell in table.cells else None


def _outcome(replay: Replay, run: Run) -> Outcome | None:
    table = replay.table
    cell = table.cell(run.net.fields)
    stored = replay.train(cell, run.number) if cell else None
    if cell is None or stored is None:
        return None
    seconds = table.seconds(cell)
    if stored.failed:
        return Outcome(seconds=seconds, failed='diverged', status='failed')
    parameters, flops = table.facts[cell.shape]
    return Outcome(
        images=table.images(replay.stored(run.number)),
        scores=stored.right.astype(float),
        seconds=seconds,
        facts={'parameters': parameters, 'flops': flops},
    )


def _highest(replay: Replay, scores: Mapping[Cell, float]) -> Cell | None:
    return replay.returned(max(scores, key=scores.__getitem__)) if scores else None


def _each_once(replay: Replay, cells: Sequence[Cell], kind: str = FULL) -> dict[Cell, float]:
    """Returns the scores of cells, one run each, up to the first that cannot be had."""
    scores: dict[Cell, float] = {}
    for cell in cells:
        stored = replay.train(cell, kind=kind)
        if stored is None:
            break
        scores[cell] = score(stored)
    return scores


def random_search(replay: Replay) -> Cell | None:
    """Trains cells at random, one run each, and takes the highest."""
    cells = replay.table.cells
    order = [cells[i] for i in replay.rng.permutation(len(cells))]
    return _highest(replay, _each_once(replay, order))


def successive_halving(replay: Replay) -> Cell | None:
    """Trains many cells at random on short schedules, the best third three times as long.

    Jamieson and Talwalkar 2016, "Non-stochastic best arm identification and hyperparameter
    optimization", algorithm 1, with a third for a half. A run of a longer schedule begins anew: a
    prefix of a cosine schedule is no short run. Of the cells begun with there are as many as the
    budget carries at their mean price.
    """
    table = replay.table
    cells = [cell for cell in table.cells if table.seconds(cell, NINTH) < math.inf]
    if not cells:
        return None
    rungs = {NINTH: 1.0, THIRD: 1 / _ETA, FULL: 1 / _ETA**2}
    each = [sum(share * table.seconds(cell, kind) for kind, share in rungs.items())
            + table.compile_seconds[cell.shape] for cell in cells]  # fmt: skip
    final = float(np.mean([replay.final_fit(cell) for cell in cells]))
    count = max(1, int((replay.budget - final) / np.mean(each)))
    going = [cells[i] for i in replay.rng.permutation(len(cells))[:count]]
    best: dict[Cell, float] = {}
    for kind in rungs:
        scores = _each_once(replay, going, kind)
        best = scores or best
        going = sorted(scores, key=scores.__getitem__, reverse=True)
        going = going[: max(1, round(len(going) / _ETA))]
    return _highest(replay, best)


def _at_its_best_rate(replay: Replay, shape: Cell) -> Cell | None:
    """Trains a net at a few learning rates, and takes the highest; untrained where none fits."""
    there = {*replay.table.cells}
    cells = [c for c in (shape._replace(rate=rate) for rate in _RATES) if c in there]
    scores = _each_once(replay, cells)
    return _highest(replay, scores) if scores else replay.returned(cells[0]) if cells else None


def fixed_resnet(replay: Replay) -> Cell | None:
    """Takes the largest ResNet of He et al. 2016 that the table has, 16 filters at first."""
    nets = {c.shape for c in replay.table.cells
            if (c.family, c.skip, c.head) == ('residual', True, 'average')}  # fmt: skip
    if not nets:
        return None
    return _at_its_best_rate(
        replay, max(nets, key=lambda net: (sum(net.stages), net.size, -abs(net.width - 16), net))
    )


def most_parameters(replay: Replay) -> Cell | None:
    """Takes the net with the most parameters."""
    shapes = {cell.shape for cell in replay.table.cells}
    most = max(shapes, key=lambda shape: (replay.table.facts[shape], shape))
    return _at_its_best_rate(replay, most)


def one_run_each(replay: Replay) -> Cell | None:
    """Trains each net of the ladder once, the smallest first, and takes the highest."""
    table, space = replay.table, TableSpace(replay.table)
    rungs = [net for size in space.sizes for net in (space.linear(), *space.ladder(size))]
    cells = [cell for cell in (table.cell(net.fields) for net in rungs) if cell in table.cells]
    return _highest(replay, _each_once(replay, [*dict.fromkeys(c for c in cells if c)]))


def portfolio(others: Sequence[Table]) -> list[Cell]:
    """Returns the cells that all other tables have, the best on the mean over them first.

    Input sizes count by their place: the cells are those at the smallest of each table.
    """

    def relative(table: Table) -> dict[Cell, float]:
        least = min(cell.size for cell in table.cells)
        scores = {c._replace(size=0): table.score(c) for c in table.cells if c.size == least}
        return {cell: score - max(scores.values()) for cell, score in scores.items()}

    each = [relative(table) for table in others]
    common = [cell for cell in each[0] if all(cell in of for of in each)] if each else []
    return sorted(common, key=lambda cell: -sum(of[cell] for of in each))


def choosers(table: Table, others: Sequence[Table]) -> dict[str, Chooser]:
    """Returns Leadline and what it is compared with, by name.

    Args:
      table: of the data set.
      others: tables of other data sets, of which a portfolio is made.
    """
    found: dict[str, Chooser] = {
        'Leadline': leadline,
        'random search': random_search,
        'successive halving': successive_halving,
        'fixed ResNet': fixed_resnet,
        'most parameters': most_parameters,
        'one run each, highest': one_run_each,
    }
    least = min(cell.size for cell in table.cells)
    first = [c._replace(size=least) for c in portfolio(others)]
    known = next((cell for cell in first if cell in table.cells), None)
    if known:
        found['first of a portfolio'] = lambda replay: replay.returned(known)
    return found


class Replayed(NamedTuple):
    """What came of the replays of a chooser.

    Attributes:
      returned: the cell of each; None where it could afford nothing.
      asked: as of `Replay`, of all of them.
    """

    returned: list[Cell | None]
    asked: set[tuple[Cell, int]]


def replays(table: Table, chooser: Chooser, share: float, count: int) -> Replayed:
    """Lets a chooser spend a share of C, so many times."""
    each = [Replay(table, share * table.whole(), seed) for seed in range(count)]
    returned = [chooser(replay) for replay in each]
    return Replayed(returned, {runs for replay in each for runs in replay.asked})
