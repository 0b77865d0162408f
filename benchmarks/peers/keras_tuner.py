"""KerasTuner on Keras 3: one search, as a command that benchmarks/sweep.py starts.

  python -m benchmarks.peers.keras_tuner FOLDER

FOLDER holds `task.json`, a `Task`; `search.npz` with train and validation images, float32
[N, H, W, C] and normalised, and their labels; and `test.npz`, which is opened once the search has
ended. It leaves `figures.json` there.

It is set up for speed on a CPU, by what was fastest of what was tried on the digits (a trial of 27
epochs, 2 cores of an AMD EPYC, TensorFlow 2.21): a cached `tf.data` pipeline and an epoch in each
call 3.1 s; a call for each step 3.7 s; arrays given to `fit` 5.0 s; with XLA 8.4 s; on JAX 6.5 s.
A call of a whole epoch takes 0.25 s longer to compile, so Hyperband, most of whose trials have 1 to
3 epochs, calls for each step.
"""

import importlib.metadata
import json
import math
import pathlib
import statistics
import sys
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import keras
import keras_tuner
import numpy as np
import tensorflow as tf
from keras import layers

from benchmarks.sweep_config import SPACES
from configs.sweeps.factors import Factor

_EVALUATED_AT_ONCE = 1024


class Task(NamedTuple):
    """What to search.

    Attributes:
      tuner: `random` or `hyperband`.
      space: a name of `SPACES`.
      fields: of the training config, by dotted name: what a trial has where it does not vary.
      classes: of the labels.
      seed: of the search and of every trial.
      deadline: when the search ends, in seconds since 1970.
    """

    tuner: str
    space: str
    fields: Mapping[str, Any]
    classes: int
    seed: int
    deadline: float


class OutOfTime(BaseException):
    """Ends the search. No `Exception`: that KerasTuner would take for a failed trial."""


class Clock(keras.callbacks.Callback):
    """Ends the search at its deadline, and times what is compiled.

    TensorFlow traces and compiles a function at its first call, so compiling is the time of the
    first call in a trial less that of a usual one.
    """

    def __init__(self, deadline: float):
        super().__init__()
        self._deadline, self._begun = deadline, 0.0
        self._calls: list[dict[str, list[float]]] = []

    def __deepcopy__(self, memo: Any) -> 'Clock':
        return self  # KerasTuner copies callbacks for every trial.

    def on_train_begin(self, logs: Any = None) -> None:
        self._calls.append({'train': [], 'validation': []})

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._begun = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._calls[-1]['train'].append(time.perf_counter() - self._begun)
        if time.time() >= self._deadline:
            raise OutOfTime

    def on_test_begin(self, logs: Any = None) -> None:
        self._begun = time.perf_counter()

    def on_test_end(self, logs: Any = None) -> None:
        self._calls[-1]['validation'].append(time.perf_counter() - self._begun)

    def compile_seconds(self) -> float:
        """Returns the seconds that all trials have compiled."""
        total = 0.0
        for part in ('train', 'validation'):
            of_part = [calls[part] for calls in self._calls if calls[part]]
            later = [seconds for calls in of_part for seconds in calls[1:]]
            for first, *others in of_part:
                # A trial may be too short for a usual call, of validation for one; a search too.
                usual = statistics.median(others or later or [0.0])
                total += max(0.0, first - usual)
        return total


class Schedule(keras.optimizers.schedules.CosineDecay):
    """Keras' cosine after a warmup, from a later step on where Hyperband goes on with a trial.

    KerasTuner restores weights alone, after which the steps of the optimizer count from 0: by
    itself it would repeat the warmup and the high learning rates in every round.
    """

    def __init__(self, peak: float, warmup_steps: int, total_steps: int, begun: int):
        decay = max(1, total_steps - warmup_steps)
        first = peak / max(1, warmup_steps)
        super().__init__(first, decay, 0.0, warmup_target=peak, warmup_steps=warmup_steps)
        self._first_step = begun

    def __call__(self, step: Any) -> Any:
        return super().__call__(step + self._first_step)


def choose(hp: keras_tuner.HyperParameters, factor: Factor) -> Any:
    """Returns a value of a factor; KerasTuner has no choices of tuples, so these are JSON."""
    if factor.choices:
        return json.loads(hp.Choice(factor.name, [json.dumps(v) for v in factor.choices]))
    sampling = 'log' if factor.log else 'linear'
    return hp.Float(factor.name, factor.low, factor.high, sampling=sampling)


def plain(fields: Mapping[str, Any], shape: tuple[int, ...], classes: int) -> keras.Model:
    """Builds the plain family of models/plain.py, with weight decay as L2 in the loss, as ours.

    Args:
      fields: of the config.
      shape: height, width and channels of the images.
      classes: of the labels.
    """
    # Ours adds decay * w to the gradient; that of L2 is twice its factor times w.
    decay = keras.regularizers.L2(fields['optimizer.weight_decay'] / 2)
    he = keras.initializers.VarianceScaling(2.0, 'fan_out', 'untruncated_normal')
    x = inputs = keras.Input(shape)
    last = len(fields['model.stage_sizes']) - 1
    for i, count in enumerate(fields['model.stage_sizes']):
        for _ in range(count):
            x = layers.Conv2D(
                fields['model.width'] * 2**i, 3, padding='same', use_bias=False,
                kernel_initializer=he, kernel_regularizer=decay,
            )(x)  # fmt: skip
            x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)
            x = layers.ReLU()(x)
        if i < last:
            x = layers.MaxPooling2D(padding='same')(x)
    x = layers.GlobalAveragePooling2D()(x)
    logits = layers.Dense(classes, kernel_initializer='lecun_normal', kernel_regularizer=decay)
    return keras.Model(inputs, logits(x))


