"""Which example is in which split: stratified, grouped, by a seed of its own, or from a file."""

import json
import pathlib
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from data import duplicates
from data.listing import Source, content_hash
from errors import UserError

SPLITS = ('train', 'validation', 'test', 'stopping')


def split(source: Source, dataset: Any, stopping_fraction: float = 0.0) -> dict[str, np.ndarray]:
    """Returns index arrays: train, validation, test, and stopping where its fraction is above 0.

    The set's own splits stay as they are; what it lacks is drawn at random within each class, in
    whole groups: the test split first, by `split_seed` alone, then the subset, then the validation
    split (or one fold of several) by `split_seed` and `repeat`. So replicates share the test
    split. `stopping` is a share of the training part, for early stopping alone. Every index array
    is sorted. Numbers to predict are drawn without regard to their size. The rows of a series are
    cut in time order: train, stopping, validation, test; folds of it are made of long stretches.

    Args:
      source: the data set.
      dataset: `config.dataset`.
      stopping_fraction: of the training part.

    Raises:
      UserError: a class has too few images to be in every part, or the splits file does not fit.
    """
    if source.span:
        return _in_time_order(source, dataset, stopping_fraction)
    groups = group(source, dataset.group_by)

    def cut(members: np.ndarray, shares: Sequence[float], *stream: Any) -> list[np.ndarray]:
        return deal(source.labels, groups, members, shares, _seed(*stream), source.class_names)

    if dataset.splits_file:
        parts = _from_file(source, dataset.splits_file)
    else:
        parts = _draw(source, dataset, cut)
    if stopping_fraction and 'stopping' not in parts:
        parts['train'], parts['stopping'] = cut(
            parts['train'], (1 - stopping_fraction, stopping_fraction), dataset.split_seed,
            'stopping', dataset.repeat,
        )  # fmt: skip
    return {name: parts[name] for name in SPLITS if name in parts}


def _draw(source: Source, dataset: Any, cut: Callable[..., Any]) -> dict[str, np.ndarray]:
    """Returns train, validation and test: the set's own, and what it lacks drawn by `cut`."""
    parts = dict(source.official) or {'train': np.arange(len(source.labels))}
    if 'train' not in parts:
        raise UserError(f'There is nothing to train on, only {" and ".join(parts)}.')
    validation, test = dataset.validation_fraction, dataset.test_fraction
    if 'test' not in parts:
        parts['train'], parts['test'] = cut(
            parts['train'], (1 - test, test), dataset.split_seed, 'test'
        )
        if not source.official:
            validation /= 1 - test
            if validation >= 1:
                raise UserError(
                    f'config.dataset.validation_fraction={dataset.validation_fraction:g} and '
                    f'test_fraction={test:g} leave nothing to train on: choose smaller ones.'
                )
    if dataset.folds and 'validation' in parts:  # Folds are of all images that are not the test's.
        parts['train'] = np.union1d(parts['train'], parts.pop('validation'))
    if dataset.subset != 1.0:
        count = len(parts['train'])
        share = dataset.subset if dataset.subset < 1 else min(1.0, dataset.subset / count)
        if share < 1:
            parts['train'], _ = cut(
                parts['train'], (share, 1 - share), dataset.split_seed, 'subset'
            )
    if dataset.folds:
        folds = cut(parts['train'], [1 / dataset.folds] * dataset.folds, dataset.split_seed,
                    'folds', dataset.repeat)  # fmt: skip
        parts['validation'] = folds.pop(dataset.fold)
        parts['train'] = np.sort(np.concatenate(folds))
    elif 'validation' not in parts:
        parts['train'], parts['validation'] = cut(
            parts['train'], (1 - validation, validation), dataset.split_seed, 'validation',
            dataset.repeat,
        )  # fmt: skip
    return parts


# Fields of `config.dataset` that draw splits, and what they are where they ask for nothing.
_DRAWING = {
    'split_seed': (0,), 'repeat': (0,), 'subset': (1.0,), 'group_by': ('auto', 'none'),
    'splits_file': ('',),
}  # fmt: skip
# Blocks in time (Carlstein 1986). Windows share rows over the ends of blocks too: blocks of several
# spans make that matter little.
_SPANS_IN_GROUP = 4
_MOST_STRETCHES, _GROUPS_IN_STRETCH = 5, 3  # Of a fold of a series; of a stretch at least.


