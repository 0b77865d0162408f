"""What a step is made of, built from the config."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from flax import linen as nn

import models
from data import augmentation
from data.augmentation import Augmentation
from errors import UserError
from models import scaling
from training.optimizer import build as build_optimizer


class Recipe(NamedTuple):
    """What a step is made of; constant through a run.

    Attributes:
      model: the net.
      frozen: parts of the net that keep their values.
      optimizer: gradients to updates.
      schedule: step to learning rate, for the metrics.
      augmentation: the policy of `config.augment`.
      normalization: kind, as in `config.dataset.normalization`.
      class_balance: as in the config.
      label_smoothing: share of the label spread over all classes.
      ema_decay: decay of the weights' moving average; 0 keeps none.
      dtype: of images and loss: float32, or float64 under `config.dtype='float64'`.
    """

    model: nn.Module
    frozen: tuple[str, ...]
    optimizer: optax.GradientTransformation
    schedule: optax.Schedule
    augmentation: Augmentation
    normalization: str
    class_balance: str
    label_smoothing: float
    ema_decay: float
    dtype: Any


def build(config: Any, num_classes: int, total_steps: int, steps_per_epoch: float) -> Recipe:
    """Makes the parts of the step from the config and what the data decides.

    Raises:
      UserError: a sigmoid for more than two classes; fields of the net that do not go together.
    """
    if config.model.head.outputs == 'sigmoid' and num_classes != 2:
        raise UserError(
            f'config.model.head.outputs=sigmoid is for two classes; there are {num_classes}.'
        )
    scale = scaling.multipliers(config.scale)
    frozen = tuple(filter(None, config.init.freeze.replace(' ', '').split(',')))
    try:
        model = models.build(
            config.model.to_dict(), num_classes, config.dtype, scale.width, scale.depth, frozen
        )
    except ValueError as error:
        raise UserError(f'The net cannot be built: {error}.') from error
    transformation, schedule = build_optimizer(
        config.optimizer, total_steps, steps_per_epoch, frozen, config.init.body_learning_rate
    )
    return Recipe(
        model=model,
        frozen=frozen,
        optimizer=transformation,
        schedule=schedule,
        augmentation=augmentation.parse(config.augment),
        normalization=config.dataset.normalization,
        class_balance=config.class_balance,
        label_smoothing=config.label_smoothing,
        ema_decay=config.ema_decay,
        dtype=jnp.dtype('float64' if config.dtype == 'float64' else 'float32'),
    )
