"""The state of a run that has ended, from its checkpoint."""

import functools
from typing import Any

import jax
import numpy as np

from data import normalization
from training import step
from training.checkpoint import Checkpoints
from training.recipe import Recipe
from training.run_folder import RunFolder


def reported(folder: RunFolder, recipe: Recipe, result: dict[str, Any]) -> step.TrainState:
    """Restores the state whose weights the figures of a run are of.

    Args:
      folder: of a run that has ended well, as `run_folder.read_run` says.
      recipe: of its config.
      result: its `result.json`.

    Raises:
      UserError: the checkpoint is damaged.
    """
    checkpoints = Checkpoints(folder.path / 'checkpoints')
    try:
        return checkpoints.restore(_template(recipe, result), result['reported_step'])[0]
    finally:
        checkpoints.close()


def _template(recipe: Recipe, result: dict[str, Any]) -> step.TrainState:
    """Returns the shapes of the state of a run."""
    shape = tuple(result['input_shape'])
    # Statistics have their shape from the inputs, and their values from the checkpoint.
    nothing = np.zeros((1, *shape), np.uint8 if len(shape) == 3 else np.float32)
    fitted = normalization.fit(nothing, np.zeros(1, int), recipe.normalization)
    targets = None
    if not result['class_names']:
        targets = normalization.fit_targets(np.arange(2.0), np.arange(2))
    return jax.eval_shape(
        functools.partial(step.init_state, recipe, shape), np.uint32(0), fitted, targets
    )
