"""The finalists: the best few and the cheapest as good, up to three repeats each."""

from selection.candidates import Net, Question
from selection.record import Run
from selection.search import Search, Stage
from selection.stages import repeats

_MOST = 4


def stage(search: Search) -> Stage:
    """Spends what is left of the search on the nets among which one will be chosen."""
    for look in range(1, repeats.LOOKS + 1):
        nets = pick(search)
        while len(nets) > 2 and not search.fits(repeats.level(search, nets, look), 1.0):
            nets.pop()
        yield from _fold_by_fold(search, nets, look)
    nets = [net for net in pick(search) if search.record.repeats(net.name)]
    best = search.recommended()
    if best and len(nets) > 1 and search.record.repeats(best.name):
        questions = [
            Question('', f'Is the net with {net.label} better than the recommended one?', net, best)
            for net in nets if net.name != best.name
        ]  # fmt: skip
        search.answer_all(questions, looked_at=len(search.judged()))


def _fold_by_fold(search: Search, nets: list[Net], look: int) -> Stage:
    """Trains nets up to a look, or as far as the budget goes: equally many runs of each count."""
    for run in search.runs(nets[0], look) if len(nets) > 1 else []:
        row = [Run(net, run.number) for net in nets]
        if not search.fits(row, 1.0):
            return
        yield from search.train(row)


def pick(search: Search) -> list[Net]:
    """Returns the recommended net, then the highest means; of nets without a repeat the near."""
    record, first = search.record, search.recommended()
    if first is None:
        return []
    nets = sorted(search.repeated(), key=lambda net: record.score(net.name), reverse=True)
    nets += repeats.near(search)
    others = {net.name: net for net in nets if net.name != first.name}
    return [first, *others.values()][:_MOST]
