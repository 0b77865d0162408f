"""Checkpoints on orbax: asynchronous, atomic, the latest two and the best are kept.

A checkpoint is a host copy of the state, so it restores on any number of devices.
"""

import contextlib
import errno
import os
import pathlib
import threading
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import serialization
from orbax.checkpoint import checkpoint_managers

from errors import UserError
from training.step import TrainState

UNRATED = -1e30
# Orbax gives the saves of a process numbers, and looks at the latest one while a save begins.
_ONE_SAVE_BEGINS = threading.Lock()


class Checkpoints:
    """The folder `checkpoints/` of a run.

    Args:
      folder: created where it does not exist.
    """

    def __init__(self, folder: pathlib.Path):
        self._folder = folder.absolute()
        # Without best_fn the manager's best_step() would silently return the latest step.
        options = ocp.CheckpointManagerOptions(
            best_fn=_score,
            best_mode='max',
            preservation_policy=checkpoint_managers.AnyPreservationPolicy(
                [
                    checkpoint_managers.LatestN(2),
                    checkpoint_managers.BestN(get_metric_fn=_score, n=1),
                ]
            ),
            cleanup_tmp_directories=True,
        )
        self._manager = ocp.CheckpointManager(self._folder, options=options)

    @property
    def latest_step(self) -> int | None:
        """The last step saved, or None."""
        return self._manager.latest_step()

    def save(self, step: int, state: TrainState, progress: dict[str, Any], score: float) -> None:
        """Starts saving; returns once the state is copied.

        Args:
          step: updates done.
          state: what training changes.
          progress: what the loop must know to go on, as JSON.
          score: higher is better, finite; `UNRATED` for a checkpoint between evaluations.
        """
        # A copy of our own: the next step reuses the state's memory while this is written.
        copied = jax.tree.map(np.array, serialization.to_state_dict(state))
        arguments = ocp.args.Composite(
            state=ocp.args.StandardSave(copied), progress=ocp.args.JsonSave(progress)
        )
        self.wait()  # Here rather than where other runs would wait for it too.
        with self._disk_errors(), _ONE_SAVE_BEGINS:
            self._manager.save(step, args=arguments, metrics={'score': score})

    def restore(self, template: TrainState, step: int) -> tuple[TrainState, dict[str, Any]]:
        """Returns the state and the progress saved at `step`.

        Args:
          template: a state of the same run; gives structure, shapes and types.
          step: one that exists.

        Raises:
          UserError: the checkpoint is damaged or of another model.
        """
        target = serialization.to_state_dict(template)
        where = self._folder / str(step)
        try:
            restored = self._manager.restore(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardRestore(jax.tree.map(_empty, target)),
                    progress=ocp.args.JsonRestore(),
                ),
            )
        except (ValueError, KeyError, TypeError, FileNotFoundError) as error:
            reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else error
            raise UserError(
                f'The checkpoint {where} cannot be read: it is damaged or of another model '
                f'({reason}). Delete that folder to go on from an older one, or start anew in '
                'another --workdir.'
            ) from error
        return serialization.from_state_dict(template, restored['state']), restored['progress']

    def wait(self) -> None:
        """Waits until everything is on disk; raises OSError where the disk is full."""
        with self._disk_errors():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits and lets go of the folder."""
        with self._disk_errors():
            self._manager.close()

    @contextlib.contextmanager
    def _disk_errors(self) -> Iterator[None]:
        """Turns the errors by which tensorstore says that the disk is full into OSError."""
        try:
            yield
        except (ValueError, RuntimeError) as error:
            for number in (errno.ENOSPC, errno.EDQUOT):
                if f"os_error_code='{number}'" in str(error) or os.strerror(number) in str(error):
                    raise OSError(number, os.strerror(number), str(self._folder)) from error
            raise


def _score(metrics: Any) -> float:
    return metrics['score']


def _empty(leaf: Any) -> np.ndarray:
    return np.zeros(leaf.shape, leaf.dtype)
