"""Learning-rate schedules and optimizers: two tables over optax."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax


def _cosine(peak: float, warmup_steps: int, total_steps: int) -> optax.Schedule:
    """SGDR without restarts (Loshchilov and Hutter 2017, equation 5), after linear warmup."""
    decay = optax.cosine_decay_schedule(peak, max(1, total_steps - warmup_steps))
    return _with_warmup(decay, peak, warmup_steps)


def _linear(peak: float, warmup_steps: int, total_steps: int) -> optax.Schedule:
    """Linear to 0 after linear warmup: a triangle, as in Page 2018."""
    decay = optax.linear_schedule(peak, 0.0, max(1, total_steps - warmup_steps))
    return _with_warmup(decay, peak, warmup_steps)


def _constant(peak: float, warmup_steps: int, total_steps: int) -> optax.Schedule:
    return _with_warmup(optax.constant_schedule(peak), peak, warmup_steps)


def _with_warmup(after: optax.Schedule, peak: float, warmup_steps: int) -> optax.Schedule:
    if not warmup_steps:
        return after
    # From peak / warmup rather than 0, so that no step is wasted at a rate of 0.
    warmup = optax.linear_schedule(peak / warmup_steps, peak, max(1, warmup_steps - 1))
    return optax.join_schedules([warmup, after], [warmup_steps])


def _sgd(schedule: optax.Schedule, weight_decay: Any) -> optax.GradientTransformation:
    """Nesterov momentum 0.9 with L2 added to the gradient, as in He et al. 2016."""
    return optax.chain(
        optax.add_decayed_weights(weight_decay, mask=_kernels),
        optax.sgd(schedule, momentum=0.9, nesterov=True),
    )


def _adamw(schedule: optax.Schedule, weight_decay: Any) -> optax.GradientTransformation:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019); decay times the rate."""
    return optax.adamw(schedule, weight_decay=weight_decay, mask=_kernels)


SCHEDULES = {'cosine': _cosine, 'linear': _linear, 'constant': _constant}
OPTIMIZERS = {'sgd': _sgd, 'adamw': _adamw}


def _kernels(params: Any) -> Any:
    """True for kernels, False for biases and norm parameters, which are vectors."""
    return jax.tree.map(lambda p: p.ndim > 1, params)


def _by_part(frozen: tuple[str, ...], body_learning_rate: float) -> optax.GradientTransformation:
    """Scales updates: those of frozen parts to nothing, others of the body by its rate."""

    def scale(path: Any, update: jax.Array) -> jax.Array:
        if is_frozen(path[0].key, frozen):
            return jnp.zeros_like(update)
        return update if path[0].key == 'head' else update * body_learning_rate

    return optax.stateless(lambda updates, _: jax.tree_util.tree_map_with_path(scale, updates))


def part(name: str) -> str:
    """Returns the part of the net that its topmost module of this name belongs to."""
    return name.removesuffix('_norm')


def is_frozen(name: str, frozen: tuple[str, ...]) -> bool:
    """Tells whether the topmost module of this name keeps its weights."""
    return part(name) in frozen or ('body' in frozen and part(name) != 'head')


def learning_rates(
    optimizer: Any, total_steps: int, steps_per_epoch: float, dtype: Any = np.float32
) -> np.ndarray:
    """Returns the learning rate of every step of a run, [total_steps].

    Args:
      optimizer: `config.optimizer`.
      total_steps: of the run.
      steps_per_epoch: for the warmup.
      dtype: of the step.
    """
    warmup_steps = min(round(optimizer.warmup_epochs * steps_per_epoch), total_steps)
    return np.asarray(
        _table(optimizer.schedule, optimizer.learning_rate, warmup_steps, total_steps), dtype
    )


@functools.lru_cache
def _table(name: str, peak: float, warmup_steps: int, total_steps: int) -> np.ndarray:
    """Returns the rates; runs of one process with the same schedule compile it once."""
    schedule = SCHEDULES[name](peak, warmup_steps, total_steps)
    return np.asarray(jax.jit(jax.vmap(schedule))(np.arange(total_steps, dtype=np.int32)))


Optimizer = Callable[[jax.typing.ArrayLike, jax.typing.ArrayLike], optax.GradientTransformation]


def build(
    optimizer: Any, frozen: tuple[str, ...] = (), body_learning_rate: float = 1.0
) -> Optimizer:
    """Makes the optimizer: a function of the learning rate of a step and the weight decay.

    They are arguments, so that one compiled step serves all their values and every schedule.

    Args:
      optimizer: `config.optimizer`.
      frozen: parts of the net that do not change.
      body_learning_rate: of all parts but the head, as a share of the learning rate.
    """

    def transformation(
        learning_rate: jax.typing.ArrayLike, weight_decay: jax.typing.ArrayLike
    ) -> optax.GradientTransformation:
        # As a schedule, since with one optax's state counts the steps.
        made = OPTIMIZERS[optimizer.name](lambda _: learning_rate, weight_decay)
        if optimizer.clip_norm:
            made = optax.chain(optax.clip_by_global_norm(optimizer.clip_norm), made)
        if frozen or body_learning_rate != 1.0:
            made = optax.chain(made, _by_part(frozen, body_learning_rate))
        return made

    return transformation
