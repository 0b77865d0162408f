"""Changes: what may be asked at a net, one run each at the best rung, going on from what is better.

A single run shows the large effects and no small ones; what comes near the best is repeated in the
next stages, and verdicts are given there. A change may need another learning rate, and its program
is compiled: rates are tried around each net that is better, and a third of it where a change seems
to do harm.
"""

import math
from collections.abc import Iterator

from selection.candidates import Net
from selection.record import Run
from selection.search import Search, Stage

SHARE = 0.7  # Of the budget, with the stages before.
_STARTS = 2
_RATE = 'optimizer.learning_rate'
_STEP = math.sqrt(10)
_HARM_POINTS = 3.0


def stage(search: Search) -> Stage:
    """Trains changed nets, from the best rung on, then from the next best."""
    rungs = [net for net in search.alive() if net.on_ladder and _score(search, net) > -math.inf]
    rungs.sort(key=lambda net: _score(search, net), reverse=True)
    for rung in rungs[:_STARTS]:
        yield from _climb(search, search.tuned(rung))


def _climb(search: Search, best: Net) -> Stage:
    asked: set[str] = set()
    while found := next(_options(search, best, asked), None):
        key, net = found
        asked.add(key)
        yield from _try(search, net)
        harm = _score(search, best) - _score(search, net) > _HARM_POINTS * search.settings.points
        if net.name in search.nets and harm and key != net.name:
            lower = net.with_rate(net.fields[_RATE] / _STEP)
            yield from _try(search, lower)
            net = max(net, lower, key=lambda net: _score(search, net))
        if _score(search, net) >= _score(search, best) + search.settings.delta / 2:
            best = net


def _options(search: Search, net: Net, asked: set[str]) -> Iterator[tuple[str, Net]]:
    """Yields what was not tried yet at a net, the most promising first, each with a key."""
    rate = net.fields[_RATE]
    rates = [net.with_rate(rate / _STEP), net.with_rate(rate * _STEP)]
    options = [(near.name, near) for near in rates]
    options += [(question.key, question.net) for question in search.space.questions(net)]
    for key, option in options:
        if key not in asked and not any(map(option.equals, search.nets.values())):
            yield key, option


def _try(search: Search, net: Net) -> Stage:
    if search.fits([Run(net, 0)], SHARE):
        search.propose([net], 'question')
        yield from search.train([Run(net, 0)])


def _score(search: Search, net: Net) -> float:
    score = search.first(net)
    return -math.inf if math.isnan(score) else score
