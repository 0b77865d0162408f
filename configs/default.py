"""Every config field: its default, its possible values and its meaning in one line.

The fields of `config.model` belong to the model family and stand beside its class in `models/`.
A config file states differences only: see `configs/resnet_small.py`.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict

from configs import datasets
from data import augmentation
from data.augmentation import PRESETS
from data.decode import MOST_PIXELS
from data.normalization import KINDS
from errors import UserError, did_you_mean
from models import FAMILIES
from models.fields import field, options, problem

FIELDS: dict[str, dataclasses.Field] = {
    'seed': field(
        0, 'Seed of initialisation, data order, augmentation and dropout.', at_least=0,
        at_most=2**32 - 1
    ),
    # Data.
    'dataset.name': field(
        'digits', 'Where data come from: digits, folder:PATH, npz:PATH, npy:FOLDER, tfds:NAME, '
        'table:PATH.csv, series:PATH.csv.'
    ),
    'dataset.data_dir': field(
        '', 'Folder of prepared TFDS sets; empty: $TFDS_DATA_DIR or ~/tensorflow_datasets.'
    ),
    'dataset.image_size': field(
        0, 'Height and width in pixels to resize images to; 0: as they are.', at_least=0,
        at_most=MOST_PIXELS
    ),
    'dataset.resize': field(
        'crop', 'How an image becomes a square: its central square, squeezed, or with black '
        'borders.', choices=('crop', 'squeeze', 'pad')
    ),
    'dataset.channels': field(
        0, '1 for grey, 3 for colour; 0: 1 where all images are grey, else 3.', at_least=0,
        at_most=3
    ),
    'dataset.max_unreadable': field(
        0.05, 'Share of the images that may be unreadable: they are named and left out.',
        at_least=0.0, below=1.0
    ),
    'dataset.window': field(
        24, 'Rows of a series in each window, from which a value is predicted.', at_least=1
    ),
    'dataset.horizon': field(
        1, 'Rows of a series from the last of a window to the value that is predicted.', at_least=1
    ),
    'dataset.storage': field(
        'auto', 'Where inputs are during training: on the device where they fit, or streamed '
        'from the decode cache.', choices=('auto', 'device', 'stream')
    ),
    'dataset.normalization': field(
        'zscore', 'Mean 0 and deviation 1 by channel or column (zscore), by channel of each pixel '
        '(pixel_zscore) or in each image (image); mean 0 (mean); 0 to 1 (min_max) or -1 to 1 '
        '(min_max_signed); by the colours of ImageNet (imagenet), for published weights. Other '
        'statistics are those of the training split.', choices=KINDS
    ),
    # Splits.
    'dataset.split_seed': field(
        0, 'Seed of the splits, apart from seed: runs of other seeds share splits.', at_least=0,
        at_most=2**32 - 1
    ),
    'dataset.test_fraction': field(
        0.2, 'Share of all images sealed for the test, where the set has no test split.',
        above=0.0, below=1.0
    ),
    'dataset.validation_fraction': field(
        0.2, 'Share held out for validation where the set has no validation split: of all images, '
        'or of the training split where the set has a test split.', above=0.0, below=1.0
    ),
    'dataset.folds': field(
        0, 'Folds of the images that are not the test\'s, one of which is held out for '
        'validation; 0: none, but validation_fraction.', at_least=0, at_most=100
    ),
    'dataset.fold': field(0, 'Fold that is held out, from 0 on.', at_least=0),
    'dataset.repeat': field(
        0, 'Another drawing of validation split or folds, with the same test split.', at_least=0
    ),
    'dataset.subset': field(
        1.0, 'Images to use of those that are not the test\'s, each class alike: their share, '
        'or above 1 their number.', above=0.0
    ),
    'dataset.group_by': field(
        'auto', 'Images that stay on one side of every split: near_duplicates, column (of a '
        'table), regex:PATTERN (equal matches in the path), none; auto: near duplicates of '
        'photos, and the column where there is one.'
    ),
    'dataset.splits_file': field('', 'A splits.json to use in place of drawing splits.'),
    'class_balance': field(
        'none', 'For classes of unequal size: weights in the loss, equally many images of each '
        'class in training, or logit adjustment.',
        choices=('none', 'class_weights', 'balanced_sampling', 'logit_adjustment')
    ),
    'augment': field(
        'none', f'Presets ({", ".join(PRESETS)}) and NAME=VALUE, separated by commas: '
        'photos,rotation=30. The operations stand below.'
    ),
    # The net: `model` holds the family and that family's fields.
    'scale.width': field(1.0, 'Multiplies the filters of the net.', above=0.0),
    'scale.depth': field(1.0, 'Multiplies the convolutions or blocks of each stage.', above=0.0),
    'scale.resolution': field(1.0, 'Multiplies dataset.image_size.', above=0.0),
    'scale.phi': field(
        0.0, 'Compound scaling: depth times alpha^phi, width times beta^phi, resolution times '
        'gamma^phi; each step of phi about doubles the FLOPs.',
        at_least=-10.0, at_most=20.0
    ),
    'scale.alpha': field(1.2, 'Depth for each step of phi.', at_least=1.0),
    'scale.beta': field(1.1, 'Width for each step of phi.', at_least=1.0),
    # 1.15 in the paper, with which FLOPs grow 1.92 times.
    'scale.gamma': field(1.175, 'Resolution for each step of phi.', at_least=1.0),
    # Where training begins.
    'init.weights': field(
        '', 'Published weights to begin with: a .safetensors or .pth file of the layout of '
        'torchvision or timm, or hub:OWNER/NAME[/FILE]; the last layer is new where the number of '
        'classes differs.'
    ),
    'init.grow_from': field(
        '', 'Run folder of a smaller net, plain or residual, whose trained weights this net begins '
        'with: with more filters or more layers in a stage it computes the same at first.'
    ),
    'init.freeze': field(
        '', 'Parts of the net that keep their weights, such as stem,stage1, or body: all but the '
        'head.'
    ),
    'init.body_learning_rate': field(
        1.0, 'Learning rate of all parts but the head, as a share of optimizer.learning_rate.',
        above=0.0
    ),
    # Training.
    'batch_size': field(128, 'Images per training step, over all devices.', at_least=1),
    'epochs': field(30.0, 'Length of training, in passes over the training images.', above=0.0),
    'optimizer.name': field('sgd', 'sgd (Nesterov momentum 0.9) or adamw.',
                            choices=('sgd', 'adamw')),
    'optimizer.learning_rate': field(0.1, 'Peak learning rate.', above=0.0),
    'optimizer.schedule': field(
        'cosine', 'Learning rate after warmup: cosine or linear to 0, or constant.',
        choices=('cosine', 'linear', 'constant')
    ),
    'optimizer.warmup_epochs': field(2.0, 'Linear warmup to the peak, in epochs.', at_least=0.0),
    'optimizer.weight_decay': field(
        5e-4, 'Weight decay of kernels; biases and norm parameters have none.', at_least=0.0
    ),
    'optimizer.clip_norm': field(
        0.0, 'Clips the gradient to this global norm; 0: no clipping.', at_least=0.0
    ),
    'label_smoothing': field(0.0, 'Share of the label spread evenly over all classes.',
                             at_least=0.0, below=1.0),
    'ema_decay': field(
        0.0, 'Decay of the moving average of weights, per step; above 0, the average is what '
        'is evaluated and reported.', at_least=0.0, below=1.0
    ),
    'early_stopping.patience_epochs': field(
        0.0, 'Stop after so many epochs without a better loss on images set aside from '
        'training, and report the best weights; 0: train to the end.', at_least=0.0
    ),
    'early_stopping.fraction': field(
        0.1, 'Share of the training images set aside for early stopping.', above=0.0, below=1.0
    ),
    'evaluate_every_epochs': field(
        1.0, 'Epochs between evaluations; each is followed by a checkpoint.', above=0.0
    ),
    'checkpoint_seconds': field(
        0.0, 'Leaves out the checkpoint of an evaluation where the last one is no older: of short '
        'runs it costs more than it saves. The last step and an interruption always have one.',
        at_least=0.0
    ),
    'pictures': field(True, 'Whether TensorBoard gets pictures of training images and mistakes.'),
    'evaluate_test': field(
        True, 'Whether the end of the run opens the test split; sweeps leave it sealed.'
    ),
    'evaluate_mirrored': field(
        False, 'Evaluate each image and its mirror image, and average their logits; for classes '
        'that a mirror does not change.'
    ),
    # How it is computed.
    'dtype': field(
        'float32', 'Type of the computation; parameters stay float32 under bfloat16.',
        choices=('float32', 'bfloat16', 'float64')
    ),
    'parallel': field('shard_map', 'How the step is mapped over devices.',
                      choices=('shard_map', 'pmap')),
    'steps_per_dispatch': field(
        0, 'Steps per call into the device; 0: one on CPU, up to 50 on GPU and TPU.', at_least=0
    ),
    'profile_steps': field(
        0, 'Steps to trace with the JAX profiler, after the first dispatches.', at_least=0
    ),
    'debug_nans': field(False, 'Stop at the operation that first makes a NaN; slow.'),
}  # fmt: skip


def get_config(dataset: str = 'digits', family: str = 'residual') -> ConfigDict:
    """Returns the locked config of a family on a data set.

    Args:
      dataset: what follows the colon in `--config=FILE:DATASET`.
      family: a name of `models.FAMILIES`; the file decides it, since fields depend on it.

    Raises:
      UserError: the data set is an empty name, or the family unknown.
    """
    if not dataset:
        raise UserError(
            'No data set after the colon of --config: write --config=FILE:folder:PATH, or another '
            'source; most configs take digits where the colon is left out too.'
        )
    if family not in FAMILIES:
        raise UserError(
            f'There is no family {family!r}; there are {", ".join(FAMILIES)}.'
            f'{did_you_mean(family, FAMILIES)}'
        )
    name = datasets.full_name(dataset)
    values = {name: f.default for name, f in FIELDS.items()}
    values |= {'model.family': family}
    values |= {f'model.{n}': f.default for n, f in options(FAMILIES[family]).items()}
    values |= datasets.settings(name)
    values['dataset.name'] = name
    return unflatten(values)


def unflatten(values: dict[str, Any]) -> ConfigDict:
    """Returns the locked config with these dotted fields."""
    nested: dict[str, Any] = {}
    for name, value in values.items():
        *groups, leaf = name.split('.')
        node = nested
        for group in groups:
            node = node.setdefault(group, {})
        node[leaf] = value
    return ConfigDict(nested).lock()


def flatten(config: Any, prefix: str = '') -> dict[str, Any]:
    """Returns the fields of a config (or of its JSON form) by dotted name, tuples as tuples."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if hasattr(value, 'items'):
            flat |= flatten(value, f'{prefix}{name}.')
        else:
            flat[f'{prefix}{name}'] = tuple(value) if isinstance(value, list) else value
    return flat


