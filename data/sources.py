"""Where images come from: one table from the prefix of `config.dataset.name` to a loader.

To add a source: write a function from (what follows the colon, data folder, image size) to a
`Source`, and add one line to `SOURCES`.
"""

import importlib
import io
import os
import socket
import urllib.request
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import psutil
from PIL import Image

from errors import UserError, did_you_mean


class Source(NamedTuple):
    """A data set in host memory.

    Attributes:
      class_names: name of each label.
      images_NHWC: uint8 [N, H, W, C], all splits one after another.
      labels: int32 [N].
      official: the set's own splits (train, validation, test) as index arrays; empty where it
        has none.
    """

    class_names: list[str]
    images_NHWC: np.ndarray
    labels: np.ndarray
    official: dict[str, np.ndarray]


def load(name: str, data_dir: str, image_size: int) -> Source:
    """Loads the data set `name` into host memory.

    Args:
      name: `digits`, or `tfds:NAME`, for which NAME is short.
      data_dir: `config.dataset.data_dir`.
      image_size: pixels to resize height and width to; 0 keeps images as they are.

    Raises:
      UserError: unknown, absent, too large, or no image classification.
    """
    kind, _, rest = name.partition(':')
    if kind not in SOURCES and not rest:
        kind, rest = 'tfds', name
    if kind not in SOURCES:
        raise UserError(
            f'Unknown source {kind!r} in config.dataset.name={name!r}; known: '
            f'{", ".join(SOURCES)}.{did_you_mean(kind, SOURCES)}'
        )
    return SOURCES[kind](rest, data_dir, image_size)


def _load_digits(rest: str, data_dir: str, image_size: int) -> Source:
    """scikit-learn's embedded digits: 1,797 grey images of 8x8 pixels with 17 levels."""
    from sklearn.datasets import load_digits

    if rest:
        raise UserError(f'The source digits takes nothing after its colon; it was given {rest!r}.')
    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    if image_size:
        images = np.stack([_resize(image, image_size) for image in images])
    names = [str(name) for name in digits.target_names]
    return Source(names, images, digits.target.astype(np.int32), {})


def _load_tfds(name: str, data_dir: str, image_size: int) -> Source:
    """Any image-classification set of TFDS; TensorFlow is imported only for tfrecord files."""
    # TensorFlow reads these when TFDS imports it: its notices are not about the user's data.
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
    os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')
    os.environ.setdefault('NO_GCE_CHECK', 'true')
    import tensorflow_datasets as tfds

    builder = _prepared_builder(tfds, name, data_dir)
    image_key, label_key = _supervised_keys(tfds, builder, name)
    class_names = [str(n) for n in builder.info.features[label_key].names]
    images: list[np.ndarray] = []
    labels: list[int] = []
    official: dict[str, np.ndarray] = {}
    splits = [s for s in ('train', 'validation', 'test') if s in builder.info.splits]
    if 'train' not in splits:
        raise UserError(f'{name} has no training split; it has {", ".join(builder.info.splits)}.')
    examples = sum(builder.info.splits[split].num_examples for split in splits)
    _check_memory(name, builder.info.features[image_key].shape, examples, image_size)
    channels = builder.info.features[image_key].shape[-1]
    for split in splits:
        start = len(images)
        for example in _examples(tfds, builder, split, image_key, label_key):
            images.append(_decode(example[image_key], channels, name, image_size))
            labels.append(int(example[label_key]))
            if images[-1].shape != images[0].shape:
                raise UserError(
                    f'The images of {name} differ in size ({images[0].shape} and '
                    f'{images[-1].shape}): set --config.dataset.image_size, such as 64.'
                )
        official[split] = np.arange(start, len(images))
    if min(labels) < 0:
        raise UserError(f'{name} holds images without a label: it cannot be used as it is.')
    return Source(class_names, np.stack(images), np.asarray(labels, np.int32), official)


