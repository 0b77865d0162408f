"""Keras 3 on the backend that KERAS_BACKEND names, by the function that `fit` compiles."""

import importlib.metadata
import itertools
import os

import keras
import numpy as np
from keras import layers

from benchmarks.peers.worker import LEARNING_RATE, MOMENTUM, WEIGHT_DECAY, Case


def _conv(x, filters: int, size: int = 3, stride: int = 1, activation: bool = True):
    x = layers.Conv2D(filters, size, stride, padding='same', use_bias=False)(x)
    x = layers.BatchNormalization()(x)
    return layers.ReLU()(x) if activation else x


def _head(x, classes: int):
    return layers.Dense(classes, dtype='float32')(layers.GlobalAveragePooling2D()(x))


def plain(x, classes: int):
    """Applies the net of configs/plain_small.py."""
    for filters in (32, 64):
        x = layers.MaxPooling2D()(_conv(x, filters))
    return _head(_conv(x, 128), classes)


def _resnet(x, classes: int, sizes: tuple, width: int, stem: str, block: str, option_a=False):
    """Applies the net of He et al. 2016; a bottleneck halves the map by its 3x3 convolution."""
    x = _conv(x, width, 7, 2) if stem == 'large' else _conv(x, width)
    if stem == 'large':
        x = layers.MaxPooling2D(3, 2, padding='same')(x)
    for stage, count in enumerate(sizes):
        for i in range(count):
            filters, stride = width * 2**stage, 2 if stage and not i else 1
            if block == 'basic':
                y = _conv(_conv(x, filters, stride=stride), filters, activation=False)
            else:
                y = _conv(_conv(x, filters, 1), filters, stride=stride)
                y = _conv(y, 4 * filters, 1, activation=False)
            if y.shape != x.shape:
                if option_a:
                    added = filters - x.shape[-1]
                    x = keras.ops.pad(x[:, ::2, ::2], ((0, 0), (0, 0), (0, 0), (0, added)))
                else:
                    x = _conv(x, y.shape[-1], 1, stride, activation=False)
            x = layers.ReLU()(layers.Add()([x, y]))
    return _head(x, classes)


def _efficientnet_b0(x, classes: int):
    # It normalises once more, which costs next to nothing.
    net = keras.applications.EfficientNetB0(
        weights=None, input_shape=x.shape[1:], classes=classes, classifier_activation=None
    )
    return net(x)


NETS = {
    'plain': plain,
    'resnet20': lambda x, k: _resnet(x, k, (3, 3, 3), 16, 'small', 'basic', option_a=True),
    'resnet18': lambda x, k: _resnet(x, k, (2, 2, 2, 2), 64, 'large', 'basic'),
    'resnet18_small': lambda x, k: _resnet(x, k, (2, 2, 2, 2), 64, 'small', 'basic'),
    'resnet50': lambda x, k: _resnet(x, k, (3, 4, 6, 3), 64, 'large', 'bottleneck'),
    'efficientnet_b0': _efficientnet_b0,
}


def _build(case: Case) -> keras.Model:
    inputs = keras.Input((case.size, case.size, 3), dtype='uint8')
    mean, deviation = case.statistics()
    x = layers.Normalization(mean=mean, variance=deviation**2)(inputs)
    model = keras.Model(inputs, NETS[case.net](x, case.classes))
    # `weight_decay` is decoupled from the momentum here, which costs the same.
    optimizer = keras.optimizers.SGD(LEARNING_RATE, MOMENTUM, True, weight_decay=WEIGHT_DECAY)
    optimizer.exclude_from_weight_decay(var_names=['bias', 'gamma', 'beta'])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss)  # With XLA, but for TensorFlow on a CPU: Keras chooses.
    return model


class Contender:
    """Trains a case by `model.train_function` on tensors that are there already."""

    def __init__(self, case: Case, option: str):
        if case.dtype == 'bfloat16':
            keras.mixed_precision.set_global_policy('mixed_bfloat16')
        self._model = _build(case)
        self._first = case.batches()[0]
        tensors = [tuple(map(keras.ops.convert_to_tensor, batch)) for batch in case.batches()]
        self._batches = itertools.cycle(tensors)
        self._backend = {'jax': _Jax, 'tensorflow': _TensorFlow}[keras.backend.backend()]()

    def facts(self):
        platform, device = self._backend.device()
        package = {'jax': 'jax', 'tensorflow': 'tensorflow'}[keras.backend.backend()]
        counts = [int(np.prod(weight.shape)) for weight in self._model.trainable_weights]
        return {
            'parameters': sum(counts),
            'platform': platform,
            'device': device,
            'versions': {'keras': keras.__version__, package: _version(package)},
        }

    def start(self):
        self._model.train_on_batch(*self._first)
        self._backend.begin(self._model)

    def steps(self, count):
        for batch in itertools.islice(self._batches, count):
            logs = self._backend.step(self._model, batch)
        loss = float(logs['loss'])
        self._backend.wait()
        return count, loss

    def device_peak_bytes(self):
        return self._backend.peak_bytes()


def _version(package: str) -> str:
    for name in (package, f'{package}-cpu'):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return 'unknown'


class _TensorFlow:
    """What differs between the backends: TensorFlow keeps the state itself."""

    def __init__(self):
        import tensorflow

        self._tf = tensorflow
        self._gpu = bool(tensorflow.config.list_physical_devices('GPU'))

    def device(self) -> tuple[str, str]:
        return ('gpu', 'GPU:0') if self._gpu else ('cpu', f'{os.cpu_count()} cores')

    def begin(self, model: keras.Model) -> None:
        pass

    def step(self, model: keras.Model, batch) -> dict:
        return model.train_function(iter([batch]))

    def wait(self) -> None:
        if self._gpu:
            self._tf.test.experimental.sync_devices()

    def peak_bytes(self) -> int | None:
        return self._tf.config.experimental.get_memory_info('GPU:0')['peak'] if self._gpu else None


class _Jax:
    """What differs between the backends: JAX's function takes the state and returns it."""

    def __init__(self):
        import jax

        self._jax = jax

    def device(self) -> tuple[str, str]:
        device = self._jax.devices()[0]
        return device.platform, device.device_kind

    def begin(self, model: keras.Model) -> None:
        # As `fit` does; copies, since the step reuses the memory of the state.
        self._state = self._jax.tree.map(
            self._jax.numpy.copy,
            model._get_jax_state(
                trainable_variables=True, non_trainable_variables=True,
                optimizer_variables=True, metrics_variables=True,
            ),
        )  # fmt: skip

    def step(self, model: keras.Model, batch) -> dict:
        logs, self._state = model.train_function(self._state, iter([batch]))
        return logs

    def wait(self) -> None:
        self._jax.block_until_ready(self._state)

    def peak_bytes(self) -> int | None:
        statistics = self._jax.devices()[0].memory_stats()
        return statistics and statistics.get('peak_bytes_in_use')
