"""Parts of a split that may be harder than the rest, and the worst of them, with due doubt."""

import pathlib
from collections.abc import Iterable
from typing import Any

import numpy as np
from scipy.stats import fisher_exact

from evaluation import intervals, metrics

_LEAST_EXAMPLES = 10  # Of a slice: of fewer nothing can be said.
_MOST_VALUES = 20  # Of a column: of more each is too small.
_BRIGHTNESS = ('the darkest third', 'the middle third', 'the brightest third')
_SIZES = ('the smallest third', 'the middle third', 'the largest third')


def candidates(
    images: Iterable[np.ndarray] | None,
    names: list[str],
    labels: list[str],
    files: dict[str, np.ndarray],
    columns: dict[str, np.ndarray],
) -> dict[str, np.ndarray]:
    """Returns what to slice by: for each way the name of each image's slice, [N] strings.

    Args:
      images: uint8 [H, W, C] each, or None of what is no image; they are read one by one.
      names: of the images, which of folders are paths.
      labels: name of the class of each.
      files: width, height and mode of each file, as in `data.listing.Source`; or {}.
      columns: further columns of a table, [N] strings each.
    """
    ways = {'folder': np.asarray([_folder(n, c) for n, c in zip(names, labels, strict=True)])}
    if files:
        ways['colour mode'] = files['mode']
        ways['image size'] = _thirds(files['width'] * files['height'], _SIZES)
    if images is not None:
        brightness = np.asarray([image.mean() for image in images])
        ways['brightness'] = _thirds(brightness, _BRIGHTNESS)
    ways |= {f'column {n}' if n in ways else n: values for n, values in columns.items()}
    return {way: values for way, values in ways.items() if 1 < len(set(values)) <= _MOST_VALUES}


def _folder(name: str, label: str) -> str:
    """Returns the folder inside of the class folder that an image lies in, '' for none."""
    parts = pathlib.PurePosixPath(name).parts
    inside = parts[parts.index(label) + 1 : -1] if label in parts else ()
    return inside[0] if inside else ''


def _thirds(values_N: np.ndarray, names: tuple[str, str, str]) -> np.ndarray:
    """Returns the name of each image's third; equal values stay together."""
    edges = np.quantile(values_N, (1 / 3, 2 / 3))
    return np.asarray(names)[np.searchsorted(edges, values_N, side='left')]


def judge(ways: dict[str, np.ndarray], right_N: np.ndarray, groups_N: np.ndarray) -> dict[str, Any]:
    """Returns the accuracy of each slice, and the worst one.

    Returns:
      `slices`: each with `by`, `value`, `examples`, `accuracy`, `simultaneous` (its bounds at a
      level that holds for all slices at once, by Bonferroni's rule) and `p` (Fisher's exact test
      of its errors against those of all other images, times the number of slices); `worst`: that
      of the lowest accuracy, or None; `note`: what may be concluded.
    """
    found = []
    for way, values_N in ways.items():
        for value in sorted(set(values_N.tolist())):
            inside_N = values_N == value
            if _LEAST_EXAMPLES <= inside_N.sum() <= len(right_N) - _LEAST_EXAMPLES:
                found.append((way, value, inside_N))
    level = 1 - (1 - intervals.LEVEL) / max(1, len(found))
    slices: list[dict[str, Any]] = []
    for way, value, inside_N in found:
        inside, outside = right_N[inside_N], right_N[~inside_N]
        table = [[int((~part).sum()), int(part.sum())] for part in (inside, outside)]
        wide = metrics.proportion(inside, groups_N[inside_N], level)
        slices.append({
            'by': way,
            'value': value or '(none)',
            'examples': len(inside),
            'accuracy': metrics.proportion(inside, groups_N[inside_N]),
            'simultaneous': {'low': wide['low'], 'high': wide['high']},
            'p': min(1.0, float(fisher_exact(table).pvalue) * len(found)),
        })  # fmt: skip
    if not slices:
        return {'slices': [], 'worst': None, 'note': 'Nothing to slice by.'}
    worst = min(slices, key=lambda s: (s['accuracy']['value'], -s['examples']))
    beyond = worst['p'] < 1 - intervals.LEVEL
    verdict = (
        'harder than the rest by more than chance'
        if beyond
        else 'no more than chance among so many slices can explain'
    )
    note = f'The lowest of {len(slices)} slices is always low: this one is {verdict}.'
    return {'slices': slices, 'worst': worst, 'note': note}
