"""Learning rates: three at the smallest and at a middle rung, on a repeat of its own.

No verdict reads these runs: a rate that was chosen on the images that judge would flatter its net.
"""

import math

from selection.candidates import Net
from selection.search import Search, Stage

SHARE = 0.15  # Of the budget.
_STEP = math.sqrt(10)
_MOST_BEYOND = 2  # Rates tried beyond an edge.


def stage(search: Search) -> Stage:
    """Finds `search.rates`: that of the smallest rung, and that of all others."""
    ladder = search.space.ladder(search.space.sizes[0])
    yield from tune(search, ladder[0], ladder[0].name)
    if len(ladder) > 1:
        yield from tune(search, ladder[len(ladder) // 2 - (len(ladder) > 4)], '')


def tune(search: Search, net: Net, key: str) -> Stage:
    """Finds the best learning rate of a net, and keeps it for `key`."""
    base = search.settings.rate
    rates = [base / _STEP, base, base * _STEP]
    yield from search.train([run for rate in rates for run in _runs(search, net, rate)])
    for _ in range(_MOST_BEYOND):
        best = _best(search, net, rates)
        if best not in (min(rates), max(rates)):
            break
        rates.append(best * _STEP if best == max(rates) else best / _STEP)
        beyond = _runs(search, net, rates[-1])
        if not search.fits(beyond, SHARE):
            rates.pop()
            break
        yield from search.train(beyond)
    search.rates[key] = _best(search, net, rates)


def _at(net: Net, rate: float) -> Net:
    return net.changed(f'rate{rate:.3g}', f'learning rate {rate:.3g}',
                       {'optimizer.learning_rate': rate})  # fmt: skip


def _runs(search: Search, net: Net, rate: float) -> list:
    return search.tuning_runs(_at(net, rate))


def _best(search: Search, net: Net, rates: list[float]) -> float:
    """Returns the rate of the highest score; of equal ones that nearest to the base's."""

    def merit(rate: float) -> tuple[float, float]:
        name = _at(net, rate).name
        score = search.record.score(name, search.record.numbers(name))
        distance = abs(math.log(rate / search.settings.rate))
        return (-math.inf if math.isnan(score) else score, -distance)

    return max(rates, key=merit)
