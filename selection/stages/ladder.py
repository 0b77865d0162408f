"""The ladder: one run for each rung, smallest first, until two in a row gain nothing."""

from collections.abc import Sequence

from selection.candidates import Net
from selection.record import FINAL, Run
from selection.search import Search, Stage
from selection.stages import tuning

SHARE = 0.48  # Of the budget, with the stage before.
_MOST_SHARE = 0.8  # Where that is too little for the first net that learns something.
_DEAR = 0.02  # Of the budget: what a run of a baseline may take.
_FAR_POINTS = 5.0  # Who is so much worse has the better nets above, not below.
_IN_VAIN = 2  # Rungs in a row that gain less than delta / 2, after which it ends.


def stage(search: Search) -> Stage:
    """Trains the linear classifier, the baselines, and the rungs at each input size."""
    best: Net | None = None
    for size in search.space.sizes:
        rungs = [search.tuned(net) for net in search.space.ladder(size)]
        if size == search.space.sizes[0]:
            search.propose(rungs[:1], 'ladder')  # With its learning rate.
            for_all = search.fits([Run(net, 0) for net in rungs], SHARE)
            yield from (_from_below if for_all else _from_the_middle)(search, rungs)
            yield from _baselines(search)
        else:
            start = 0 if best is None or best.rung is None else max(0, best.rung - 1)
            yield from climb(search, rungs[start:])
        best = max(
            (net for net in search.alive() if net.on_ladder),
            key=lambda net: _known(search.first(net)), default=None,
        )  # fmt: skip


def _from_below(search: Search, rungs: list[Net]) -> Stage:
    """Climbs from the smallest rung, beside the linear classifier."""
    yield from _simple(search, rungs[:1])
    yield from climb(search, rungs)


def _from_the_middle(search: Search, rungs: list[Net]) -> Stage:
    """Climbs from the middle rung, where the budget is not for all.

    Who has eight runs learns little from the smallest four nets. Below the middle the rungs are
    then tried downwards, as long as they are as good; not where the smallest is far worse. Where
    the middle one is too dear, it is the largest that is not.
    """
    middle = tuning.middle(search)
    while middle and not search.fits([Run(rungs[0], 0), Run(rungs[middle], 0)], _MOST_SHARE):
        middle -= 1
    first = [rungs[0], rungs[middle]]
    search.propose(first, 'ladder')
    yield from search.train([Run(net, 0) for net in first])
    yield from _simple(search)
    yield from climb(search, rungs[middle:])
    best = max(_known(search.first(net)) for net in rungs[middle:])
    if _known(search.first(rungs[0])) < best - _FAR_POINTS * search.settings.points:
        return
    for net in reversed(rungs[1:middle]):
        if search.fits([Run(net, 0)], SHARE):
            search.propose([net], 'ladder')
            yield from search.train([Run(net, 0)])
        if not _known(search.first(net)) >= best - search.settings.delta / 2:
            return


def _simple(search: Search, beside: Sequence[Net] = ()) -> Stage:
    """Trains nets and the linear classifier at once, if that is affordable; then a baseline."""
    linear = search.tuned(search.space.linear())
    runs = [Run(net, 0) for net in (*beside, linear)]
    if search.fits(runs, 1.0):
        search.propose([linear], 'linear')
    yield from search.train(runs if linear.name in search.nets else runs[:-1])
    if len(search.space.sizes) == 1:
        yield from _baselines(search, 1)


def climb(search: Search, rungs: list[Net]) -> Stage:
    """Trains rung after rung, two at a time since the end takes two.

    At larger input sizes, which cost more, one that is far worse than the best ends it too.
    """
    best, in_vain = float('-inf'), 0
    far = _FAR_POINTS * search.settings.points
    far = far if rungs and rungs[0].size != search.space.sizes[0] else float('inf')
    for i in range(0, len(rungs), _IN_VAIN):
        pair = rungs[i : i + _IN_VAIN]
        while pair and not search.fits([Run(net, 0) for net in pair], SHARE):
            pair.pop()
        if not pair:
            return
        search.propose(pair, 'ladder')
        yield from search.train([Run(net, 0) for net in pair])
        for net in pair:
            score = _known(search.first(net))
            in_vain = 0 if score >= best + search.settings.delta / 2 else in_vain + 1
            in_vain = _IN_VAIN if score < best - far else in_vain
            best = max(best, score)
        if in_vain >= _IN_VAIN:
            return


def _baselines(search: Search, most: int | None = None) -> Stage:
    """Trains each baseline (the first so many) at the second size, or the first if that is dear."""
    sizes = search.space.sizes
    small = search.space.baselines(sizes[0])
    usual = search.space.baselines(sizes[1]) if len(sizes) > 1 else small
    for larger, smaller in [*zip(usual, small, strict=True)][:most]:
        price = search.budget.price([Run(larger, 0)], search.record)
        net = search.tuned(larger if price <= _DEAR * search.budget.total else smaller)
        with_its_confirmation = [Run(net, number) for number in range(1 + FINAL)]
        if search.fits(with_its_confirmation, SHARE):
            search.propose([net], 'baseline')
            yield from search.train([Run(net, 0)])


def _known(score: float) -> float:
    return float('-inf') if score != score else score
