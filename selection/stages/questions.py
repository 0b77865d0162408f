"""One question at a time (width, skip connections, ...) at the chosen rung and one larger."""

from selection.candidates import Net, Question
from selection.record import Run
from selection.search import Search, Stage

SHARE = 0.87  # Of the budget, with the stages before.
_NEAR_POINTS = 3.0


def stage(search: Search) -> Stage:
    """Asks each question by one run, and by a repeat where that is near its reference."""
    chosen = search.recommended()
    if chosen is None or not search.record.repeats(chosen.name):
        return
    for reference in (chosen, _larger(search, chosen)):
        if reference is None:
            continue
        yield from _to_a_repeat(search, reference)
        if not search.record.repeats(reference.name):
            return
        asked = yield from _ask(search, search.space.questions(reference))
        if asked:
            search.answer_all(asked)


def _ask(search: Search, questions: list[Question]):
    """Trains what is affordable; returns the questions that have an answer."""
    asked = []
    for question in questions:
        first, repeat = [Run(question.net, 0)], search.runs(question.net, 1)
        if not search.fits(repeat, SHARE):
            continue
        search.propose([question.net], 'question')
        yield from search.train(first)
        apart = search.first(question.reference) - search.first(question.net)
        if not apart <= _NEAR_POINTS * search.settings.points:
            if not search.record.failure(question.net.name):
                points = f'{apart / search.settings.points:.1f} points'
                search.gone[question.net.name] = f'{points} worse in its first run'
            continue
        yield from search.train(repeat)
        if search.record.repeats(question.net.name):
            asked.append(question)
    return asked


def _larger(search: Search, net: Net) -> Net | None:
    """Returns the next rung of the ladder; None where it is surely worse."""
    if net.rung is None or not net.on_ladder:
        return None
    above = search.space.ladder(net.size)[net.rung + 1 : net.rung + 2]
    return search.tuned(above[0]) if above and above[0].name not in search.gone else None


def _to_a_repeat(search: Search, net: Net) -> Stage:
    if search.fits(search.runs(net, 1), SHARE):
        search.propose([net], 'ladder')
        yield from search.train(search.runs(net, 1))
