"""A trace of a few steps by the JAX profiler, for TensorBoard's profile tab."""

import os
from typing import Any

import jax


class Profile:
    """Traces `steps` steps of this process, from the end of its first dispatch on.

    Args:
      steps: how many; 0 traces nothing.
      folder: the trace lands in its `plugins/profile/`.
    """

    def __init__(self, steps: int, folder: str | os.PathLike):
        self._steps, self._folder = steps, folder
        self._ends_at: int | None = None

    def after_dispatch(self, step: int, state: Any) -> None:
        """Starts or ends the trace; `state` is waited for before it ends."""
        if not self._steps:
            return
        if self._ends_at is None:
            jax.profiler.start_trace(os.fspath(self._folder))
            self._ends_at = step + self._steps
        elif step >= self._ends_at:
            jax.block_until_ready(state)
            jax.profiler.stop_trace()
            self._steps = 0

    def close(self) -> None:
        """Ends a trace that training did not outlast."""
        if self._steps and self._ends_at is not None:
            jax.profiler.stop_trace()
            self._steps = 0
