"""Plots of a study as a whole: parallel coordinates, learning curves, importance of factors."""

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from evaluation.plots import BLUE, GREY
from sweeping.reading import summary, words
from sweeping.reading.axes import Scale
from sweeping.reading.plots import SIZE, Plot, dress_objective, legend
from sweeping.table import Table
from training.run_folder import RunFolder

_CURVES = 8  # Points whose learning curves are drawn.


def parallel(table: Table) -> Plot | None:
    """Draws each complete point as a line through the values of its factors to the objective.

    None with fewer than two factors that take several values, or fewer than three points.
    """
    points, objective = summary.complete(table), table.objectives[0]
    scales = {
        f: Scale([p.values[f] for p in points if f in p.values])
        for f in table.factors
        if any(f in p.values for p in points)
    }
    scales = {f: scale for f, scale in scales.items() if len(scale.values) > 1}
    results = np.asarray([point.objectives[0] for point in points])
    if len(scales) < 2 or len(points) < 3 or np.ptp(results) == 0:
        return None
    last = len(scales)
    figure = Figure(figsize=(min(2.0 + 1.4 * last, 14.0), 3.8), layout='constrained')
    axes = figure.add_subplot()
    # The best lines are the darkest, and drawn last, above the others.
    colours = colormaps['viridis_r' if table.maximize[0] else 'viridis']
    norm = Normalize(results.min(), results.max())
    for point in reversed(points):
        heights = [
            scale.share(point.values[f]) if f in point.values else np.nan
            for f, scale in scales.items()
        ]
        axes.plot([*range(last), last], [*heights, norm(point.objectives[0])], marker='.',
                  color=colours(norm(point.objectives[0])), linewidth=1, alpha=0.8)  # fmt: skip
    for place, scale in enumerate(scales.values()):
        _upright(axes, place, scale)
    names = words.short_names(table.factors)
    axes.set_xticks(range(last + 1), [*(names[f] for f in scales), ''], parse_math=False,
                    rotation=20, ha='right')  # fmt: skip
    axes.set(xlim=(-0.1, last + 0.1), ylim=(-0.04, 1.04), yticks=[])
    for side in axes.spines.values():
        side.set_visible(False)
    bar = figure.colorbar(ScalarMappable(norm, colours), ax=axes, label=words.heading(objective))
    if words.is_share(objective):
        bar.ax.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=' %'))
    shown = ', '.join(names[f] for f in scales)
    alt = (
        f'Parallel coordinates of {words.count(len(points), "point")}: {shown}, then '
        f'{words.heading(objective)}; the best goes through {words.values(table, points[0])}.'
    )
    return Plot('parallel', figure, alt)


def _upright(axes: Axes, place: int, scale: Scale) -> None:
    """Draws the axis of a factor, with its values beside it."""
    axes.axvline(place, color=GREY, linewidth=0.8)
    for value in scale.ticks() or [scale.values[0], scale.values[-1]]:
        axes.text(place + 0.04, scale.share(value), words.label(value), fontsize=7, va='center',
                  parse_math=False, bbox={'facecolor': 'white', 'alpha': 0.7, 'pad': 0.6,
                                          'edgecolor': 'none'})  # fmt: skip


def curves(table: Table) -> Plot | None:
    """Draws a validation figure of the runs of the best points against epochs.

    It is the first objective, or where evaluations do not have it, accuracy or loss. None where no
    run folder has evaluations.
    """
    points = summary.complete(table)[:_CURVES]
    read = [
        [RunFolder(table.folder / run.folder).read_metrics() for run in point.replicates]
        for point in points
    ]
    every = [line for runs in read for run in runs for line in run]
    names = (table.objectives[0], 'validation_accuracy', 'validation_loss')
    shown = next((n for n in names if any(line.get(n) is not None for line in every)), None)
    if shown is None:
        return None
    figure = Figure(figsize=(5.2, 3.3 + 0.2 * len(points)), layout='constrained')
    axes = figure.add_subplot(xlabel='epoch')
    for i, (point, runs) in enumerate(zip(points, read, strict=True)):
        label = f'{point.number}: {words.values(table, point)}'
        _curves_of(axes, shown, runs, f'C{i}', textwrap.shorten(label, 60, placeholder=' ...'))
    dress_objective(axes, shown)
    if shown == 'validation_loss':
        axes.set_yscale('log')
    legend(figure)
    listed = ', '.join(str(point.number) for point in points)
    alt = (
        f'Learning curves, {words.heading(shown)} against epochs, of the best '
        f'{words.count(len(points), "point")}, best first: {listed}.'
    )
    return Plot('curves', figure, alt)


def _curves_of(
    axes: Axes, name: str, runs: Sequence[Sequence[dict[str, Any]]], colour: str, label: str
) -> None:
    """Draws the runs of a point, and their mean, evaluation by evaluation."""
    drawn = [
        np.asarray([(line['epoch'], line[name]) for line in run if line.get(name) is not None])
        for run in runs
    ]
    drawn = [run_E2 for run_E2 in drawn if len(run_E2)]
    if not drawn:
        return
    for run_E2 in drawn if len(drawn) > 1 else ():
        axes.plot(run_E2[:, 0], run_E2[:, 1], color=colour, linewidth=0.6, alpha=0.3)
    shortest = min(map(len, drawn))
    mean_E2 = np.mean([run_E2[:shortest] for run_E2 in drawn], axis=0)
    axes.plot(mean_E2[:, 0], mean_E2[:, 1], color=colour, linewidth=1.5, label=label,
              marker='.' if shortest < 3 else '')  # fmt: skip


def importance(table: Table, shares: dict[str, float]) -> Plot:
    """Draws how much of the variance between points each factor explains, and says of how many."""
    many, names = len(summary.complete(table)), words.short_names(table.factors)
    figure = Figure(figsize=(SIZE[0], 1.3 + 0.32 * len(shares)), layout='constrained')
    axes = figure.add_subplot()
    axes.barh(range(len(shares)), list(shares.values()), color=BLUE)
    axes.set_yticks(range(len(shares)), [names[f] for f in shares], parse_math=False)
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, symbol=' %'))
    worth = 'a first hint, no more' if many < 10 * len(shares) else 'a hint, no test'
    axes.set_xlabel(f'share of the variance (fANOVA)\nof {many} points: {worth}')
    axes.grid(alpha=0.25, axis='x')
    listed = ', '.join(f'{names[f]} {100 * share:.0f} %' for f, share in shares.items())
    alt = f'Importance of the factors, from {many} points, {worth}: {listed}.'
    return Plot('importance', figure, alt)
