"""What a source lists before anything is decoded, and what it is after."""

import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

SPLITS = ('train', 'validation', 'test')


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
      class_names: name of each label.
      inputs: of all splits, in memory or mapped from a file: images, uint8 [N, H, W, C].
      labels: int32 [N].
      hashes: content hash of each image, [N] strings of 16 hexadecimal digits.
      official: the set's own splits (train, validation, test) as index arrays; empty where it
        has none.
      groups: [N] strings, '' for none.
      names: of each image, for people.
      files: of each image as it was stored: width, height (upright), bytes, int64 [N] each, and
        mode (Pillow's name of the colour mode), [N] strings.
      skipped: (name, label, reason) of each image that cannot be read.
      notes: what the user should know of how the source was read.
      from_files: whether the names are paths of image files.
      cache: folder of the decode cache; None where nothing was cached.
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
