"""The only door to data: `config.dataset` in, arrays for the device and index plans out.

`load(config)` gives a `Pipeline` with three doors:

- `resident()`: all images and what else stays on the device through a run.
- `train_batch(step)`: the examples of a step, a function of (seed, step).
- `eval_batches(split)`: every example of a split once, the last batch padded.
"""

import dataclasses
import functools
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from data import sources, splits
from data.preprocess import Normalization, fit_normalization


def stream_id(name: str) -> int:
    """Returns the number of a named stream of randomness, to fold into a seed."""
    return zlib.crc32(name.encode())


@dataclasses.dataclass(frozen=True)
class Pipeline:
    """A data set, split and ready to train on.

    Attributes:
      name: `digits` or `tfds:NAME`.
      class_names: name of each label.
      images_NHWC: uint8 [N, H, W, C], of all splits.
      labels: int32 [N].
      members: indices of the examples of each split: train, validation, test, and stopping where
        there is early stopping.
      normalization: fitted on the training split.
      seed: `config.seed`, for the order of training.
      batch_size: images per step over all devices.
    """

    name: str
    class_names: list[str]
    images_NHWC: np.ndarray
    labels: np.ndarray
    members: dict[str, np.ndarray]
    normalization: Normalization
    seed: int
    batch_size: int

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Height, width and channels of every image."""
        return self.images_NHWC.shape[1:]

    @property
    def sizes(self) -> dict[str, int]:
        """Number of examples of each split."""
        return {split: len(indices) for split, indices in self.members.items()}

    def resident(self) -> dict[str, Any]:
        """Arrays that stay on the device through a run.

        image uint8 [N, H, W, C] and label int32 [N] of all splits, offset and scale [C] of the
        normalisation, seed uint32. As arguments rather than constants of the step they let one
        compiled program serve every seed and split.
        """
        return {
            'image': self.images_NHWC,
            'label': self.labels,
            'offset': self.normalization.offset,
            'scale': self.normalization.scale,
            'seed': np.uint32(self.seed),
        }

    def labels_of(self, split: str) -> np.ndarray:
        """Labels of a split, in the order of `eval_batches`."""
        return self.labels[self.members[split]]

    def hashes_of(self, split: str) -> list[str]:
        """Content hashes of a split, in the order of `eval_batches`."""
        return [self._hashes[i] for i in self.members[split]]

    def train_batch(self, step: int) -> dict[str, np.ndarray]:
        """Returns the plan of one step: index and position, int32 [batch_size] each.

        Passes over the training images follow one another without a gap, so each image is seen
        once per pass whatever the batch size; a batch may hold the end of one pass and the start
        of the next. `index` points into `resident()`, `position` is the place in the global
        batch, from which each example's randomness is folded.
        """
        members = self.members['train']
        places = np.arange(step * self.batch_size, (step + 1) * self.batch_size, dtype=np.int64)
        epochs, offsets = places // len(members), places % len(members)
        index = np.empty(self.batch_size, np.int32)
        for epoch in np.unique(epochs):
            chosen = epochs == epoch
            index[chosen] = members[_order(self.seed, int(epoch), len(members))[offsets[chosen]]]
        return {'index': index, 'position': np.arange(self.batch_size, dtype=np.int32)}

    def eval_batches(self, split: str) -> Iterator[tuple[dict[str, np.ndarray], int]]:
        """Yields batches that hold every example once, in order, and how many are real.

        The last batch is padded with its first example; drop what stands behind the count.
        """
        members = self.members[split]
        for start in range(0, len(members), self.batch_size):
            real = members[start : start + self.batch_size]
            index = np.full(self.batch_size, real[0], np.int32)
            index[: len(real)] = real
            yield {'index': index}, len(real)

    @functools.cached_property
    def _hashes(self) -> list[str]:
        return splits.content_hashes(self.images_NHWC)


@functools.lru_cache(maxsize=4)
def _order(seed: int, epoch: int, size: int) -> np.ndarray:
    """Returns the permutation of one pass: a function of (seed, 'order', epoch)."""
    entropy = np.random.SeedSequence([seed, stream_id('order'), epoch])
    return np.random.Generator(np.random.Philox(entropy)).permutation(size)


def load(config: Any) -> Pipeline:
    """Loads, splits and measures the data set that `config.dataset` names.

    Raises:
      UserError: the data set is unknown, absent, too large or too small to split.
    """
    dataset, stopping = config.dataset, config.early_stopping
    source = sources.load(dataset.name, dataset.data_dir, dataset.image_size)
    members = splits.split(
        source.labels,
        source.official,
        dataset.split_seed,
        dataset.validation_fraction,
        dataset.test_fraction,
        stopping.fraction if stopping.patience_epochs else 0.0,
    )
    training_images = source.images_NHWC[members['train']]
    return Pipeline(
        name=dataset.name,
        class_names=source.class_names,
        images_NHWC=source.images_NHWC,
        labels=source.labels,
        members=members,
        normalization=fit_normalization(training_images, dataset.normalization),
        seed=config.seed,
        batch_size=config.batch_size,
    )
