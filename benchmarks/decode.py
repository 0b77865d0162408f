"""How fast photos are decoded, side by side with Keras and PyTorch, and how much memory it takes.

  pip install torch                      (for the comparison alone)
  python benchmarks/decode.py                2,000 JPEGs of 1 megapixel, about 3 minutes on 2 cores
  python benchmarks/decode.py --json=FILE    the figures, with versions and hardware

All read the same files to uint8 or float batches of the same size, on all cores: Leadline through
its decode cache (JPEGs decoded at a reduced scale, as `data/decode.py` says), Keras through
image_dataset_from_directory with AUTOTUNE, PyTorch through a DataLoader over Pillow with as many
workers as cores. After a first pass of each over a few photos, each is timed in turn, three rounds,
with the files in the page cache; the table has the median round. `--links=9` adds links to each
photo, to measure memory on many.
"""

import contextlib
import os
import pathlib
import resource
import statistics
import sys
import tempfile
import time

import numpy as np
from absl import app, flags
from PIL import Image

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

from benchmarks import images, report
from console import Console
from data import sources
from data.decode import Policy

_PHOTOS = flags.DEFINE_integer('photos', 2000, 'How many photos.')
_SIZE = flags.DEFINE_integer('size', 64, 'Height and width to decode to.')
_LINKS = flags.DEFINE_integer('links', 0, 'Links to each photo; above 0 only Leadline is run.')
_FEW = 10
_ROUNDS = 3


def leadline(folder: pathlib.Path) -> int:
    """Reads all photos through the decode cache: decoded where they are not in it."""
    policy = Policy(_SIZE.value, 'squeeze', 0)
    source = sources.load(f'folder:{folder}', '', policy, Console(quiet=True))
    return sum(len(source.inputs[i : i + 64].copy()) for i in range(0, len(source.labels), 64))


def keras(folder: pathlib.Path) -> int:
    """Reads all photos with image_dataset_from_directory."""
    import tensorflow as tf

    batches = tf.keras.utils.image_dataset_from_directory(
        folder, image_size=(_SIZE.value, _SIZE.value), batch_size=64, shuffle=False, verbose=False
    )
    return sum(len(images) for images, _ in batches.prefetch(tf.data.AUTOTUNE))


def pytorch(folder: pathlib.Path) -> int:
    """Reads all photos with a DataLoader over Pillow."""
    import torch

    paths = sorted(folder.rglob('*.jpg'))

    class Photos(torch.utils.data.Dataset):
        def __len__(self):
            return len(paths)

        def __getitem__(self, i):
            with Image.open(paths[i]) as picture:
                small = picture.convert('RGB').resize(
                    (_SIZE.value, _SIZE.value), Image.Resampling.BILINEAR
                )
            return torch.from_numpy(np.array(small))

    loader = torch.utils.data.DataLoader(Photos(), batch_size=64, num_workers=os.cpu_count() or 1)
    return sum(len(images) for images in loader)


def timed(name: str, read, folder: pathlib.Path) -> float:
    """Returns images per second of one pass."""
    begun = time.perf_counter()
    count = read(folder)
    speed = count / (time.perf_counter() - begun)
    print(f'{name:24} {speed:10,.0f} images/s', flush=True)
    return speed


def compare(folder: pathlib.Path, cache: pathlib.Path) -> None:
    """Times all readers in turn and prints medians and ratios."""
    speeds: dict[str, list[float]] = {}
    few = folder.parent / 'few'
    images.make_photos(few, _FEW)
    for read in (leadline, keras, pytorch):  # Imports and first calls are no part of the speed.
        with contextlib.suppress(ImportError):
            read(few)
    for _ in range(_ROUNDS):
        for path in sorted(cache.rglob('*'), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
        for name, read in (
            ('Leadline, first pass', leadline),
            ('Leadline, from the cache', leadline),
            ('Keras', keras),
            ('PyTorch', pytorch),
        ):
            try:
                speeds.setdefault(name, []).append(timed(name, read, folder))
            except ImportError as error:
                print(f'{name:24} left out: {error}')
    medians = {name: statistics.median(rounds) for name, rounds in speeds.items()}
    peers = [medians[name] for name in ('Keras', 'PyTorch') if name in medians]
    for name in medians:
        print(f'{name:24} {medians[name]:10,.0f} images/s, {medians[name] / max(peers):.2f}x the '
              'faster peer')  # fmt: skip
    report.write({'images_per_second': speeds})


def main(_) -> None:
    """Makes the photos and runs the comparison, or measures memory."""
    with tempfile.TemporaryDirectory() as scratch:
        folder, cache = pathlib.Path(scratch, 'photos'), pathlib.Path(scratch, 'cache')
        os.environ['LEADLINE_CACHE'] = str(cache)
        images.make_photos(folder, _PHOTOS.value, _LINKS.value)
        print(f'{_PHOTOS.value} photos, {_LINKS.value} links to each, to {_SIZE.value} pixels, '
              f'{os.cpu_count()} cores')  # fmt: skip
        if not _LINKS.value:
            compare(folder, cache)
            return
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        timed('Leadline, first pass', leadline, folder)
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(f'peak memory {before / 1024:,.0f} MiB before, {after / 1024:,.0f} MiB in the end')


if __name__ == '__main__':
    app.run(main)
