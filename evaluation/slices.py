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
      of whether it has more errors than all other images, times the number of slices); `worst`:
      of those with p below 0.05, or of all where there are none, that of the lowest accuracy, or
      None; `note`: what may be concluded.
    """
    found = []
    for way, values_N in ways.items():
        for value in sorted(set(values_N.tolist())):
            inside_N = values_N == value
            if _LEAST_EXAMPLES <= inside_N.sum() <= len(right_N) - _LEAST_EXAMPLES:
                found.append((way, value, inside_N))
    level = 1 - (1 - intervals.LEVEL) / max(1, len(found))
    slices: list[dict[str, Any]] = []
    alike = _correlation(right_N, groups_N)
    for way, value, inside_N in found:
        inside = right_N[inside_N]
        wide = metrics.proportion(inside, groups_N[inside_N], level)
        slices.append({
            'by': way,
            'value': value or '(none)',
            'examples': len(inside),
            'accuracy': metrics.proportion(inside, groups_N[inside_N]),
            'simultaneous': {'low': wide['low'], 'high': wide['high']},
            'p': min(1.0, _chance(inside_N, right_N, groups_N, alike) * len(found)),
        })  # fmt: skip
    if not slices:
        return {'slices': [], 'worst': None, 'note': 'Nothing to slice by.'}
    certain = [s for s in slices if s['p'] < 1 - intervals.LEVEL]
    worst = min(certain or slices, key=lambda s: (s['accuracy']['value'], -s['examples']))
    verdict = (
        'harder than the rest by more than chance'
        if certain
        else 'no more than chance among so many slices can explain'
    )
    note = f'The lowest of {len(slices)} slices is always low: this one is {verdict}.'
    return {'slices': slices, 'worst': worst, 'note': note}


def _chance(inside_N: np.ndarray, right_N: np.ndarray, groups_N: np.ndarray, alike: float) -> float:
    """Returns the p value of Fisher's exact test that a slice has more errors than the rest.

    Both counts are divided by the design effect first (Donner and Klar 2000, "Design and analysis
    of cluster randomization trials in health research", section 6.2): 1 + (m - 1) times the
    correlation within groups, where m is the size of the group that the mean image is in.
    """
    table = []
    for part_N in (inside_N, ~inside_N):
        sizes_G = np.unique(groups_N[part_N], return_counts=True)[1]
        effect = 1 + ((sizes_G**2).sum() / sizes_G.sum() - 1) * alike
        right = right_N[part_N].sum() / effect
        table.append([round(part_N.sum() / effect - right), round(right)])
    return float(fisher_exact(table, alternative='greater').pvalue)


def _correlation(right_N: np.ndarray, groups_N: np.ndarray) -> float:
    """Returns the correlation of two images of a group: the estimator of analysis of variance.

    Donner and Klar 2000, section 1.4; between 0 and 1. That of all images, since a slice alone has
    few groups; 1 where images are all right or all wrong, which tell none.
    """
    _, group_N, sizes_G = np.unique(groups_N, return_inverse=True, return_counts=True)
    count, number = len(groups_N), len(sizes_G)
    if number == count:
        return 0.0
    share_G = np.bincount(group_N, weights=right_N) / sizes_G
    within = (sizes_G * share_G * (1 - share_G)).sum() / (count - number)
    between = (sizes_G * (share_G - right_N.mean()) ** 2).sum() / max(number - 1, 1)
    size = (count - (sizes_G**2).sum() / count) / max(number - 1, 1)
    total = between + (size - 1) * within
    return float(np.clip((between - within) / total, 0, 1)) if total > 0 else 1.0
