"""A net without some of its blocks: judged as it is, and after the rest has trained on briefly."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import input_pipeline
from evaluation import blocks as net_blocks
from evaluation.blocks import Block
from evaluation.trained import Trained
from input_pipeline import Pipeline
from training import step

STEPS = 100
RATE = 0.1  # Of the learning rate of the run, at first; it falls linearly to 0.


class WithoutBlocks:
    """A trained net of which blocks can be removed, with one program for all choices.

    Args:
      net: the net.
      pipeline: the run's own data.
      blocks: of the net.
    """

    def __init__(self, net: Trained, pipeline: Pipeline, blocks: Sequence[Block]):
        self._net, self._blocks = net, blocks
        self._judged = pipeline
        size = net.folder.read_json('config.json')['batch_size']
        count = net.devices.count
        self._pipeline = dataclasses.replace(pipeline, batch_size=-(-size // count) * count)
        # The reported weights go on, so no average of them is kept.
        recipe = net.recipe._replace(ema_decay=0.0)

        def train_steps(state: Any, resident: Any, rates: jax.Array, batches: Any) -> Any:
            altered = net_blocks.gated(recipe, blocks, resident['off'])
            return step.train_steps(altered, state, resident, rates, batches)

        def eval_step(variables: Any, resident: Any, batch: Any) -> jax.Array:
            altered = net_blocks.gated(net.recipe, blocks, resident['off'])
            return step.eval_step(altered, variables, {}, batch)

        self._train_steps = net.devices.map_train(train_steps, donate=False)
        self._eval_step = net.devices.map_eval(eval_step)

    def right(self, variables: dict[str, Any], removed: int | None, split: str) -> np.ndarray:
        """Returns for each example of a split whether it is classified rightly, bool [N].

        Args:
          variables: weights, running statistics and normalisation.
          removed: place of the block that is left out; None for none.
          split: of the run's data.
        """
        given = {'off': self._off(removed)}

        def outputs(batch: dict[str, np.ndarray]) -> jax.Array:
            return self._eval_step(variables, given, self._net.devices.split(batch, axis=0))

        logits_NK = self._net.devices.collect(self._judged.eval_batches(split), outputs)
        return logits_NK.argmax(axis=1) == self._judged.labels_of(split)

    def retrained(self, removed: int | None) -> dict[str, Any]:
        """Returns the variables after a brief training on the training split.

        With the optimizer of the run, begun anew, and always the same batches and augmentation.
        """
        net, devices = self._net, self._net.devices
        decay = np.asarray(net.config.optimizer.weight_decay, net.recipe.dtype)
        resident = self._pipeline.resident() | {'weight_decay': decay}
        placed = devices.replicate(resident) | {'off': self._off(removed)}
        rates = RATE * net.config.optimizer.learning_rate * (1 - np.arange(STEPS) / STEPS)
        state, before = self._state(), None
        reader = input_pipeline.ReadAhead(self._pipeline)
        try:
            for i, rate in enumerate(rates.astype(net.recipe.dtype)):
                batch = {n: values[None] for n, values in reader.train_batch(i).items()}
                state, metrics = self._train_steps(
                    state, placed, devices.replicate(rate[None]), devices.split(batch, axis=1)
                )
                jax.block_until_ready(before)  # So that no more than one step waits.
                before = metrics
        finally:
            reader.close()
        return state.reported()

    def _state(self) -> step.TrainState:
        variables, recipe = self._net.variables, self._net.recipe
        params = variables['params']
        return self._net.devices.replicate(
            step.TrainState(
                step=jnp.zeros((), jnp.int32),
                params=params,
                batch_stats=variables.get('batch_stats', {}),
                opt_state=recipe.optimizer(0.0, 0.0).init(params),
                ema=None,
                normalization=variables['normalization'],
                targets=None,
            )
        )

    def _off(self, removed: int | None) -> jax.Array:
        return self._net.devices.replicate(np.arange(len(self._blocks)) == removed)


def reinitialised(net: Trained, fresh: dict[str, Any], block: Block) -> dict[str, Any]:
    """Returns the variables of a net with one block as it was before training.

    Zhang, Bengio and Singer 2019, "Are all layers created equal?", section 3: re-initialization.

    Args:
      net: the net.
      fresh: variables of step 0; the running statistics of the block are of then, too.
      block: of the net.
    """
    changed = dict(net.variables)
    for collection in ('params', 'batch_stats'):
        tree = changed[collection]
        for name in filter(None, (block.name, block.norm)):
            tree = _replaced(tree, fresh[collection], name.split('/'))
        changed[collection] = tree
    return net.devices.replicate(changed)


def _replaced(tree: Any, other: Any, path: Sequence[str]) -> Any:
    """Returns the tree with the part at the path, where it exists, from another."""
    if not path:
        return other
    if path[0] not in tree:
        return tree
    return tree | {path[0]: _replaced(tree[path[0]], other[path[0]], path[1:])}
