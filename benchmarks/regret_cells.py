"""The cells of reference tables, and which of them the table of a data set holds."""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

_STEP = math.sqrt(10)
DENSE_UNITS = (128,)


class Cell(NamedTuple):
    """A net with its learning rate.

    Attributes:
      family: `linear`, `plain` or `residual`.
      stages: convolutions or blocks of each stage.
      width: filters of the first stage; 0 of the linear classifier.
      skip: whether there are skip connections; False of nets that cannot have any.
      head: `average` (global average pooling) or `flatten` (with a dense layer).
      size: side of the images; 0 where they are as they are.
      rate: the learning rate is that of the data set's recipe times 10**(rate / 2).
    """

    family: str
    stages: tuple[int, ...] = ()
    width: int = 0
    skip: bool = False
    head: str = 'average'
    size: int = 0
    rate: int = 0

    @property
    def shape(self) -> 'Cell':
        """Equal for cells that share a compiled program: the cell without its learning rate."""
        return self._replace(rate=0)

    def fields(self, base_rate: float) -> dict[str, Any]:
        """Returns the config fields, of a recipe with this learning rate."""
        fields: dict[str, Any] = {'optimizer.learning_rate': base_rate * _STEP**self.rate}
        if self.size:
            fields['dataset.image_size'] = self.size
        if self.family == 'linear':
            return {**fields, 'model.family': 'dense', 'model.hidden_units': ()}
        fields |= {'model.family': self.family, 'model.width': self.width,
                   'model.stage_sizes': self.stages}  # fmt: skip
        if self.family == 'residual' and not self.skip:
            fields['model.skip'] = False
        if self.head == 'flatten':
            fields |= {'model.head.pooling': 'flatten', 'model.head.dense_units': DENSE_UNITS}
        return fields


def cell_of(fields: Mapping[str, Any], base_rate: float) -> Cell | None:
    """Returns the cell with these fields; None where a table has none like it."""
    rate = round(math.log(fields.get('optimizer.learning_rate', base_rate) / base_rate, _STEP))
    family = fields.get('model.family', '')
    linear = family == 'dense' and fields.get('model.hidden_units') == ()
    cell = Cell(
        family='linear' if linear else family,
        stages=tuple(fields.get('model.stage_sizes', ())),
        width=fields.get('model.width', 0),
        skip=family == 'residual' and fields.get('model.skip', True),
        head='flatten' if fields.get('model.head.pooling') == 'flatten' else 'average',
        size=fields.get('dataset.image_size', 0),
        rate=rate,
    )
    same, asked = cell.fields(base_rate), dict(fields)
    near = math.isclose(
        same.pop('optimizer.learning_rate'), asked.pop('optimizer.learning_rate', base_rate)
    )
    return cell if near and same == asked else None


def as_cell(values: Sequence[Any]) -> Cell:
    """Returns a cell from its JSON form."""
    family, stages, *others = values
    return Cell(family, tuple(stages), *others)


@dataclasses.dataclass(frozen=True)
class Plan:
    """The grid of a data set: every combination of what can be combined.

    Attributes:
      data: name of the data set; '' where it must be given.
      fields: of the recipe.
      plain: stages of plain nets.
      residual: stages of residual nets, with and without skip connections.
      large: stages of residual nets that have the ladder's head alone, and skip connections.
      widths: filters of the first stage.
      width: of them that of the ladder.
      rates: as in `Cell`.
      judges: how many judge a cell: runs where the test split is the set's own, else repeats.
      sizes: of images; 0 as they are.
    """

    data: str
    fields: Mapping[str, Any]
    plain: Sequence[tuple[int, ...]]
    residual: Sequence[tuple[int, ...]]
    large: Sequence[tuple[int, ...]]
    widths: Sequence[int]
    width: int
    rates: Sequence[int]
    judges: int
    sizes: Sequence[int] = (0,)

    def cells(self) -> list[Cell]:
        """Returns all cells: those that differ least from the ladder's first."""
        trunks = [('plain', stages, False, head) for stages in self.plain for head in _HEADS]
        trunks += [
            ('residual', stages, skip, head)
            for stages in self.residual
            for skip in (True, False)
            for head in _HEADS
        ]
        trunks += [('residual', stages, True, 'average') for stages in self.large]
        grid = itertools.product(trunks, self.widths, self.sizes, self.rates)
        cells = [Cell('linear', size=self.sizes[0], rate=rate) for rate in self.rates]
        cells += [
            Cell(family, stages, width, skip, head, size, rate)
            for (family, stages, skip, head), width, size, rate in grid
        ]
        return sorted(cells, key=self._changes)

    def _changes(self, cell: Cell) -> int:
        changes = [
            cell.width not in (0, self.width), cell.family == 'residual' and not cell.skip,
            cell.head == 'flatten', cell.size != self.sizes[0],
        ]  # fmt: skip
        return sum(changes) + abs(cell.rate)


_HEADS = ('average', 'flatten')
_STAGES = [(1,) * count for count in range(1, 7)]
_BLOCKS = [(1, 1, 1), (2, 2, 2)]
# Of images of 14 and 16 pixels (benchmarks/shrunken.py).
_SUBSET = {'dataset.subset': 1400.0, 'epochs': 6.0, 'batch_size': 64,
           'optimizer.warmup_epochs': 1.0}  # fmt: skip
PLANS = {
    'digits': Plan('digits', {'epochs': 6.0, 'optimizer.warmup_epochs': 1.0}, _STAGES[:3],
                   _BLOCKS, (), (4, 8, 16), 8, (-2, -1, 0, 1, 2), 2),
    'fashion_mnist': Plan(
        '', _SUBSET | {'augment': 'padded_crop=1,horizontal_flip=0.5,fill=black'}, _STAGES[:4],
        _BLOCKS[:1], _BLOCKS[1:], (4, 8, 16), 8, (-2, -1, 0, 1, 2), 8),
    'cifar10': Plan('', _SUBSET | {'augment': 'padded_crop=2,horizontal_flip=0.5'}, _STAGES[:4],
                    _BLOCKS[:1], _BLOCKS[1:], (4, 8, 16), 8, (-2, -1, 0, 1, 2), 8),
    'seedlings': Plan('', {'epochs': 8.0, 'optimizer.warmup_epochs': 1.0}, _STAGES[:4],
                      _BLOCKS[:1], _BLOCKS[1:], (4, 8), 8, (-2, -1, 0, 1), 2, (16, 24)),
}  # fmt: skip
