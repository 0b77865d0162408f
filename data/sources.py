"""Where data come from: one table from the prefix of `config.dataset.name` to a source.

To add a source of images: write a function from what follows the colon to a `Listing`, and add one
line to `SOURCES`. Tables and series, which need no decoding, stand in `data/tabular.py`.
"""

import os
import pathlib
from collections.abc import Callable

import numpy as np

from console import Console
from data import arrays, cache, folder, tabular, tfds
from data.decode import Policy
from data.listing import Listing, Source, content_hash, official_splits
from data.tabular import Forecast
from errors import UserError, did_you_mean

SOURCES: dict[str, Callable[..., Listing]] = {
    'digits': lambda rest, data_dir: arrays.load_digits(rest),
    'folder': lambda rest, data_dir: folder.load(rest),
    'npz': lambda rest, data_dir: arrays.load_npz(rest),
    'npy': lambda rest, data_dir: arrays.load_npy(rest),
    'tfds': tfds.load,
}
_NEXT_ROW = Forecast(window=1, horizon=1)

# Of files whose source was forgotten.
_PREFIXES = {'.csv': ('table:', 'series:', 'folder:'), '.npz': ('npz:',)}


def load(
    name: str,
    data_dir: str,
    policy: Policy,
    console: Console,
    forecast: Forecast = _NEXT_ROW,
    judged: bool = False,
) -> Source:
    """Loads the data set `name`, decoding it where that was not done before.

    Args:
      name: `digits`, `folder:PATH`, `npz:PATH`, `npy:FOLDER`, `table:PATH`, `series:PATH`, or
        `tfds:NAME`, for which NAME is short.
      data_dir: `config.dataset.data_dir`.
      policy: size and channels of the images; channels 0 means 1 where all images are grey.
      console: shows the progress of decoding.
      forecast: what is predicted of a series.
      judged: whether nothing is trained on it, so that a folder may lack classes.

    Raises:
      UserError: unknown, absent, or not what the source reads.
    """
    kind, _, rest = name.partition(':')
    path = pathlib.Path(name.removeprefix('tfds:'))
    if kind in (name, 'tfds') and (path.is_file() or (os.sep in name and path.exists())):
        prefixes = _PREFIXES.get(path.suffix, ('folder:', 'npz:', 'npy:', 'table:', 'series:'))
        raise UserError(f'{path} is a path: write {" or ".join(prefixes)} before it.')
    if kind in tabular.SOURCES:
        return tabular.SOURCES[kind](rest, forecast)
    if kind not in SOURCES and not rest:
        kind, rest = 'tfds', name
    if kind not in SOURCES:
        known = [*SOURCES, *tabular.SOURCES]
        raise UserError(
            f'Unknown source {kind!r} in config.dataset.name={name!r}; known: '
            f'{", ".join(known)}.{did_you_mean(kind, known)}'
        )
    listing = folder.load(rest, judged) if kind == 'folder' else SOURCES[kind](rest, data_dir)
    return _as_they_are(listing, policy) or cache.load(listing, policy, console)


def _as_they_are(listing: Listing, policy: Policy) -> Source | None:
    """Returns the source of arrays that the policy does not change, else None."""
    if not listing.arrays:
        return None
    height, width, channels = listing.arrays[0].shape[1:]
    if policy.image_size not in (0, height) or (policy.image_size and height != width):
        return None
    if policy.channels not in (0, channels):
        return None
    images = listing.arrays[0] if len(listing.arrays) == 1 else np.concatenate(listing.arrays)
    examples = list(listing.examples())
    count = len(examples)
    return Source(
        class_names=listing.class_names,
        inputs=images,
        labels=np.asarray([e.label for e in examples], np.int32),
        hashes=np.asarray([content_hash(image) for image in images]),
        official=official_splits(np.asarray([e.split for e in examples])),
        groups=np.asarray([e.group for e in examples]),
        names=[e.name for e in examples],
        files={
            'width': np.full(count, width),
            'height': np.full(count, height),
            'bytes': np.full(count, height * width * channels),
            'mode': np.full(count, 'L' if channels == 1 else 'RGB'),
        },
        skipped=[],
        notes=listing.notes,
    )
