"""Images for the benchmarks: JPEGs such as a camera makes, and noise."""

import pathlib

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_image

_CLASSES = 5


def make_noise(path: pathlib.Path, count: int, side: int) -> str:
    """Writes images of noise in ten classes and returns their name as a data set."""
    images = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8)
    np.savez(path, images=images, labels=np.arange(count, dtype=np.int32) % 10)
    return f'npz:{path}'


def make_photos(folder: pathlib.Path, count: int, links: int = 0) -> None:
    """Writes JPEGs of 1152x864 or 864x1152 pixels, quality 90, cut from two photos.

    Args:
      folder: gets a folder for each of five classes.
      count: of photos.
      links: to each photo.
    """
    generator = np.random.default_rng(0)
    originals = [Image.fromarray(load_sample_image(n)) for n in ('china.jpg', 'flower.jpg')]
    for i in range(count):
        width, height = (1152, 864) if i % 3 else (864, 1152)
        x, y = generator.integers(0, 640 - width // 3), generator.integers(0, 427 - height // 3)
        cut = originals[i % 2].crop((x, y, x + width // 3, y + height // 3))
        grown = np.asarray(cut.resize((width, height), Image.Resampling.BICUBIC), np.int16)
        grain = generator.integers(-6, 7, grown.shape[:2])[..., None]  # As a camera has it.
        path = folder / f'class{i % _CLASSES}' / f'{i:05}.jpg'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((grown + grain).clip(0, 255).astype(np.uint8)).save(path, quality=90)
        for link in range(links):
            path.with_name(f'{i:05}-{link}.jpg').symlink_to(path)
