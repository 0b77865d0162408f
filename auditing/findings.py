"""What the audit looks for, and what it says of it.

A finding is a warning (look at it before you train), an obstacle (training is impossible) or a
note. On clean data there are notes at most.
"""

import collections
import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from auditing import shortcuts
from data import duplicates
from data.duplicates import Pairs
from data.listing import Source

OBSTACLE, WARNING, NOTE = 'obstacle', 'warning', 'note'
_FEW_IMAGES = 20  # In a class: its accuracy cannot be measured.
_NAMED = 1000  # Examples of a finding, at most.
_LEAST_IMAGES = 3  # In a class: one for each of train, validation and test.
_DARK, _BRIGHT, _FLAT = 40, 215, 3  # Levels; of 99 %, of 1 % of the pixels, and their deviation.
_UNSHARP = 0.25  # Of the sharpness that 95 % of the images exceed.


@dataclasses.dataclass
class Finding:
    """One thing that was found.

    Attributes:
      kind: a word for it, such as `near_duplicates`.
      level: OBSTACLE, WARNING or NOTE.
      text: one sentence for people.
      examples: indices of images, or of pairs of images.
      names: of the first thousand of them.
    """

    kind: str
    level: str
    text: str
    examples: list = dataclasses.field(default_factory=list)
    names: list = dataclasses.field(default_factory=list)


def audit(source: Source, max_unreadable: float = 0.05) -> tuple[list[Finding], dict[str, Any]]:
    """Looks for everything.

    Args:
      source: its images squeezed to at most 128 pixels, not cropped, so that borders are there.
      max_unreadable: as in `config.dataset`.

    Returns:
      The findings, the worst first, and the figures behind them (what `audit.json` holds).
    """
    pairs = duplicates.find_once(source)
    clusters = duplicates.clusters(pairs, len(source.labels))
    probes = shortcuts.probe(source, clusters)
    findings = [
        *_unreadable(source, max_unreadable),
        *_classes(source),
        *_duplicates(source, pairs),
        *_odd_images(source),
        *_shortcuts(probes),
    ]
    for finding in findings:
        finding.names = _names(source, finding.examples)
    findings.sort(key=lambda f: (OBSTACLE, WARNING, NOTE).index(f.level))
    figures = {
        'classes': class_table(source),
        'near_duplicate_threshold': pairs.threshold,
        'shortcuts': {name: probe._asdict() for name, probe in probes.items()},
    }
    return findings, figures


def brief(pipeline: Any) -> list[str]:
    """Returns lines on what a training run should know of its data, from what is known already.

    Args:
      pipeline: an `input_pipeline.Pipeline`.
    """
    source = pipeline.source
    lines = [f.text for f in (*_unreadable(source, 1.0), *_classes(source))]
    pairs = _same_content(source)
    if source.cache and (source.cache / duplicates.FILE).exists():
        found = duplicates.find_once(source)
        pairs = np.concatenate([pairs, np.stack([found.first, found.second], 1)])
        pairs = np.unique(pairs, axis=0)
    if len(pairs):
        part = np.full(len(source.labels), -1)
        for i, indices in enumerate(pipeline.members.values()):
            part[indices] = i
        used = (part[pairs] >= 0).all(axis=1)
        apart = int((part[pairs[:, 0]] != part[pairs[:, 1]])[used].sum())
        torn = int((source.labels[pairs[:, 0]] != source.labels[pairs[:, 1]]).sum())
        alike = 'equal or nearly so' if source.holds == 'images' else 'equal'
        text = f'{_count(len(pairs), "pair")} of {source.holds} are {alike}'
        text += f', {torn:,} with two labels' if torn else ''
        text += f', {apart:,} in two splits' if apart else ', none in two splits'
        lines.append(text)
    if unused := len(source.labels) - sum(pipeline.sizes.values()):
        lines.append(f'{_count(unused, source.holds[:-1])} in no split')
    return lines


