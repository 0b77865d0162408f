"""Writes a data set of half the height and width, so that two cores can train hundreds of nets.

  python benchmarks/shrunken.py --data=fashion_mnist --to=PATH.npz
  python benchmarks/shrunken.py --data=npz:cifar10.npz --to=PATH.npz --test=3000

Each pixel is the mean of 2 x 2. Of the set's own test split a part is kept, drawn at random.
"""

import pathlib
import sys

import numpy as np
from absl import app, flags

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

import input_pipeline
from configs import default
from console import Console

_DATA = flags.DEFINE_string('data', None, 'An array data set with a test split.', required=True)
_TO = flags.DEFINE_string('to', None, 'The npz file to write.', required=True)
_TEST = flags.DEFINE_integer('test', 3000, 'Images of the test split to keep.', lower_bound=1)


def halved(images_NHWC: np.ndarray) -> np.ndarray:
    """Returns the means of 2 x 2 pixels, rounded; uint8 [N, H / 2, W / 2, C].

    Raises:
      ValueError: height or width is odd.
    """
    N, H, W, C = images_NHWC.shape
    blocks = images_NHWC.reshape(N, H // 2, 2, W // 2, 2, C)
    return blocks.mean(axis=(2, 4)).round().astype(np.uint8)


def main(argv: list[str]) -> None:
    """Writes the file."""
    del argv
    dataset = default.get_config(_DATA.value).dataset
    source = input_pipeline.read(dataset, Console(quiet=True))
    drawn = np.random.default_rng(0).permutation(source.official['test'])[: _TEST.value]
    parts = {'train': source.official['train'], 'test': np.sort(drawn)}
    arrays = {'class_names': np.asarray(source.class_names)}
    for split, members in parts.items():
        arrays[f'{split}_images'] = halved(source.inputs[members])
        arrays[f'{split}_labels'] = source.labels[members].astype(np.int64)
    pathlib.Path(_TO.value).parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(_TO.value, **arrays)
    print(f'{_TO.value}: ' + ', '.join(f'{split} {arrays[f"{split}_images"].shape}'
                                      for split in parts))  # fmt: skip


if __name__ == '__main__':
    app.run(main)
