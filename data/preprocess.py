"""Normalisation and augmentation, as they run on the device inside the step."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Normalization(NamedTuple):
    """`(image - offset) / scale` for each channel, in units of uint8 levels."""

    offset: tuple[float, ...]
    scale: tuple[float, ...]


def fit_normalization(images_NHWC: np.ndarray, kind: str) -> Normalization:
    """Fits the statistics on training images, exactly (integer sums of a 256-bin histogram).

    zscore: mean 0 and standard deviation 1 for each channel; mean: mean 0 on a scale of 0 to 1;
    min_max: the levels 0 to 255 become 0 to 1, whatever the images hold.
    """
    channels = images_NHWC.shape[-1]
    if kind == 'min_max':
        return Normalization((0.0,) * channels, (255.0,) * channels)
    levels = np.arange(256)
    offset, scale = [], []
    for channel in range(channels):
        counts = np.bincount(images_NHWC[..., channel].ravel(), minlength=256)
        mean = float((counts * levels).sum() / counts.sum())
        variance = float((counts * (levels - mean) ** 2).sum() / counts.sum())
        offset.append(mean)
        # A channel of one level only would divide by zero.
        scale.append(255.0 if kind == 'mean' else max(variance**0.5, 1.0))
    return Normalization(tuple(offset), tuple(scale))


def normalize(
    images_BHWC: jax.Array, normalization: Normalization, dtype: Any = jnp.float32
) -> jax.Array:
    """Maps uint8 images to numbers around 0, in float32 or float64."""
    offset: Sequence[float] = normalization.offset
    return (images_BHWC.astype(dtype) - jnp.asarray(offset, dtype)) / jnp.asarray(
        normalization.scale, dtype
    )


def augment(images_BHWC: jax.Array, keys: jax.Array, shift_pixels: int, flip: bool) -> jax.Array:
    """Shifts and mirrors each image by its own key; what a shift uncovers is 0, the mean."""
    if not shift_pixels and not flip:
        return images_BHWC

    def one(image_HWC: jax.Array, key: jax.Array) -> jax.Array:
        shift_key, flip_key = jax.random.split(key)
        if shift_pixels:
            pad = shift_pixels
            padded = jnp.pad(image_HWC, ((pad, pad), (pad, pad), (0, 0)))
            corner = jax.random.randint(shift_key, (2,), 0, 2 * pad + 1)
            image_HWC = jax.lax.dynamic_slice(padded, (corner[0], corner[1], 0), image_HWC.shape)
        if flip:
            mirrored = jax.random.bernoulli(flip_key)
            image_HWC = jnp.where(mirrored, image_HWC[:, ::-1], image_HWC)
        return image_HWC

    return jax.vmap(one)(images_BHWC, keys)
