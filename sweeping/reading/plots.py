"""The first objective of a study against each factor and against cost, with texts; no pyplot."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from evaluation.plots import BLUE, GREY
from sweeping.reading import summary, words
from sweeping.reading.axes import Scale, label_key
from sweeping.table import Point, Table

_MOST_LINES = 6
SIZE = (4.6, 3.4)


class Plot(NamedTuple):
    """A plot.

    Attributes:
      name: of its files.
      figure: the drawing.
      alt: what it shows, in words.
    """

    name: str
    figure: Figure
    alt: str


def factor(table: Table, name: str) -> Plot | None:
    """Draws the first objective against a factor: means with t intervals of 95 %, single runs.

    Where the other factors have few combinations, each has a line; else there are points alone.
    None where the factor takes fewer than two values.
    """
    points = [point for point in summary.complete(table) if name in point.values]
    scale = Scale([point.values[name] for point in points])
    if len(scale.values) < 2:
        return None
    objective, short = table.objectives[0], words.short_names(table.factors)[name]
    groups = _by_others(table, points, name)
    lines = len(groups) <= _MOST_LINES and len(points) >= 2 * len(groups)
    if not lines:
        groups = {'': points}
    beneath = 0.17 * len(groups) if len(groups) > 1 else 0.0
    figure = Figure(figsize=(SIZE[0], SIZE[1] + beneath), layout='constrained')
    axes = figure.add_subplot()
    for i, (others, members) in enumerate(groups.items()):
        aside = 6 * (i - (len(groups) - 1) / 2)  # Intervals of several lines stand side by side.
        colour = BLUE if len(groups) == 1 else colormaps['viridis'](0.9 * i / (len(groups) - 1))
        members = sorted(members, key=lambda point: scale.place(point.values[name]))
        places = [scale.moved(scale.place(point.values[name]), aside) for point in members]
        _estimates(axes, table, members, places, colour, others, joined=lines)
    scale.dress(axes)
    axes.set_xlabel(short, parse_math=False)
    dress_objective(axes, objective)
    _limit(axes, table, points)
    if len(groups) > 1:
        legend(figure)
    several = f', {len(groups)} lines for {", ".join(groups)}' if len(groups) > 1 else ''
    best = points[0]
    alt = (
        f'{words.heading(objective)} against {short}{several}: {_means(table, points, name, scale)}'
        f'best {words.number(objective, best.objectives[0])} at '
        f'{words.label(best.values[name])}.'
    )
    return Plot(f'factor-{name}', figure, alt[0].upper() + alt[1:])


def _by_others(table: Table, points: Sequence[Point], name: str) -> dict[str, list[Point]]:
    """Groups points by the values of all factors but one, in the order of these values."""
    names = words.short_names(table.factors)
    others = [
        f for f in table.factors
        if f != name and len({label_key(p.values[f]) if f in p.values else '' for p in points}) > 1
    ]  # fmt: skip
    scales = {f: Scale([p.values[f] for p in points if f in p.values]) for f in others}

    def order(point: Point) -> list[float]:
        return [scales[f].place(point.values[f]) if f in point.values else -1.0 for f in others]

    groups: dict[str, list[Point]] = {}
    for point in sorted(points, key=order):
        key = ', '.join(
            f'{names[f]}={words.label(point.values[f])}' for f in others if f in point.values
        )
        groups.setdefault(key, []).append(point)
    return groups


def _estimates(
    axes: Axes,
    table: Table,
    points: Sequence[Point],
    places: Sequence[float],
    colour: Any,
    name: str,
    joined: bool,
) -> None:
    """Draws means with their intervals, and the single runs as faint dots."""
    found = [summary.estimate(table, point, table.objectives[0]) for point in points]
    several = [(place, each.runs) for place, each in zip(places, found, strict=True)
               if len(each.runs) > 1]  # fmt: skip
    axes.scatter([place for place, runs in several for _ in runs],
                 [x for _, runs in several for x in runs],
                 s=9, color=colour, alpha=0.3, linewidths=0)  # fmt: skip
    axes.errorbar(places, [point.objectives[0] for point in points],
                  [each.half_width or 0.0 for each in found], color=colour, label=name or '_',
                  fmt='o-' if joined else 'o', markersize=4, capsize=2.5, linewidth=1.2,
                  elinewidth=1)  # fmt: skip


def _means(table: Table, points: Sequence[Point], name: str, scale: Scale) -> str:
    """Returns the mean over points for each value of a factor, in words; '' of many values."""
    if len(scale.values) > 8:
        return ''
    parts = []
    for value in scale.values:
        same = [p for p in points if label_key(p.values[name]) == label_key(value)]
        mean = float(np.mean([point.objectives[0] for point in same]))
        parts.append(f'{words.label(value)} {words.number(table.objectives[0], mean)}')
    return f'means {", ".join(parts)}; '


def costs(table: Table) -> list[Plot]:
    """Draws the first objective against what a net costs, and against the other objectives.

    The Pareto front joins the points that no other one beats in both.
    """
    points = summary.complete(table)
    others = dict(zip(table.objectives[1:], table.maximize[1:], strict=True))
    plots = []
    for name, maximize in (dict.fromkeys(words.FACTS, False) | others).items():
        if name == table.objectives[0]:
            continue
        known = [(_value(table, point, name), point) for point in points]
        there = [(x, point) for x, point in known if x is not None]
        if len({x for x, _ in there}) > 1:
            plots.append(_cost(table, name, maximize, there))
    return plots


def _value(table: Table, point: Point, name: str) -> float | None:
    return summary.estimate(table, point, name).mean if name in table.objectives else (
        point.facts.get(name))  # fmt: skip


def _cost(table: Table, name: str, maximize: bool, there: Sequence[tuple[float, Point]]) -> Plot:
    objective = table.objectives[0]
    points = [point for _, point in there]
    values_N2 = np.asarray([(x, point.objectives[0]) for x, point in there], float)
    front_N = summary.front(values_N2, (maximize, table.maximize[0]))
    figure = Figure(figsize=SIZE, layout='constrained')
    axes = figure.add_subplot()
    found = [summary.estimate(table, point, objective) for point in points]
    errors = np.asarray([each.half_width or 0.0 for each in found])
    for chosen, colour, label in (
        (~front_N, GREY, 'other points'),
        (front_N, BLUE, 'Pareto front'),
    ):
        axes.errorbar(values_N2[chosen, 0], values_N2[chosen, 1], errors[chosen], fmt='o',
                      markersize=4, capsize=2, elinewidth=0.8, color=colour,
                      label=label)  # fmt: skip
    order = np.argsort(values_N2[front_N, 0])
    line_N2 = values_N2[front_N][order]
    axes.step(*line_N2.T, where='pre' if maximize else 'post', color=BLUE, linewidth=1)
    chosen_points = [point for point, chosen in zip(points, front_N, strict=True) if chosen]
    # Numbers stand on the side of the front where no point is.
    up = table.maximize[0]
    shift = 3 if maximize else -3, 2 if up else -2
    for point, place in zip(chosen_points, values_N2[front_N], strict=True):
        axes.annotate(str(point.number), place, shift, textcoords='offset points', fontsize=8,
                      ha='left' if maximize else 'right', va='bottom' if up else 'top')  # fmt: skip
    if (values_N2[:, 0] > 0).all() and name in words.FACTS:
        axes.set_xscale('log')
    axes.set_xlabel(words.heading(name))
    dress_objective(axes, objective)
    _limit(axes, table, points)
    axes.legend(fontsize='small')
    listed = ', '.join(
        f'point {chosen_points[i].number} ({words.number(name, values_N2[front_N][i, 0])}, '
        f'{words.number(objective, values_N2[front_N][i, 1])})'
        for i in order[:8]
    )
    alt = f'{words.heading(objective)} against {words.heading(name)}; Pareto front: {listed}.'
    return Plot(f'cost-{name}', figure, alt[0].upper() + alt[1:])


def dress_objective(axes: Axes, objective: str) -> None:
    """Names the y axis after an objective, in its unit."""
    axes.set_ylabel(words.heading(objective), parse_math=False)
    axes.grid(alpha=0.25)
    if words.is_share(objective):
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=' %'))
        # An interval may pass 100 %, but no figure does.
        axes.set_ylim(max(axes.get_ylim()[0], -0.02), min(axes.get_ylim()[1], 1.005))


def _limit(axes: Axes, table: Table, points: Sequence[Point]) -> None:
    """Lets intervals run out of the plot where those of few runs would make all else tiny."""
    found = [summary.estimate(table, point, table.objectives[0]) for point in points]
    seen = [x for each in found for x in (*each.runs, each.mean) if x is not None]
    low, high = axes.get_ylim()
    span = (max(seen) - min(seen)) or (high - low)
    axes.set_ylim(max(low, min(seen) - 0.7 * span), min(high, max(seen) + 0.7 * span))


def legend(figure: Figure) -> None:
    """Explains the lines below the plot, with names as they are."""
    drawn = figure.legend(fontsize='small', loc='outside lower center', frameon=False)
    for text in drawn.get_texts():
        text.set_parse_math(False)
