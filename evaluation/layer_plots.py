"""The picture of what the blocks of a net are worth."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from evaluation.plots import BLUE, GREY

_ORANGE = '#c26a12'
_COLOURS = {'needed': BLUE, 'not needed': _ORANGE, 'cannot tell': GREY}


def layers(content: dict[str, Any]) -> Figure:
    """Draws losses without each block, probes through the depth, and the likeness of the maps.

    Args:
      content: what `layers.judge` returns.
    """
    rows = content['blocks']
    height = min(24.0, max(4.0, 1.6 + 0.32 * len(rows)))
    figure = Figure(figsize=(14, height), layout='constrained')
    losses, probes, likeness = figure.subplots(1, 3, width_ratios=(1.3, 0.8, 1.0))
    _draw_losses(losses, rows, content['delta'])
    _draw_probes(probes, rows, content)
    _draw_likeness(likeness, content)
    return figure


def _draw_losses(axes: Any, rows: list[dict[str, Any]], delta: float) -> None:
    places = np.arange(len(rows))
    axes.axvspan(-100 * delta, 100 * delta, color='#e8e8e8')
    axes.axvline(0, color=GREY, linewidth=1)
    for place, row in zip(places, rows, strict=True):
        loss = row['removed_retrained']
        value, low, high = (100 * loss[k] for k in ('value', 'low', 'high'))
        colour = _COLOURS[row['verdict']]
        axes.errorbar(value, place, xerr=[[max(0.0, value - low)], [max(0.0, high - value)]],
                      fmt='o', capsize=3, color=colour)  # fmt: skip
    for name, label, marker in (('removed', 'removed, not retrained', 'x'),
                                ('reinitialised', 're-initialised', '+')):  # fmt: skip
        axes.scatter([100 * row[name]['value'] for row in rows], places, marker=marker,
                     color='black', linewidth=1, label=label)  # fmt: skip
    for verdict, colour in _COLOURS.items():
        axes.scatter([], [], color=colour, label=f'removed, retrained: {verdict}')
    axes.set_yticks(places, [f'{row["name"]} ({row["way"]})' for row in rows])
    axes.invert_yaxis()
    # What is left out without retraining costs tens of points, what matters is about one.
    axes.set_xscale('symlog', linthresh=200 * delta)
    axes.xaxis.set_major_formatter('{x:g}')
    axes.set(xlabel='points of accuracy lost without the block', title='Is it needed?')
    axes.legend(fontsize='x-small', loc='upper center', bbox_to_anchor=(0.5, -0.16), ncols=2)


def _draw_probes(axes: Any, rows: list[dict[str, Any]], content: dict[str, Any]) -> None:
    figures = [rows[0]['probe_before'], *(row['probe'] for row in rows)]
    value, low, high = (100 * np.asarray([f[k] for f in figures]) for k in ('value', 'low', 'high'))
    places = np.arange(len(figures))
    errors = np.clip([value - low, high - value], 0, None)
    axes.errorbar(value, places, xerr=errors, fmt='o-', capsize=3, color=BLUE)
    whole = 100 * content['whole']['plain']['value']
    axes.axvline(whole, color=GREY, linestyle='--', label='the net itself')
    axes.set_yticks(places, content['maps'])
    axes.invert_yaxis()
    axes.set(xlabel='accuracy, %', title='Linear probe behind each block')
    axes.legend(fontsize='x-small')


def _draw_likeness(axes: Any, content: dict[str, Any]) -> None:
    cka = np.asarray([[np.nan if v is None else v for v in row] for row in content['cka']])
    image = axes.imshow(cka, vmin=0, vmax=1, cmap='viridis')
    places = range(len(cka))
    axes.set_xticks(places, content['maps'], rotation=60, ha='right', fontsize='small')
    axes.set_yticks(places, content['maps'], fontsize='small')
    axes.figure.colorbar(image, ax=axes, shrink=0.8)
    axes.set_title('Likeness of the maps (linear CKA)')
