"""Photos as people have them: a folder for each class, or a table of paths and labels."""

import collections
import contextlib
import csv
import hashlib
import json
import os
import pathlib
import stat
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from data import cache
from data.listing import SPLIT_NAMES, Example, Listing, content_hash
from errors import UnusableDataError, UserError, did_you_mean

IMAGE_SUFFIXES = (
    '.jpg', '.jpeg', '.jpe', '.jfif', '.png', '.webp', '.bmp', '.dib', '.gif', '.tif', '.tiff',
    '.avif', '.heic', '.heif',
)  # fmt: skip
_CLUTTER = ('thumbs.db', 'desktop.ini', '__macosx')
# A file changed so shortly before it was read may change again within the same clock tick.
_SETTLED_NS = 2 * 10**9


def load(rest: str, judged: bool = False) -> Listing:
    """Lists `folder:PATH`: a folder for each class, or a .csv or .jsonl table.

    Layouts: PATH/class/...; PATH/train/class/... with val (valid, validation) or test beside it;
    PATH.csv or PATH.jsonl with the columns path, label and, where wanted, group and split. Folders
    may nest and be links; hidden files and those that are no images by their ending are left out.

    Args:
      rest: the path.
      judged: whether nothing is trained on it: then one class is enough, in any split.

    Raises:
      UserError: there is no such folder or table, a folder in it cannot be read, or it does not
        hold two classes of images.
    """
    if not rest:
        raise UserError('folder: needs a path, such as folder:photos, a folder for each class.')
    path = pathlib.Path(rest).expanduser()
    try:
        if path.is_file():
            return _manifest(path, judged)
        if not path.is_dir():
            there = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
            raise UserError(f'There is no folder {rest!r}.{did_you_mean(path.name, there)}')
        return _class_folders(path, judged)
    except PermissionError as error:
        raise UserError(f'No permission to read {error.filename}: mend it.') from error


# Folders.


def _class_folders(root: pathlib.Path, judged: bool) -> Listing:
    places, notes = _places(root)
    ignored: collections.Counter[str] = collections.Counter()
    found: list[tuple[str, str, str, pathlib.Path]] = []  # Split, class, name, path.
    for split, top in places:
        for folder in _subfolders(top):
            # A first-level folder of such a name holds a split and is no class.
            if top == root and folder.name.lower() in SPLIT_NAMES:
                continue
            for path in _images(folder, ignored):
                found.append((split, folder.name, path.relative_to(root).as_posix(), path))
    if ignored:
        kinds = ', '.join(kind for kind, _ in ignored.most_common(5))
        notes.append(f'{ignored.total():,} files are no images by their ending ({kinds})')
    class_names = sorted({name for _, name, _, _ in found})
    _check_classes(root, class_names, found, judged)
    labels = {name: i for i, name in enumerate(class_names)}
    hashes = _hashes(root, [path for *_, path in found])
    examples = [
        Example(name, labels[class_name], path, split, digest)
        for (split, class_name, name, path), digest in zip(found, hashes, strict=True)
    ]
    return _listing(class_names, examples, notes)


def _places(root: pathlib.Path) -> tuple[list[tuple[str, pathlib.Path]], list[str]]:
    """Returns the folders that hold class folders, each with its split, and what to say."""
    splits = [(SPLIT_NAMES[p.name.lower()], p) for p in _subfolders(root)
              if p.name.lower() in SPLIT_NAMES]  # fmt: skip
    places, notes = [], []
    for split, path in splits:
        if any(next(_images(folder, None), None) for folder in _subfolders(path)):
            places.append((split, path))
            notes.append(f'{path.name}/ holds the {split} split')
        else:
            notes.append(f'{path.name}/ holds no class folders with images and is left out')
    if not any(split == 'train' for split, _ in places):
        places.append(('train', root))
    else:
        others = [p.name for p in _subfolders(root) if p.name.lower() not in SPLIT_NAMES]
        if others:
            notes.append(f'{", ".join(others[:5])} beside train/ is left out')
    return sorted(places), notes


