"""The axis of an objective: where figures are far apart it shows their ratios, so that all show."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import FuncNorm, LogNorm, Normalize
from matplotlib.ticker import NullLocator, PercentFormatter

from sweeping.reading import words
from sweeping.reading.summary import Estimate, is_share

_WIDE = 5  # From this ratio of the greatest to the least error on.
_APART = 0.09  # Of the axis: ticks that are nearer than this would overlap.
_BEYOND = 0.15  # Of what the figures span: how far intervals may reach out of it.
_MARGIN = 0.08
# Errors at ticks, those that are wanted most first: 90, 99, 99.9 %, then 50, 95, 99.5 % and so on.
_ERRORS = [digit * 10.0**-k for digit in (1, 5, 2, 3) for k in range(6)]


class Heights:
    """The y axis of an objective.

    Shares, such as accuracies, whose errors (1 - value) differ more than fivefold stand by the
    inverse hyperbolic sine of the error, which is its logarithm but for errors near 0, which it
    can show too. Other figures that are positive and differ as much stand by their logarithm.

    Args:
      objective: its name.
      values: figures that must be seen.
      ends: those that may be cut off, such as the ends of intervals.

    Attributes:
      by_ratio: whether it shows ratios.
      low, high: its ends.
    """

    def __init__(self, objective: str, values: Sequence[float], ends: Sequence[float] = ()):
        self.objective, self._share = objective, is_share(objective)
        sizes = [1 - x for x in values] if self._share else list(values)
        above = [size for size in sizes if size > 1e-9]
        positive = bool(above) and (self._share or len(above) == len(sizes))
        self.by_ratio = positive and max(above) > _WIDE * min(above)
        self._unit = min(above, default=1.0) / 2  # Below this, errors stand as they are.
        at = self.place(np.asarray([min(values), max(values)]))
        span = float(at[1] - at[0]) or abs(float(at[0])) / 50 or 1.0
        reach = self.place(np.asarray([x for x in ends if self._can_stand(x)] or values))
        low = min(at[0] - _MARGIN * span, max(at[0] - _BEYOND * span, reach.min()))
        high = max(at[1] + _MARGIN * span, min(at[1] + _BEYOND * span, reach.max()))
        if self._share:  # An interval may pass 100 %, but no figure does.
            high = min(high, max(float(self.place(1.0)), at[1]) + _MARGIN / 2 * span)
        self.low, self.high = (float(x) for x in self.value(np.asarray([low, high])))

    def _can_stand(self, value: float) -> bool:
        return self._share or not self.by_ratio or value > 0

    def place(self, value: np.ndarray | float) -> np.ndarray:
        """Returns where figures stand, in lengths along the axis."""
        if not self.by_ratio:
            return np.asarray(value, float)
        return -np.arcsinh((1 - np.asarray(value)) / self._unit) if self._share else np.log(value)

    def value(self, place: np.ndarray | float) -> np.ndarray:
        """Returns the figures that stand at places, the inverse of `place`."""
        if not self.by_ratio:
            return np.asarray(place, float)
        return 1 - self._unit * np.sinh(-np.asarray(place)) if self._share else np.exp(place)

    def ticks(self) -> list[float]:
        """Returns the accuracies that are written at an axis of ratios."""
        low, high = self.place(self.low), self.place(self.high)
        chosen: list[float] = []
        for value in (1 - error for error in _ERRORS):
            apart = [abs(self.place(value) - self.place(other)) for other in chosen]
            if self.low <= value <= self.high and min(apart, default=1e9) > _APART * (high - low):
                chosen.append(value)
        if self.high >= 1 and min(1 - x for x in chosen) > 1e-9:
            near = [x for x in chosen if self.place(1.0) - self.place(x) < _APART * (high - low)]
            chosen = [1.0, *(x for x in chosen if x not in near)]
        return sorted(chosen)

    def dress(self, axes: Axes) -> None:
        """Names the y axis, and sets its scale, its ticks in their unit, and its ends."""
        axes.set_ylabel(words.heading(self.objective), parse_math=False)
        axes.grid(alpha=0.25)
        if self.by_ratio and self._share:
            axes.set_yscale('function', functions=(self.place, self.value))
            axes.set_yticks(ticks := self.ticks(), [f'{100 * tick:g} %' for tick in ticks])
            axes.yaxis.set_minor_locator(NullLocator())
        elif self.by_ratio:
            axes.set_yscale('log')
        elif self._share:
            axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=' %'))
        axes.set_ylim(self.low, self.high)

    def norm(self, low: float, high: float) -> Normalize:
        """Returns what maps figures to colours by their place on this axis."""
        if self.by_ratio and self._share:
            return FuncNorm((self.place, self.value), low, high)
        return LogNorm(low, high) if self.by_ratio else Normalize(low, high)

    def estimates(
        self,
        axes: Axes,
        places: Sequence[float],
        found: Sequence[Estimate],
        colour: Any,
        label: str,
        joined: bool = False,
    ) -> None:
        """Draws means with their intervals; a triangle marks one that goes on beyond the axis.

        Args:
          axes: dressed.
          places: on the x axis.
          found: with means.
          colour: of all.
          label: in the legend.
          joined: whether a line goes through them.
        """
        means = [math.nan if each.mean is None else each.mean for each in found]
        widths = [math.nan if each.half_width is None else each.half_width for each in found]
        axes.errorbar(places, means, widths, fmt='o-' if joined else 'o', color=colour,
                      label=label, markersize=4, capsize=2.5, linewidth=1.2,
                      elinewidth=1)  # fmt: skip
        for place, mean, width in zip(places, means, widths, strict=True):
            for leaves, end, marker in (
                (mean - width < self.low, self.low, 'v'),
                (mean + width > self.high, self.high, '^'),
            ):
                if leaves:
                    axes.plot(place, end, marker, color=colour, markersize=4, clip_on=False,
                              zorder=3)  # fmt: skip
