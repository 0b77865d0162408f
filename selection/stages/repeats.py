"""Repeats of the rungs near the best, equally many for all; clearly inferior nets leave."""

import itertools
import math

from selection.candidates import Net, Question
from selection.record import Run
from selection.search import Search, Stage
from selection.verdict import holm

SHARE = 0.8  # Of the budget, with the stages before.
LOOKS = 3
_MOST_CHANGED = 3  # Most changes do nothing: of those the best; the others are questions.
_NEAR_POINTS = 3.0  # From the best in the first run: who is nearer is trained again.


def stage(search: Search) -> Stage:
    """Trains the nets near the best up to three repeats; asks about each next rung."""
    contenders = near(search)
    changed = [net for net in contenders if net.changes]
    contenders = [net for net in contenders if net not in changed[_MOST_CHANGED:]]
    contenders += [net for net in _beside(search, contenders) if net not in contenders]
    if len(contenders) == 1:  # What is it better than?
        others = [net for net in search.alive() if net not in contenders]
        known = [net for net in others if not math.isnan(search.first(net))]
        contenders += sorted(known, key=search.first)[-1:]
    while len(contenders) > 2 and not search.fits(level(search, contenders, 1), SHARE):
        contenders.remove(_least_promising(search, contenders))
    for look in range(1, LOOKS + 1):
        runs = level(search, contenders, look)
        if not search.fits(runs, SHARE):
            break
        yield from search.train(runs)
        contenders = [net for net in contenders if search.record.repeats(net.name) >= look]
        compare(search, contenders)
        contenders = [net for net in contenders if net.name not in search.gone]
        if len(contenders) < 2:
            break


def near(search: Search) -> list[Net]:
    """Returns the nets within 3 points of the best in the first run, best first."""
    known = [net for net in search.alive() if search.first(net) == search.first(net)]
    known.sort(key=search.first, reverse=True)
    reach = _NEAR_POINTS * search.settings.points
    best = search.first(known[0]) if known else 0.0
    return [net for net in known if search.first(net) >= best - reach]


def _least_promising(search: Search, contenders: list[Net]) -> Net:
    """Returns the costliest net that a cheaper one was as good as; else the one that did worst.

    Never the best one, nor the rung below it while there are others and that is near: how deep is
    asked first.
    """
    price, enough = search.record.price, search.settings.delta / 2
    best = max(contenders, key=search.first)
    below = [net for net in near(search) if net.on_ladder and _above(net, best) == -1]
    others = [net for net in contenders if net is not best and net not in below]
    others = others or [net for net in contenders if net is not best]
    dominated = [
        net for net in others
        if any(price(o) < price(net) and search.first(o) >= search.first(net) - enough
               for o in contenders)
    ]  # fmt: skip
    return max(dominated, key=price) if dominated else min(others, key=search.first)


def _above(net: Net, to: Net) -> int | None:
    """Returns by how many rungs a net is above another of its input size."""
    if net.rung is None or to.rung is None or net.size != to.size:
        return None
    return net.rung - to.rung


def _beside(search: Search, contenders: list[Net]) -> list[Net]:
    """Returns the rungs next to the best one: the first thing that people ask about."""
    best = next((net for net in contenders if net.on_ladder), None)
    if best is None:
        return []
    return [net for net in search.alive() if net.on_ladder and _above(net, best) in (-1, 1)]


def compare(search: Search, contenders: list[Net]) -> None:
    """Asks whether each rung is better than the one before, and lets inferior nets go."""
    nets = [net for net in contenders if search.record.repeats(net.name)]
    if len(nets) < 2:
        return
    rungs = sorted((n for n in nets if n.on_ladder), key=lambda n: (n.size or 0, n.depth))
    questions = []
    for smaller, larger in itertools.pairwise(rungs):
        if smaller.size == larger.size:
            text = f'Are {larger.depth} {search.space.layer}s better than {smaller.depth}'
            where = f' at {larger.size} pixels' if len(search.space.sizes) > 1 else ''
            questions.append(Question('depth', f'{text}{where}?', larger, smaller))
    questions += _sizes(search, rungs)
    linear = [net for net in nets if search.roles[net.name] == 'linear']
    if linear and rungs:
        best = max(rungs, key=lambda net: search.record.score(net.name))
        plural = '' if best.depth == 1 else 's'
        text = f'{best.depth} {search.space.layer}{plural} better than the linear classifier?'
        text = f'{"Are" if plural else "Is"} {text}'
        questions.append(Question('', text, best, linear[0]))
    if questions:
        search.answer_all(questions)
    leave(search, nets)


def _sizes(search: Search, rungs: list[Net]) -> list[Question]:
    """Returns the question whether larger images help, asked of the best rung at each size."""
    best = {}
    for net in sorted(rungs, key=lambda net: search.record.score(net.name)):
        best[net.size] = net
    sizes = [size for size in search.space.sizes if size in best]
    return [
        Question('', f'Are images of {large} pixels better than of {small}?', best[large],
                 best[small])
        for small, large in itertools.pairwise(sizes)
    ]  # fmt: skip


def leave(search: Search, nets: list[Net]) -> None:
    """Lets nets go that are surely worse than the best, and by more than delta / 2."""
    record, delta = search.record, search.settings.delta
    runs = min(record.repeats(net.name) for net in nets) * record.folds
    best = max(nets, key=lambda net: record.score(net.name, range(runs)))
    pairs = [(net.name, best.name) for net in nets if net is not best]
    for verdict in holm(record.evidence([net.name for net in nets]), pairs, delta):
        if verdict.answer == 'worse' and -verdict.difference > delta / 2:
            search.gone[verdict.name] = f'surely worse than {best.name}'


def level(search: Search, nets: list[Net], look: int) -> list[Run]:
    """Returns the runs of nets up to a look, fold by fold: they are level whenever time is up."""
    runs = [search.runs(net, look) for net in nets]
    return [run for of_fold in zip(*runs, strict=True) for run in of_fold]
