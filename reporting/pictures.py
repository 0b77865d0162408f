"""Plots and pictures as data URIs, each with a text for those who cannot see it."""

import base64
import contextlib
import io
import pathlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from evaluation import plots

_TYPES = {'.png': 'image/png', '.svg': 'image/svg+xml'}


class Picture(NamedTuple):
    """An image of the page.

    Attributes:
      uri: the image itself.
      alt: what it shows, in words.
      plot: whether it is a drawing, which may be inverted in dark mode, and no photo.
    """

    uri: str
    alt: str
    plot: bool


def drawn(figure: Figure, alt: str) -> Picture:
    """Returns a plot as SVG."""
    buffer = io.BytesIO()
    with _drawing():
        figure.savefig(buffer, format='svg', transparent=True, metadata={'Date': None})
    return _picture(buffer.getvalue(), '.svg', alt, plot=True)


def saved(figure: Figure, path: pathlib.Path, alt: str) -> Picture:
    """Writes a plot as PNG and SVG, to `path` with these endings, and returns the latter."""
    with _drawing():
        figure.savefig(f'{path}.png', dpi=150)
        figure.savefig(f'{path}.svg', transparent=True, metadata={'Date': None})
    return stored(pathlib.Path(f'{path}.svg'), alt, plot=True)


@contextlib.contextmanager
def _drawing() -> Iterator[None]:
    # Names of elements would differ from one report to the next.
    with matplotlib.rc_context({'svg.hashsalt': 'leadline'}), warnings.catch_warnings():
        # Names in scripts that the font lacks are drawn as boxes.
        warnings.filterwarnings('ignore', message='Glyph .* missing from font')
        yield


def stored(path: pathlib.Path, alt: str, plot: bool = False) -> Picture:
    """Returns a picture that the evaluation wrote."""
    return _picture(path.read_bytes(), path.suffix, alt, plot)


def _picture(content: bytes, suffix: str, alt: str, plot: bool) -> Picture:
    text = base64.b64encode(content).decode()
    return Picture(f'data:{_TYPES[suffix]};base64,{text}', alt, plot)


def curve(name: str, runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """Draws a figure of training and validation against epochs.

    Args:
      name: `loss` or `accuracy`.
      runs: name and lines of `metrics.jsonl` of each run.
    """
    figure = Figure(figsize=(4.6, 3.4), layout='constrained')
    axes = figure.add_subplot(xlabel='epoch', ylabel=name)
    for i, (run, lines) in enumerate(runs.items()):
        for split, style in (('train', ':'), ('validation', '-')):
            label = run if split == 'validation' else '_'
            axes.plot([line['epoch'] for line in lines],
                      [line[f'{split}_{name}'] for line in lines], style,
                      color=plots.BLUE if len(runs) == 1 else f'C{i}',
                      label=split if len(runs) == 1 else label,
                      marker='o' if len(lines) == 1 else None)  # fmt: skip
    values = np.concatenate([line.get_ydata() for line in axes.lines])
    if name == 'loss' and values.min() > 0 and values.max() > 10 * values.min():
        axes.set_yscale('log')
    axes.legend(fontsize='small')
    axes.grid(alpha=0.25)
    return figure


def norms(lines: Sequence[Mapping[str, Any]]) -> Figure:
    """Draws the norms of gradients and weights of each part of the net against epochs."""
    figure = Figure(figsize=(8.4, 3.4), layout='constrained')
    epochs = [line['epoch'] for line in lines]
    colours = matplotlib.colormaps['viridis'](np.linspace(0, 0.9, len(lines[0]['weight_norms'])))
    for axes, kind in zip(figure.subplots(1, 2), ('gradient', 'weight'), strict=True):
        for part, colour in zip(lines[0][f'{kind}_norms'], colours, strict=True):
            axes.plot(epochs, [line[f'{kind}_norms'][part] or np.nan for line in lines],
                      color=colour, label=part)  # fmt: skip
        axes.set(xlabel='epoch', ylabel=f'{kind} norm', yscale='log')
        axes.grid(alpha=0.25)
    axes.legend(fontsize='small', loc='center left', bbox_to_anchor=(1, 0.5))
    return figure
