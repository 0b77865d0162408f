"""The first objective of a study against each factor and against cost, with texts; no pyplot."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from evaluation.plots import BLUE, GREY
from sweeping.reading import summary, words
from sweeping.reading.axes import Scale, label_key, logarithmic
from sweeping.reading.heights import Heights
from sweeping.reading.summary import Estimate
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

    Depths, the blocks of each stage such as (2,2), stand at their sum, with a line for each number
    of blocks in a stage. Where the other factors have few combinations, each has a line; else there
    are points alone. None where the factor takes fewer than two values.
    """
    points = [point for point in summary.complete(table) if name in point.values]
    values = Scale([point.values[name] for point in points])
    if len(values.values) < 2:
        return None
    depth = _is_depth(name, values.values)
    at = {p.number: sum(p.values[name]) if depth else p.values[name] for p in points}
    scale = Scale(list(at.values()))
    objective, short = table.objectives[0], words.short_names(table.factors)[name]
    groups = _groups(table, points, name, depth)
    lines = len(groups) <= _MOST_LINES and len(points) >= 2 * len(groups)
    if not lines:
        groups = {'': points}
    beneath = 0.17 * len(groups) if len(groups) > 1 else 0.0
    figure = Figure(figsize=(SIZE[0], SIZE[1] + beneath), layout='constrained')
    axes = figure.add_subplot()
    heights = _heights(table, points)
    heights.dress(axes)
    for i, (others, members) in enumerate(groups.items()):
        aside = 6 * (i - (len(groups) - 1) / 2)  # Intervals of several lines stand side by side.
        colour = BLUE if len(groups) == 1 else colormaps['viridis'](0.9 * i / (len(groups) - 1))
        members = sorted(members, key=lambda point: scale.place(at[point.number]))
        places = [scale.moved(scale.place(at[point.number]), aside) for point in members]
        found = [summary.estimate(table, point, objective) for point in members]
        _runs(axes, places, found, colour)
        joined = lines and len(set(places)) == len(places)
        heights.estimates(axes, places, found, colour, others or '_', joined)
    scale.dress(axes)
    axes.set_xlabel(f'blocks in all, the sum of {short}' if depth else short, parse_math=False)
    if len(groups) > 1:
        legend(figure)
    several = f', {len(groups)} lines for {"; ".join(groups)}' if len(groups) > 1 else ''
    best = points[0]
    alt = (
        f'{words.heading(objective)} against {short}{several}: '
        f'{_means(table, points, name, values)}'
        f'best {words.number(objective, best.objectives[0])} at '
        f'{words.label(best.values[name])}.'
    )
    return Plot(f'factor-{name}', figure, alt[0].upper() + alt[1:])


def _is_depth(name: str, values: Sequence[Any]) -> bool:
    """Tells whether a factor is how many blocks each stage has."""
    return name.split('.')[-1] == 'stage_sizes' and all(isinstance(v, list | tuple) for v in values)


def _groups(
    table: Table, points: Sequence[Point], name: str, depth: bool
) -> dict[str, list[Point]]:
    """Groups points by the values of all factors but one, in the order of these values.

    Depths also by the blocks of each stage, where nets differ in these.
    """
    names = words.short_names(table.factors)
    others = [
        f for f in table.factors
        if f != name and len({label_key(p.values[f]) if f in p.values else '' for p in points}) > 1
    ]  # fmt: skip
    scales = {f: Scale([p.values[f] for p in points if f in p.values]) for f in others}
    stages = {p.number: _stage(p.values[name]) for p in points} if depth else {}
    by_stage = len(set(stages.values())) > 1

    def order(point: Point) -> tuple[list[float], str]:
        places = [scales[f].place(point.values[f]) if f in point.values else -1.0 for f in others]
        return places, stages.get(point.number, '')

    groups: dict[str, list[Point]] = {}
    for point in sorted(points, key=order):
        said = [f'{names[f]}={words.label(point.values[f])}' for f in others if f in point.values]
        key = ', '.join([*said, *[stages.get(point.number, '')] * by_stage])
        groups.setdefault(key, []).append(point)
    return groups


def _stage(sizes: Sequence[int]) -> str:
    """Returns how many blocks each stage has, in words."""
    if len(set(sizes)) > 1:
        return 'stages that differ'
    return f'{words.count(sizes[0], "block")} in each stage' if sizes else 'no stage'


