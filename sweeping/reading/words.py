"""How a study is put into words: names, values, figures, and the sentences a person needs."""

import os
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from console import percent
from evaluation.metrics import HEADINGS
from sweeping.reading import summary
from sweeping.reading.summary import OF_RUNS, Difference, Estimate, is_share
from sweeping.table import OUTCOMES, Point, Table

FACTS = {
    'parameters': 'parameters',
    'flops': 'FLOPs',
    'latency_ms': 'latency in ms',
    'memory_mb': 'memory in MB',
}
_WHOLE = ('parameters', 'flops')
_MOST_NUMBERS = 12  # Of points, in a sentence.


def short_names(factors: Sequence[str]) -> dict[str, str]:
    """Returns for each dotted name its shortest end that no other one has."""
    names = {}
    for factor in factors:
        parts = factor.split('.')
        ends = ['.'.join(parts[i:]) for i in range(len(parts) - 1, -1, -1)]
        others = [f'.{other}' for other in factors if other != factor]
        names[factor] = next(
            (end for end in ends if not any(o.endswith(f'.{end}') for o in others)), factor
        )
    return names


def label(value: Any) -> str:
    """Returns a value of a factor as it is shown."""
    if isinstance(value, list | tuple):
        return f'({",".join(map(label, value))}{"," if len(value) == 1 else ""})'
    if isinstance(value, float):
        return f'{value:.4g}'
    return str(value)


def heading(objective: str) -> str:
    """Returns what an objective or a fact is called."""
    if objective.startswith(OF_RUNS):
        name = objective.removeprefix(OF_RUNS)
        return f'validation {HEADINGS.get(name, name.replace("_", " "))}'
    return FACTS.get(objective, objective.replace('_', ' '))


def number(objective: str, value: float | None) -> str:
    """Returns a value of an objective, or of a fact, in its unit."""
    if value is None:
        return '-'
    if is_share(objective):
        return percent(value)
    return f'{value:,.0f}' if objective in _WHOLE else f'{value:.4g}'


def figure(objective: str, found: Estimate) -> str:
    """Returns mean ± standard deviation, such as '98.44 ± 0.64 %'; the mean alone of one run."""
    mean, deviation = found.mean, found.deviation
    if mean is None or deviation is None:
        return number(objective, mean)
    if is_share(objective):
        return f'{100 * mean:.2f} ± {100 * deviation:.2f} %'
    return f'{number(objective, mean)} ± {deviation:.2g}'


def values(table: Table, point: Point) -> str:
    """Returns the values of the factors of a point, such as 'width=32, skip=True'."""
    return chosen(table.factors, point.values)


def chosen(factors: Sequence[str], values: Mapping[str, Any]) -> str:
    """Returns the values of those factors that have one, such as 'width=32, skip=True'."""
    names = short_names(factors)
    said = [f'{names[f]}={label(values[f])}' for f in factors if f in values]
    return ', '.join(said) or 'the base config'


def count(many: int, what: str) -> str:
    """Returns '1 point', '2 points'."""
    return f'{many:,} {what}{"" if many == 1 else "s"}'


def counts(table: Table) -> str:
    """Returns a line with the points by what came of them, their runs and seconds."""
    outcomes = Counter(point.outcome for point in table.points)
    parts = [f'{outcomes[outcome]:,} {outcome}' for outcome in OUTCOMES if outcomes[outcome]]
    runs = sum(len(point.replicates) for point in table.points)
    seconds = sum(map(summary.seconds, table.points))
    return (
        f'{count(len(table.points), "point")}{": " if parts else ""}{", ".join(parts)}; '
        f'{count(runs, "run")}, {seconds:,.0f} s together'
    )


def sentences(table: Table) -> list[str]:
    """Returns what a person needs first: the best point, or the front, and what to make of it."""
    points = summary.complete(table)
    if not points:
        return ['No point is complete yet, so there is nothing to compare.']
    if len(table.objectives) > 1:
        return [_front(table, len(points))]
    return [_best(table, points), *_compared(table, points), *_luck(points)]


def _best(table: Table, points: Sequence[Point]) -> str:
    best, objective = points[0], table.objectives[0]
    found = summary.estimate(table, best, objective)
    if len(found.runs) > 1:
        spread = f' (mean ± standard deviation of {count(len(found.runs), "run")})'
    elif found.runs:
        spread = ' in one run, so its spread is unknown'
    else:
        spread = ''
    which = (
        f'The best of {count(len(points), "complete point")} is point {best.number}'
        if len(points) > 1
        else f'Point {best.number} is the only one that is complete'
    )
    return (
        f'{which} ({values(table, best)}): {heading(objective)} {figure(objective, found)}{spread}.'
    )


