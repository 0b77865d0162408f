"""Images that are arrays already: scikit-learn's digits, npz and npy files."""

import importlib.metadata
import pathlib
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from data.listing import Example, Listing
from errors import UserError

# Above this, arrays are mapped from the decode cache like photos.
_IN_MEMORY_BYTES = 2**30
_MOST_CLASSES = 100_000
_DIGITS = 'sklearn/datasets/data/digits.csv.gz'
# Names under which files hold (images, labels) of each split: our own, Keras', MedMNIST's.
_KEYS = {
    'train': (('images', 'labels'), ('x', 'y'), ('x_train', 'y_train'),
              ('train_images', 'train_labels')),
    'validation': (('x_val', 'y_val'), ('val_images', 'val_labels'),
                   ('validation_images', 'validation_labels')),
    'test': (('x_test', 'y_test'), ('test_images', 'test_labels')),
}  # fmt: skip


def load_digits(rest: str) -> Listing:
    """Lists scikit-learn's embedded digits: 1,797 grey images of 8x8 pixels with 17 levels."""
    if rest:
        raise UserError(f'The source digits takes nothing after its colon; it was given {rest!r}.')
    # The file that sklearn.datasets.load_digits reads, whose import takes a fifth of the time to
    # the first training step.
    path = importlib.metadata.distribution('scikit-learn').locate_file(_DIGITS)
    table = np.loadtxt(str(path), delimiter=',')
    images = np.round(table[:, :-1].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    names = [str(name) for name in range(10)]
    return _listing('digits', {'train': (images, table[:, -1].astype(int))}, names, None, 'digits')


def load_npz(rest: str) -> Listing:
    """Lists `npz:PATH`: images and labels, or train_images, train_labels, test_images and so on.

    Images are uint8 [N, H, W], [N, H, W, 1] or [N, H, W, 3], or floats between 0 and 1; labels
    are whole numbers from 0 on, or strings. `class_names` and `groups` may stand beside them.

    Raises:
      UserError: there is no such file, or it holds something else.
    """
    arrays = _load(rest, '.npz')
    return _from_arrays(rest, arrays, _stamp(pathlib.Path(rest).expanduser()))


def load_npy(rest: str) -> Listing:
    """Lists `npy:FOLDER`: images.npy and labels.npy, or train_images.npy and so on, as for npz.

    Images are mapped, not read, so they may exceed the memory.

    Raises:
      UserError: there is no such folder, or it holds something else.
    """
    folder = pathlib.Path(rest).expanduser()
    if not rest or not folder.is_dir():
        raise UserError(f'There is no folder {rest!r}: npy:FOLDER holds images.npy and labels.npy.')
    paths = sorted(folder.glob('*.npy'))
    arrays = {path.stem: _load(str(path), '.npy') for path in paths}
    return _from_arrays(rest, arrays, ' '.join(map(_stamp, paths)))


def _stamp(path: pathlib.Path) -> str:
    status = path.stat()
    return f'{path.absolute()} {status.st_size} {status.st_mtime_ns}'


def _load(path: str, suffix: str) -> Any:
    """Returns the arrays of an npz file by name, or the mapped array of an npy file."""
    mode: Any = None if suffix == '.npz' else 'r'
    try:
        opened = np.load(pathlib.Path(path).expanduser(), mmap_mode=mode, allow_pickle=False)
        if suffix == '.npy':
            return opened
        if not isinstance(opened, np.ndarray):
            return {name: opened[name] for name in opened.files}
    except FileNotFoundError:
        raise UserError(f'There is no file {path!r}.') from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f'{path} is no {suffix} file that can be read: {error}') from error
    raise UserError(f'{path} is a single array: npz:PATH needs images and labels.')