def _heights(table: Table, points: Sequence[Point]) -> Heights:
    """Returns the axis of the first objective that shows the runs and means of points."""
    found = [summary.estimate(table, point, table.objectives[0]) for point in points]
    seen = [float(x) for each in found for x in (*each.runs, each.mean) if x is not None]
    ends = [
        (each.mean or 0.0) + sign * each.half_width
        for each in found if each.half_width is not None for sign in (-1, 1)
    ]  # fmt: skip
    return Heights(table.objectives[0], seen, ends)


def _runs(axes: Axes, places: Sequence[float], found: Sequence[Estimate], colour: Any) -> None:
    """Draws the single runs as faint dots."""
    several = [(place, each.runs) for place, each in zip(places, found, strict=True)
               if len(each.runs) > 1]  # fmt: skip
    axes.scatter([place for place, runs in several for _ in runs],
                 [x for _, runs in several for x in runs],
                 s=9, color=colour, alpha=0.3, linewidths=0)  # fmt: skip


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
    heights = _heights(table, points)
    heights.dress(axes)
    if (values_N2[:, 0] > 0).all() and name in words.FACTS:
        logarithmic(axes, values_N2[:, 0].min(), values_N2[:, 0].max())
    for chosen, colour, label in (
        (~front_N, GREY, 'other points'),
        (front_N, BLUE, 'Pareto front'),
    ):
        found = [summary.estimate(table, points[i], objective) for i in np.flatnonzero(chosen)]
        heights.estimates(axes, values_N2[chosen, 0].tolist(), found, colour, label)
    order = np.argsort(values_N2[front_N, 0])
    line_N2 = values_N2[front_N][order]
    axes.step(*line_N2.T, where='pre' if maximize else 'post', color=BLUE, linewidth=1)
    chosen_points = [point for point, chosen in zip(points, front_N, strict=True) if chosen]
    axes.set_xlabel(words.heading(name))
    # Beside the front, on the side where no point is, if there is room.
    side = (1 if maximize else -1, 1 if table.maximize[0] else -1)
    _number(axes, [str(chosen_points[i].number) for i in order], line_N2, values_N2, side)
    figure.legend(fontsize='small', loc='outside lower center', ncols=2, frameon=False)
    listed = ', '.join(
        f'point {chosen_points[i].number} ({words.number(name, values_N2[front_N][i, 0])}, '
        f'{words.number(objective, values_N2[front_N][i, 1])})'
        for i in order[:8]
    )
    alt = f'{words.heading(objective)} against {words.heading(name)}; Pareto front: {listed}.'
    return Plot(f'cost-{name}', figure, alt[0].upper() + alt[1:])


def _number(
    axes: Axes, texts: Sequence[str], places_F2: np.ndarray, others_N2: np.ndarray, side: Any
) -> None:
    """Writes a number beside each point, where it covers no point and no other number."""
    axes.get_xlim()  # Which scales the axes, so that places are known.
    to_share = axes.transScale + axes.transLimits
    size_2 = 72 * np.asarray(SIZE) * (0.82, 0.72)  # Of the axes, about, in points of type.
    dots_N2, high = to_share.transform(others_N2), 8 / size_2[1]
    boxes = [(*(dot - 2.5 / size_2), *(dot + 2.5 / size_2)) for dot in dots_N2]
    across, up = side
    for text, place, dot in zip(texts, places_F2, to_share.transform(places_F2), strict=True):
        wide = (5 * len(text) + 2) / size_2[0]
        for x, y in ((across, up), (across, -up), (-across, up), (-across, -up)):
            left = dot[0] + x * 3 / size_2[0] - (wide if x < 0 else 0)
            under = dot[1] + y * 3 / size_2[1] - (high if y < 0 else 0)
            box = (left, under, left + wide, under + high)
            if min(box) < 0.01 or max(box) > 0.99 or any(_overlap(box, each) for each in boxes):
                continue
            boxes.append(box)
            axes.annotate(text, place, (3 * x, 2 * y), textcoords='offset points', fontsize=8,
                          ha='right' if x < 0 else 'left',
                          va='top' if y < 0 else 'bottom')  # fmt: skip
            break


def _overlap(one: Sequence[float], other: Sequence[float]) -> bool:
    """Tells whether two boxes, left, bottom, right and top, have something in common."""
    return all(one[i] < other[i + 2] and other[i] < one[i + 2] for i in (0, 1))


def legend(figure: Figure) -> None:
    """Explains the lines below the plot, with names as they are."""
    drawn = figure.legend(fontsize='small', loc='outside lower center', frameon=False)
    for text in drawn.get_texts():
        text.set_parse_math(False)
