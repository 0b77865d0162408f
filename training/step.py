"""One training step and one evaluation step, as pure functions of one device's share.

Both run under a mapped axis `batch` (see `training/data_parallel.py`).
"""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from data import augmentation, normalization
from input_pipeline import stream_id
from models.layers import BATCH_AXIS
from training.optimizer import is_frozen, part
from training.recipe import Recipe


@flax.struct.dataclass
class TrainState:
    """What a checkpoint holds: everything that training changes, and how inputs are normalised.

    Attributes:
      step: updates done, int32.
      params: trainable parameters.
      batch_stats: running statistics of batch norm.
      opt_state: optax state.
      ema: moving average of params and batch_stats, by these names; None where not kept.
      normalization: offset and scale of the inputs, as `data.normalization.Normalization`.
      targets: offset and scale of labels that are numbers; None where there are classes.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: Any
    ema: Any
    normalization: Any
    targets: Any

    def reported(self) -> dict[str, Any]:
        """Returns what is evaluated and reported: the average where kept, and the normalisation."""
        variables = self.ema or {'params': self.params, 'batch_stats': self.batch_stats}
        return variables | {'normalization': self.normalization}


def init_state(
    recipe: Recipe,
    input_shape: tuple[int, ...],
    seed: jax.Array,
    offset_and_scale: normalization.Normalization,
    targets: normalization.Normalization | None = None,
) -> TrainState:
    """Makes the state of step 0: a function of the seed, the net and the normalisation."""
    key = jax.random.fold_in(jax.random.key(seed), stream_id('init'))
    inputs = jnp.zeros((1, *input_shape), recipe.dtype)
    variables = recipe.model.init(key, inputs, train=False)
    params = variables['params']
    # Flax creates running statistics as float32 and updates them in the type of the computation.
    batch_stats = jax.tree.map(lambda s: s.astype(recipe.dtype), variables.get('batch_stats', {}))
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=batch_stats,
        opt_state=recipe.optimizer(0.0, 0.0).init(params),
        # A copy: the step reuses the memory of each array of the state once.
        ema=jax.tree.map(jnp.copy, {'params': params, 'batch_stats': batch_stats})
        if recipe.ema_decay
        else None,
        normalization=offset_and_scale._asdict(),
        targets=targets._asdict() if targets else None,
    )


def training_inputs(
    recipe: Recipe,
    offset_and_scale: dict[str, jax.Array],
    resident: dict[str, jax.Array],
    batch: dict[str, jax.Array],
    step: jax.Array,
) -> jax.Array:
    """Returns the normalised inputs of a batch, images augmented: [B, ...] as in `Source`."""
    values = _inputs(resident, batch)
    if values.dtype != jnp.uint8:  # Numbers of a table or a series.
        values = values.astype(recipe.dtype)
    else:
        keys = _example_keys(resident, batch, step)
        levels = values.astype(recipe.dtype) / 255
        values = augmentation.augment(levels, keys, recipe.augmentation) * 255
    return normalization.normalize(values, **offset_and_scale, kind=recipe.normalization)


def parts(params: Any) -> dict[str, Any]:
    """Returns the parameters, or their gradients, by topmost part of the net (`optimizer.part`)."""
    found: dict[str, Any] = {}
    for name in sorted(params):
        found.setdefault(part(name), {})[name] = params[name]
    return found


def train_step(
    recipe: Recipe,
    state: TrainState,
    resident: dict[str, jax.Array],
    rate: jax.Array,
    batch: dict[str, jax.Array],
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Does one update.

    Args:
      recipe: what the step is made of.
      state: replicated.
      resident: `Prepared.resident()`, replicated.
      rate: learning rate, a scalar, replicated.
      batch: this device's share of `Pipeline.train_batch`.

    Returns:
      The next state and the metrics of this step over the global batch: loss (with label
      smoothing and class weights), accuracy of classes (against the label that an image has most
      of), gradient_norm (before clipping), learning_rate; scalars, replicated; and
      gradient_norms, of each topmost part of the net, [P] in the order of `parts`.
    """
    inputs = training_inputs(recipe, state.normalization, resident, batch, state.step)
    targets_BK = recipe.task.targets(
        resident['label'][batch['index']], resident, state.targets, recipe.dtype
    )
    if recipe.augmentation.mixes:
        keys = _example_keys(resident, batch, state.step)
        inputs, targets_BK = augmentation.mix(inputs, targets_BK, keys, recipe.augmentation)

    def hold(path: Any, array: jax.Array) -> jax.Array:
        # No gradient is computed for what is frozen, nor for what lies before it.
        return jax.lax.stop_gradient(array) if is_frozen(path[0].key, recipe.frozen) else array

    def loss_fn(params: Any) -> tuple[jax.Array, tuple[jax.Array, Any]]:
        params = jax.tree_util.tree_map_with_path(hold, params)
        logits, changed = recipe.model.apply(
            {'params': params, 'batch_stats': state.batch_stats},
            inputs,
            train=True,
            mutable=['batch_stats'],
            rngs={'dropout': _step_key(resident, 'dropout', state.step)},
        )
        loss = recipe.task.loss(logits, targets_BK, resident)
        return loss, (logits, changed.get('batch_stats', {}))

    # Cast to varying so that gradients stay local and are averaged exactly once, by the pmean
    # below; without the cast shard_map's transpose would already sum them over the devices.
    params = jax.lax.pcast(state.params, BATCH_AXIS, to='varying')
    (loss, (logits, batch_stats)), gradients = jax.value_and_grad(loss_fn, has_aux=True)(params)
    figures = recipe.task.step_figures(logits, targets_BK, recipe.dtype)
    gradients, loss, figures = jax.lax.pmean((gradients, loss, figures), BATCH_AXIS)

    optimizer = recipe.optimizer(rate, resident['weight_decay'])
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    new_params = optax.apply_updates(state.params, updates)
    next_state = TrainState(
        step=state.step + 1,
        params=new_params,
        batch_stats=batch_stats,
        opt_state=opt_state,
        ema=_update_ema(recipe, state, {'params': new_params, 'batch_stats': batch_stats}),
        normalization=state.normalization,
        targets=state.targets,
    )
    metrics = {
        'loss': loss,
        **figures,
        'gradient_norm': optax.tree.norm(gradients),
        # One array, since each further output of a dispatch costs time; of the same sums of
        # squares as the line above, which XLA computes once.
        'gradient_norms': jnp.stack([optax.tree.norm(part) for part in parts(gradients).values()]),
        'learning_rate': jnp.asarray(rate, recipe.dtype),
    }
    return next_state, metrics


