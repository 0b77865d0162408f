"""Decode once: the pixels of a source as a memory-mapped array in the user's cache folder.

An entry is a folder named by a hash of everything that decides its content. It is built beside its
place and renamed when complete, so a build that was killed leaves nothing that could be read;
what changed afterwards is noticed by size, time and check sum, and built anew.
"""

import collections
import contextlib
import hashlib
import itertools
import json
import os
import pathlib
import shutil
import time
import uuid
import zipfile
import zlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import filelock
import numpy as np
import PIL

from console import Console
from data import decode
from data.decode import Decoded, Policy, UnreadableImageError
from data.listing import Example, Listing, Source, content_hash, official_splits
from errors import UnusableDataError, UserError

_VERSION = 2  # Changes with what an entry holds, or how contents are hashed.
_UNUSED_SECONDS = 30 * 86400
# Entries above this size are checked by size and time alone, for reading them takes too long.
_CHECKED_BYTES = 2**30
# What reading a damaged file may raise.
DAMAGE = (OSError, ValueError, KeyError, EOFError, TypeError, zlib.error, zipfile.BadZipFile)
_COLUMNS = ('label', 'hash', 'split', 'group', 'width', 'height', 'bytes', 'mode')


class _ColourFoundError(Exception):
    """A colour image after images that were all grey: three channels are needed after all."""


def folder() -> pathlib.Path:
    """Returns `$LEADLINE_CACHE`, else `$XDG_CACHE_HOME/leadline` (`~/.cache/leadline`)."""
    if 'LEADLINE_CACHE' in os.environ:
        return pathlib.Path(os.environ['LEADLINE_CACHE'])
    home = os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache'
    return pathlib.Path(home) / 'leadline'


def load(listing: Listing, policy: Policy, console: Console) -> Source:
    """Returns the decoded source: from the cache, or decoded now.

    Args:
      listing: what to decode.
      policy: how; `channels` 0 means 1 where all images are grey, else 3.
      console: shows the progress of decoding.

    Raises:
      UserError: nothing could be read, sizes differ and `image_size` is 0, or memory is short.
      OSError: the disk is full; nothing half-built is left.
    """
    if listing.grey is not None and not policy.channels:
        policy = policy._replace(channels=1 if listing.grey else 3)
    key = hashlib.blake2b(
        json.dumps([_VERSION, PIL.__version__, listing.fingerprint, policy]).encode(),
        digest_size=16,
    ).hexdigest()
    place = folder() / 'images' / key
    if source := _read(place, listing):
        return source
    make(place.parent)
    with filelock.FileLock(f'{place}.lock'):  # Whoever comes second waits and reads.
        if source := _read(place, listing):
            return source
        _remove_unused(place.parent)
        temporary = place.with_name(f'{key}.{uuid.uuid4().hex[:8]}.tmp')
        try:
            temporary.mkdir()
            _build(temporary, listing, policy, console)
            shutil.rmtree(place, ignore_errors=True)
            temporary.rename(place)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    source = _read(place, listing)
    assert source, f'{place} was built just now'
    return source


def make(parent: pathlib.Path) -> None:
    """Creates a folder of the cache."""
    try:
        parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f'Cannot make the cache folder {parent} ({error.strerror}): set LEADLINE_CACHE to a '
            'folder you may write to.'
        ) from error


def _remove_unused(parent: pathlib.Path) -> None:
    """Removes entries that nobody read for 30 days, and what killed builds left for a day."""
    for path in parent.iterdir():
        with contextlib.suppress(OSError):
            used = (path / 'meta.json' if (path / 'meta.json').exists() else path).stat().st_mtime
            limit = 86400 if path.suffix == '.tmp' else _UNUSED_SECONDS
            if time.time() - used > limit:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


# Reading.


def _read(place: pathlib.Path, listing: Listing) -> Source | None:
    """Returns what an entry holds, or None where there is none or it is damaged."""
    try:
        meta = json.loads((place / 'meta.json').read_text())
        images = place / 'images.bin'
        if _stamp(images) != meta['stamp']:
            return None
        if images.stat().st_size <= _CHECKED_BYTES and _checksum(images) != meta['checksum']:
            return None
        with np.load(place / 'columns.npz') as columns:
            table = {name: columns[name] for name in _COLUMNS}
        pixels = np.memmap(images, np.uint8, 'r', shape=tuple(meta['shape']))
    except DAMAGE:
        return None
    with contextlib.suppress(OSError):
        os.utime(place / 'meta.json')  # Still in use.
    return Source(
        class_names=listing.class_names,
        inputs=pixels,
        labels=table['label'],
        hashes=table['hash'],
        official=official_splits(table['split']),
        groups=table['group'],
        names=meta['names'],
        files={name: table[name] for name in ('width', 'height', 'bytes', 'mode')},
        skipped=[tuple(entry) for entry in meta['skipped']],
        notes=listing.notes,
        from_files=listing.from_files,
        cache=place,
    )


