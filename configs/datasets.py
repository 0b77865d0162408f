"""What is known of a data set and differs from `configs/default.py`: one row each.

Any other image-classification set of TFDS works with the defaults, as `tfds:NAME`. Augmentations
are those that keep the label: a mirrored digit is no digit, a mirrored shirt is a shirt.
"""

from typing import Any

# 60,000 and 50,000 training images: few epochs, since one takes minutes on a laptop's CPU.
_LARGE = {'dataset.validation_fraction': 0.1, 'epochs': 5.0, 'optimizer.warmup_epochs': 0.5}

DATASETS: dict[str, dict[str, Any]] = {
    'digits': {'augment.shift_pixels': 1, 'batch_size': 64},  # 1,077 to train on: small batches
    'mnist': {**_LARGE, 'augment.shift_pixels': 2},
    'fashion_mnist': {**_LARGE, 'augment.shift_pixels': 1, 'augment.flip': True},
    'cifar10': {**_LARGE, 'augment.shift_pixels': 4, 'augment.flip': True},
    'cifar100': {**_LARGE, 'augment.shift_pixels': 4, 'augment.flip': True},
}


def full_name(name: str) -> str:
    """Returns the source of a bare name: `digits` is embedded, any other is a set of TFDS."""
    return name if name == 'digits' or ':' in name else f'tfds:{name}'
