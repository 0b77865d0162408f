"""Normalisation and augmentation, as they run on the device inside the step."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Normalization(NamedTuple):
    """`(image - offset) / scale`: float64 [C] each, in units of uint8 levels."""

    offset: np.ndarray
    scale: np.ndarray


def fit_normalization(images_NHWC: np.ndarray, kind: str) -> Normalization:
    """Fits the statistics on training images, exactly (from a histogram of 256 levels).

    zscore: mean 0 and standard deviation 1 for each channel; mean: mean 0 on a scale of 0 to 1;
    min_max: the levels 0 to 255 become 0 to 1, whatever the images hold.
    """
    channels = range(images_NHWC.shape[-1])
    full = np.full(len(channels), 255.0)
    if kind == 'min_max':
        return Normalization(np.zeros_like(full), full)
    levels = np.arange(256)
    counts = np.stack([np.bincount(images_NHWC[..., c].ravel(), minlength=256) for c in channels])
    shares = counts / counts.sum(axis=1, keepdims=True)
    mean = (shares * levels).sum(axis=1)
    if kind == 'mean':
        return Normalization(mean, full)
    deviation = np.sqrt((shares * (levels - mean[:, None]) ** 2).sum(axis=1))
    return Normalization(mean, np.maximum(deviation, 1.0))  # One level only would divide by 0.


def normalize(
    images_BHWC: jax.Array, offset_C: jax.Array, scale_C: jax.Array, dtype: Any = jnp.float32
) -> jax.Array:
    """Maps uint8 images to normalised ones, in float32 or float64."""
    return (images_BHWC.astype(dtype) - offset_C.astype(dtype)) / scale_C.astype(dtype)


def augment(images_BHWC: jax.Array, keys: jax.Array, shift_pixels: int, flip: bool) -> jax.Array:
    """Shifts and mirrors each image by its own key; what a shift uncovers becomes 0."""
    if not shift_pixels and not flip:
        return images_BHWC

    def one(image_HWC: jax.Array, key: jax.Array) -> jax.Array:
        shift_key, flip_key = jax.random.split(key)
        if shift_pixels:
            pad = shift_pixels
            padded = jnp.pad(image_HWC, ((pad, pad), (pad, pad), (0, 0)))
            corner = jax.random.randint(shift_key, (2,), 0, 2 * pad + 1, jnp.int32)
            image_HWC = jax.lax.dynamic_slice(
                padded, (corner[0], corner[1], jnp.int32(0)), image_HWC.shape
            )
        if flip:
            mirrored = jax.random.bernoulli(flip_key, jnp.float32(0.5))
            image_HWC = jnp.where(mirrored, image_HWC[:, ::-1], image_HWC)
        return image_HWC

    return jax.vmap(one)(images_BHWC, keys)
