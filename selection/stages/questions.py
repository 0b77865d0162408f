"""One question at a time (width, skip connections, ...) at the chosen net and one rung larger."""

import dataclasses
from collections.abc import Iterator

from selection.candidates import Net, Question
from selection.record import Run
from selection.search import Search, Stage

SHARE = 0.9  # Of the budget, with the stages before.
_NEAR_POINTS = 3.0
_RATE = 'optimizer.learning_rate'


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
        questions = [*_adopted(search, reference), *search.space.questions(reference)]
        asked = yield from _ask(search, questions, reference)
        if asked:
            search.answer_all(asked)


def _adopted(search: Search, net: Net) -> Iterator[Question]:
    """Yields what was asked when a net got its changes: does it need each of them?"""
    if net.rung is None:
        return
    rung = search.space.ladder(net.size)[net.rung].at_rate(net.fields[_RATE])
    for dropped in net.changes:
        without = rung
        for change in net.changes:
            without = without if change is dropped else without.changed(*change)
        for question in search.space.questions(without):
            if question.net.equals(net):
                yield Question(question.key, question.text, net, without)


def _ask(search: Search, questions: list[Question], reference: Net):
    """Trains what is affordable; returns the questions that have an answer."""
    asked: list[Question] = []
    # "Twice the filters?" at a net is "half of them?" at the other.
    pairs: set[frozenset[str]] = set()
    for question in questions:
        net, than = search.known(question.net), search.known(question.reference)
        pair = frozenset((net.name, than.name))
        if net is than or pair in pairs:
            continue
        pairs.add(pair)
        other = than if net.name == reference.name else net
        first, repeat = [Run(other, 0)], search.runs(other, 1)
        if not search.fits(repeat, SHARE):
            continue
        search.propose([other], 'question')
        yield from search.train(first)
        apart = search.first(reference) - search.first(other)
        if not apart <= _NEAR_POINTS * search.settings.points:
            if not search.record.failure(other.name):
                points = f'{apart / search.settings.points:.1f} points'
                search.gone[other.name] = f'{points} worse in its first run'
            continue
        yield from search.train(repeat)
        if search.record.repeats(other.name):
            asked.append(dataclasses.replace(question, net=net, reference=than))
    return asked


def _larger(search: Search, net: Net) -> Net | None:
    """Returns the next rung of the ladder with the net's changes; None if it is surely worse."""
    if net.rung is None:
        return None
    above = search.space.ladder(net.size)[net.rung + 1 : net.rung + 2]
    if not above:
        return None
    larger = above[0].like(net) if net.changes else search.tuned(above[0])
    return None if larger.name in search.gone else larger


def _to_a_repeat(search: Search, net: Net) -> Stage:
    if search.fits(search.runs(net, 1), SHARE):
        search.propose([net], 'question' if net.changes else 'ladder')
        yield from search.train(search.runs(net, 1))