def _in_time_order(source: Source, dataset: Any, stopping_fraction: float) -> dict[str, np.ndarray]:
    """Returns the windows of a series by split.

    The rows are cut into stretches, the earliest for training, the latest for the test; a window
    belongs to the stretch that holds all its rows and its target. So no row is in two splits:
    `span - 1` windows that reach over a cut belong to none.

    Raises:
      UserError: a stretch is shorter than a window and its target, or a field asks for drawing.
    """
    for name, usual in _DRAWING.items():
        if dataset[name] not in usual and not (dataset.folds and name in ('split_seed', 'repeat')):
            raise UserError(
                f'config.dataset.{name}={dataset[name]} is not for a series, whose splits follow '
                'time: leave it out.'
            )
    rows = len(source.labels) + source.span - 1
    test, validation = (
        round(rows * share) for share in (dataset.test_fraction, dataset.validation_fraction)
    )
    if dataset.folds:
        validation = 0
    stopping = round((rows - test - validation) * stopping_fraction)
    lengths = {'train': rows - test - validation - stopping, 'stopping': stopping,
               'validation': validation, 'test': test}  # fmt: skip
    if not stopping_fraction:
        del lengths['stopping']
    if dataset.folds:
        del lengths['validation']
    parts, start = {}, 0
    for name, length in lengths.items():
        if length < source.span:
            raise UserError(
                f'The {name} split gets {max(0, length)} of the {rows:,} rows, fewer than the '
                f'{source.span} of one window and its target: change config.dataset.window, '
                'horizon, test_fraction or validation_fraction.'
            )
        parts[name] = np.arange(start, start + length - source.span + 1)
        start += length
    if dataset.folds:
        parts['train'], parts['validation'] = _fold_in_time(parts['train'], source.span, dataset)
    return {name: parts[name] for name in SPLITS if name in parts}