def _stamp(path: pathlib.Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def _checksum(path: pathlib.Path) -> int:
    value = 0
    with path.open('rb') as file:
        while block := file.read(2**24):
            value = zlib.crc32(block, value)
    return value


# Building.


def _build(place: pathlib.Path, listing: Listing, policy: Policy, console: Console) -> None:
    if policy.channels:
        return _write(place, listing, policy, console)
    try:
        _write(place, listing, policy._replace(channels=1), console, only_grey=True)
    except _ColourFoundError:
        _write(place, listing, policy._replace(channels=3), console)


def _write(
    place: pathlib.Path,
    listing: Listing,
    policy: Policy,
    console: Console,
    only_grey: bool = False,
) -> None:
    """Decodes every example into `place`: images.bin, columns.npz, meta.json."""
    decode.quiet()
    rows: list[tuple] = []
    names, skipped = [], []
    shape: tuple[int, ...] | None = None
    checksum = 0
    title = f'Decoding {listing.count:,} images'
    with (place / 'images.bin').open('wb') as file, console.progress(title, listing.count) as bar:
        for done, (example, digest, size, decoded) in enumerate(_decoded(listing, policy), start=1):
            bar(done)
            if not isinstance(decoded, Decoded):
                skipped.append((example.name, example.label, str(decoded)))
                continue
            if only_grey and not decoded.is_grey:
                raise _ColourFoundError
            shape = shape or decoded.image_HWC.shape
            if decoded.image_HWC.shape != shape:
                raise UserError(
                    f'The images differ in size ({_size(shape)}, but {example.name} has '
                    f'{_size(decoded.image_HWC.shape)}): set --config.dataset.image_size, such as '
                    '64.'
                )
            block = decoded.image_HWC.tobytes()
            checksum = zlib.crc32(block, checksum)
            file.write(block)
            names.append(example.name)
            rows.append((example.label, digest, example.split, example.group, decoded.width,
                         decoded.height, size, decoded.mode))  # fmt: skip
    if shape is None:
        raise UnusableDataError(
            f'None of the {listing.count:,} images can be read: {listed(skipped)}.'
        )
    _write_table(place, rows)
    meta = {
        'shape': [len(rows), *shape],
        'stamp': _stamp(place / 'images.bin'),
        'checksum': checksum,
        'names': names,
        'skipped': skipped,
    }
    (place / 'meta.json').write_text(json.dumps(meta))


def _write_table(place: pathlib.Path, rows: list[tuple]) -> None:
    table: dict[str, np.ndarray] = {}
    for name, values in zip(_COLUMNS, zip(*rows, strict=True), strict=True):
        table[name] = np.asarray(values)
    table['label'] = table['label'].astype(np.int32)
    np.savez(place / 'columns.npz', **table)  # type: ignore[arg-type]


def _decoded(
    listing: Listing, policy: Policy
) -> Iterator[tuple[Example, str, int, Decoded | UnreadableImageError]]:
    """Decodes on all cores, in order, with a bounded number of images in memory.

    Pillow lets go of the interpreter while it decodes and resizes, so threads are enough.
    """
    workers = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    waiting: collections.deque[tuple[Example, Future]] = collections.deque()
    # One thread more than cores, since one of them often waits for Python.
    with ThreadPoolExecutor((workers or 1) + 1) as pool:
        try:
            examples = iter(listing.examples())
            while True:
                for example in itertools.islice(examples, 8 * (workers or 1) - len(waiting)):
                    waiting.append((example, pool.submit(_work, example, policy)))
                if not waiting:
                    return
                example, future = waiting.popleft()
                yield example, *future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _work(example: Example, policy: Policy) -> tuple[str, int, Any]:
    encoded = example.encoded
    digest = example.content_hash
    if not digest and not isinstance(encoded, os.PathLike):
        digest = content_hash(encoded)
    try:
        if example.fault:
            raise UnreadableImageError(example.fault)
        result: Any = decode.decode(encoded, policy)
    except UnreadableImageError as error:
        result = error
    except MemoryError as error:  # Not the fault of the image, so nothing to remember.
        raise UserError(f'Not enough memory to decode {example.name}.') from error
    return digest, _length(encoded), result


def _length(encoded: bytes | os.PathLike | np.ndarray) -> int:
    if isinstance(encoded, os.PathLike):
        with contextlib.suppress(OSError):
            return os.stat(encoded).st_size
        return 0
    return encoded.nbytes if isinstance(encoded, np.ndarray) else len(encoded)


def _size(shape: tuple[int, ...]) -> str:
    return f'{shape[1]}x{shape[0]}'


def listed(skipped: list[tuple[str, int, str]], at_most: int = 5) -> str:
    """Returns 'name (reason)' of the first unreadable images, and how many more there are."""
    shown = ', '.join(f'{name} ({reason})' for name, _, reason in skipped[:at_most])
    more = len(skipped) - at_most
    return f'{shown} and {more:,} more' if more > 0 else shown
