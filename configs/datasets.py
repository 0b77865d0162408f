"""What is known of a data set and differs from `configs/default.py`: one row each.

Any other image-classification set of TFDS works with the defaults, as `tfds:NAME`. Augmentations
are those that keep the label: a mirrored digit is no digit, a mirrored shirt is a shirt.
"""

from typing import Any

# 60,000 and 50,000 training images: few epochs, since one takes minutes on a laptop's CPU.
_LARGE = {'dataset.validation_fraction': 0.1, 'epochs': 5.0, 'optimizer.warmup_epochs': 0.5}

DATASETS: dict[str, dict[str, Any]] = {
    # 1,077 images to train on: small batches.
    'digits': {'augment': 'padded_crop=1,fill=black', 'batch_size': 64},
    'mnist': {**_LARGE, 'augment': 'padded_crop=2,fill=black'},
    'fashion_mnist': {**_LARGE, 'augment': 'padded_crop=1,horizontal_flip=0.5,fill=black'},
    'cifar10': {**_LARGE, 'augment': 'padded_crop=4,horizontal_flip=0.5'},
    'cifar100': {**_LARGE, 'augment': 'padded_crop=4,horizontal_flip=0.5'},
}
# Photos of people's own: a folder, or a table of paths and labels.
_PHOTOS = {'dataset.image_size': 64, 'augment': 'photos', 'batch_size': 64}
# Chosen by the validation loss: of tables on scikit-learn's breast cancer, wine and diabetes data
# (split seeds 5 to 8, a few hundred rows each), of series on that of Mackey and Glass, with and
# without noise.
_TABLE = {
    'batch_size': 32, 'epochs': 100.0, 'evaluate_every_epochs': 5.0, 'optimizer.name': 'adamw',
    'optimizer.learning_rate': 0.01, 'optimizer.weight_decay': 0.5,
}  # fmt: skip
_SERIES = {
    'batch_size': 64, 'epochs': 60.0, 'evaluate_every_epochs': 2.0, 'optimizer.name': 'adamw',
    'optimizer.learning_rate': 0.01, 'optimizer.clip_norm': 1.0,
}  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {'folder': _PHOTOS, 'table': _TABLE, 'series': _SERIES}


def full_name(name: str) -> str:
    """Returns the source of a bare name: `digits` is embedded, any other is a set of TFDS."""
    return name if name == 'digits' or ':' in name else f'tfds:{name}'


def settings(full_name: str) -> dict[str, Any]:
    """Returns the fields that differ from the defaults for a data set."""
    kind = full_name.partition(':')[0]
    return KINDS[kind] if kind in KINDS else DATASETS.get(full_name.removeprefix('tfds:'), {})
