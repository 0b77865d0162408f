"""Where the values of a factor stand on an axis: numbers as such, all else side by side."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from sweeping.reading.words import label

_WIDE = 8  # From this ratio of the greatest to the least value on, an axis is logarithmic.
_NARROW = 100  # Below this ratio, a logarithmic axis has ticks between the powers of ten.
_SHORT = 5  # Up to this ratio, its ticks are those of any axis.
_MOST_TICKS = 8
_MOST_LETTERS = 30  # Of all labels together, beside each other.
_APART = 0.07  # Of the axis: ticks that are nearer than this would overlap.


class Scale:
    """The axis of a factor.

    Args:
      values: all that it shows. Numbers keep their distances, by ratio where they are positive and
        span a wide range; anything else, such as tuples, words and truth values, gets a place for
        each value.

    Attributes:
      numbers: whether the values are numbers.
      log: whether distances are ratios.
      values: each value once, in order.
    """

    def __init__(self, values: Sequence[Any]):
        once = list({label_key(value): value for value in values}.values())
        self.numbers = all(_is_number(value) for value in once)
        self.values = sorted(once) if self.numbers else _in_order(once)
        self._places = {label_key(value): i for i, value in enumerate(self.values)}
        low, high = (self.values[0], self.values[-1]) if self.numbers and once else (0, 0)
        self.log = low > 0 and high > _WIDE * low

    def place(self, value: Any) -> float:
        """Returns where a value stands, in the units of the axis."""
        return float(value) if self.numbers else float(self._places[label_key(value)])

    def share(self, value: Any) -> float:
        """Returns where a value stands between the ends of the axis, 0 to 1."""
        low, high, at = (self.place(v) for v in (self.values[0], self.values[-1], value))
        if low == high:
            return 0.5
        if self.log:
            low, high, at = math.log(low), math.log(high), math.log(at)
        return (at - low) / (high - low)

    def moved(self, place: float, by: float) -> float:
        """Returns a place moved by so many hundredths of the distance between neighbours."""
        if not self.numbers:
            return place + by / 100
        if len(self.values) < 2:
            return place
        places = np.asarray(self.values, float)
        if self.log:
            return place * math.exp(by / 100 * float(np.diff(np.log(places)).min()))
        return place + by / 100 * float(np.diff(places).min())

    def ticks(self) -> list[Any]:
        """Returns the values that are written at the axis; empty where they would overlap."""
        shares = [self.share(value) for value in self.values]
        if self.numbers and (len(shares) > _MOST_TICKS or any(np.diff(shares) < _APART)):
            return []
        return self.values

    def dress(self, axes: Axes) -> None:
        """Sets scale, ticks and their labels of the x axis."""
        if self.log:
            logarithmic(axes, self.values[0], self.values[-1])
        if ticks := self.ticks():
            names = [label(value) for value in ticks]
            turned = sum(map(len, names)) > _MOST_LETTERS
            axes.set_xticks([self.place(v) for v in ticks], names, parse_math=False,
                            rotation=30 if turned else 0,
                            ha='right' if turned else 'center')  # fmt: skip
            axes.xaxis.set_minor_locator(NullLocator())


def logarithmic(axes: Axes, low: float, high: float) -> None:
    """Makes the x axis logarithmic: ticks at 1, 10 or 1, 2, 5, 10, or evenly if it is short."""
    axes.set_xscale('log')
    powers = LogLocator(subs=(1, 2, 5) if high < _NARROW * low else (1,))
    axes.xaxis.set_major_locator(powers if high > _SHORT * low else MaxNLocator(4))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _short(value: float) -> str:
    """Returns a number with few letters, such as '20k' or '0.001'."""
    for unit, size in (('G', 1e9), ('M', 1e6), ('k', 1e3)):
        if value >= 0.999 * size:
            return f'{value / size:.4g}{unit}'
    return f'{value:.4g}'


def label_key(value: Any) -> str:
    """Returns what equal values have in common, lists and tuples alike."""
    if isinstance(value, list | tuple):
        return str(list(value))
    return repr(float(value)) if _is_number(value) else repr(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _in_order(values: Sequence[Any]) -> list[Any]:
    """Returns tuples of numbers, such as the blocks of stages, by their sum; others as they are."""
    if all(isinstance(v, list | tuple) and all(map(_is_number, v)) for v in values):
        return sorted(values, key=lambda value: (sum(value), len(value), list(value)))
    return sorted(values) if all(isinstance(v, bool) for v in values) else list(values)