def builder(task: Task, shape: tuple[int, ...], steps_per_epoch: int) -> Any:
    """Returns the function from hyperparameters to a compiled model that KerasTuner asks for."""
    epochs, warmup = task.fields['epochs'], task.fields['optimizer.warmup_epochs']

    def build(hp: keras_tuner.HyperParameters) -> keras.Model:
        fields = {**task.fields, **{f.name: choose(hp, f) for f in SPACES[task.space]}}
        model = plain(fields, shape, task.classes)
        schedule = Schedule(
            fields['optimizer.learning_rate'],
            round(warmup * steps_per_epoch),
            round(epochs * steps_per_epoch),
            hp.values.get('tuner/initial_epoch', 0) * steps_per_epoch,
        )
        model.compile(
            keras.optimizers.SGD(schedule, momentum=0.9, nesterov=True),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=['accuracy'],
            steps_per_execution=steps_per_epoch if task.tuner == 'random' else 1,
        )
        return model

    return build


def make(task: Task, build: Any, folder: pathlib.Path) -> keras_tuner.Tuner:
    """Returns the tuner, without an end of its own but the deadline."""
    # A seed of 0 it takes for none.
    common = {'objective': 'val_accuracy', 'seed': task.seed + 1, 'directory': folder}
    if task.tuner == 'random':
        return keras_tuner.RandomSearch(build, max_trials=1_000_000, **common)
    epochs = round(task.fields['epochs'])
    return keras_tuner.Hyperband(
        build, max_epochs=epochs, factor=3, hyperband_iterations=1_000_000, **common
    )


def in_short(trial: Any, epochs: int) -> dict[str, Any]:
    """Returns what is counted of a trial.

    Returns:
      `id`; `status` as KerasTuner has it; `epochs` that its weights were trained in the end; and
      `continues`, the trial whose weights it went on with in a later round of Hyperband, or None.
    """
    values = trial.hyperparameters.values
    return {
        'id': trial.trial_id,
        'status': trial.status,
        'epochs': values.get('tuner/epochs', epochs),
        'continues': values.get('tuner/trial_id'),
    }


def batches(images: np.ndarray, labels: np.ndarray, size: int, shuffled: bool) -> tf.data.Dataset:
    """Returns a cached pipeline over all images."""
    pairs = tf.data.Dataset.from_tensor_slices((images, labels)).cache()
    if shuffled:
        pairs = pairs.shuffle(len(images))
    return pairs.batch(size).prefetch(tf.data.AUTOTUNE)


def search(task: Task, folder: pathlib.Path) -> dict[str, Any]:
    """Searches until the deadline; returns what came of it, judged on the test split once."""
    keras.utils.set_random_seed(task.seed)
    data = np.load(folder / 'search.npz')
    images, batch = data['train_images'], task.fields['batch_size']
    epochs = round(task.fields['epochs'])
    validation = data['validation_images'], data['validation_labels']
    build = builder(task, images.shape[1:], math.ceil(len(images) / batch))
    tuner, clock = make(task, build, folder), Clock(task.deadline)
    ended = 'by itself'
    try:
        tuner.search(
            batches(images, data['train_labels'], batch, shuffled=True), epochs=epochs, verbose=0,
            validation_data=batches(*validation, _EVALUATED_AT_ONCE, shuffled=False),
            callbacks=[clock],
        )  # fmt: skip
    except OutOfTime:
        ended = 'by the deadline'
    return {
        'ended': ended,
        'ended_at': time.time(),
        'compile_seconds': clock.compile_seconds(),
        'trials': [in_short(trial, epochs) for trial in tuner.oracle.trials.values()],
        'validation_accuracy': None,
        'test_accuracy': None,
        **_best(tuner, folder),
        'versions': {
            name: importlib.metadata.version(name) for name in ('keras-tuner', 'keras')
        } | {'tensorflow': tf.__version__},
    }  # fmt: skip


def _best(tuner: keras_tuner.Tuner, folder: pathlib.Path) -> dict[str, Any]:
    """Returns the figures of the best trial, as KerasTuner sees it: at its best epoch."""
    for trial in tuner.oracle.get_best_trials(1):
        model = tuner.load_model(trial)
        test = np.load(folder / 'test.npz')
        pairs = batches(test['images'], test['labels'], _EVALUATED_AT_ONCE, shuffled=False)
        _, accuracy = model.evaluate(pairs, verbose=0)
        return {
            'validation_accuracy': float(trial.score),
            'test_accuracy': float(accuracy),
            'best': trial.hyperparameters.values,
            'parameters': sum(math.prod(w.shape) for w in model.trainable_weights),
        }
    return {}


def main() -> None:
    """Searches and writes `figures.json`."""
    folder = pathlib.Path(sys.argv[1])
    task = Task(**json.loads((folder / 'task.json').read_text()))
    figures = search(task, folder)
    (folder / 'figures.json').write_text(json.dumps(figures, indent=1))


if __name__ == '__main__':
    main()
