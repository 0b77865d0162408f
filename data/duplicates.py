"""Near duplicates: the same picture again, mirrored, turned, re-encoded, or a little changed.

A perceptual hash in the manner of pHash (Zauner 2010, "Implementation and Benchmarking of
Perceptual Image Hash Functions", section 3.2.1) with real numbers in place of bits: the discrete
cosine transform of a small grey image, without its mean and contrast. Mirroring changes signs of
coefficients and transposing swaps them, so that one transform serves all eight flips and
right-angle turns, and the first coefficients bound what the rest can add, so that few pairs need
all of them.
"""

import contextlib
import itertools
import uuid
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import fft

from data import cache
from data.listing import Source

FILE = 'near_duplicates-3.npz'  # In the decode cache; the number changes with this algorithm.
_SIDE = 32  # Height and width of the grey images that are compared.
_LOW = 8  # The first so many coefficients in each direction find the candidates.
_LEAST = 0.95  # Correlation that photos of different things do not reach.
_BLANK = 3.0  # Standard deviation in levels below which an image has no picture to compare.
_CHUNK_BYTES = 2**24  # Of images that are looked at at once.
_NEIGHBOUR = 0.016  # Share of the images that tells how alike others are: see `_threshold`.


class Pairs(NamedTuple):
    """Pairs of near duplicates.

    Attributes:
      first, second: indices, int64 [P], first < second.
      turned: whether the second is a mirrored or turned copy, bool [P].
      correlation: of the two grey images, float32 [P].
      threshold: the correlation above which a pair counts.
    """

    first: np.ndarray
    second: np.ndarray
    turned: np.ndarray
    correlation: np.ndarray
    threshold: float


def find(images_NHWC: np.ndarray) -> Pairs:
    """Finds all pairs of near duplicates, about N**2 * 1e-8 seconds on a core.

    Args:
      images_NHWC: uint8; images that are nearly of one colour are never part of a pair.
    """
    coefficients, usable = _coefficients(images_NHWC)
    if len(usable) < 2:
        return _one_each([], _LEAST)
    threshold = _threshold(coefficients)
    parts = []
    for first, second, view in _candidates(coefficients, threshold):
        for start in range(0, len(first), 20_000):
            rows = slice(start, start + 20_000)
            correlation = np.einsum(
                'nuv,nuv->n', coefficients[first[rows]], _view(coefficients[second[rows]], view)
            )
            found = correlation >= threshold
            a, b = usable[first[rows][found]], usable[second[rows][found]]
            parts.append((a, b, np.full(len(a), view > 0), correlation[found]))
    return _one_each(parts, threshold)


def find_once(source: Source) -> Pairs:
    """Finds the pairs of a source, or reads those found before from its cache."""
    kept = source.cache / FILE if source.cache else None
    if kept:
        with contextlib.suppress(*cache.DAMAGE), np.load(kept) as file:
            first, second, turned, correlation = (file[name] for name in Pairs._fields[:4])
            return Pairs(first, second, turned, correlation, float(file['threshold']))
    pairs = find((source.compared() if source.compared else source).inputs)
    if kept:
        with contextlib.suppress(OSError):  # It only saves time.
            temporary = kept.with_name(f'{uuid.uuid4().hex[:8]}.tmp.npz')
            np.savez(temporary, **pairs._asdict())
            temporary.replace(kept)
    return pairs


def clusters(pairs: Pairs, count: int) -> np.ndarray:
    """Returns the number of the cluster of each image, int64 [N]: pairs and pairs of pairs."""
    # Here, since it takes a quarter of a second, for which the first line should not wait.
    from scipy import sparse
    from scipy.sparse import csgraph

    links = sparse.coo_array(
        (np.ones(len(pairs.first)), (pairs.first, pairs.second)), shape=(count, count)
    )
    return csgraph.connected_components(links, directed=False)[1].astype(np.int64)


def grey(images_NHWC: np.ndarray) -> np.ndarray:
    """Returns float32 [N, H, W] luma (ITU-R BT.601)."""
    if images_NHWC.shape[-1] == 1:
        return images_NHWC[..., 0].astype(np.float32)
    return images_NHWC.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)