def _from_arrays(path: str, arrays: Mapping[str, np.ndarray], stamp: str) -> Listing:
    parts = {}
    for split, choices in _KEYS.items():
        for images, labels in choices:
            if images in arrays and labels in arrays:
                parts[split] = (arrays[images], arrays[labels])
    if 'train' not in parts:
        raise UserError(
            f'{path} holds {", ".join(arrays) or "nothing"}; needed are images and labels (or x '
            'and y), or train_images and train_labels (or x_train and y_train).'
        )
    names = [str(name) for name in arrays['class_names']] if 'class_names' in arrays else None
    groups = arrays.get('groups') if len(parts) == 1 else None
    return _listing(path, parts, names, groups, stamp)


def _listing(
    path: str,
    parts: Mapping[str, tuple[np.ndarray, np.ndarray]],
    class_names: list[str] | None,
    groups: np.ndarray | None,
    stamp: str,
) -> Listing:
    images = {split: _images(path, split, part[0]) for split, part in parts.items()}
    shapes = {array.shape[1:] for array in images.values()}
    if len(shapes) > 1:
        raise UserError(f'The splits of {path} differ in shape: {sorted(shapes)}.')
    flat = {split: np.asarray(part[1]).reshape(-1) for split, part in parts.items()}
    for split, array in images.items():
        if len(array) != len(flat[split]):
            raise UserError(f'{path} holds {len(array)} images and {len(flat[split])} labels '
                            f'({split}).')  # fmt: skip
    if len({part.dtype.kind in 'US' for part in flat.values()}) > 1:
        raise UserError(f'The labels of {path} are strings in one split and numbers in another.')
    every = np.concatenate(list(flat.values()))
    if not len(every):
        raise UserError(f'{path} holds no images.')
    if groups is not None and len(groups) != len(every):
        raise UserError(f'{path} holds {len(every)} images and {len(groups)} groups.')
    if every.dtype.kind in 'US':
        class_names = class_names or sorted(set(every.tolist()))
        numbers = {name: i for i, name in enumerate(class_names)}
        if unknown := set(every.tolist()) - set(class_names):
            raise UserError(f'The label {min(unknown)!r} of {path} is none of its class_names.')
        flat = {s: np.asarray([numbers[n] for n in part.tolist()]) for s, part in flat.items()}
    elif every.dtype.kind not in 'iu' or every.min() < 0 or every.max() > _MOST_CLASSES:
        raise UserError(
            f'The labels of {path} must be whole numbers from 0 to {_MOST_CLASSES}, or strings.'
        )
    else:
        class_names = class_names or [str(i) for i in range(int(every.max()) + 1)]
        if every.max() >= len(class_names):
            raise UserError(f'{path} has labels up to {every.max()} and {len(class_names)} names.')
    if len(class_names) < 2:
        raise UserError(f'{path} holds one class, {class_names[0]!r}; a classifier needs two.')

    def examples():
        for split, array in images.items():
            for i, image in enumerate(array):
                group = '' if groups is None else str(groups[i])
                yield Example(f'{split}/{i}', int(flat[split][i]), image, split, group=group)

    size = sum(array.nbytes for array in images.values())
    return Listing(
        class_names,
        count=len(every),
        fingerprint=stamp,
        examples=examples,
        grey=next(iter(shapes))[-1] == 1,
        arrays=tuple(images.values()) if size <= _IN_MEMORY_BYTES else (),
    )


def _images(path: str, split: str, array: np.ndarray) -> np.ndarray:
    """Returns uint8 [N, H, W, C]."""
    if array.ndim == 3:
        array = array[..., None]
    if array.ndim != 4 or array.shape[-1] not in (1, 3):
        raise UserError(
            f'The images of {path} ({split}) have the shape {array.shape}; it must be [N, H, W], '
            '[N, H, W, 1] or [N, H, W, 3].'
        )
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind == 'f' and array.size and array.min() >= 0 and array.max() <= 1:
        return np.round(array * 255).astype(np.uint8)
    raise UserError(
        f'The images of {path} ({split}) are {array.dtype}; they must be uint8, or floats between '
        '0 and 1.'
    )
