"""Learning rates and weight decay: at the smallest and at a middle rung, on a repeat of its own.

No verdict reads these runs: a rate that was chosen on the images that judge would flatter its net.
"""

import math

from selection.candidates import Net
from selection.search import Search, Stage

SHARE = 0.15  # Of the budget.
_MOST_SHARE = 0.3  # Where that is too little for three rates of one net.
_STEP = math.sqrt(10)
_MOST_BEYOND = 2  # Rates tried beyond an edge.
_DECAYS = (0.2, 5.0)  # Times the base's weight decay.


def middle(search: Search) -> int:
    """Returns the place of the middle rung on the ladder of the smallest input size."""
    rungs = len(search.space.ladder(search.space.sizes[0]))
    return (rungs - 1) // 2


def stage(search: Search) -> Stage:
    """Finds `search.rates`, of the smallest rung and of all others, and `search.decay`."""
    ladder = search.space.ladder(search.space.sizes[0])
    of_most = ladder[middle(search)]
    nets = {ladder[0].name: ladder[0], '': of_most}
    # Nobody knows what a run takes before one is done; two workers do these two at once.
    yield from search.train(
        [run for net in _affordable(search, nets).values()
         for run in _runs(search, net, search.settings.rate)]
    )  # fmt: skip
    for key, net in _affordable(search, nets).items():
        yield from tune(search, net, key)
    yield from _tune_decay(search, of_most)


def _affordable(search: Search, nets: dict[str, Net]) -> dict[str, Net]:
    """Returns the nets for which there are three rates; the last one goes first."""
    if search.fits([run for net in nets.values() for run in _three(search, net)], SHARE):
        return nets
    key, net = [*nets.items()][-1]
    return {key: net} if search.fits(_three(search, net), _MOST_SHARE) else {}


def tune(search: Search, net: Net, key: str) -> Stage:
    """Finds the best learning rate of a net, and keeps it for `key`."""
    rates = _rates(search)
    yield from search.train(_three(search, net))
    for _ in range(_MOST_BEYOND):
        best = _best(search, net, rates)
        if best not in (min(rates), max(rates)):
            break
        rates.append(best * _STEP if best == max(rates) else best / _STEP)
        beyond = _runs(search, net, rates[-1])
        if not search.fits(beyond, _MOST_SHARE):
            rates.pop()
            break
        yield from search.train(beyond)
    search.rates[key] = _best(search, net, rates)


def _tune_decay(search: Search, net: Net) -> Stage:
    """Finds the weight decay: another than the base's where that is better by delta / 2 or more."""
    there = _at(net, search.rates[''])
    others = {
        factor * search.settings.decay: there.changed(
            f'decay{factor:g}', f'{factor:g} times the weight decay',
            {'optimizer.weight_decay': factor * search.settings.decay},
        )
        for factor in _DECAYS
        if search.settings.decay
    }  # fmt: skip
    runs = [run for other in others.values() for run in search.tuning_runs(other)]
    if not search.record.numbers(there.name) or not search.fits(runs, SHARE):
        return
    yield from search.train(runs)
    best = _score(search, there) + search.settings.delta / 2
    for decay, other in others.items():
        if _score(search, other) >= best:
            search.decay, best = decay, _score(search, other)


def _score(search: Search, net: Net) -> float:
    score = search.record.score(net.name, search.record.numbers(net.name))
    return -math.inf if math.isnan(score) else score


def _rates(search: Search) -> list[float]:
    base = search.settings.rate
    return [base / _STEP, base, base * _STEP]


def _three(search: Search, net: Net) -> list:
    return [run for rate in _rates(search) for run in _runs(search, net, rate)]


def _at(net: Net, rate: float) -> Net:
    return net.changed(f'rate{rate:.3g}', f'learning rate {rate:.3g}',
                       {'optimizer.learning_rate': rate})  # fmt: skip


def _runs(search: Search, net: Net, rate: float) -> list:
    return search.tuning_runs(_at(net, rate))


def _best(search: Search, net: Net, rates: list[float]) -> float:
    """Returns of the rates within delta / 2 of the highest score that nearest to the base's.

    One run each tells no more: where all are alike, the best of three is at an edge in two of
    three cases, and more would be tried beyond it.
    """
    scores = {rate: _score(search, _at(net, rate)) for rate in rates}
    enough = max(scores.values()) - search.settings.delta / 2
    good = [rate for rate, score in scores.items() if score >= enough]
    return min(good, key=lambda rate: abs(math.log(rate / search.settings.rate)))
