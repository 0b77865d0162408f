"""The joint pass: depth, width and input size around the choice, two at once.

One question at a time misses what helps together: a deeper net of fewer filters, say. The compound
rule (Tan and Le 2019) is one diagonal of it.
"""

import functools

from selection.candidates import Net
from selection.record import Run
from selection.search import Search, Stage
from selection.stages import repeats

SHARE = 0.94  # Of the budget, with the stages before.


def stage(search: Search) -> Stage:
    """Trains the neighbours of the choice once, and those near the best for a repeat."""
    chosen = _middle(search)
    if chosen is None:
        return
    tried = []
    for proposed in map(search.tuned, [*_together(search), *search.space.around(chosen)]):
        net = search.known(proposed)  # A rung keeps the rate it was trained with.
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


def _middle(search: Search) -> Net | None:
    """Returns the best of the nets that a question has found to be surely better, or the choice.

    They have fewer runs than the choice until they are finalists, and so are not chosen yet.
    """
    found = [net for nets in _improved(search).values() for net in nets]
    if not found:
        return search.recommended()
    return max(found, key=lambda net: search.record.score(net.name))


def _together(search: Search) -> list[Net]:
    """Returns nets with all changes that help, where several do."""
    found = []
    for name, nets in _improved(search).items():
        if len(nets) > 1:
            changes = [change for net in nets for change in net.changes]
            found.append(
                functools.reduce(lambda net, c: net.changed(*c), changes, search.nets[name])
            )
    return found


def _improved(search: Search) -> dict[str, list[Net]]:
    """Returns the nets that questions have found to be surely better, by their reference."""
    found: dict[str, list[Net]] = {}
    for answer in search.answers:
        if answer.stage == 'questions' and answer.answer == 'better':
            found.setdefault(answer.reference, []).append(search.nets[answer.name])
    return found
