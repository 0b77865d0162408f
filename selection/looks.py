"""When a comparison is looked at several times: how sure each look must be."""

import functools
import math

import numpy as np
from scipy.integrate import simpson
from scipy.optimize import brentq
from scipy.stats import norm

LOOKS = 3  # Where nothing else is planned: after one, two and three repeats.
_SHAPE = 0.25  # Wang and Tsiatis's Delta: 0.5 is Pocock's boundary, 0 that of O'Brien and Fleming.
_POINTS = 201
_FAR = 9.0  # Standard deviations beyond which there is nothing.


@functools.lru_cache(maxsize=256)
def critical(look: int, level: float, looks: int = LOOKS) -> float:
    """Returns how many standard errors a difference must be from a bound, one-sided.

    Wang and Tsiatis 1987, "Approximately optimal one-parameter boundaries for group sequential
    trials", equation 2.3: C * (look / looks)**(Delta - 1/2), where C is such that all looks
    together are wrong with probability `level`. Evidence is taken to grow with the number of
    repeats. It grows more slowly, for the images stay the same, and so looks are more alike than
    assumed and together less often wrong (Slepian 1962).

    The number of looks must be planned: who goes on past three with the boundary of a longer plan
    is wrong in 8 % of cases by the tenth look, not 5 (1,400 pairs, as in benchmarks/verdict.py).

    Args:
      look: 1 for the first repeat.
      level: of all looks together, between 0 and 1/2.
      looks: how many are planned.
    """
    shape_L = (np.arange(1, looks + 1) / looks) ** (_SHAPE - 0.5)
    constant = brentq(lambda c: _crossing(c * shape_L) - level, 0.0, _FAR, xtol=1e-6)
    return float(constant * shape_L[look - 1])


def _crossing(bounds_L: np.ndarray) -> float:
    """Returns the probability that some look finds more than its bound where there is nothing.

    Armitage, McPherson and Rowe 1969, "Repeated significance tests on accumulating data": the
    density of the sum of increments that has crossed no bound yet, carried on look by look.
    """
    inside = float(norm.cdf(bounds_L[0]))
    sums = np.linspace(-_FAR, bounds_L[0], _POINTS)
    density = _normal(sums)
    for look, bound in enumerate(bounds_L[1:], 2):
        following = np.linspace(-_FAR * look**0.5, bound * look**0.5, _POINTS)
        steps = _normal(following[:, None] - sums)
        density, sums = simpson(steps * density, x=sums, axis=1), following
        inside = float(simpson(density, x=sums))
    return 1 - inside


def _normal(x: np.ndarray) -> np.ndarray:
    """Returns the standard normal density; SciPy's checks take three times as long."""
    return np.exp(-0.5 * x**2) / math.sqrt(2 * math.pi)
