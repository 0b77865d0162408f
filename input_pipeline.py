"""The only door to data: `config.dataset` in, arrays for the device and index plans out.

`load(config)` gives a `Pipeline` with three doors:

- `resident()`: what stays on the device through a run.
- `train_batch(step)`: the examples of a step, a function of (seed, step).
- `eval_batches(split)`: every example of a split once, the last batch padded.

Inputs that fit are among what stays on the device, and batches are plans that point at them.
Larger sets stream: batches hold the inputs, read by random access (images from the decode cache) a
few steps ahead. Both give the same inputs.
"""

import dataclasses
import functools
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from console import Console
from data import augmentation, cache, normalization, sources, splits
from data.decode import MOST_PIXELS, Policy
from data.listing import Source
from data.normalization import Normalization
from data.tabular import Forecast
from errors import UserError

# Height and width of the photos in which near duplicates are looked for, whatever size is trained
# on: nets of several sizes then have the same splits.
COMPARED_SIDE = 64
OF_THE_SET = ('input', 'label')  # Of `Pipeline.resident`: the same for all seeds and splits.
_STEPS_AHEAD = 4


def stream_id(name: str) -> int:
    """Returns the number of a named stream of randomness, to fold into a seed."""
    return zlib.crc32(name.encode())


@dataclasses.dataclass(frozen=True)
class Pipeline:
    """A data set, split and ready to train on.

    Attributes:
      name: the source, such as `digits` or `folder:PATH`.
      source: inputs, labels and what is known of them, of all splits.
      members: sorted indices of the examples of each split: train, validation, test, and stopping
        where there is early stopping.
      normalization: of the inputs, fitted on the training split.
      targets: mean and standard deviation of labels that are numbers, in the training split; None
        where there are classes.
      seed: `config.seed`, for the order of training.
      batch_size: examples per step over all devices of all processes.
      balanced: whether training shows every class equally often.
      streams: whether batches hold the inputs.
      process: index of this process; it reads its share of each batch.
      processes: how many there are.
    """

    name: str
    source: Source
    members: dict[str, np.ndarray]
    normalization: Normalization
    targets: Normalization | None
    seed: int
    batch_size: int
    balanced: bool = False
    streams: bool = False
    process: int = 0
    processes: int = 1

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of every example: height, width and channels of an image."""
        return self.source.inputs.shape[1:]

    @property
    def class_names(self) -> list[str]:
        """Name of each label; empty where labels are numbers."""
        return self.source.class_names

    @property
    def sizes(self) -> dict[str, int]:
        """Number of examples of each split."""
        return {split: len(indices) for split, indices in self.members.items()}

    def resident(self) -> dict[str, Any]:
        """Arrays that stay on the device through a run.

        label int32 [N] of all splits and class_share [K] of the training split (or label float32
        [N] alone, where labels are numbers), seed uint32 and, unless the set streams, input, as
        in `Source`.
        """
        arrays = {'label': self.source.labels, 'seed': np.uint32(self.seed)}
        if self.class_names:
            counts = np.bincount(self.labels_of('train'), minlength=len(self.class_names))
            counts = np.maximum(counts, 1)  # Names of arrays and TFDS sets that have no image.
            arrays['class_share'] = counts / counts.sum()
        return arrays if self.streams else arrays | {'input': self.source.inputs}

    def in_words(self) -> str:
        """Returns what the set holds, such as '150 rows of 4 columns in 3 classes (a, b, c)'."""
        size = 'x'.join(map(str, self.input_shape))
        columns = f'{self.input_shape[-1]} column{"" if self.input_shape[-1] == 1 else "s"}'
        each = {
            'images': f'{size} pixels',
            'rows': columns,
            'windows': f'{self.input_shape[0]} rows and {columns}',
        }[self.source.holds]
        names = self.class_names
        shown = ', '.join(names[:10]) + (', ...' if len(names) > 10 else '')
        labels = f'in {len(names)} classes ({shown})'
        if self.targets:
            mean, deviation = self.targets
            labels = f'and a target of {mean:.4g} ± {deviation:.4g} (training split)'
        return f'{sum(self.sizes.values()):,} {self.source.holds} of {each} {labels}'

    def labels_of(self, split: str) -> np.ndarray:
        """Labels of a split, in the order of `eval_batches`."""
        return self.source.labels[self.members[split]]

    def hashes_of(self, split: str) -> np.ndarray:
        """Content hashes of a split, in the order of `eval_batches`."""
        return self.source.hashes[self.members[split]]

    def last_values_of(self, split: str) -> np.ndarray | None:
        """Last values before the targets of a series, in the order of `eval_batches`, or None."""
        values = self.source.last_values
        return None if values is None else values[self.members[split]]

    def train_batch(self, step: int) -> dict[str, np.ndarray]:
        """Returns this process's share of a step.

        Passes over the training split follow one another without a gap, so each example is seen
        once per pass whatever the batch size; a batch may hold the end of one pass and the start
        of the next. (With `balanced`, a pass shows each class equally often.)

        Returns:
          index, int32 [B]: the examples, of all splits; position, int32 [B]: their places in the
          global batch, from which each example's randomness is folded; and, where the set
          streams, input, [B, ...] as in `Source`.
        """
        return self._read(self._train_plan(step))

    def eval_batches(self, split: str) -> Iterator[tuple[dict[str, np.ndarray], int]]:
        """Yields batches that hold every example once, in order, and how many are real.

        The last batch is padded with its first example; drop what stands behind the count.
        """
        members = self.members[split]
        for start in range(0, len(members), self.batch_size):
            real = members[start : start + self.batch_size]
            index = np.full(self.batch_size, real[0], np.int32)
            index[: len(real)] = real
            yield self._read({'index': self._share(index)}), len(real)

    def _train_plan(self, step: int) -> dict[str, np.ndarray]:
        members = self.members['train']
        places = np.arange(step * self.batch_size, (step + 1) * self.batch_size, dtype=np.int64)
        epochs, offsets = places // len(members), places % len(members)
        index = np.empty(self.batch_size, np.int32)
        for epoch in np.unique(epochs):
            chosen = epochs == epoch
            index[chosen] = self._orders(int(epoch))[offsets[chosen]]
        position = np.arange(self.batch_size, dtype=np.int32)
        return {'index': self._share(index), 'position': self._share(position)}

    @functools.cached_property
    def _orders(self) -> Callable[[int], np.ndarray]:
        # For each pipeline its own: runs that train at the same time have other seeds.
        return functools.lru_cache(maxsize=4)(self._order)

    def _order(self, epoch: int) -> np.ndarray:
        """Returns the examples of one pass, in order."""
        members = self.members['train']
        if self.balanced:
            members = members[_balanced(self.seed, epoch, self.labels_of('train'))]
        return members[_permutation(self.seed, 'order', epoch, len(members))]

    def _share(self, batch: np.ndarray) -> np.ndarray:
        size = self.batch_size // self.processes
        return batch[self.process * size : (self.process + 1) * size]

    def _read(self, plan: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return plan | {'input': self.source.inputs[plan['index']]} if self.streams else plan


class ReadAhead:
    """Reads the batches of a set that streams on a thread, a few steps before they are needed."""

    def __init__(self, pipeline: Pipeline):
        self._pipeline = pipeline
        self._reader = ThreadPoolExecutor(1, 'read ahead')
        self._waiting: dict[int, Future] = {}

    def train_batch(self, step: int) -> dict[str, np.ndarray]:
        """Returns what `Pipeline.train_batch` does."""
        if not self._pipeline.streams:
            return self._pipeline.train_batch(step)
        for earlier in [s for s in self._waiting if s < step]:
            del self._waiting[earlier]
        for later in range(step, step + _STEPS_AHEAD):
            if later not in self._waiting:
                self._waiting[later] = self._reader.submit(self._pipeline.train_batch, later)
        return self._waiting[step].result()

    def close(self) -> None:
        """Lets go of the thread."""
        self._reader.shutdown(cancel_futures=True)


def _permutation(seed: int, stream: str, number: int, size: int) -> np.ndarray:
    """Returns a permutation: a function of (seed, stream, number)."""
    entropy = np.random.SeedSequence([seed, stream_id(stream), number])
    return np.random.Generator(np.random.Philox(entropy)).permutation(size)


def _balanced(seed: int, epoch: int, label: np.ndarray) -> np.ndarray:
    """Returns as many places among the training images as there are, equally many of each class.

    The images of a class follow one another in shuffled rounds over all passes, so that each is
    shown as often as any other of its class.
    """
    classes, counts = np.unique(label, return_counts=True)
    quota, more = divmod(len(label), len(classes))
    chosen = []
    for i, (name, count) in enumerate(zip(classes, counts, strict=True)):
        # What does not divide goes to the classes in turn, pass by pass.
        before = sum(quota + ((i - e * more) % len(classes) < more) for e in range(epoch))
        size = quota + ((i - epoch * more) % len(classes) < more)
        places = np.arange(before, before + size)
        rounds = places // count
        mine = np.flatnonzero(label == name)
        for number in np.unique(rounds):
            order = _permutation(seed, f'class {name}', int(number), int(count))
            chosen.append(mine[order[places[rounds == number] % count]])
    return np.concatenate(chosen)


def load(
    config: Any,
    room_bytes: float,
    console: Console,
    resolution: float = 1.0,
    process: int = 0,
    processes: int = 1,
    source: Source | None = None,
) -> Pipeline:
    """Loads, splits and measures the data set that `config.dataset` names.

    Args:
      config: as from `configs/default.py`.
      room_bytes: memory of a device for inputs; larger sets stream.
      console: says what was found, and shows the progress of decoding.
      resolution: multiplies `config.dataset.image_size`.
      process: index of this process.
      processes: how many there are.
      source: what `read` gave for a config with the same data; read anew where None.

    Raises:
      UserError: the data set is unknown, absent, or too small to split; too many images are
        unreadable; a resolution other than 1 and no image size to multiply; a field is for
        images, and there are none.
    """
    dataset, stopping = config.dataset, config.early_stopping
    source = source or read(dataset, console, resolution)
    if source.holds != 'images':
        _check_no_image_fields(config, source)
    check_readable(source, dataset.max_unreadable)
    members = splits.split(source, dataset, stopping.fraction if stopping.patience_epochs else 0.0)
    _check_classes(source, members)
    fits = source.inputs.nbytes <= room_bytes
    return Pipeline(
        name=dataset.name,
        source=source,
        members=members,
        normalization=normalization.fit(source.inputs, members['train'], dataset.normalization),
        targets=None
        if source.class_names
        else normalization.fit_targets(source.labels, members['train']),
        seed=config.seed,
        batch_size=config.batch_size,
        balanced=config.class_balance == 'balanced_sampling',
        streams=dataset.storage == 'stream' or (dataset.storage == 'auto' and not fits),
        process=process,
        processes=processes,
    )


def read(dataset: Any, console: Console, resolution: float = 1.0, judged: bool = False) -> Source:
    """Reads the data set of `config.dataset`, all splits; the other arguments are as in `load`.

    With `judged` nothing is trained on it: a folder may lack classes and training images.
    """
    policy = Policy(_image_size(dataset, resolution), dataset.resize, dataset.channels)
    forecast = Forecast(dataset.window, dataset.horizon)

    def at(policy: Policy) -> Source:
        return sources.load(dataset.name, dataset.data_dir, policy, console, forecast, judged)

    source = at(policy)
    if not source.from_files or policy.image_size == COMPARED_SIDE:
        return source
    compared = policy._replace(image_size=COMPARED_SIDE)
    return dataclasses.replace(source, compared=lambda: at(compared))


def _image_size(dataset: Any, resolution: float) -> int:
    """Returns `config.dataset.image_size`, scaled; 0 where images come as they are."""
    if resolution == 1.0:
        return dataset.image_size
    if not dataset.image_size:
        raise UserError(
            f'config.scale makes images {resolution:g} times as large, but '
            'config.dataset.image_size=0 takes them as they are: set it, or '
            '--config.scale.gamma=1.'
        )
    size = round(dataset.image_size * resolution)
    if not 1 <= size <= MOST_PIXELS:
        raise UserError(
            f'config.scale makes images of {size} pixels; they must have 1 to {MOST_PIXELS}.'
        )
    return size


def _check_no_image_fields(config: Any, source: Source) -> None:
    """Checks that nothing is asked for that only images can be given.

    Raises:
      UserError: names the field.
    """
    policy = augmentation.describe(augmentation.parse(config.augment))
    for name, value, usual in (
        ('augment', policy, 'none'),
        ('dataset.image_size', config.dataset.image_size, 0),
        ('dataset.channels', config.dataset.channels, 0),
        ('evaluate_mirrored', config.evaluate_mirrored, False),
    ):
        if value != usual:
            raise UserError(
                f'config.{name}={value} is for images, and {config.dataset.name} holds '
                f'{source.holds}: set it to {usual}.'
            )


def _check_classes(source: Source, members: dict[str, np.ndarray]) -> None:
    """Checks that every class that is judged, and every folder, has an example to train on.

    Raises:
      UserError: names the class that has none.
    """
    for split, indices in members.items():
        if not len(indices):
            raise UserError(f'The {split} split is empty.')
    if not source.class_names:
        return
    trained = set(source.labels[members['train']].tolist())
    asked = range(len(source.class_names)) if source.from_files else source.labels.tolist()
    for label in set(asked) - trained:
        raise UserError(
            f'The class {source.class_names[label]!r} has no {source.holds} to train on: add '
            'some that can be read, or leave the class out.'
        )


def check_readable(source: Source, most: float) -> None:
    """Checks the share of unreadable images.

    Raises:
      UserError: it is larger than `most`; names the first of them.
    """
    count, unreadable = len(source.labels), len(source.skipped)
    if unreadable > most * (count + unreadable):
        raise UserError(
            f'{unreadable:,} of {count + unreadable:,} images cannot be read, more than '
            f'config.dataset.max_unreadable={most:g} allows: {cache.listed(source.skipped)}. '
            'Mend or remove them; python audit.py --data=... lists them all.'
        )
