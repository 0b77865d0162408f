"""The pictures of a choice; Matplotlib figures, no pyplot."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from evaluation.plots import BLUE, GREY
from reporting.pictures import Picture, drawn
from selection.choice import MEASURES, Answered, Candidate, Choice
from selection.report import figures, words
from sweeping.reading.axes import logarithmic
from sweeping.reading.heights import Heights
from sweeping.reading.plots import legend
from sweeping.reading.summary import front

_SIZE, _LARGE = (4.7, 3.8), (5.8, 4.4)
_ORANGE = '#c26a12'
_ANSWERS = {'better': BLUE, 'worse': _ORANGE, 'no better': GREY, 'cannot tell': 'black'}
_MOST_NAMED = 4  # Baselines that have a line of their own.


def growth(choice: Choice) -> Picture | None:
    """Draws the measure against depth: a line for each input size, baselines across.

    None before a rung of the ladder was judged.
    """
    rungs = [c for c in judged(choice) if c.role == 'ladder']
    if not rungs:
        return None
    flat = [c for c in judged(choice) if c.role in ('constant', 'linear', 'baseline')]
    flat = flat[: _MOST_NAMED + 2]
    figure, axes = _axes(choice, [*rungs, *flat], _LARGE)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel(f'{choice.layer}s')
    sizes = sorted({c.image_size or 0 for c in rungs})
    places: dict[str, float] = {}
    for i, size in enumerate(sizes):
        line = sorted((c for c in rungs if (c.image_size or 0) == size), key=lambda c: c.depth)
        aside = 0.12 * (i - (len(sizes) - 1) / 2)  # Intervals of several lines stand side by side.
        places |= {c.name: c.depth + aside for c in line}
        _estimates(axes, [places[c.name] for c in line], line,
                   colormaps['viridis'](0.75 * i / max(1, len(sizes) - 1)),
                   f'{size} pixels' if size else 'ladder', '-o')  # fmt: skip
    for i, other in enumerate(flat):
        axes.axhline(_mean(other), color=GREY, linewidth=1,
                     linestyle=('--', ':', '-.', (0, (5, 1)), (0, (1, 4)), '-')[i],
                     label=other.label[:40])  # fmt: skip
    _mark(axes, choice, places)
    legend(figure)
    listed = '; '.join(
        f'{words.net(choice, c)} {figures.with_interval(choice.measure, c.mean, c.low, c.high)}'
        for c in sorted(rungs, key=lambda c: (c.image_size or 0, c.depth))
    )
    heading = MEASURES[choice.measure].heading
    return drawn(figure, f'{heading.capitalize()} against depth: {listed}.')


def pareto(choice: Choice) -> list[Picture]:
    """Draws the measure against each cost, with the nets that no other one beats in both."""
    pictures = []
    costs = {'flops': 'FLOPs for one example', 'parameters': 'parameters',
             'latency_ms': figures.latency(choice)}  # fmt: skip
    for name, heading in costs.items():
        nets = [c for c in judged(choice) if getattr(c, name)]
        if len({getattr(c, name) for c in nets}) > 1:
            pictures.append(_pareto(choice, nets, name, heading))
    return pictures


def on_front(choice: Choice, nets: Sequence[Candidate], cost: str) -> list[Candidate]:
    """Returns the nets of which no other one is both as good and as cheap, cheapest first."""
    if not nets:
        return []
    up = not MEASURES[choice.measure].less_is_better
    values_N2 = np.asarray([(getattr(c, cost), c.mean) for c in nets], float)
    chosen_N = front(values_N2, (False, up))
    found = [c for c, chosen in zip(nets, chosen_N, strict=True) if chosen]
    return sorted(found, key=lambda c: getattr(c, cost))


def judged(choice: Choice) -> list[Candidate]:
    """Returns the candidates whose measure is known."""
    return [c for c in choice.candidates if c.mean is not None]


def _pareto(choice: Choice, nets: Sequence[Candidate], name: str, heading: str) -> Picture:
    figure, axes = _axes(choice, nets)
    costs = [getattr(c, name) for c in nets]
    logarithmic(axes, min(costs), max(costs))
    best = on_front(choice, nets, name)
    others = [c for c in nets if c not in best]
    _estimates(axes, [getattr(c, name) for c in others], others, GREY, 'other nets', 'o')
    places = [getattr(c, name) for c in best]
    _estimates(axes, places, best, BLUE, 'Pareto front', 'o')
    axes.step(places, [_mean(c) for c in best], where='post', color=BLUE, linewidth=1)
    axes.set_xlabel(heading)
    _mark(axes, choice, {c.name: getattr(c, name) for c in nets})
    legend(figure)
    listed = '; '.join(
        f'{c.name} ({getattr(c, name):,.4g}, {figures.value(choice.measure, c.mean)})' for c in best
    )
    return drawn(
        figure,
        f'{MEASURES[choice.measure].heading.capitalize()} against {heading}; Pareto front: '
        f'{listed}.',
    )


def learning_curve(choice: Choice) -> Picture | None:
    """Draws the measure of the recommended net against how many images it learned from."""
    points = sorted(choice.learning_curve, key=lambda point: point.images)
    if len(points) < 2:
        return None
    figure, axes = _axes(choice, points)
    _estimates(axes, [p.images for p in points], points, BLUE, '_', '-o')
    if points[-1].images > 3 * points[0].images:
        logarithmic(axes, points[0].images, points[-1].images)
    axes.set_xlabel(f'training {figures.holds(choice)}')
    listed = '; '.join(
        f'{p.images:,}: {figures.with_interval(choice.measure, p.mean, p.low, p.high)}'
        for p in points
    )
    heading = MEASURES[choice.measure].heading.capitalize()
    return drawn(figure, f'{heading} of the recommended net against training data: {listed}.')


def verdicts(choice: Choice, said: Sequence[Answered]) -> Picture:
    """Draws a forest plot: the gain of each question with its interval, over the delta band."""
    measure = choice.measure
    scale = 100 if MEASURES[measure].is_share else 1
    figure = Figure(figsize=(5.6, 1.3 + 0.34 * len(said)), layout='constrained')
    axes = figure.add_subplot()
    axes.axvspan(-scale * choice.delta, scale * choice.delta, color='#e8e8e8')
    axes.axvline(0, color=GREY, linewidth=1)
    for place, one in enumerate(said):
        axes.errorbar(scale * one.difference, place, xerr=scale * one.half_width, fmt='o',
                      capsize=3, color=_ANSWERS[one.answer])  # fmt: skip
    axes.set_yticks(range(len(said)), [str(i + 1) for i in range(len(said))])
    axes.set_ylim(len(said) - 0.5, -0.5)
    axes.set_ylabel('question')
    unit = ' in points' if scale == 100 else ''
    axes.set_xlabel(f'gain of {MEASURES[measure].heading}{unit}; grey: less than delta')
    for answer in dict.fromkeys(one.answer for one in said):
        axes.scatter([], [], color=_ANSWERS[answer], label=answer)
    legend(figure)
    listed = '; '.join(f'{one.question} {figures.gain(measure, one)}: {one.answer}' for one in said)
    return drawn(figure, f'Gain in each question with its interval: {listed}.')


def heights(choice: Choice, shown: Sequence[Any]) -> Heights:
    """Returns the axis of the measure that shows the means of `shown` and their intervals."""
    seen = [x for each in shown for x in (each.mean, *_ends(each)) if not math.isnan(x)]
    if MEASURES[choice.measure].is_share:
        seen = [min(max(x, 0.0), 1.0) for x in seen]
    return Heights(choice.measure, seen)


def _axes(
    choice: Choice, shown: Sequence[Any], size: tuple[float, float] = _SIZE
) -> tuple[Figure, Axes]:
    """Returns axes whose height shows the means of `shown` with their intervals."""
    figure = Figure(figsize=size, layout='constrained')
    axes = figure.add_subplot()
    measure = MEASURES[choice.measure]
    heights(choice, shown).dress(axes)
    axes.set_ylabel(f'{measure.heading}, on the folds left out')
    return figure, axes


def _mean(candidate: Candidate) -> float:
    return math.nan if candidate.mean is None else candidate.mean


def _ends(each: Any) -> tuple[float, float]:
    low, high = getattr(each, 'low', None), getattr(each, 'high', None)
    return (math.nan, math.nan) if low is None or high is None else (low, high)


def _estimates(
    axes: Axes, places: Sequence[float], shown: Sequence[Any], colour: Any, label: str, style: str
) -> None:
    """Draws means with their intervals; hollow where there is none."""
    if not shown:
        return
    means_N = np.asarray([each.mean for each in shown])
    ends_N2 = np.asarray([_ends(each) for each in shown])
    widths_2N = np.abs(ends_N2 - means_N[:, None]).T
    axes.errorbar(places, means_N, widths_2N, fmt=style, color=colour, label=label, markersize=4,
                  capsize=2.5, linewidth=1.2, elinewidth=1)  # fmt: skip
    single_N = np.isnan(widths_2N).any(axis=0)
    axes.plot(np.asarray(places)[single_N], means_N[single_N], 'o', color='white', markersize=2,
              zorder=3)  # fmt: skip


def _mark(axes: Axes, choice: Choice, places: dict[str, float]) -> None:
    """Puts a ring around the recommended net."""
    chosen = choice.candidate(choice.recommended)
    if chosen is not None and chosen.name in places:
        axes.scatter([places[chosen.name]], [_mean(chosen)], s=130, facecolors='none',
                     edgecolors=_ORANGE, linewidths=2, zorder=1.5, label='recommended')  # fmt: skip