def _prepared_builder(tfds: Any, name: str, data_dir: str) -> Any:
    folder = data_dir or os.environ.get('TFDS_DATA_DIR') or None
    try:
        builder = tfds.builder(name, data_dir=folder)
    except tfds.core.DatasetNotFoundError as error:
        known = tfds.list_builders(with_community_datasets=False)
        raise UserError(
            f'Unknown data set {name!r}: it is neither `digits` nor a set of TensorFlow Datasets.'
            f'{did_you_mean(name, ["digits", *known])}'
        ) from error
    except (ValueError, AssertionError) as error:  # A version or config that the set has not.
        reason = str(error).strip().splitlines()[0]
        raise UserError(f'TensorFlow Datasets cannot give {name!r}: {reason}') from error
    if builder.info.splits:
        return builder
    here = f'{name} is not prepared in {builder.data_path}'
    remedy = (
        f'Set --config.dataset.data_dir or TFDS_DATA_DIR to a folder that holds it, or prepare it '
        f'where there is a network: python -c "import tensorflow_datasets as tfds; '
        f"tfds.builder('{name}', file_format='array_record').download_and_prepare()\""
    )
    if not _has_network():
        raise UserError(f'{here} and there is no network to download it. {remedy}')
    print(f'{here}: downloading it once ...', flush=True)
    try:
        builder = tfds.builder(name, data_dir=folder, file_format='array_record')
        builder.download_and_prepare()
    except Exception as error:  # TFDS documents no common base for what a download may raise.
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise UserError(f'{here} and could not be downloaded ({reason}). {remedy}') from error
    return builder


def _has_network() -> bool:
    """Tells whether names resolve: TFDS retries for minutes where there is no network at all."""
    if urllib.request.getproxies():
        return True
    try:
        socket.getaddrinfo('storage.googleapis.com', 443)
    except OSError:
        return False
    return True


def _supervised_keys(tfds: Any, builder: Any, name: str) -> tuple[str, str]:
    features, keys = dict(builder.info.features), builder.info.supervised_keys
    if (
        not keys
        or len(keys) != 2
        or not isinstance(features.get(keys[0]), tfds.features.Image)
        or not isinstance(features.get(keys[1]), tfds.features.ClassLabel)
    ):
        raise UserError(f'{name} is no image-classification set: it gives {features}.')
    return keys


def _check_memory(name: str, shape: tuple, examples: int, image_size: int) -> None:
    height, width = (image_size, image_size) if image_size else shape[:2]
    needed = examples * (height or 256) * (width or 256) * (shape[2] or 3)
    available = psutil.virtual_memory().available
    if 2 * needed > available:
        raise UserError(
            f'{name} needs {2 * needed / 2**30:.1f} GiB of memory to load, '
            f'{available / 2**30:.1f} GiB are free: set a smaller --config.dataset.image_size.'
        )


def _examples(
    tfds: Any, builder: Any, split: str, image_key: str, label_key: str
) -> Iterable[dict[str, Any]]:
    """Yields examples with encoded images, in the stored order, whatever the file format."""
    encoded = {image_key: tfds.decode.SkipDecoding()}
    if builder.info.file_format.value != 'tfrecord':
        source = builder.as_data_source(split=split, decoders=encoded)
        for start in range(0, len(source), 1000):
            yield from source.__getitems__(range(start, min(start + 1000, len(source))))
        return
    try:
        tensorflow = importlib.import_module('tensorflow')
    except ImportError as error:
        raise UserError(
            f'{builder.name} is stored as tfrecord, which needs TensorFlow ({error}): install '
            'tensorflow, or prepare the set with file_format="array_record".'
        ) from error
    tensorflow.config.set_visible_devices([], 'GPU')
    # Other features may differ in shape between examples, and could not be batched.
    both = tfds.decode.PartialDecoding({image_key: True, label_key: True}, encoded)
    dataset = builder.as_dataset(split=split, decoders=both, shuffle_files=False)
    for batch in tfds.as_numpy(dataset.batch(1000)):
        for image, label in zip(batch[image_key], batch[label_key], strict=True):
            yield {image_key: image, label_key: label}


def _decode(encoded: bytes, channels: int | None, name: str, image_size: int) -> np.ndarray:
    """Decodes one image to uint8 [H, W, 1 or 3], resized where asked.

    The set decides on the channels, not the file: colour sets hold grey files here and there.
    """
    try:
        with Image.open(io.BytesIO(encoded)) as picture:
            image = np.asarray(picture.convert('L' if channels == 1 else 'RGB'))
    except OSError as error:
        raise UserError(f'{name} holds an image that cannot be decoded: {error}.') from error
    image = image[..., None] if image.ndim == 2 else image
    return _resize(image, image_size) if image_size else image


def _resize(image_HWC: np.ndarray, size: int) -> np.ndarray:
    """Resizes to a square with anti-aliasing; the aspect ratio is not kept."""
    squeezed = image_HWC[..., 0] if image_HWC.shape[2] == 1 else image_HWC
    picture = Image.fromarray(squeezed).resize((size, size), Image.Resampling.BILINEAR)
    resized = np.asarray(picture)
    return resized[..., None] if resized.ndim == 2 else resized


SOURCES = {'digits': _load_digits, 'tfds': _load_tfds}