def _coefficients(images_NHWC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns unit DCT coefficients [M, S, S] without the mean, and the index of each image."""
    side = min(_SIDE, *images_NHWC.shape[1:3])
    parts, usable = [], []
    rows = max(1, _CHUNK_BYTES // images_NHWC[0].nbytes)
    for start in range(0, len(images_NHWC), rows):
        small = _small(grey(images_NHWC[start : start + rows]), side)
        kept = np.flatnonzero(small.std(axis=(1, 2)) >= _BLANK)
        spectrum = fft.dctn(small[kept], axes=(1, 2), norm='ortho')
        spectrum[:, 0, 0] = 0.0
        parts.append(spectrum / np.linalg.norm(spectrum, axis=(1, 2), keepdims=True))
        usable.append(start + kept)
    return np.concatenate(parts), np.concatenate(usable)


def _small(grey_NHW: np.ndarray, side: int) -> np.ndarray:
    if grey_NHW.shape[1:] == (side, side):
        return grey_NHW
    resize = Image.Resampling.BOX
    return np.stack([np.asarray(Image.fromarray(g).resize((side, side), resize)) for g in grey_NHW])


def _view(coefficients: np.ndarray, view: int) -> np.ndarray:
    """Returns the coefficients of the images in one of the 8 views; 0 is as they are."""
    flip_rows, flip_columns, transpose = view & 1, view & 2, view & 4
    signs = np.where(np.arange(coefficients.shape[1]) % 2, -1.0, 1.0).astype(np.float32)
    if flip_rows:
        coefficients = coefficients * signs[:, None]
    if flip_columns:
        coefficients = coefficients * signs
    return coefficients.swapaxes(1, 2) if transpose else coefficients


def _bounds(coefficients: np.ndarray, view: int = 0) -> np.ndarray:
    """Returns vectors [M, D] whose products are at least the correlations (Cauchy-Schwarz)."""
    low = _view(coefficients[:, :_LOW, :_LOW], view).reshape(len(coefficients), -1)
    rest = np.sqrt(np.maximum(0.0, 1.0 - (low**2).sum(axis=1, keepdims=True)))
    return np.concatenate([low, rest], axis=1)


def _candidates(
    coefficients: np.ndarray, threshold: float
) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    """Yields (first, second, view) of all pairs that may reach the threshold."""
    plain = _bounds(coefficients)
    views = [_bounds(coefficients, view) for view in range(8)]
    rows = max(1, 20_000_000 // max(1, len(plain)))
    for start, view in itertools.product(range(0, len(plain), rows), range(8)):
        products = plain[start : start + rows] @ views[view][start:].T
        first, second = np.nonzero(products >= threshold - 1e-4)
        later = first < second  # Views come in pairs of inverses: each pair is seen once or twice.
        yield first[later] + start, second[later] + start, view


def _threshold(coefficients: np.ndarray) -> float:
    """Returns the correlation from which on two images of this set are copies.

    Shirts on black are more alike than photos. The measure is the nearest hundredth and a half
    of those that can be no copies.
    """
    sample = coefficients[:: max(1, len(coefficients) // 1000)]
    rank = max(3, round(len(sample) * _NEIGHBOUR))
    if len(sample) <= rank:
        return _LEAST
    flat = sample.reshape(len(sample), -1)
    alike = flat @ flat.T
    alike[alike >= _LEAST] = -1.0  # Copies, of which there may be any number, say nothing of it.
    nearest = np.partition(alike, -rank, axis=1)[:, -rank]
    # Calibrated on Fashion-MNIST (alike 0.79 to 0.88, copies from 0.98 on) and photos (0.6, 0.95).
    return float(max(_LEAST, 1.0 - (1.0 - np.quantile(nearest, 0.9)) ** 2 / 2))


def _one_each(parts: list[tuple], threshold: float) -> Pairs:
    """Keeps the best view of each pair, the plain one where views are equal."""
    first, second, turned, correlation = (
        np.concatenate([part[i] for part in parts]) if parts else np.zeros(0) for i in range(4)
    )
    order = np.lexsort((turned, -correlation, second, first))
    first, second = first[order].astype(np.int64), second[order].astype(np.int64)
    new = np.ones(len(first), bool)
    new[1:] = (first[1:] != first[:-1]) | (second[1:] != second[:-1])
    turned = turned[order].astype(bool)
    return Pairs(first[new], second[new], turned[new], correlation[order][new], threshold)
