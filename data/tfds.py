"""Image-classification sets of TensorFlow Datasets; TensorFlow is imported for tfrecord alone."""

import importlib
import json
import os
import socket
import urllib.request
from collections.abc import Iterable
from typing import Any

from data.listing import SPLITS, Example, Listing
from errors import UserError, did_you_mean


def load(name: str, data_dir: str) -> Listing:
    """Lists `tfds:NAME`; a set that is not prepared is downloaded once.

    Args:
      name: as TFDS has it, with config and version where wanted.
      data_dir: folder of prepared sets; '' for $TFDS_DATA_DIR or ~/tensorflow_datasets.

    Raises:
      UserError: unknown, absent without a network, or no image classification.
    """
    # TensorFlow reads these when TFDS imports it: its notices are not about the user's data.
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
    os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')
    os.environ.setdefault('NO_GCE_CHECK', 'true')
    import tensorflow_datasets as tfds

    builder = _prepared_builder(tfds, name, data_dir)
    image_key, label_key = _supervised_keys(tfds, builder, name)
    splits = [split for split in SPLITS if split in builder.info.splits]
    if 'train' not in splits:
        raise UserError(f'{name} has no training split; it has {", ".join(builder.info.splits)}.')

    def examples() -> Iterable[Example]:
        for split in splits:
            rows = _examples(tfds, builder, split, image_key, label_key)
            for i, row in enumerate(rows):
                fault = 'no label' if int(row[label_key]) < 0 else ''
                label, encoded = max(0, int(row[label_key])), row[image_key]
                yield Example(f'{split}/{i}', label, encoded, split, fault=fault)

    return Listing(
        class_names=[str(n) for n in builder.info.features[label_key].names],
        count=sum(builder.info.splits[split].num_examples for split in splits),
        fingerprint=_fingerprint(builder),
        examples=examples,
        grey=builder.info.features[image_key].shape[-1] == 1,
    )


def _fingerprint(builder: Any) -> str:
    """Returns text that changes when the set is prepared anew, or in another place."""
    stamps = []
    with os.scandir(builder.data_path) as entries:
        for entry in entries:
            status = entry.stat()
            stamps.append([entry.name, status.st_size, status.st_mtime_ns])
    return json.dumps([builder.info.full_name, sorted(stamps)])


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
    """Returns the names of the image and the label: as the set states them, or the only ones."""
    features = dict(builder.info.features)
    keys = builder.info.supervised_keys or [
        key
        for kind in (tfds.features.Image, tfds.features.ClassLabel)
        for key, feature in features.items()
        if isinstance(feature, kind)
    ]
    if (
        len(keys) != 2
        or not isinstance(features.get(keys[0]), tfds.features.Image)
        or not isinstance(features.get(keys[1]), tfds.features.ClassLabel)
    ):
        raise UserError(f'{name} is no image-classification set: it gives {features}.')
    return keys[0], keys[1]


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
