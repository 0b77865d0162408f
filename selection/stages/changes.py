"""Changes: what may be asked at a net, one run each at the best one, going on from what is better.

A single run shows the large effects and no small ones; what comes near the best is repeated in the
next stages, and verdicts are given there. A change may need another learning rate, and its program
is compiled: rates are tried around each net that is better, and a third of it where a change does
harm.
"""

import math
from collections.abc import Iterator

from selection.candidates import Net
from selection.record import Run
from selection.search import Search, Stage
from selection.stages import repeats

SHARE = 0.66  # Of the budget, with the stages before.
_MOST_SHARE = 0.85  # Where what is left is too little for repeats.
_RATE = 'optimizer.learning_rate'
_STEP = math.sqrt(10)
_SURE = 1.64  # Standard errors of a difference on the images of one fold: 5 % of equal nets.
_HARM_POINTS = 3.0


def stage(search: Search) -> Stage:
    """Trains changed nets, from the best so far on; from the next where that is too dear."""
    nets = [net for net in search.judged() if net.name not in search.gone and net.depth]
    nets.sort(key=search.first, reverse=True)
    kept_back = repeats.level(search, nets[:2], 1)
    if not search.fits(kept_back, repeats.SHARE):
        kept_back = []
    for net in nets:
        before = len(search.nets)
        yield from _climb(search, search.tuned(net), kept_back)
        if len(search.nets) > before:
            return


def _climb(search: Search, best: Net, kept_back: list[Run]) -> Stage:
    asked: set[str] = set()
    while found := next(_options(search, best, asked), None):
        key, net = found
        asked.add(key)
        yield from _try(search, net, kept_back)
        harm = _HARM_POINTS * search.settings.points
        if net.name in search.nets and key != net.name and _better(search, best, net, harm):
            lower = net.with_rate(net.fields[_RATE] / _STEP)
            yield from _try(search, lower, kept_back)
            net = lower if _better(search, lower, net) else net
        if _better(search, net, best, search.settings.delta / 2):
            best = net


def _try(search: Search, net: Net, kept_back: list[Run]) -> Stage:
    """Trains a net once, where that leaves enough for a repeat of the best two."""
    run = Run(net, 0)
    enough = search.fits([run, *kept_back], repeats.SHARE) if kept_back else True
    if enough and search.fits([run], SHARE if kept_back else _MOST_SHARE):
        search.propose([net], 'question')
        yield from search.train([run])


def _options(search: Search, net: Net, asked: set[str]) -> Iterator[tuple[str, Net]]:
    """Yields what was not tried yet at a net, the most promising first, each with a key."""
    rate = net.fields[_RATE]
    rates = [net.with_rate(rate / _STEP), net.with_rate(rate * _STEP)]
    options = [(near.name, near) for near in rates]
    options += [(question.key, question.net) for question in search.space.questions(net)]
    for key, option in options:
        if key not in asked and search.known(option) is option:
            yield key, option


def _better(search: Search, net: Net, than: Net, least: float = 0.0) -> bool:
    """Tells whether the first run of a net is better than another's by more than luck."""
    there, other = search.first(net), search.first(than)
    if math.isnan(there) or math.isnan(other):
        return not math.isnan(there) and than.name in search.nets  # Which has failed.
    differences = search.record.outcomes[net.name, 0].scores
    differences = differences - search.record.outcomes[than.name, 0].scores
    error = differences.std() / math.sqrt(len(differences))
    return there - other >= max(least, _SURE * error)