def described(family: str) -> dict[str, dataclasses.Field]:
    """Returns every field of the configs of a family, by dotted name."""
    family_field = field(family, 'Model family; chosen by the config file.', choices=(family,))
    fields = {f'model.{n}': f for n, f in options(FAMILIES[family]).items()}
    return FIELDS | {'model.family': family_field} | fields


def validate(config: ConfigDict) -> None:
    """Checks every field's presence, type and value.

    Raises:
      UserError: names the first bad field, what it holds and what it may hold.
    """
    values = flatten(config)
    family = values.get('model.family')
    if family not in FAMILIES:
        raise UserError(
            f'config.model.family is {family!r}; it must be one of {", ".join(FAMILIES)}.'
            + did_you_mean(str(family), FAMILIES)
        )
    check_fields(values, described(family))
    _check_dataset(config.dataset)
    if config.init.weights and config.init.grow_from:
        raise UserError(
            'config.init.weights and config.init.grow_from are two beginnings: leave one out.'
        )
    augmentation.parse(config.augment)


def check_fields(values: Mapping[str, Any], fields: Mapping[str, dataclasses.Field]) -> None:
    """Checks that `values` are those of `fields`, by dotted name, and each what it may be.

    Raises:
      UserError: names the first bad field, what it holds and what it may hold.
    """
    for name in values.keys() - fields.keys():
        raise UserError(f'config.{name} is no field of this config.{hint(name, fields)}')
    for name, f in fields.items():
        if name not in values:
            raise UserError(f'config.{name} is missing; its default is {f.default!r}.')
        if text := problem(values[name], f):
            raise UserError(f'config.{name} {text}; it is {values[name]!r}.')


def hint(name: str, known: Iterable[str]) -> str:
    """Returns a sentence on the field that was meant by `name`, or '' where none is near."""
    field_name = name.removeprefix('base.')  # As in a sweep.
    families = [family for family in FAMILIES if field_name in described(family)]
    if families and not {field_name, f'base.{field_name}'} & {*known}:
        return f' It belongs to the family {families[0]}.'
    return did_you_mean(name, known)


def _check_dataset(dataset: ConfigDict) -> None:
    by = dataset.group_by
    if by not in ('auto', 'none', 'column', 'near_duplicates') and not by.startswith('regex:'):
        raise UserError(
            'config.dataset.group_by must be auto, none, column, near_duplicates or '
            f'regex:PATTERN; it is {by!r}.'
        )
    if dataset.channels == 2:
        raise UserError('config.dataset.channels must be 0, 1 or 3; it is 2.')
    if dataset.folds == 1 or dataset.fold >= max(1, dataset.folds):
        raise UserError(
            f'config.dataset.fold={dataset.fold} is none of {dataset.folds} folds: they are '
            'counted from 0, and there must be two at least.'
        )
