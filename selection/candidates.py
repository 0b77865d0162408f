"""What may be asked about a data set: nets of the ladder, baselines, questions, neighbours.

A net is a trunk (family, convolutions in each stage, filters) at an input size, with changes. All
of it is arithmetic on names and numbers: nothing is built here.
"""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from selection.facts import Facts

_RATE, _DECAY = 'optimizer.learning_rate', 'optimizer.weight_decay'
_LEAST_MAP = 2  # Height and width of the last map of the longest plain net.
_MOST_STAGES = 6
_RESIDUAL_BLOCKS = (1, 2, 3, 5, 9)  # In each stage, behind the plain nets.
_RESIDUAL_STAGES = 3
_RESNET = (3, 3, 3)  # ResNet-20 of He et al. 2016, whose blocks are 18 convolutions.
_UNITS, _MOST_HIDDEN = 64, 5  # Of tables: units of each hidden layer, and how many layers.
_RECURRENT_UNITS, _MOST_RECURRENT = 32, 4  # Of series.
_LAYERS = {'images': 'convolution layer', 'rows': 'hidden layer', 'windows': 'recurrent layer'}


class Change(NamedTuple):
    """A change of a net; as the arguments of `Net.changed`."""

    name: str
    label: str
    fields: Mapping[str, Any]
    cost: float = 1.0


@dataclasses.dataclass(frozen=True)
class Net:
    """A net with its recipe: fields that differ from the base config.

    Attributes:
      name: unique; equal names mean equal fields.
      label: what it is, in words.
      depth: layers of the kind that the ladder adds.
      size: side of the images in pixels; None where inputs are no images.
      fields: by dotted name.
      cost: rough FLOPs of an example, to compare nets that were not trained yet.
      rung: place on the ladder of its size; None where it is none.
      changes: of the net of that rung, one after the other.
    """

    name: str
    label: str
    depth: int
    size: int | None
    fields: Mapping[str, Any]
    cost: float
    rung: int | None = None
    changes: tuple['Change', ...] = ()

    def changed(
        self, name: str, label: str, changes: Mapping[str, Any], cost: float = 1.0
    ) -> 'Net':
        """Returns this net with a change.

        Args:
          name: of the change, such as `gelu`.
          label: of the change, in words.
          changes: of fields.
          cost: by what the FLOPs are multiplied.
        """
        return dataclasses.replace(
            self, name=f'{self.name}+{name}', label=f'{self.label}, {label}',
            fields={**self.fields, **changes}, cost=self.cost * cost,
            changes=(*self.changes, Change(name, label, changes, cost)),
        )  # fmt: skip

    @property
    def on_ladder(self) -> bool:
        """Whether it is a rung as it is, without changes."""
        return self.rung is not None and not self.changes

    def like(self, other: 'Net') -> 'Net':
        """Returns this rung with the changes of another net, its learning rate and weight decay."""
        rate, decay = (other.fields.get(name) for name in (_RATE, _DECAY))
        net = self if rate is None else self.at_rate(rate, decay)
        for change in other.changes:
            net = net.changed(*change)
        return net

    def with_rate(self, rate: float) -> 'Net':
        """Returns this net with another learning rate as its last change."""
        net, last = self, self.changes[-1] if self.changes else None
        if last and set(last.fields) == {_RATE}:
            net = dataclasses.replace(
                self, name=self.name.removesuffix(f'+{last.name}'),
                label=self.label.removesuffix(f', {last.label}'), changes=self.changes[:-1],
            )  # fmt: skip
        return net.changed(f'rate{rate:.3g}', f'learning rate {rate:.3g}', {_RATE: rate})

    def equals(self, other: 'Net') -> bool:
        """Tells whether another net is the same, whatever its name: rates but for rounding."""
        mine, its = dict(self.fields), dict(other.fields)
        rates = (mine.pop(_RATE, math.nan), its.pop(_RATE, math.nan))
        return mine == its and math.isclose(*rates)

    def same_program(self, other: 'Net') -> bool:
        """Tells whether what is compiled for another net serves this one: all but the optimizer."""
        mine, its = (
            {name: value for name, value in net.fields.items() if not name.startswith('optimizer.')}
            for net in (self, other)
        )
        return mine == its

    def at_rate(self, rate: float, decay: float | None = None) -> 'Net':
        """Returns this net with another learning rate (and weight decay), under the same name."""
        fields = {**self.fields, _RATE: rate}
        if decay is not None:
            fields[_DECAY] = decay
        return dataclasses.replace(self, fields=fields)


