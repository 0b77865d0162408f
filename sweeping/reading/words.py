"""How a study is put into words: names, values, figures, and the sentences a person needs."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from console import percent
from evaluation.metrics import HEADINGS, SHARES
from sweeping.reading import summary
from sweeping.reading.summary import OF_RUNS, Estimate
from sweeping.table import OUTCOMES, Point, Table

FACTS = {
    'parameters': 'parameters',
    'flops': 'FLOPs',
    'latency_ms': 'latency in ms',
    'memory_mb': 'memory in MB',
}
_WHOLE = ('parameters', 'flops')


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


def is_share(objective: str) -> bool:
    """Tells whether an objective is a fraction of 1, which is shown in per cent."""
    return objective.removeprefix(OF_RUNS) in SHARES


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
    return [_best(table, points), *_as_good(table, points), *_luck(points)]


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


def _as_good(table: Table, points: Sequence[Point]) -> list[str]:
    """Says which points are within one standard error of the best, and the cheapest of them."""
    error, objective = summary.standard_error(table), table.objectives[0]
    if len(points) == 1 or not objective.startswith(OF_RUNS):
        return []
    if error is None:
        return [
            'Whether others are as good cannot be told from one run of each point: '
            '--config.replicates=3 would tell.'
        ]
    unit = f'{100 * error:.2f} points' if is_share(objective) else f'{error:.2g}'
    near, best = summary.as_good(table), points[0]
    others = len(near) - 1
    if not others:
        return [f'No other point is within one standard error of it ({unit}, pooled).']
    verb = 'is' if others == 1 else 'are'
    lines = [
        f'{count(others, "other point")} {verb} within one standard error of it ({unit}, pooled).'
    ]
    cheap = summary.cheapest(near)
    if cheap is best:
        lines.append('The best is also the cheapest of them by FLOPs.')
    elif cheap is not None:
        flops = cheap.facts['flops']
        whole = best.facts.get('flops')
        share = f", {100 * flops / whole:.0f} % of the best's" if whole else ''
        lines.append(
            f'The cheapest net within one standard error is point {cheap.number} '
            f'({values(table, cheap)}): '
            f'{figure(objective, summary.estimate(table, cheap, objective))}, '
            f'{flops:,.0f} FLOPs{share}.'
        )
    return lines


def _luck(points: Sequence[Point]) -> list[str]:
    if len(points) < 2:
        return []
    return [
        'The best of many is partly the luckiest, so its figure flatters it. The test split, which '
        'a sweep leaves sealed, judges it.'
    ]


def _front(table: Table, many: int) -> str:
    chosen = summary.on_front(table)
    listed = ', '.join(str(point.number) for point in chosen[:12])
    more = ', ...' if len(chosen) > 12 else ''
    aims = ', '.join(
        f'{"higher" if up else "lower"} {heading(objective)}'
        for objective, up in zip(table.objectives, table.maximize, strict=True)
    )
    verb = 'is' if len(chosen) == 1 else 'are'
    return (
        f'Of {count(many, "complete point")} {len(chosen)} {verb} on the Pareto front ({aims}), '
        'where no other point is at least as good in all objectives and better in one: '
        f'{count(len(chosen), "point").split(" ")[1]} {listed}{more}.'
    )
