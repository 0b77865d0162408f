"""What a sweep varies: each factor is a config field and the values it may take."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class Factor:
    """A config field and the values it may take; made by the functions below.

    Attributes:
      name: dotted name of the field in `base`.
      choices: the values, in order; empty for a range.
      low: least value of a range; its type is that of the values.
      high: greatest value of a range, included.
      log: whether equal ratios, rather than equal steps, are equally likely.
      when: the factor is varied only where other factors have one of these values; elsewhere the
        field keeps the value of `base`.
    """

    name: str
    choices: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    when: tuple[tuple[str, tuple[Any, ...]], ...] = ()

    def applies(self, chosen: Mapping[str, Any]) -> bool:
        """Tells whether it is varied where the factors before it have these values."""
        return all(name in chosen and chosen[name] in values for name, values in self.when)


_When = Mapping[str, Any]


def choice(name: str, *values: Any, when: _When | None = None) -> Factor:
    """Returns a factor that takes each of these values."""
    return Factor(name, choices=values, when=_conditions(when))


def uniform(name: str, low: float, high: float, when: _When | None = None) -> Factor:
    """Returns a factor that takes any real number of a range."""
    return Factor(name, low=float(low), high=float(high), when=_conditions(when))


def log_uniform(name: str, low: float, high: float, when: _When | None = None) -> Factor:
    """Returns a factor that takes any real number of a range, all ratios alike."""
    return Factor(name, low=float(low), high=float(high), log=True, when=_conditions(when))


def integer(name: str, low: int, high: int, log: bool = False, when: _When | None = None) -> Factor:
    """Returns a factor that takes any whole number of a range."""
    return Factor(name, low=int(low), high=int(high), log=log, when=_conditions(when))


def _conditions(when: _When | None) -> tuple[tuple[str, tuple[Any, ...]], ...]:
    """Returns the conditions as pairs; a value that is no list stands for itself alone."""
    return tuple(
        (name, tuple(values) if isinstance(values, list | set) else (values,))
        for name, values in (when or {}).items()
    )


def grid_size(factors: Sequence[Factor]) -> int | None:
    """Returns the number of points of the grid, conditions not counted; None with a range."""
    size = 1
    for factor in factors:
        if not factor.choices:
            return None
        size *= len(factor.choices)
    return size
