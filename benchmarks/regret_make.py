"""Makes a reference table: which runs it holds, what they will take, and their training."""

import collections
import math
import pathlib
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from benchmarks import regret_table
from benchmarks.regret_cells import PLANS, Cell, Plan, as_cell
from benchmarks.regret_replay import REPEATS, SEARCHED
from benchmarks.regret_table import FULL, JUDGE, NINTH, THIRD, TWIN, Key, Stored, Table
from configs import default
from console import Console
from data import splits
from data.listing import content_hash
from errors import UserError
from evaluation.ended import stored as predicted
from selection.candidates import Space
from selection.data import Data
from training import many
from training.interruption import Interruption
from training.once import Once
from training.run_folder import RunFolder

FOLDS = 4
_BEST_REPEATED, _BEST_JUDGED, _TWINS = 6, 20, 16
_PARTS = {FULL: 1, TWIN: 1, THIRD: 3, NINTH: 9}
_TWIN_SEEDS = 1_000_000  # Beyond the number of any run.
# What nothing is measured for yet: seconds of a run beside its steps, FLOPs per second of training.
_OVERHEAD_SECONDS, _FLOPS_PER_SECOND, _COMPILE_SECONDS = 0.5, 2e10, 4.0
_BACKWARD = 3  # Times the FLOPs of the forward pass.


def _config(base: Any, key: Key, fields: Mapping[str, Any]) -> Any:
    """Returns the training config of a run, of a net with these fields."""
    config = default.get_config(base.dataset.name, fields['model.family'])
    values = default.flatten(base)
    part, (repeat, fold) = _PARTS[key.kind], divmod(key.number, FOLDS)
    config.update_from_flattened_dict(
        {name: v for name, v in values.items() if not name.startswith('model.')} | dict(fields)
    )
    epochs = base.epochs / part
    config.update_from_flattened_dict({
        'seed': key.number + (_TWIN_SEEDS if key.kind == TWIN else 0),
        'dataset.folds': FOLDS, 'dataset.fold': fold, 'dataset.repeat': repeat, 'epochs': epochs,
        'optimizer.warmup_epochs': base.optimizer.warmup_epochs / part,
        'evaluate_every_epochs': epochs, 'checkpoint_seconds': 1e6, 'pictures': False,
        'evaluate_test': key.number >= JUDGE,
    })  # fmt: skip
    return config