def train_steps(
    recipe: Recipe,
    state: TrainState,
    resident: dict[str, jax.Array],
    rates: jax.Array,
    batches: dict[str, jax.Array],
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Does as many updates as `rates` and `batches` have on their leading axis; metrics keep it."""
    if len(rates) == 1:
        # XLA's own gradient convolutions are many times slower inside a loop on CPU.
        batch = {name: values[0] for name, values in batches.items()}
        state, metrics = train_step(recipe, state, resident, rates[0], batch)
        return state, {name: value[None] for name, value in metrics.items()}
    return jax.lax.scan(
        lambda carry, given: train_step(recipe, carry, resident, *given), state, (rates, batches)
    )


def eval_step(
    recipe: Recipe,
    variables: dict[str, Any],
    resident: dict[str, jax.Array],
    batch: dict[str, jax.Array],
) -> jax.Array:
    """Returns the logits [B / devices, K] of this device's share of a batch."""
    values = _inputs(resident, batch).astype(recipe.dtype)
    weights = {name: tree for name, tree in variables.items() if name != 'normalization'}

    def logits_of(values: jax.Array) -> Any:
        inputs = normalization.normalize(
            values, **variables['normalization'], kind=recipe.normalization
        )
        return recipe.model.apply(weights, inputs, train=False)

    if recipe.evaluate_mirrored:
        return (logits_of(values) + logits_of(values[:, :, ::-1])) / 2
    return logits_of(values)


def _inputs(resident: dict[str, jax.Array], batch: dict[str, jax.Array]) -> jax.Array:
    """Returns the inputs of a batch as they are stored."""
    return batch['input'] if 'input' in batch else resident['input'][batch['index']]


def _example_keys(
    resident: dict[str, jax.Array], batch: dict[str, jax.Array], step: jax.Array
) -> jax.Array:
    """Returns a key for each example's augmentation.

    Folded by its place in the global batch: the same on any number of devices.
    """
    key = _step_key(resident, 'augment', step)
    return jax.vmap(jax.random.fold_in, (None, 0))(key, batch['position'])


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
