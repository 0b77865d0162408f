"""The table of a study on the console."""

from collections.abc import Sequence

from console import Console
from sweeping.reading import summary, words
from sweeping.table import Point, Table

_MOST = 30  # Rows in all; the others are in study.csv.
_MOST_OTHERS = 10  # Of points that are not complete, where there are many that are.


def show(table: Table, console: Console) -> None:
    """Prints the points, best first, those that are not complete with the reason, and the best."""
    complete = summary.complete(table)
    others = [p for p in table.points if p.outcome not in ('complete', 'waiting')]
    shown = complete[: _MOST - min(len(others), _MOST_OTHERS)]
    said = others[: _MOST - len(shown)]
    if shown:
        console.table(headings(table), rows(table, shown))
    for point in said:
        reason = f': {point.reason}' if point.reason else ''
        console.line(f'point {point.number}  {words.values(table, point)}  {point.outcome}{reason}')
    left_out = len(complete) - len(shown) + len(others) - len(said)
    if left_out:
        console.line(f'... and {words.count(left_out, "point")} more, in study.csv')
    console.line(words.counts(table), always=True)
    for sentence in words.sentences(table):
        console.line(sentence, always=True)


def headings(table: Table) -> list[str]:
    """Returns the headings of the columns of `rows`."""
    names = words.short_names(table.factors)
    several = ['front'] if len(table.objectives) > 1 else []
    return [
        'point',
        *(names[factor] for factor in table.factors),
        *(words.heading(objective) for objective in table.objectives),
        *several,
        'runs',
        *(words.FACTS[fact] for fact in facts(table)),
        'seconds',
    ]


def rows(table: Table, points: Sequence[Point]) -> list[list[str]]:
    """Returns what is shown of points: number, values, objectives, runs, facts, seconds."""
    several = len(table.objectives) > 1
    front = {point.number for point in summary.on_front(table)} if several else set()
    known = facts(table)
    return [
        [
            str(p.number),
            *(words.label(p.values[f]) if f in p.values else '-' for f in table.factors),
            *(words.figure(o, summary.estimate(table, p, o)) for o in table.objectives),
            *['yes' if p.number in front else ''] * several,
            str(len(p.replicates)),
            *(words.number(fact, p.facts.get(fact)) for fact in known),
            f'{summary.seconds(p):,.0f}',
        ]
        for p in points
    ]


def facts(table: Table) -> list[str]:
    """Returns the facts that are known of some point and are no objective."""
    return [
        fact
        for fact in words.FACTS
        if fact not in table.objectives and any(fact in point.facts for point in table.points)
    ]
