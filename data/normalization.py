"""Normalisation: statistics of the training images, applied on the device inside the step."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

KINDS = ('zscore', 'mean', 'min_max', 'min_max_signed', 'pixel_zscore', 'image', 'imagenet')
# Mean and deviation by channel on a scale of 0 to 1, as published weights expect them.
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CHUNK_BYTES = 2**24  # Of images that are looked at at once.


class Normalization(NamedTuple):
    """`(level - offset) / scale` of uint8 levels: float64, [1, 1, C] or [H, W, C] each."""

    offset: np.ndarray
    scale: np.ndarray


def fit(images_NHWC: np.ndarray, members: np.ndarray, kind: str) -> Normalization:
    """Fits the statistics on the training images, exactly.

    zscore: mean 0 and standard deviation 1 for each channel; mean: mean 0 on a scale of 0 to 1;
    min_max: the levels 0 to 255 become 0 to 1, min_max_signed: -1 to 1, whatever the images hold;
    pixel_zscore: mean 0 and deviation 1 for each channel of each pixel; image: mean 0 and
    deviation 1 of each image on its own (`normalize` does that; nothing is fitted); imagenet: by
    the statistics of ImageNet's colours (their mean, where images are grey), for published
    weights.

    Args:
      images_NHWC: uint8, of all splits.
      members: indices of the training images.
      kind: one of KINDS.
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


def normalize(images_BHWC: jax.Array, offset: Any, scale: Any, kind: str) -> jax.Array:
    """Maps images with levels of 0 to 255, in floating point, to what the net sees."""
    dtype = images_BHWC.dtype
    if kind != 'image':
        return (images_BHWC - jnp.asarray(offset, dtype)) / jnp.asarray(scale, dtype)
    images_BHWC = images_BHWC / 255
    mean = images_BHWC.mean(axis=(1, 2, 3), keepdims=True)
    deviation = images_BHWC.std(axis=(1, 2, 3), keepdims=True)
    # The floor of tf.image.per_image_standardization: an image of one colour becomes zeros.
    least = 1 / np.sqrt(np.prod(images_BHWC.shape[1:]))
    return (images_BHWC - mean) / jnp.maximum(deviation, jnp.asarray(least, dtype))