def _check_classes(
    root: pathlib.Path, class_names: list[str], found: list[tuple], judged: bool
) -> None:
    if not found:
        loose = next(_images(root, None), None)
        hint = f' (there are images such as {loose.name} outside of them)' if loose else ''
        raise UnusableDataError(
            f'{root} holds no images in class folders{hint}: put the images of each class into a '
            f'folder of its own, such as {root.name}/oak/1.jpg and {root.name}/elm/1.jpg.'
        )
    if judged:
        return
    if len(class_names) == 1:
        inner = [p for p in _subfolders(root / class_names[0]) if next(_images(p, None), None)]
        hint = (
            f' It holds {len(inner)} folders: did you mean folder:{root / class_names[0]}?'
            if len(inner) > 1
            else ''
        )
        raise UnusableDataError(
            f'{root} holds one class folder with images, {class_names[0]!r}; a classifier needs '
            f'two.{hint}'
        )
    trained = {name for split, name, *_ in found if split == 'train'}
    if lost := [name for name in class_names if name not in trained]:
        raise UnusableDataError(
            f'The class {lost[0]!r} of {root} has no image in the training split.'
        )


def _subfolders(top: pathlib.Path) -> list[pathlib.Path]:
    """Returns the folders in `top` that count, sorted by name; none where there is no folder."""
    if not top.is_dir():
        return []
    return sorted(p for p in top.iterdir() if p.is_dir() and not _is_clutter(p.name))


def _is_clutter(name: str) -> bool:
    return name.startswith('.') or name.lower() in _CLUTTER


