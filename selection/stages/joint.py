"""The joint pass: depth, width and input size around the choice, two at once.

One question at a time misses what helps together: a deeper net of fewer filters, say. The compound
rule (Tan and Le 2019) is one diagonal of it.
"""

from selection.record import Run
from selection.search import Search, Stage
from selection.stages import repeats

SHARE = 0.92  # Of the budget, with the stages before.


def stage(search: Search) -> Stage:
    """Trains the neighbours of the choice once, and those near the best for a repeat."""
    chosen = search.recommended()
    if chosen is None:
        return
    tried = []
    for proposed in map(search.tuned, search.space.around(chosen)):
        net = search.nets.get(proposed.name, proposed)  # A rung keeps the rate it was trained with.
        if search.fits([Run(net, 0)], SHARE):
            search.propose([net], 'joint')
            yield from search.train([Run(net, 0)])
            tried.append(net)
    if not search.record.repeats(chosen.name):
        return  # More runs than the others have would decide for them.
    best = max((search.first(net) for net in repeats.near(search)), default=0.0)
    for net in sorted(tried, key=search.first, reverse=True):
        level = search.first(net) >= best - search.settings.delta
        if level and search.fits(search.runs(net, 1), SHARE):
            yield from search.train(search.runs(net, 1))
