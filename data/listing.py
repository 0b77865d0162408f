"""What a source lists before anything is decoded, and what it is after."""

import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

SPLITS = ('train', 'validation', 'test')
# How a split may be called, by a folder or in a table.
SPLIT_NAMES = {
    **dict.fromkeys(('train', 'training'), 'train'),
    **dict.fromkeys(('val', 'valid', 'validation', 'dev'), 'validation'),
    **dict.fromkeys(('test', 'testing'), 'test'),
}


class Example(NamedTuple):
    """One image of a source, not decoded yet.

    Attributes:
      name: for people, unique within the source: a path, or split and number.
      label: of `Listing.class_names`.
      encoded: content of an image file, its path, or uint8 pixels [H, W, 1 or 3].
      split: one of SPLITS.
      content_hash: 16 hexadecimal digits; computed from `encoded` where empty.
      group: images of one group stay on one side of a split; '' for none.
      fault: why this example cannot be used, if that is known before decoding.
    """

    name: str
    label: int
    encoded: bytes | os.PathLike | np.ndarray
    split: str = 'train'
    content_hash: str = ''
    group: str = ''
    fault: str = ''


@dataclasses.dataclass(frozen=True)
class Listing:
    """What a source holds, before decoding.

    Attributes:
      class_names: name of each label.
      count: number of examples.
      fingerprint: text that changes with anything the source holds; part of the cache's key.
      examples: gives all examples, always in the same order.
      grey: whether the source says that its images have one channel; None where it says nothing.
      notes: what the user should know of how the source was read.
      from_files: whether the names are paths of image files.
      arrays: uint8 [N, H, W, C] of each split, in the order of `examples`: pixels that need no
        cache where they are not resized.
    """

    class_names: list[str]
    count: int
    fingerprint: str
    examples: Callable[[], Iterable[Example]]
    grey: bool | None = None
    notes: tuple[str, ...] = ()
    from_files: bool = False
    arrays: tuple[np.ndarray, ...] = ()


@dataclasses.dataclass(frozen=True)
class Source:
    """A data set, decoded.

    Attributes:
      class_names: name of each label; empty where the labels are numbers (regression).
      inputs: of all splits, in memory or mapped from a file: images, uint8 [N, H, W, C]; rows of
        a table, float32 [N, F]; or windows of a series, float32 [N, T, F], in time order.
      labels: int32 [N]; float32 [N] where they are numbers.
      hashes: content hash of each input, [N] strings of 16 hexadecimal digits.
      official: the set's own splits (train, validation, test) as index arrays; empty where it
        has none.
      groups: [N] strings, '' for none.
      names: of each example, for people.
      files: of each image as it was stored: width, height (upright), bytes, int64 [N] each, and
        mode (Pillow's name of the colour mode), [N] strings; empty for rows and windows.
      skipped: (name, label, reason) of each image that cannot be read.
      notes: what the user should know of how the source was read.
      from_files: whether the names are paths of image files.
      cache: folder of the decode cache; None where nothing was cached.
      compared: gives the same images at the size at which near duplicates are looked for; None
        where that is the size of `inputs`.
      span: rows of a series from the first of a window to its target; 0 for what is no series.
      last_values: of a series, the target's column in the last row of each window, float32 [N]:
        the forecast that a net must beat.
    """

    class_names: list[str]
    inputs: np.ndarray
    labels: np.ndarray
    hashes: np.ndarray
    official: dict[str, np.ndarray]
    groups: np.ndarray
    names: list[str]
    files: dict[str, np.ndarray]
    skipped: list[tuple[str, int, str]]
    notes: tuple[str, ...] = ()
    from_files: bool = False
    cache: pathlib.Path | None = None
    compared: 'Callable[[], Source] | None' = None
    span: int = 0
    last_values: np.ndarray | None = None

    @property
    def holds(self) -> str:
        """What the examples are: images, rows (of a table) or windows (of a series)."""
        return {4: 'images', 2: 'rows', 3: 'windows'}[self.inputs.ndim]


def content_hash(content: bytes | np.ndarray) -> str:
    """Returns 16 hexadecimal digits that follow the bytes of a file, or pixels and their shape."""
    digest = hashlib.sha256()  # Twice as fast as BLAKE2 on processors that know it.
    if isinstance(content, np.ndarray):
        digest.update(np.asarray(content.shape, np.int64).tobytes())
    digest.update(content if isinstance(content, bytes) else np.ascontiguousarray(content).data)
    return digest.hexdigest()[:16]


def official_splits(splits: np.ndarray) -> dict[str, np.ndarray]:
    """Returns index arrays of the splits that occur in `splits` [N]; {} if that is train alone."""
    parts = {name: np.flatnonzero(splits == name) for name in SPLITS}
    parts = {name: members for name, members in parts.items() if len(members)}
    return {} if list(parts) == ['train'] else parts