def class_table(source: Source) -> list[dict[str, Any]]:
    """Returns a row of figures for each class: counts, sizes, aspect ratios, colour modes."""
    unreadable = collections.Counter(label for _, label, _ in source.skipped)
    rows = []
    for label, name in enumerate(source.class_names):
        mine = source.labels == label
        row: dict[str, Any] = {
            'name': name,
            'images': int(mine.sum()),
            'unreadable': unreadable[label],
            'splits': {s: int(mine[m].sum()) for s, m in source.official.items()},
        }
        if mine.any():
            width, height = (source.files[side][mine] for side in ('width', 'height'))
            modes, counts = np.unique(source.files['mode'][mine], return_counts=True)
            row |= {
                'width': _spread(width),
                'height': _spread(height),
                'aspect_ratio': _spread(np.round(width / height, 3)),
                'bytes': _spread(source.files['bytes'][mine]),
                'modes': dict(zip(modes.tolist(), counts.tolist(), strict=True)),
            }
        rows.append(row)
    return rows


def _spread(values: np.ndarray) -> dict[str, float]:
    return {
        'least': values.min().item(),
        'median': float(np.median(values)),
        'most': values.max().item(),
    }


def _count(number: int, word: str) -> str:
    return f'{number:,} {word}{"" if number == 1 else "s"}'


def _names(source: Source, examples: Sequence) -> list:
    return [
        [source.names[i] for i in example] if isinstance(example, tuple) else source.names[example]
        for example in examples[:_NAMED]
    ]


# What is looked for.


def _unreadable(source: Source, most: float) -> Iterable[Finding]:
    if not source.skipped:
        return
    total = len(source.labels) + len(source.skipped)
    share = len(source.skipped) / total
    first = '; '.join(f'{name}: {reason}' for name, _, reason in source.skipped[:3])
    yield Finding(
        'unreadable',
        OBSTACLE if share > most else WARNING,
        f'{len(source.skipped):,} of {total:,} images cannot be read ({first}'
        f'{"; ..." if len(source.skipped) > 3 else ""})',
    )


def _classes(source: Source) -> Iterable[Finding]:
    if not source.class_names:
        return
    thing = source.holds[:-1]
    counts = np.bincount(source.labels, minlength=len(source.class_names))
    for label in np.flatnonzero(counts < _FEW_IMAGES):
        text = f'the class {source.class_names[label]!r} has {_count(int(counts[label]), thing)}'
        if counts[label] < _LEAST_IMAGES:
            yield Finding('too_few', OBSTACLE, f'{text}, too few for three splits')
        else:
            yield Finding('few', WARNING, f'{text}: its accuracy will be little more than a guess')
    if counts.min() and counts.max() > 1.5 * counts.min():
        small, large = (source.class_names[i] for i in (counts.argmin(), counts.argmax()))
        yield Finding(
            'imbalance',
            WARNING if counts.max() > 5 * counts.min() else NOTE,
            f'{large!r} has {counts.max() / counts.min():.1f} times the {source.holds} of '
            f'{small!r}: look at the balanced accuracy; --config.class_balance offers remedies',
        )


def _same_content(source: Source) -> np.ndarray:
    """Returns pairs [P, 2] of images that are equal byte for byte: each with the first of them."""
    _, first, inverse = np.unique(source.hashes, return_index=True, return_inverse=True)
    later = np.flatnonzero(first[inverse] != np.arange(len(inverse)))
    return np.stack([first[inverse[later]], later], 1).astype(np.int64)