def _fold_in_time(windows: np.ndarray, span: int, dataset: Any) -> tuple[np.ndarray, np.ndarray]:
    """Returns the windows to train on and those of the fold that is left out.

    Long stretches are dealt to the folds. What shares a row with the fold is not trained on:
    Racine 2000, "Consistent cross-validatory model-selection for dependent data: hv-block
    cross-validation". So nets also learn from what comes after the fold; the test split is the
    latest time all the same.

    Raises:
      UserError: the series is too short for so many folds.
    """
    folds, size = dataset.folds, _SPANS_IN_GROUP * span
    groups = len(windows) // size
    if groups < 2 * folds:
        raise UserError(
            f'The {len(windows):,} windows before the test split are too few for '
            f'config.dataset.folds={folds}, which need {2 * folds * size:,}: take fewer folds, or '
            'a shorter config.dataset.window and horizon.'
        )
    each = max(1, min(_MOST_STRETCHES, groups // (folds * _GROUPS_IN_STRETCH)))
    seed = _seed(dataset.split_seed, 'folds', dataset.repeat)
    fold_of_stretch = np.random.Generator(np.random.Philox(seed)).permutation(folds * each) % folds
    group_of_window = np.minimum(windows // size, groups - 1)
    stretch_of_window = group_of_window * len(fold_of_stretch) // groups
    judged = fold_of_stretch[stretch_of_window] == dataset.fold
    apart = np.convolve(judged, np.ones(2 * span - 1), mode='same') < 0.5
    return windows[apart], windows[judged]


def group(source: Source, by: str) -> np.ndarray:
    """Returns the number of each image's group, int64 [N]: groups stay on one side of a split.

    Args:
      source: the data set.
      by: not asked of a series, whose neighbouring windows share rows: long blocks are groups;
        `none`; `column` (the group of a table); `near_duplicates`; `regex:PATTERN` (what the
        first group of the pattern, or all of it, matches in the image's path); `auto`: near
        duplicates and the column where there is one for folders and tables of images, equal rows
        and the column for tables of numbers, the column for arrays, else none.

    Raises:
      UserError: a pattern that is none, or matches no path; no column.
    """
    count, has_column = len(source.labels), bool((source.groups != '').any())
    if source.span:
        return np.arange(count) // (_SPANS_IN_GROUP * source.span)
    from_files = source.from_files
    keys: list[np.ndarray] = []
    if by == 'near_duplicates' and source.holds != 'images':
        raise UserError('config.dataset.group_by=near_duplicates is for images.')
    if by == 'near_duplicates' or (by == 'auto' and from_files):
        pairs = duplicates.find_once(source)
        keys += [
            duplicates.clusters(pairs, count),
            np.unique(source.hashes, return_inverse=True)[1],
        ]
    if by == 'auto' and source.holds == 'rows':
        keys.append(np.unique(source.hashes, return_inverse=True)[1])
    if by == 'column' and not has_column:
        raise UserError('config.dataset.group_by=column, but the data set has no group column.')
    if by == 'column' or (by == 'auto' and has_column):
        keys.append(_numbers(source.groups))
    if by.startswith('regex:'):
        keys.append(_numbers(_matches(source.names, by.removeprefix('regex:'))))
    return _joined(keys, count)


def deal(
    labels: np.ndarray,
    groups: np.ndarray,
    members: np.ndarray,
    shares: Sequence[float],
    seed: np.random.SeedSequence,
    class_names: Sequence[str],
) -> list[np.ndarray]:
    """Deals `members` into parts: shares of each class, in whole groups, at random.

    A group counts for the class that most of it has. Groups of several images go, largest first,
    to the part that lacks most of their class; the others fill up the shares exactly.

    Args:
      labels: of all examples; not looked at where there are no classes.
      groups: of all examples.
      members: indices to deal.
      shares: of each part; they add up to 1.
      seed: of the drawing.
      class_names: for messages; empty where labels are numbers.

    Returns:
      Sorted index arrays, one for each share.

    Raises:
      UserError: a class has too few images or groups for every part to get one.
    """
    if not class_names:
        labels = np.zeros(len(labels), int)
    # One draw for each example of the set, so that a changed group moves little else.
    priority = np.random.Generator(np.random.Philox(seed)).permutation(len(labels))
    members = members[np.argsort(priority[members])]
    _, group_of, sizes = np.unique(groups[members], return_inverse=True, return_counts=True)
    together = _by_group(members, group_of, sizes)
    label_of_group = [int(np.bincount(labels[indices]).argmax()) for indices in together]
    single = sizes[group_of] == 1
    owners, classes = np.asarray(label_of_group, int), range(len(class_names) or 1)
    rests = [members[single & (labels[members] == label)] for label in classes]
    mine = [[together[i] for i in np.flatnonzero(owners == c)] for c in classes]
    counts = [sum(map(len, m)) + len(rest) for m, rest in zip(mine, rests, strict=True)]
    parts: list[list[np.ndarray]] = [[] for _ in shares]
    for several, rest, lacking in zip(mine, rests, _quotas(counts, shares), strict=True):
        for indices in sorted(several, key=len, reverse=True):
            part = int(np.argmax(lacking))
            parts[part].append(indices)
            lacking[part] -= len(indices)
        while (lacking < 0).any():  # A large group overshot: the largest part gives way.
            surplus = int(np.argmin(lacking))
            lacking[np.argmax(lacking)] += lacking[surplus]
            lacking[surplus] = 0
        for part, chosen in enumerate(np.split(rest, np.cumsum(lacking)[:-1])):
            parts[part].append(chosen)
    dealt = [np.sort(np.concatenate(part)) for part in parts]
    for label in np.unique(labels[members]):
        if any(label not in labels[part] for part in dealt):
            count = int((labels == label).sum())
            apart = len(np.unique(groups[labels == label]))
            inside = f' in {apart} groups' if apart < count else ''
            what = f'class {class_names[label]!r}' if class_names else 'data set'
            raise UserError(
                f'The {what} has {count} examples{inside}, too few for every split to get one: add '
                'some, leave the class out, or change config.dataset.test_fraction, '
                'validation_fraction, folds or subset.'
            )
    return dealt


def _by_group(members: np.ndarray, group_of: np.ndarray, sizes: np.ndarray) -> list[np.ndarray]:
    """Returns the members of each group of several images."""
    order = np.argsort(group_of, kind='stable')
    pieces = np.split(members[order], np.cumsum(sizes)[:-1])
    return [piece for piece in pieces if len(piece) > 1]


def _quotas(counts: Sequence[int], shares: Sequence[float]) -> np.ndarray:
    """Returns whole numbers [K, P] near counts times shares, none 0 if that can be.

    Each row adds up to its count, and each column to the rounded share of all: rounding the
    running totals keeps what one class lacks for the next.
    """
    places = np.outer(np.cumsum(counts), np.cumsum([0.0, *shares]))
    running = np.diff(np.round(places), axis=1).astype(int)
    quotas = np.diff(running, axis=0, prepend=0)
    for row in quotas:
        while row.min() < 1 < row.max():
            row[np.argmax(row)] -= 1
            row[np.argmin(row)] += 1
    return quotas


def _seed(*stream: Any) -> np.random.SeedSequence:
    return np.random.SeedSequence(
        [zlib.crc32(part.encode()) if isinstance(part, str) else part for part in stream]
    )


# Groups.


def _numbers(names: np.ndarray) -> np.ndarray:
    """Returns the number of each name; '' is a group of its own each time."""
    numbers = np.unique(names, return_inverse=True)[1]
    alone = np.flatnonzero(names == '')
    numbers[alone] = numbers.max() + 1 + np.arange(len(alone))
    return numbers


def _matches(names: Sequence[str], pattern: str) -> np.ndarray:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UserError(f'config.dataset.group_by: {pattern!r} is no pattern ({error}).') from error
    found = [compiled.search(name) for name in names]
    if not any(found):
        raise UserError(
            f'config.dataset.group_by: {pattern!r} matches no path, such as {names[0]!r}.'
        )
    return np.asarray([(m.group(1) or '') if m and compiled.groups else m.group() if m else ''
                       for m in found])  # fmt: skip


def _joined(keys: list[np.ndarray], count: int) -> np.ndarray:
    """Returns groups that join what shares a number in any of `keys`."""
    if not keys:
        return np.arange(count)
    # Here, since it takes a quarter of a second, for which the first line should not wait.
    from scipy import sparse
    from scipy.sparse import csgraph

    nodes, total = [], count
    for key in keys:  # A node for each image and for each number.
        nodes.append(total + key)
        total += int(key.max()) + 1
    ends = np.concatenate(nodes)
    images = np.tile(np.arange(count), len(keys))
    links = sparse.coo_array((np.ones(len(ends)), (images, ends)), shape=(total, total))
    return csgraph.connected_components(links, directed=False)[1][:count].astype(np.int64)


# Files.


def _from_file(source: Source, path: str) -> dict[str, np.ndarray]:
    """Returns the splits that a `splits.json` names by content hash."""
    try:
        content = json.loads(pathlib.Path(path).expanduser().read_text())
        wanted = {name: list(content[name]) for name in SPLITS if name in content}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f'config.dataset.splits_file={path} cannot be read: {error}.') from error
    if missing := {'train', 'validation', 'test'} - wanted.keys():
        raise UserError(f'{path} is no splits.json: it lacks {", ".join(sorted(missing))}.')
    # Equal images are one hash: of several splits, each gets as many as it had.
    places: dict[str, list[str]] = {}
    for name, hashes in wanted.items():
        for digest in hashes:
            places.setdefault(digest, []).append(name)
    for digest, copies in content.get('copies', {}).items():  # And the same ones.
        if sorted(filter(None, copies)) == sorted(places.get(digest, ())):
            places[digest] = list(copies)
    parts: dict[str, list[int]] = {name: [] for name in wanted}
    for i, digest in enumerate(source.hashes.tolist()):
        if places.get(digest) and (name := places[digest].pop(0)):
            parts[name].append(i)
    if lost := sum(name != '' for copies in places.values() for name in copies):
        total = sum(map(len, wanted.values()))
        raise UserError(
            f'{lost:,} of the {total:,} {source.holds} of {path} are not in the data set: it was '
            'changed, or the file belongs to another one.'
        )
    return {name: np.asarray(indices, np.int64) for name, indices in parts.items()}


def _copies(source: Source, members: Mapping[str, np.ndarray]) -> dict[str, list[str]]:
    """Returns where equal examples lie that are not all in one split.

    Returns:
      From content hash to the split of each copy, in the order of the source; '' for none.
    """
    split_of = np.full(len(source.hashes), '', object)
    for name, indices in members.items():
        split_of[indices] = name
    _, numbers, counts = np.unique(source.hashes, return_inverse=True, return_counts=True)
    several = np.flatnonzero(counts[numbers] > 1)
    copies: dict[str, list[str]] = {}
    for i in several:
        copies.setdefault(str(source.hashes[i]), []).append(split_of[i])
    return {digest: names for digest, names in copies.items() if len(set(names)) > 1}


def describe(source: Source, members: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns the content of `splits.json`: hashes of each split, names, and what was skipped."""
    described: dict[str, Any] = {
        name: source.hashes[indices].tolist() for name, indices in members.items()
    }
    described['copies'] = _copies(source, members)
    # What is learned, beside what from: labels may be mended where examples stay the same.
    described['labels'] = ' '.join([content_hash(source.labels), *source.class_names])
    if source.from_files:
        used = np.sort(np.concatenate(list(members.values())))
        described['names'] = {str(source.hashes[i]): source.names[i] for i in used}
    described['skipped'] = [
        {'name': name, 'class': source.class_names[label] if label >= 0 else None, 'reason': reason}
        for name, label, reason in source.skipped
    ]
    return described
