"""What a step is made of, built from the config."""

import re
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import linen as nn

import models
from data import augmentation
from data.augmentation import Augmentation
from errors import UserError
from models import scaling
from training import tasks
from training.optimizer import Optimizer
from training.optimizer import build as build_optimizer
from training.tasks import Task


class Recipe(NamedTuple):
    """What a step is made of; constant through a run.

    Attributes:
      model: the net.
      frozen: parts of the net that keep their values.
      optimizer: learning rate and weight decay to what makes updates of gradients.
      augmentation: the policy of `config.augment`.
      normalization: kind, as in `config.dataset.normalization`.
      task: what is done with labels.
      ema_decay: decay of the weights' moving average; 0 keeps none.
      evaluate_mirrored: average the logits of each image and its mirror image.
      dtype: of inputs and loss: float32, or float64 under `config.dtype='float64'`.
    """

    model: nn.Module
    frozen: tuple[str, ...]
    optimizer: Optimizer
    augmentation: Augmentation
    normalization: str
    task: Task
    ema_decay: float
    evaluate_mirrored: bool
    dtype: Any


def build(config: Any, num_classes: int) -> Recipe:
    """Makes the parts of the step from the config and the classes there are.

    Args:
      config: as from `configs/default.py`.
      num_classes: number of classes; 0 where labels are numbers.

    Raises:
      UserError: a field that does not go with the labels; fields of the net that do not go
        together.
    """
    scale = scaling.multipliers(config.scale)
    frozen = tuple(filter(None, re.split('[, ]+', config.init.freeze)))
    try:
        model = models.build(
            config.model.to_dict(), num_classes or 1, config.dtype, scale.width, scale.depth, frozen
        )
    except ValueError as error:
        raise UserError(f'The net cannot be built: {error}.') from error
    return Recipe(
        model=model,
        frozen=frozen,
        optimizer=build_optimizer(config.optimizer, frozen, config.init.body_learning_rate),
        augmentation=augmentation.parse(config.augment),
        normalization=config.dataset.normalization,
        task=tasks.build(config, num_classes),
        ema_decay=config.ema_decay,
        evaluate_mirrored=config.evaluate_mirrored,
        dtype=jnp.dtype('float64' if config.dtype == 'float64' else 'float32'),
    )


def check_family(config: Any, holds: str) -> None:
    """Checks that the family takes what the data set holds.

    Args:
      config: as from `configs/default.py`.
      holds: as in `data.listing.Source`.

    Raises:
      UserError: names both, and families that do.
    """
    takes = models.FAMILIES[config.model.family].takes
    if holds not in takes:
        able = [name for name, family in models.FAMILIES.items() if holds in family.takes]
        raise UserError(
            f'The family {config.model.family} takes {" or ".join(takes)}, and '
            f'{config.dataset.name} holds {holds}: take a config of the family '
            f'{" or ".join(able)}, such as configs/{able[-1]}_small.py.'
        )