def _images(top: pathlib.Path, ignored: collections.Counter[str] | None) -> Iterator[pathlib.Path]:
    """Yields the image files below `top` in sorted order and counts others by their ending."""
    # A link to a folder above would show the images of other classes.
    seen = {os.path.realpath(folder) for folder in top.absolute().parents}
    for folder, subfolders, files in os.walk(top, onerror=_fail, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = sorted(name for name in subfolders if not _is_clutter(name))
        for name in sorted(files):
            suffix = pathlib.PurePath(name).suffix.lower()
            if _is_clutter(name):
                continue
            if suffix in IMAGE_SUFFIXES:
                yield pathlib.Path(folder, name)
            elif ignored is not None:
                ignored[suffix or 'no ending'] += 1


def _fail(error: OSError) -> None:
    raise error


# Tables.


def _manifest(path: pathlib.Path, judged: bool) -> Listing:
    rows = list(_rows(path))
    class_names = sorted({row['label'] for _, row in rows if row['label']})
    least, needed = (1, 'one is') if judged else (2, 'two are')
    if len(class_names) < least:
        raise UnusableDataError(f'{path} names {len(class_names)} classes; {needed} needed.')
    labels = {name: i for i, name in enumerate(class_names)}
    # Tables made on Windows have backslashes in their paths.
    files = [path.parent / row['path'].replace('\\', os.sep) for _, row in rows]
    first: dict[str, str] = {}
    examples = []
    for (line, row), file, digest in zip(rows, files, _hashes(path, files), strict=True):
        fault = ''
        if not row['label']:
            fault = f'no label in line {line} of {path.name}'
        elif row['path'] in first:
            fault = f'line {line} of {path.name} names it again'
            if first[row['path']] != row['label']:
                fault += f', as {row["label"]} after {first[row["path"]]}'
        first.setdefault(row['path'], row['label'])
        split = SPLIT_NAMES.get(row['split'].lower() or 'train')
        if not split:
            raise UserError(
                f'{path}, line {line}: the split is {row["split"]!r}; it must be train, '
                'validation or test.'
            )
        label = labels.get(row['label'], -1)
        examples.append(Example(row['path'], label, file, split, digest, row['group'], fault))
    return _listing(class_names, examples, [])


def table_columns(path: pathlib.Path) -> dict[str, dict[str, str]]:
    """Returns the columns of a table that say more of an image than its path, label and split.

    Returns:
      From name of column to path to value, '' where a row has none.

    Raises:
      UserError: it cannot be read as a table of images.
    """
    rows = [row for _, row in _rows(path)]
    names = dict.fromkeys(name for row in rows for name in row)
    return {
        name: {row['path']: row.get(name, '') for row in rows}
        for name in names
        if name not in ('path', 'label', 'split')
    }


def _rows(path: pathlib.Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yields line number and fields of each row: path, label, group, split, and what else is."""
    try:
        if path.suffix.lower() == '.csv':
            with path.open(newline='', encoding='utf-8-sig') as file:
                reader = csv.DictReader(file)
                reader.fieldnames = [name.strip().lower() for name in reader.fieldnames or ()]
                _check_columns(path, reader.fieldnames)
                for row in reader:
                    yield reader.line_num, _fields(row)
        elif path.suffix.lower() == '.jsonl':
            for line, text in enumerate(path.read_text('utf-8-sig').splitlines(), start=1):
                if text.strip():
                    row = json.loads(text)
                    if not isinstance(row, dict):
                        raise UserError(f'{path}, line {line}: {text[:40]!r} is no object.')
                    _check_columns(path, row)
                    yield line, _fields(row)
        else:
            raise UserError(
                f'{path} is a file: give a folder of class folders, or a table that ends in .csv '
                'or .jsonl.'
            )
    except (UnicodeDecodeError, json.JSONDecodeError, csv.Error) as error:
        raise UserError(f'{path} cannot be read as a table in UTF-8: {error}.') from error


def _check_columns(path: pathlib.Path, names: Iterable[str]) -> None:
    if missing := {'path', 'label'} - set(names):
        raise UserError(
            f'{path} has no column {" and ".join(sorted(missing))}; it has {", ".join(names)}. '
            'Needed, separated by commas: path, label; understood too: group, split.'
        )


def _fields(row: dict) -> dict[str, str]:
    values = dict.fromkeys(('path', 'label', 'group', 'split')) | row
    return {
        name: '' if value is None else str(value).strip()
        for name, value in values.items()
        if name  # Cells beyond the last column have none.
    }


# Both.


def _listing(class_names: list[str], examples: list[Example], notes: list[str]) -> Listing:
    digest = hashlib.blake2b(json.dumps(class_names).encode(), digest_size=16)
    for e in examples:
        line = [e.name, e.content_hash, e.label, e.split, e.group, e.fault]
        digest.update(json.dumps(line).encode())
    return Listing(
        class_names, len(examples), digest.hexdigest(), lambda: examples, notes=tuple(notes),
        from_files=True,
    )  # fmt: skip


def _hashes(root: pathlib.Path, paths: list[pathlib.Path]) -> list[str]:
    """Returns the content hash of each file, '' where it cannot be read.

    A file whose size and time are those of the last visit is not read again: what git does with
    its index.
    """
    place = cache.folder() / 'files'
    index = place / f'{content_hash(os.fsencode(root.absolute()))}.json'
    known: dict[str, list] = {}
    with contextlib.suppress(OSError, ValueError):
        known = dict(json.loads(index.read_text()))
    now = time.time_ns()
    fresh: dict[str, list] = {}

    def one(path: pathlib.Path) -> str:
        name = os.fspath(path)
        try:
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):
                return ''
            stamp = [status.st_size, status.st_mtime_ns]
            entry = known.get(name, [])
            digest = entry[2] if entry[:2] == stamp else content_hash(path.read_bytes())
        except (OSError, ValueError):  # ValueError: a table may name what is no path.
            return ''
        if now - status.st_mtime_ns > _SETTLED_NS:
            fresh[name] = [*stamp, digest]
        return digest

    with ThreadPoolExecutor() as pool:
        hashes = list(pool.map(one, paths))
    if fresh != known:
        cache.make(place)
        temporary = index.with_suffix(f'.{os.getpid()}.tmp')
        temporary.write_text(json.dumps(fresh))
        temporary.replace(index)
    return hashes