def _duplicates(source: Source, near: Pairs) -> Iterable[Finding]:
    same = _same_content(source)
    exact = set(map(tuple, same.tolist()))
    pairs = list(zip(near.first.tolist(), near.second.tolist(), strict=True))
    turned = dict(zip(pairs, near.turned.tolist(), strict=True))
    identical = source.hashes[near.first] == source.hashes[near.second]
    alike = [pair for pair, equal in zip(pairs, identical.tolist(), strict=True) if not equal]
    if exact:
        verb = 'repeats' if len(exact) == 1 else 'repeat'
        text = f'{_count(len(exact), "image")} {verb} another one byte for byte'
        yield Finding('exact_duplicates', WARNING, text, sorted(exact))
    if alike:
        mirrored = sum(turned[pair] for pair in alike)
        how = f', {mirrored:,} of them mirrored or turned' if mirrored else ''
        text = f'{_count(len(alike), "pair")} of images are nearly the same{how}'
        yield Finding('near_duplicates', WARNING, text, alike)
    every = sorted({*exact, *pairs})
    torn = [(a, b) for a, b in every if source.labels[a] != source.labels[b]]
    if torn:
        text = f'{_count(len(torn), "pair")} of equal or nearly equal images have two labels'
        yield Finding('two_labels', WARNING, text, torn)
    part = np.zeros(len(source.labels), int)
    for number, members in enumerate(source.official.values()):
        part[members] = number
    across = [(a, b) for a, b in every if part[a] != part[b]]
    if across:
        text = (
            f'{_count(len(across), "pair")} of equal or nearly equal images stand in two of the '
            'splits that the data came with'
        )
        yield Finding('across_splits', WARNING, text, across)


def _odd_images(source: Source) -> Iterable[Finding]:
    statistics = [_statistics(source.inputs[start : start + 200])
                  for start in range(0, len(source.labels), 200)]  # fmt: skip
    low, high, deviation, sharpness = (
        np.concatenate(column) for column in zip(*statistics, strict=True)
    )
    flat = deviation < _FLAT
    dark, bright = (high < _DARK) & ~flat, (low > _BRIGHT) & ~flat
    usual = np.quantile(sharpness[~flat], 0.05) if (~flat).any() else 0.0
    unsharp = (sharpness < _UNSHARP * usual) & ~flat
    for kind, found, what in (
        ('single_colour', flat, 'of a single colour'),
        ('dark', dark, f'very dark (99 % of the pixels below level {_DARK})'),
        ('bright', bright, f'very bright (99 % of the pixels above level {_BRIGHT})'),
        ('blurred', unsharp, 'far less sharp than the others'),
    ):
        if found.any():
            count, verb = int(found.sum()), 'is' if found.sum() == 1 else 'are'
            yield Finding(kind, WARNING, f'{_count(count, "image")} {verb} {what}',
                          np.flatnonzero(found).tolist())  # fmt: skip
    tiny = np.minimum(source.files['width'], source.files['height']) < 8
    if tiny.any():
        yield Finding('tiny', WARNING, f'{_count(int(tiny.sum()), "image")} of fewer than 8 pixels',
                      np.flatnonzero(tiny).tolist())  # fmt: skip


def _statistics(images_NHWC: np.ndarray) -> tuple[np.ndarray, ...]:
    """Returns the 1st and 99th percentile, deviation and sharpness of each image, [N] each.

    Sharpness is the mean size of the Laplacian as a share of the deviation.
    """
    grey = duplicates.grey(images_NHWC)
    flat = grey.reshape(len(grey), -1)
    low, high = np.percentile(flat, [1, 99], axis=1)
    deviation = flat.std(axis=1)
    laplacian = (
        4 * grey[:, 1:-1, 1:-1] - grey[:, :-2, 1:-1] - grey[:, 2:, 1:-1] - grey[:, 1:-1, :-2]
        - grey[:, 1:-1, 2:]
    )  # fmt: skip
    size = np.abs(laplacian).reshape(len(grey), -1)
    sharpness = size.mean(axis=1) / np.maximum(deviation, 1.0) if size.shape[1] else deviation
    return low, high, deviation, sharpness


_MEANT = {
    'corners': 'the four corners alone tell',
    'border': 'the border alone tells',
    'image_size': 'width and height alone tell',
    'file_size': 'the size of the file alone tells',
    'mean_colour': 'the mean colour alone tells',
}


def _shortcuts(probes: dict[str, shortcuts.Probe]) -> Iterable[Finding]:
    for probe in shortcuts.suspicious(probes):
        right, low, high, chance = (
            f'{100 * min(1.0, share):.0f}'
            for share in (probe.accuracy, probe.low, probe.high, probe.chance)
        )
        yield Finding(
            'shortcut',
            WARNING,
            f'{_MEANT[probe.name]} the class in {right} % of cases ({low} to {high} %; chance '
            f'{chance} %): a net may learn that in place of the thing',
        )
