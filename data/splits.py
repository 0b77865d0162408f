"""Which example is in which split: stratified, by a seed of its own, named by content hash."""

import hashlib
from collections.abc import Mapping

import numpy as np

from errors import UserError


def split(
    labels: np.ndarray,
    official: Mapping[str, np.ndarray],
    split_seed: int,
    validation_fraction: float,
    test_fraction: float,
    stopping_fraction: float = 0.0,
) -> dict[str, np.ndarray]:
    """Returns index arrays: train, validation, test, and stopping where its fraction is above 0.

    Official splits stay as they are; what a set lacks is drawn at random within each class:
    where it has no splits, `test_fraction` and `validation_fraction` of all images; otherwise of
    the training split. `stopping` is a share of the training part, for early stopping alone.

    Raises:
      UserError: a class has too few images to be in every split, or nothing is left to train on.
    """
    parts = dict(official) or {'train': np.arange(len(labels))}
    if 'test' not in parts:
        parts['train'], parts['test'] = _cut(
            labels, parts['train'], test_fraction, split_seed, 'test'
        )
        if not official:
            validation_fraction /= 1 - test_fraction
    if 'validation' not in parts:
        parts['train'], parts['validation'] = _cut(
            labels, parts['train'], validation_fraction, split_seed, 'validation'
        )
    if stopping_fraction:
        parts['train'], parts['stopping'] = _cut(
            labels, parts['train'], stopping_fraction, split_seed, 'early stopping'
        )
    return parts


def content_hashes(images_NHWC: np.ndarray) -> list[str]:
    """Returns 16 hexadecimal digits for each image that follow its pixels and shape alone."""
    shape = np.asarray(images_NHWC.shape[1:], np.int64).tobytes()
    return [
        hashlib.blake2b(shape + image.tobytes(), digest_size=8).hexdigest() for image in images_NHWC
    ]


def _cut(
    labels: np.ndarray, members: np.ndarray, fraction: float, seed: int, purpose: str
) -> tuple[np.ndarray, np.ndarray]:
    """Splits off `fraction` of each class; both parts keep the stored order."""
    # Here, since it takes a second, which the first line of a command should not wait for.
    from sklearn.model_selection import train_test_split

    if fraction >= 1.0:
        raise UserError(
            f'The fractions of config.dataset leave nothing to train on (the {purpose} part would '
            f'be {fraction:.2f} of what is left): choose smaller ones.'
        )
    try:
        kept, cut = train_test_split(
            members, test_size=fraction, stratify=labels[members], random_state=seed
        )
    except ValueError as error:
        raise UserError(f'Cannot set images aside for {purpose}: {error}') from error
    return np.sort(kept), np.sort(cut)