def _compared(table: Table, points: Sequence[Point]) -> list[str]:
    """Says which points cannot be told from the best, and the cheapest of them."""
    if len(points) == 1 or not table.objectives[0].startswith(OF_RUNS):
        return []
    spread, told = summary.spread(table), summary.differences(table)
    if spread is None or not told:
        return [
            'Whether another one is as good is unknown from one run of each point. More runs need '
            'a new study: the same command with --config.replicates=3 and another --workdir.'
        ]
    best, alike = points[0], [each for each in told if each.open]
    cheap = summary.recommended(table)[0]
    said, others = [], [each.point for each in alike if each.point is not cheap]
    if not alike:
        said.append(f'All others come out worse; the next best is {_worse(table, told[0])}.')
    elif cheap is not best:
        (found,) = (each for each in alike if each.point is cheap)
        flops, whole = cheap.facts['flops'], best.facts.get('flops')
        share = f", {100 * flops / whole:.0f} % of the best's" if whole else ''
        said.append(
            f'The cheapest net that cannot be told from it is {_worse(table, found)}; it takes '
            f'{flops:,.0f} FLOPs{share}.'
        )
    if others:
        whom = 'it' if cheap is best else 'the best either'
        none = ', and none is cheaper' if cheap is best and 'flops' in best.facts else ''
        which = 'Point' if len(others) == 1 else 'Points'
        said.append(f'{which} {numbers(others)} cannot be told from {whom}{none}.')
    return [*said, _how(table, spread[1])]


def _worse(table: Table, found: Difference) -> str:
    """Returns how much worse a point is than the best, such as 'point 2 (...), 0.37 ...'."""
    if is_share(table.objectives[0]):
        scale, digits, unit = 100, '.2f', ' percentage points'
    else:
        scale, digits, unit = 1, '.2g', ''
    low, high = found.mean - found.half_width, found.mean + found.half_width
    first, last = (f'{scale * abs(end):{digits}}' for end in (low, high))
    between = f'{first} better to {last} worse' if low < 0 else f'{first} to {last} worse'
    return (
        f'point {found.point.number} ({values(table, found.point)}), '
        f'{scale * found.mean:{digits}}{unit} worse (interval of 95 %: {between})'
    )


def numbers(points: Sequence[Point]) -> str:
    """Returns the numbers of points, such as '3, 4 and 7', or of many the first ones."""
    said = [str(point.number) for point in points]
    if len(said) > _MOST_NUMBERS:
        said = [*said[:_MOST_NUMBERS], f'{len(said) - _MOST_NUMBERS} more']
    return ' and '.join([', '.join(said[:-1]), said[-1]] if len(said) > 1 else said)


def _how(table: Table, freedom: int) -> str:
    used = count(len(summary.near(table)), 'point')
    degrees = count(freedom, 'degree')
    return (
        'Points are compared run by run, since run r has the same seed and split at all of them; '
        f'how much runs differ is taken from the {used} near the best ({degrees} of freedom). Each '
        'interval is for one point alone, so it is no verdict on all of them: of two points that '
        'cannot be told apart one may still be better, and more runs may show it.'
    )


def _luck(points: Sequence[Point]) -> list[str]:
    if len(points) < 2:
        return []
    return [
        'The best of many points is partly the luckiest, so its figure flatters it. The test '
        'split, which a sweep leaves sealed, judges it.'
    ]


def export(table: Table) -> tuple[str, str] | None:
    """Returns what to do about the points to go on with, and the command; None where none is."""
    points = summary.recommended(table)
    if not points:
        return None
    (first, *others) = points
    if len(table.objectives) > 1:
        which = f'of point {first.number} of the Pareto front'
        which += f' (or of {numbers(others)})' if others else ''
    elif first.number == summary.complete(table)[0].number:
        which = f'of point {first.number}, the best'
    else:
        which = f'of point {first.number}, the cheapest that cannot be told from the best'
    folder = shlex.quote(os.fspath(table.folder))
    return (
        f'Write the config {which}, which train.py then trains and tests:',
        f'python sweep.py --workdir={folder} --export={first.number}',
    )


def _front(table: Table, many: int) -> str:
    chosen = summary.on_front(table)
    aims = ', '.join(
        f'{"higher" if up else "lower"} {heading(objective)}'
        for objective, up in zip(table.objectives, table.maximize, strict=True)
    )
    verb = 'is' if len(chosen) == 1 else 'are'
    return (
        f'Of {count(many, "complete point")} {len(chosen)} {verb} on the Pareto front ({aims}), '
        'where no other point is at least as good in all objectives and better in one: '
        f'{"point" if len(chosen) == 1 else "points"} {numbers(chosen)}.'
    )
