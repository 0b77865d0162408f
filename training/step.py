"""One training step and one evaluation step, as pure functions of one device's share.

Both run under a mapped axis `batch` (see `training/data_parallel.py`).
"""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from data import preprocess
from input_pipeline import stream_id
from models.layers import BATCH_AXIS
from training.recipe import Recipe


@flax.struct.dataclass
class TrainState:
    """Everything that training changes: a checkpoint holds this and nothing else.

    Attributes:
      step: updates done, int32.
      params: trainable parameters.
      batch_stats: running statistics of batch norm.
      opt_state: optax state.
      ema: moving average of params and batch_stats, by these names; None where not kept.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: Any
    ema: Any

    def reported(self) -> dict[str, Any]:
        """Returns the variables that are evaluated and reported: the average where kept."""
        return self.ema or {'params': self.params, 'batch_stats': self.batch_stats}


def init_state(recipe: Recipe, image_shape: tuple[int, ...], seed: jax.Array) -> TrainState:
    """Makes the state of step 0: a function of the seed and the net."""
    key = jax.random.fold_in(jax.random.key(seed), stream_id('init'))
    images_BHWC = jnp.zeros((1, *image_shape), recipe.dtype)
    variables = recipe.model.init(key, images_BHWC, train=False)
    params = variables['params']
    # Flax creates running statistics as float32 and updates them in the type of the computation.
    batch_stats = jax.tree.map(lambda s: s.astype(recipe.dtype), variables.get('batch_stats', {}))
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=batch_stats,
        opt_state=recipe.optimizer.init(params),
        # A copy: the step reuses the memory of each array of the state once.
        ema=jax.tree.map(jnp.copy, {'params': params, 'batch_stats': batch_stats})
        if recipe.ema_decay
        else None,
    )


def training_images(
    recipe: Recipe, resident: dict[str, jax.Array], batch: dict[str, jax.Array], step: jax.Array
) -> jax.Array:
    """Gathers, normalises and augments the images of a batch: [B, H, W, C]."""
    images_BHWC = _gather(recipe, resident, batch)
    # Folded per example by its place in the global batch: the same on any number of devices.
    keys = jax.vmap(jax.random.fold_in, (None, 0))(
        _step_key(resident, 'augment', step), batch['position']
    )
    return preprocess.augment(images_BHWC, keys, recipe.shift_pixels, recipe.flip)


def train_step(
    recipe: Recipe, state: TrainState, resident: dict[str, jax.Array], batch: dict[str, jax.Array]
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Does one update.

    Args:
      recipe: what the step is made of.
      state: replicated.
      resident: `Pipeline.resident()`, replicated.
      batch: this device's share of the plan: index and position, int32 [B / devices].

    Returns:
      The next state and the metrics of this step over the global batch: loss (with label
      smoothing), accuracy, gradient_norm (before clipping), learning_rate; scalars, replicated.
    """
    images_BHWC = training_images(recipe, resident, batch, state.step)
    labels_B = resident['label'][batch['index']]

    def loss_fn(params: Any) -> tuple[jax.Array, tuple[jax.Array, Any]]:
        logits, changed = recipe.model.apply(
            {'params': params, 'batch_stats': state.batch_stats},
            images_BHWC,
            train=True,
            mutable=['batch_stats'],
            rngs={'dropout': _step_key(resident, 'dropout', state.step)},
        )
        targets = optax.smooth_labels(
            jax.nn.one_hot(labels_B, logits.shape[-1], dtype=recipe.dtype), recipe.label_smoothing
        )
        loss = optax.softmax_cross_entropy(logits, targets).mean()
        return loss, (logits, changed.get('batch_stats', {}))

    # Cast to varying so that gradients stay local and are averaged exactly once, by the pmean
    # below; without the cast shard_map's transpose would already sum them over the devices.
    params = jax.lax.pcast(state.params, BATCH_AXIS, to='varying')
    (loss, (logits, batch_stats)), gradients = jax.value_and_grad(loss_fn, has_aux=True)(params)
    accuracy = (logits.argmax(-1) == labels_B).mean(dtype=recipe.dtype)
    gradients, loss, accuracy = jax.lax.pmean((gradients, loss, accuracy), BATCH_AXIS)

    updates, opt_state = recipe.optimizer.update(gradients, state.opt_state, state.params)
    new_params = optax.apply_updates(state.params, updates)
    next_state = TrainState(
        step=state.step + 1,
        params=new_params,
        batch_stats=batch_stats,
        opt_state=opt_state,
        ema=_update_ema(recipe, state, {'params': new_params, 'batch_stats': batch_stats}),
    )
    metrics = {
        'loss': loss,
        'accuracy': accuracy,
        'gradient_norm': optax.tree.norm(gradients),
        'learning_rate': jnp.asarray(recipe.schedule(state.step), recipe.dtype),
    }
    return next_state, metrics


def train_steps(
    recipe: Recipe, state: TrainState, resident: dict[str, jax.Array], batches: dict[str, jax.Array]
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Does as many updates as `batches` has on its leading axis; metrics keep that axis."""
    count = batches['index'].shape[0]
    if count == 1:
        # XLA runs gradient convolutions many times slower inside a loop on CPU.
        state, metrics = train_step(recipe, state, resident, {k: v[0] for k, v in batches.items()})
        return state, {name: value[None] for name, value in metrics.items()}
    return jax.lax.scan(
        lambda carry, batch: train_step(recipe, carry, resident, batch), state, batches
    )


def eval_step(
    recipe: Recipe,
    variables: dict[str, Any],
    resident: dict[str, jax.Array],
    batch: dict[str, jax.Array],
) -> jax.Array:
    """Returns the logits [B / devices, classes] of this device's share of `batch['index']`."""
    images_BHWC = _gather(recipe, resident, batch)
    logits: Any = recipe.model.apply(variables, images_BHWC, train=False)
    return logits


def _gather(
    recipe: Recipe, resident: dict[str, jax.Array], batch: dict[str, jax.Array]
) -> jax.Array:
    """Returns the normalised images [B, H, W, C] that `batch['index']` points at."""
    images_BHWC = resident['image'][batch['index']]
    return preprocess.normalize(images_BHWC, resident['offset'], resident['scale'], recipe.dtype)


def _step_key(resident: dict[str, jax.Array], stream: str, step: jax.Array) -> jax.Array:
    key = jax.random.fold_in(jax.random.key(resident['seed']), stream_id(stream))
    return jax.random.fold_in(key, step)


def _update_ema(recipe: Recipe, state: TrainState, new: Any) -> Any:
    if not recipe.ema_decay:
        return None
    # The ramp keeps the first, random weights out of short runs, as num_updates does in
    # tf.train.ExponentialMovingAverage.
    steps = state.step.astype(recipe.dtype)
    decay = jnp.minimum(recipe.ema_decay, (1 + steps) / (10 + steps))
    return optax.incremental_update(new, state.ema, 1 - decay)
