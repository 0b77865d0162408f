"""Normalisation: statistics of the training split, applied on the device inside the step."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from errors import UserError

KINDS = ('zscore', 'mean', 'min_max', 'min_max_signed', 'pixel_zscore', 'image', 'imagenet')
# Mean and deviation by channel on a scale of 0 to 1, as published weights expect them.
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CHUNK_BYTES = 2**24  # Of inputs that are looked at at once.


class Normalization(NamedTuple):
    """`(value - offset) / scale`, float64: of levels [1, 1, C] or [H, W, C] each, of rows [F]."""

    offset: np.ndarray
    scale: np.ndarray


def fit(inputs: np.ndarray, members: np.ndarray, kind: str) -> Normalization:
    """Fits the statistics on the training split.

    Args:
      inputs: of all splits: images, uint8 [N, H, W, C], or rows or windows, float32 [N, ..., F].
      members: indices of the training split.
      kind: one of KINDS.

    Raises:
      UserError: a kind that is for images alone, and no images.
    """
    return (_fit_levels if inputs.dtype == np.uint8 else _fit_features)(inputs, members, kind)


def fit_targets(targets: np.ndarray, members: np.ndarray) -> Normalization:
    """Fits mean and standard deviation of the training targets, float64 scalars.

    Raises:
      UserError: they are all the same.
    """
    values = targets[members].astype(np.float64)
    if not np.ptp(values):
        raise UserError(
            f'The target is {values[0]:g} in all of the training split: there is nothing to learn.'
        )
    return Normalization(values.mean(), values.std())


def _fit_levels(images_NHWC: np.ndarray, members: np.ndarray, kind: str) -> Normalization:
    """Fits the statistics of images, exactly.

    zscore: mean 0 and standard deviation 1 for each channel; mean: mean 0 on a scale of 0 to 1;
    min_max: the levels 0 to 255 become 0 to 1, min_max_signed: -1 to 1, whatever the images hold;
    pixel_zscore: mean 0 and deviation 1 for each channel of each pixel; image: mean 0 and
    deviation 1 of each image on its own (`normalize` does that; nothing is fitted); imagenet: by
    the statistics of ImageNet's colours (their mean, where images are grey), for published
    weights.
    """
    shape = (1, 1, images_NHWC.shape[-1])
    if kind in ('min_max', 'image'):
        return Normalization(np.zeros(shape), np.full(shape, 255.0))
    if kind == 'min_max_signed':
        return Normalization(np.full(shape, 127.5), np.full(shape, 127.5))
    if kind == 'imagenet':
        mean_C, deviation_C = (255 * np.asarray(values) for values in _IMAGENET)
        if shape[-1] == 1:
            mean_C, deviation_C = (v.mean(keepdims=True) for v in (mean_C, deviation_C))
        return Normalization(mean_C.reshape(shape), deviation_C.reshape(shape))
    total = np.zeros(images_NHWC.shape[1:], np.int64)
    squares = np.zeros_like(total)
    rows = max(1, _CHUNK_BYTES // total.size)
    for start in range(0, len(members), rows):  # The images may exceed the memory.
        chunk = images_NHWC[members[start : start + rows]]
        total += chunk.sum(axis=0, dtype=np.int64)
        squares += np.einsum('nhwc,nhwc->hwc', chunk, chunk, dtype=np.int64, casting='unsafe')
    count = len(members)
    if kind != 'pixel_zscore':
        count *= images_NHWC.shape[1] * images_NHWC.shape[2]
        total, squares = (s.sum(axis=(0, 1), keepdims=True) for s in (total, squares))
    mean = total / count
    if kind == 'mean':
        return Normalization(mean, np.full(shape, 255.0))
    variance = np.maximum(squares / count - mean**2, 0.0)
    return Normalization(mean, np.maximum(np.sqrt(variance), 1.0))  # One level would divide by 0.


class _Spread(NamedTuple):
    """Statistics of each feature over rows (and times), float64 [F] each."""

    mean: np.ndarray
    deviation: np.ndarray
    least: np.ndarray
    most: np.ndarray


# Offset and scale of features, by the kind of normalisation.
_FEATURES: dict[str, Callable[[_Spread], tuple[np.ndarray, np.ndarray]]] = {
    'zscore': lambda s: (s.mean, s.deviation),
    'mean': lambda s: (s.mean, s.most - s.least),
    'min_max': lambda s: (s.least, s.most - s.least),
    'min_max_signed': lambda s: ((s.least + s.most) / 2, (s.most - s.least) / 2),
}


def _fit_features(inputs: np.ndarray, members: np.ndarray, kind: str) -> Normalization:
    """Fits the statistics of features: as for images, but the range is that of the feature."""
    if kind not in _FEATURES:
        raise UserError(
            f'config.dataset.normalization={kind} is for images; for numbers there are '
            f'{", ".join(_FEATURES)}.'
        )

    def chunks() -> Iterator[np.ndarray]:  # Windows share rows, and would not when copied.
        rows = max(1, _CHUNK_BYTES // inputs[0].nbytes)
        for start in range(0, len(members), rows):
            chunk = inputs[members[start : start + rows]].astype(np.float64)
            yield chunk.reshape(-1, chunk.shape[-1])

    count = len(members) * (inputs[0].size // inputs.shape[-1])
    mean = sum(chunk.sum(axis=0) for chunk in chunks()) / count
    squares = sum(((chunk - mean) ** 2).sum(axis=0) for chunk in chunks())
    least = np.min([chunk.min(axis=0) for chunk in chunks()], axis=0)
    most = np.max([chunk.max(axis=0) for chunk in chunks()], axis=0)
    offset, scale = _FEATURES[kind](_Spread(mean, np.sqrt(squares / count), least, most))
    return Normalization(offset, np.where(scale > 0, scale, 1.0))  # A constant would divide by 0.


def normalize(inputs: jax.Array, offset: Any, scale: Any, kind: str) -> jax.Array:
    """Maps inputs in floating point, images with levels of 0 to 255, to what the net sees."""
    dtype = inputs.dtype
    if kind != 'image':
        return (inputs - jnp.asarray(offset, dtype)) / jnp.asarray(scale, dtype)
    images_BHWC = inputs / 255
    mean = images_BHWC.mean(axis=(1, 2, 3), keepdims=True)
    deviation = images_BHWC.std(axis=(1, 2, 3), keepdims=True)
    # The floor of tf.image.per_image_standardization: an image of one colour becomes zeros.
    least = 1 / np.sqrt(np.prod(images_BHWC.shape[1:]))
    return (images_BHWC - mean) / jnp.maximum(deviation, jnp.asarray(least, dtype))
