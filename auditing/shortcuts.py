"""The shortcut probe: can the class be told without looking at the thing?

A simple classifier gets only what should not matter (the corners, the border, the size of the
image, the size of the file, the mean colour) and is cross-validated against chance. Where the
thing itself can show in what it gets, such as a shirt that reaches the border, the measure is what
the middle of the image tells the same classifier. Noyan 2022, "Uncovering bias in the PlantVillage
dataset", found 49 % (chance: 2.6 %) in 8 pixels in this manner.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy.special import ndtri

from data.listing import Source

MOST_IMAGES = 3000  # At most so many are looked at, for the sake of time.
_FOLDS = 5
_CONFIDENCE = 0.99
_BORDER = 1 / 16  # Width of the border, as a share of the side.


class Probe(NamedTuple):
    """What a classifier makes of one kind of features.

    Attributes:
      name: of the features.
      accuracy: balanced accuracy over 5 folds, a fraction of 1.
      low, high: 99 % interval of it.
      chance: balanced accuracy of guessing.
    """

    name: str
    accuracy: float
    low: float
    high: float
    chance: float

    def skill_exceeds(self, share: float) -> bool:
        """Whether the accuracy surely is further than so far from guessing to always right."""
        return self.low > self.chance + share * (1 - self.chance)


def suspicious(probes: dict[str, Probe]) -> list[Probe]:
    """Returns the probes that should worry the owner of the images."""
    if not probes:
        return []
    middle = probes['middle'].accuracy
    rules: dict[str, Callable[[Probe], bool]] = {
        'corners': lambda p: p.skill_exceeds(0.1),
        'image_size': lambda p: p.skill_exceeds(0.1),
        'file_size': lambda p: p.skill_exceeds(0.5),  # Busy pictures are large: some is natural.
        'border': lambda p: p.low > middle,
        'mean_colour': lambda p: p.low > middle or p.skill_exceeds(0.75),
    }
    return [probes[name] for name, rule in rules.items() if name in probes and rule(probes[name])]


def probe(source: Source, clusters: np.ndarray) -> dict[str, Probe]:
    """Returns the probes by name: corners, border, image_size, file_size, mean_colour; and middle.

    Features that are the same for all images, and so tell nothing, are left out; there is no
    probe at all where fewer than two classes have 5 images that are no copies.

    Args:
      source: its images squeezed, not cropped, so that borders are there.
      clusters: of near duplicates; one of each is looked at, so that none is in two folds.
    """
    chosen = np.sort(np.unique(clusters, return_index=True)[1])
    if len(chosen) > MOST_IMAGES:
        chosen = np.sort(np.random.default_rng(0).permutation(chosen)[:MOST_IMAGES])
    labels = source.labels[chosen]
    counts = np.bincount(labels, minlength=len(source.class_names))
    chosen, labels = (values[counts[labels] >= _FOLDS] for values in (chosen, labels))
    if len(np.unique(labels)) < 2:
        return {}
    images_NHWC = source.inputs[chosen]
    files = {name: values[chosen].astype(float) for name, values in source.files.items()
             if name != 'mode'}  # fmt: skip
    width, height = files['width'], files['height']
    features = {
        'corners': _corners(images_NHWC),
        'border': _border(images_NHWC),
        'image_size': np.stack([width, height, width / height], 1),
        'file_size': np.stack([files['bytes'], files['bytes'] / (width * height)], 1),
        'mean_colour': images_NHWC.mean(axis=(1, 2)),
        'middle': _middle(images_NHWC),
    }
    return {name: cross_validated(name, values, labels) for name, values in features.items()
            if name == 'middle' or np.ptp(values, axis=0).any()}  # fmt: skip


def _corners(images_NHWC: np.ndarray) -> np.ndarray:
    """Returns the mean levels of the four corners, [N, 4 * C]."""
    deep, wide = (max(1, round(side * _BORDER)) for side in images_NHWC.shape[1:3])
    rows, columns = (slice(None, deep), slice(-deep, None)), (slice(None, wide), slice(-wide, None))
    return np.concatenate(
        [images_NHWC[:, row, column].mean(axis=(1, 2)) for row in rows for column in columns], 1
    )


def _border(images_NHWC: np.ndarray) -> np.ndarray:
    """Returns levels along the border, [N, 64 * C]: 16 places on each side."""
    height, width = images_NHWC.shape[1:3]
    deep, wide = max(1, round(height * _BORDER)), max(1, round(width * _BORDER))
    sides = [
        images_NHWC[:, :deep].mean(axis=1),
        images_NHWC[:, -deep:].mean(axis=1),
        images_NHWC[:, :, :wide].mean(axis=2),
        images_NHWC[:, :, -wide:].mean(axis=2),
    ]
    shortened = []
    for side in sides:
        pieces = np.array_split(np.arange(side.shape[1]), min(16, side.shape[1]))
        shortened += [side[:, piece].mean(axis=1) for piece in pieces]
    return np.concatenate(shortened, axis=1)


def _middle(images_NHWC: np.ndarray) -> np.ndarray:
    """Returns what is inside of the border, small."""
    deep, wide = (max(1, round(side * _BORDER)) for side in images_NHWC.shape[1:3])
    return thumbnails(images_NHWC[:, deep:-deep, wide:-wide])


def thumbnails(images_NHWC: np.ndarray) -> np.ndarray:
    """Returns the images at 16 x 16 pixels (fewer where they have fewer), flat: [N, D]."""
    squeezed = images_NHWC[..., 0] if images_NHWC.shape[-1] == 1 else images_NHWC
    size = min(16, images_NHWC.shape[2]), min(16, images_NHWC.shape[1])
    small = [Image.fromarray(image).resize(size, Image.Resampling.BOX) for image in squeezed]
    return np.stack([np.asarray(image) for image in small]).reshape(len(small), -1)


def cross_validated(name: str, features: np.ndarray, labels: np.ndarray) -> Probe:
    """Returns what extremely randomised trees make of the features in 5 folds."""
    from sklearn.ensemble import ExtraTreesClassifier
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    # Threads cost more than they save where there is little to do.
    workers = -1 if features.size > 2e5 else None
    forest = ExtraTreesClassifier(
        100, min_samples_leaf=2, class_weight='balanced', random_state=0, n_jobs=workers
    )
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=0)
    predicted = cross_val_predict(forest, features, labels, cv=folds)
    classes, counts = np.unique(labels, return_counts=True)
    hits = np.asarray([(predicted[labels == c] == c).sum() for c in classes])
    accuracy = float((hits / counts).mean())
    # The recalls' variances, with one success and one failure added so that none is 0.
    recall = (hits + 1) / (counts + 2)
    error = np.sqrt((recall * (1 - recall) / counts).sum()) / len(classes)
    half = float(ndtri((1 + _CONFIDENCE) / 2) * error)
    return Probe(name, accuracy, accuracy - half, accuracy + half, 1 / len(classes))