@dataclasses.dataclass(frozen=True)
class Question:
    """One thing that may be changed in a net.

    Attributes:
      key: of the answers' table of ideas.
      text: the question in words.
      net: with the change.
      reference: the net without.
    """

    key: str
    text: str
    net: Net
    reference: Net


def _sizes(facts: Facts) -> tuple[int | None, ...]:
    if facts.holds != 'images':
        return (None,)
    side = min(facts.shape[:2])
    if not facts.resizable or side < 48:
        return (side,)
    return (32, 64) if side < 112 else (32, 64, 96)


class Space:
    """The nets for a data set.

    Args:
      facts: of the data set.
      width: filters of the first stage of the ladder's nets.
      sizes: of the inputs, smallest first; None chooses them by the facts.

    Attributes:
      layer: what the ladder adds.
      in_time: whether the examples are windows of a series.
      sizes: input sizes, smallest first; (None,) where inputs are no images.
    """

    def __init__(self, facts: Facts, width: int = 16, sizes: Sequence[int] | None = None):
        self._facts, self._width = facts, width
        self.layer = _LAYERS[facts.holds]
        self.in_time = facts.holds == 'windows'
        self.sizes: tuple[int | None, ...] = tuple(sizes) if sizes else _sizes(facts)

    def linear(self) -> Net:
        """Returns the linear classifier, on the smallest images."""
        size, inputs = self.sizes[0], self._inputs(self.sizes[0])
        fields = {'model.family': 'dense', 'model.hidden_units': (), **self._at(size)}
        return Net(
            f'linear{self._where(size)}', 'linear classifier', 0, size, fields,
            2.0 * inputs * self._facts.outputs,
        )  # fmt: skip

    def ladder(self, size: int | None) -> list[Net]:
        """Returns the rungs at an input size, smallest first."""
        if self._facts.holds == 'rows':
            rungs = [self._dense(layers) for layers in range(1, _MOST_HIDDEN + 1)]
        elif size is None:
            rungs = [self._recurrent((_RECURRENT_UNITS,) * layers)
                     for layers in range(1, _MOST_RECURRENT + 1)]  # fmt: skip
        else:
            rungs = [self.plain((1,) * stages, size) for stages in range(1, self._stages(size) + 1)]
            stages = min(_RESIDUAL_STAGES, self._stages(size))
            rungs += [self.residual((blocks,) * stages, size) for blocks in _RESIDUAL_BLOCKS]
            rungs.sort(key=lambda net: net.depth)
        return [dataclasses.replace(net, rung=i) for i, net in enumerate(rungs)]

    def baselines(self, size: int | None) -> list[Net]:
        """Returns nets that many people would take without asking, the cheapest first."""
        if self.in_time:
            stacked = self._recurrent((64, 32))
            return [
                dataclasses.replace(
                    stacked, name='stacked-lstm', label="LSTM of 64 and 32 units (Keras' examples)"
                )
            ]
        if size is None:
            return []
        wide = self.plain((1,) * min(2, self._stages(size)), size, width=8 * self._width)
        label = f'{wide.depth} convolutions of {8 * self._width} filters and more'
        wide = dataclasses.replace(
            wide, name=f'wide-shallow{self._where(size)}', label=self._labelled(label, size)
        )
        resnet = self.residual(_RESNET, size)
        rungs = {rung.name: rung for rung in self.ladder(size)}
        return [self._two_blocks(size), rungs.get(resnet.name, resnet), wide]

    def _two_blocks(self, size: int) -> Net:
        """Returns the net of Keras' beginner examples: two blocks, flatten, dense, Adam."""
        net = self.plain((1, 1), size, width=32)
        fields = {
            **net.fields, 'model.norm': 'none', 'model.head.pooling': 'flatten',
            'model.head.dense_units': (128,), 'model.head.dropout': 0.5,
            'optimizer.name': 'adamw', _RATE: 0.001, _DECAY: 0.0, 'augment': 'none',
        }  # fmt: skip
        dense = 2.0 * (size // 4) ** 2 * 64 * 128
        label = self._labelled("two convolutions and a dense layer (Keras' examples)", size)
        return Net(
            f'two-block{self._where(size)}', label, 2, size, fields, net.cost + dense
        )  # fmt: skip

    def questions(self, net: Net) -> list[Question]:
        """Returns what may be asked at a net, the most promising first."""
        if self._facts.holds != 'images':
            return self._questions_of_units(net)
        family = net.fields['model.family']
        if family == 'dense':
            return []  # The linear classifier has nothing that could be changed so.
        width = net.fields['model.width']
        changes: list[tuple[str, str, str, str, dict[str, Any], float]] = [
            ('width', 'wide', 'with twice as many filters', 'Do twice the filters help?',
             {'model.width': 2 * width}, 4.0),
            ('head', 'flatten', 'with flatten and a dense layer of 128 units',
             'Is flatten with a dense layer better than global average pooling?',
             {'model.head.pooling': 'flatten', 'model.head.dense_units': (128,)}, 1.1),
            ('augment', *self._augmentation(), 1.0),
            ('skip', 'no-skip', 'without skip connections', 'Does it do without skip connections?',
             {'model.skip': False}, 1.0),
            ('kernel', '5x5', 'with 5x5 kernels', 'Do 5x5 kernels help?',
             {'model.kernel_size': 5}, 25 / 9),
            ('activation', 'gelu', 'with GELU', 'Is GELU better than ReLU?',
             {'model.activation': 'gelu'}, 1.0),
            ('pooling', 'average', 'with average pooling', 'Is average pooling better?',
             {'model.pooling': 'average'}, 1.0),
            ('norm', 'no-norm', 'without batch norm', 'Does it do without batch norm?',
             {'model.norm': 'none', _RATE: net.fields.get(_RATE, 0.1) / 3}, 1.0),
            ('normalization', 'min-max', 'with inputs from 0 to 1',
             'Is min-max normalisation of the inputs as good?',
             {'dataset.normalization': 'min_max'}, 1.0),
            ('narrow', 'narrow', 'with half as many filters', 'Do half the filters suffice?',
             {'model.width': max(1, width // 2)}, 0.25),
        ]  # fmt: skip
        return [
            Question(key, text, net.changed(name, label, fields, cost), net)
            for key, name, label, text, fields, cost in changes
            if not (key == 'skip' and family != 'residual')
            and any(net.fields.get(n) != value for n, value in fields.items() if n != _RATE)
        ]

    def _augmentation(self) -> tuple[str, str, str, dict[str, Any]]:
        if self._facts.augment != 'none':
            return ('no-augment', 'without augmentation', 'Does augmentation help?',
                    {'augment': 'none'})  # fmt: skip
        return ('crop', 'with random crops', 'Does augmentation help?',
                {'augment': 'padded_crop=2'})  # fmt: skip

    def _questions_of_units(self, net: Net) -> list[Question]:
        recurrent = net.fields['model.family'] == 'recurrent'
        field = 'model.units' if recurrent else 'model.hidden_units'
        if not net.fields[field]:
            return []  # The linear one has nothing that could be changed so.
        wide = net.changed(
            'wide',
            'with twice as many units',
            {field: tuple(2 * units for units in net.fields[field])},
            4.0,
        )
        other = ('gru', 'of GRU', 'Is GRU better than LSTM?', {'model.cell': 'gru'}, 0.75)
        if not recurrent:
            other = (
                'gelu',
                'with GELU',
                'Is GELU better than ReLU?',
                {'model.activation': 'gelu'},
                1.0,
            )
        name, label, text, fields, cost = other
        return [
            Question('width', 'Do twice the units help?', wide, net),
            Question('cell' if recurrent else 'activation', text,
                     net.changed(name, label, fields, cost), net),
        ]  # fmt: skip

    def around(self, net: Net) -> list[Net]:
        """Returns the neighbours of a net: depth ± 1, width, input size, and two at once."""
        if self._facts.holds != 'images' or net.rung is None or net.size is None:
            return []
        found = []
        ladder = self.ladder(net.size)
        up = ladder[net.rung + 1 : net.rung + 2]
        down = ladder[max(0, net.rung - 1) : net.rung]
        for rung in (*up, *down):
            if 'model.skip' in net.fields and rung.fields['model.family'] != 'residual':
                continue
            near = rung.like(net)
            found.append(near)
            found.append(self._scaled(near, 2.0 if rung in down else 0.5))
        others = [size for size in self.sizes if size != net.size and size is not None]
        for size in others:
            found += [other.like(net) for other in self.ladder(size) if other.depth == net.depth]
        return found[:6]

    def _scaled(self, net: Net, factor: float) -> Net:
        width = max(1, round(net.fields['model.width'] * factor))
        return net.changed(f'w{width}', f'{width} filters at first', {'model.width': width},
                           factor**2)  # fmt: skip

    def plain(self, stages: tuple[int, ...], size: int, width: int = 0) -> Net:
        """Returns a plain net with so many convolutions in each stage."""
        width = width or self._width
        fields = {'model.family': 'plain', 'model.stage_sizes': stages, 'model.width': width}
        depth = sum(stages)
        label = f'{depth} convolution{"" if depth == 1 else "s"}, {width} filters at first'
        return Net(
            f'plain-{depth}{self._where(size)}', self._labelled(label, size), depth, size,
            fields | self._at(size), self._flops(stages, size, width),
        )  # fmt: skip

    def residual(self, blocks: tuple[int, ...], size: int, width: int = 0) -> Net:
        """Returns a residual net with so many blocks of two convolutions in each stage."""
        width = width or self._width
        fields = {'model.family': 'residual', 'model.stage_sizes': blocks, 'model.width': width}
        depth = 1 + 2 * sum(blocks)
        resnet = ' (ResNet-20)' if blocks == _RESNET and width == 16 else ''
        label = f'{depth} convolutions with skip connections{resnet}, {width} filters at first'
        return Net(
            f'residual-{depth}{self._where(size)}', self._labelled(label, size), depth, size,
            fields | self._at(size),
            self._flops(tuple(2 * count for count in blocks), size, width),
        )  # fmt: skip

    def _dense(self, layers: int) -> Net:
        hidden = (_UNITS,) * layers
        units = (self._inputs(None), *hidden, self._facts.outputs)
        cost = sum(2.0 * a * b for a, b in itertools.pairwise(units))
        label = f'{layers} hidden layer{"" if layers == 1 else "s"} of {_UNITS} units'
        fields = {'model.family': 'dense', 'model.hidden_units': hidden}
        return Net(f'dense-{layers}', label, layers, None, fields, cost)

    def _recurrent(self, units: tuple[int, ...]) -> Net:
        steps, inputs = self._facts.shape
        cost = 0.0
        for own in units:
            cost += steps * 8.0 * own * (inputs + own)
            inputs = own
        layers = len(units)
        label = f'{layers} LSTM layer{"" if layers == 1 else "s"} of {units[0]} units'
        fields = {'model.family': 'recurrent', 'model.units': units}
        return Net(f'lstm-{layers}', label, layers, None, fields, cost)

    def _labelled(self, label: str, size: int) -> str:
        return f'{label}, {size} pixels' if len(self.sizes) > 1 else label

    def _where(self, size: int | None) -> str:
        return f'@{size}' if len(self.sizes) > 1 else ''

    def _at(self, size: int | None) -> dict[str, Any]:
        return {'dataset.image_size': size} if size and self._facts.resizable else {}

    def _stages(self, size: int) -> int:
        return max(1, min(_MOST_STAGES, math.ceil(math.log2(size / _LEAST_MAP)) + 1))

    def _inputs(self, size: int | None) -> int:
        if size is None:
            return math.prod(self._facts.shape)
        return size * size * self._facts.shape[-1]

    def _flops(self, stages: tuple[int, ...], size: int, width: int) -> float:
        flops, channels = 0.0, self._facts.shape[-1]
        for i, count in enumerate(stages):
            side = math.ceil(size / 2**i)
            for _ in range(count):
                flops += 2.0 * 9 * channels * width * 2**i * side**2
                channels = width * 2**i
        return flops
