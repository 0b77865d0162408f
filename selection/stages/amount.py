"""The amount of data: the choice on half and on a quarter of the images."""

from selection.candidates import Net
from selection.search import Search, Stage

SHARE = 0.96  # Of the budget, with the stages before.
SHARES = {'half': 0.5, 'quarter': 0.25}


def stage(search: Search) -> Stage:
    """Trains the recommended net on parts of the images, a repeat each."""
    chosen = search.recommended()
    if search.space.in_time:
        return  # A part of a series is another series.
    if chosen is None or not search.record.repeats(chosen.name):
        return
    for net in parts(search, chosen):
        if search.fits(search.runs(net, 1), SHARE):
            yield from search.train(search.runs(net, 1))


def parts(search: Search, net: Net) -> list[Net]:
    """Returns a net on parts of the images; no candidates, since they are judged by fewer."""
    whole = search.settings.subset
    return [
        net.changed(name, f'{name} of the images', {'dataset.subset': share * whole})
        for name, share in SHARES.items()
    ]