class Maker:
    """One call that makes a table, or goes on with it.

    Args:
      name: of the plan.
      data: name of the data set, where it is not the plan's.
      path: of the table.
      cells: how many of the plan's cells, the first ones; 0 for all.
      command: that makes it.

    Attributes:
      table: as far as it is made.
      base: training config, the recipe of all cells.
      cells: that the table will hold.
      fields: config fields of cells that are none of a plan's.

    Raises:
      UserError: the data set cannot be read, or is not that of the table.
    """

    def __init__(self, name: str, data: str, path: pathlib.Path, cells: int, command: str):
        self.plan, self.path = PLANS[name], path
        self._once = Once()
        self.fields: dict[Cell, dict[str, Any]] = {}
        self.base = _recipe(self.plan, data or self.plan.data, name)
        self.data = Data(self.base, Console(quiet=True))
        self.cells = self.plan.cells()[: cells or None]
        if path.is_file():
            self.table = regret_table.read(path)
            if self.table.about['images'] != self._content():
                raise UserError(f'{path} is of other images than {self.base.dataset.name} is now.')
        else:
            self.table = self._empty(name)
        if command not in self.table.about['made']:
            self.table.about['made'].append(command)

    def _content(self) -> str:
        return content_hash(self.data.source.hashes[self.data.members].astype('S'))

    def _empty(self, name: str) -> Table:
        data, base = self.data, self.base
        groups = splits.group(data.source, base.dataset.group_by)
        about = {
            'name': name, 'folds': FOLDS, 'rate': base.optimizer.learning_rate,
            'width': self.plan.width, 'facts': [*data.facts()], 'images': self._content(),
            'constant': data.constant_score('accuracy'), 'official': 'test' in data.source.official,
            'judges': self.plan.judges, 'returned': [], 'asked': [], 'made': [],
            'provenance': {},
        }  # fmt: skip
        return Table(about, groups[data.members], groups[data.test])

    # Which runs.

    def wanted(self) -> Iterator[tuple[str, list[Key]]]:
        """Yields what each part of the table holds; later parts depend on what earlier ones say."""
        about, whole = self.table.about, range(REPEATS * FOLDS)
        of_each = [(n, FULL) for n in range(SEARCHED)] + [(0, NINTH), (0, THIRD)]
        yield 'search', [Key(cell, n, kind) for cell in self.cells for n, kind in of_each]
        rungs = [cell for cell in self.cells if self._on_ladder(cell)]
        best = self._best()
        yield (
            'repeats',
            [Key(cell, n) for cell in dict.fromkeys([*rungs, *best[:_BEST_REPEATED]])
             for n in whole],
        )  # fmt: skip
        asked = [(as_cell(cell), repeat) for cell, repeat in about['asked']]
        yield 'asked for', [Key(cell, repeat * FOLDS + fold) for cell, repeat in asked
                            for fold in range(FOLDS)]  # fmt: skip
        returned = [as_cell(values) for values in about['returned']]
        judged = dict.fromkeys([*rungs, *best[:_BEST_JUDGED], *returned])
        numbers = [n for judge in range(about['judges']) for n in self.table.judge_numbers(judge)]
        yield 'judges', [Key(cell, n) for cell in judged for n in numbers]
        # Of the better half, since nobody compares the others.
        twins = sorted(best[: len(best) // 2], key=self.table.seconds)[:_TWINS]
        yield 'twins', [Key(cell, n, kind) for cell in twins for kind in (FULL, TWIN)
                        for n in whole]  # fmt: skip

    def _on_ladder(self, cell: Cell) -> bool:
        bare = cell.family == 'residual' and not cell.skip
        return cell.width in (0, self.plan.width) and not (
            bare or cell.head == 'flatten' or cell.rate
        )

    def _best(self) -> list[Cell]:
        """Returns the highest cells first; last those that are not trained yet."""
        return sorted(self.cells, key=lambda cell: -self.table.score(cell))

    def missing(self, keys: Iterable[Key]) -> list[Key]:
        """Returns those that are not in the table."""
        return [key for key in keys if self.table.get(key) is None]

    # What they take.

    def forecast(self) -> list[tuple[str, int, float]]:
        """Returns of each part how many runs it lacks, and the hours that they will take."""
        found = []
        for name, keys in self.wanted():
            lacking = self.missing(keys)
            new = {key.cell.shape for key in lacking} - {*self.table.compile_seconds}
            seconds = sum(map(self._seconds, lacking))
            if name == 'search':
                seconds += _COMPILE_SECONDS * len(new)
            found.append((name, len(lacking), seconds / 3600))
        return found

    def _seconds(self, key: Key) -> float:
        """Predicts the seconds of a run, by those of its cell or by its FLOPs."""
        for rate in (key.cell.rate, *self.plan.rates):
            measured = self.table.seconds(key.cell._replace(rate=rate))
            if math.isfinite(measured):
                return measured / _PARTS[key.kind]
        trained = len(self.data.members) * (1 - 1 / FOLDS) * self.base.epochs
        flops = _BACKWARD * self._flops(key.cell) * trained / _PARTS[key.kind]
        return _OVERHEAD_SECONDS + flops / self._speed()

    def _flops(self, cell: Cell) -> float:
        """Returns the rough FLOPs of an example."""
        space = Space(self.data.facts())
        size = cell.size or min(self.data.facts().shape[:2])
        if cell.family == 'linear':
            return space.linear().cost
        make = space.plain if cell.family == 'plain' else space.residual
        return make(cell.stages, size, cell.width).cost

    def _speed(self) -> float:
        """Returns FLOPs per second: those of the cells that were trained, or a guess."""
        trained = len(self.data.members) * (1 - 1 / FOLDS) * self.base.epochs
        flops = sum(_BACKWARD * self._flops(cell) * trained for cell in self.table.cells)
        seconds = sum(self.table.seconds(cell) - _OVERHEAD_SECONDS for cell in self.table.cells)
        return flops / seconds if seconds > 0 else _FLOPS_PER_SECOND

    # Training.

    def make(self, workdir: pathlib.Path, hours: float, signals: Interruption) -> bool:
        """Trains what is lacking, shape by shape, until the time is up or a signal comes.

        Returns:
          Whether the table is complete.
        """
        until = time.monotonic() + 3600 * hours
        compiled = workdir / 'xla'  # Later parts need the programs of the first one again.
        if self.missing(next(self.wanted())[1]):
            shutil.rmtree(compiled, ignore_errors=True)  # Or what compiling takes is not measured.
        jax.config.update('jax_compilation_cache_dir', str(compiled))
        jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
        for name, keys in self.wanted():
            by_shape = collections.defaultdict(list)
            for key in self.missing(keys):
                by_shape[key.cell.shape].append(key)
            for done, (shape, of_shape) in enumerate(by_shape.items(), 1):
                if time.monotonic() >= until or signals.received:
                    return False
                self.train(of_shape, workdir, signals)
                print(f'{name}: {done} of {len(by_shape)} shapes, {shape.family} {shape.stages}, '
                      f'width {shape.width}', flush=True)  # fmt: skip
        return not signals.received

    def train(self, keys: Sequence[Key], workdir: pathlib.Path, signals: Interruption) -> None:
        """Trains runs that share their programs, and takes what came of them."""
        usual = self.base.optimizer.learning_rate
        fields = [self.fields.get(key.cell) or key.cell.fields(usual) for key in keys]
        configs = [_config(self.base, *each) for each in zip(keys, fields, strict=True)]
        folders = [workdir / _folder(key) for key in keys]
        trained = many.train_many(
            configs, folders, quiet=True, how=many.SEQUENTIAL, once=self._once, signals=signals
        )
        for key, folder, result in zip(keys, folders, trained.results, strict=True):
            if result and result['status'] != 'interrupted':
                self._take(key, folder, result)
        regret_table.write(self.table, self.path)
        for key, folder in zip(keys, folders, strict=True):
            if self.table.get(key):
                shutil.rmtree(folder)

    def _take(self, key: Key, folder: pathlib.Path, result: Mapping[str, Any]) -> None:
        """Puts what came of a run into the table."""
        repeat, images = key.number // FOLDS, self.data.fold(key.number)
        if repeat not in self.table.folds:
            folds_N = np.zeros(len(self.data.members), np.uint8)
            for fold in range(FOLDS):
                folds_N[self.data.fold(repeat * FOLDS + fold)] = fold
            self.table.folds[repeat] = folds_N
        judges = key.number >= JUDGE
        failed = result['status'] == 'diverged'
        if failed:
            right = np.zeros(len(images) + judges * len(self.data.test), bool)
        else:
            right = self._right(folder, 'validation', self.data.members[images])
            if judges:
                right = np.concatenate([right, self._right(folder, 'test', self.data.test)])
        spent = result['seconds']
        self.table.add(
            key, Stored(right, spent['total'] - spent['compile'], spent['compile'], failed)
        )
        self.table.facts[key.cell.shape] = (result['parameters'], result['flops_per_example'])
        about = {name: result[name] for name in ('versions', 'device', 'git_revision')}
        self.table.about['provenance'] = about

    def _right(self, folder: pathlib.Path, split: str, images: np.ndarray) -> np.ndarray:
        found = predicted(RunFolder(folder), split)
        if not np.array_equal(found['hash'], self.data.source.hashes[images]):
            raise UserError(
                f'The images of {folder} are not those of the table: remove the folder.'
            )
        return found['logits'].argmax(axis=1) == found['label']


def _folder(key: Key) -> str:
    """Returns the name of a run's folder."""
    cell = key.cell
    stages = 'x'.join(map(str, cell.stages))
    skip = 'skip' if cell.skip else 'bare'
    return (f'{cell.family}-{stages}-w{cell.width}-{skip}-{cell.head}-{cell.size}-r{cell.rate}-'
            f'{key.kind}-{key.number}')  # fmt: skip


def _recipe(plan: Plan, data: str, name: str) -> Any:
    if not data:
        raise UserError(f'Say where the images are: --set={name} --source=folder:PATH.')
    base = default.get_config(data, 'plain')
    base.update_from_flattened_dict(dict(plan.fields) | {'dataset.folds': FOLDS})
    if plan.sizes[0]:
        base.dataset.image_size = plan.sizes[0]
    return base
