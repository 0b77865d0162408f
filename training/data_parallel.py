"""The only file that names devices: how one step function runs on all of them.

`shard_map` (the default) and `pmap` do the same: the state is replicated, the batch is split over
the axis `batch`, and the step averages what must agree. `jax.pmap` is here because many people
know it; since JAX 0.8 it is itself a jitted shard_map. It takes one host's devices only.
"""

import os
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import psutil
from jax.sharding import NamedSharding, PartitionSpec

from errors import UserError
from models import onednn
from models.layers import BATCH_AXIS


class DataParallel:
    """Maps per-device functions over devices.

    Args:
      kind: 'shard_map' or 'pmap'.
      devices: which ones; all, where None.
    """

    def __init__(self, kind: str, devices: Sequence[jax.Device] | None = None):
        self.devices = devices or jax.devices()
        self.count = len(self.devices)
        self._pmap = kind == 'pmap'
        self._mesh = jax.sharding.Mesh(np.asarray(self.devices), (BATCH_AXIS,))

    def check_batch(self, batch_size: int) -> None:
        """Checks that a batch of so many examples divides over the devices.

        Raises:
          UserError: it does not.
        """
        if batch_size % self.count:
            lower = batch_size // self.count * self.count
            sizes = [str(size) for size in (lower, lower + self.count) if size]
            raise UserError(
                f'config.batch_size={batch_size} does not divide over {self.count} devices; '
                f'the nearest sizes are {" and ".join(sizes)}.'
            )

    def check_pairs(self, batch_size: int) -> None:
        """Checks that neighbours in the batch are on one device.

        Raises:
          UserError: a device's share of the batch is odd.
        """
        if batch_size // self.count % 2:
            raise UserError(
                f'config.augment mixes pairs of images, so a device needs an even number of them: '
                f'set --config.batch_size to a multiple of {2 * self.count}.'
            )

    @property
    def platform(self) -> str:
        """'cpu', 'gpu' or 'tpu'."""
        return self.devices[0].platform

    def describe(self) -> str:
        """Returns the devices in words, such as '1 cpu device (x86_64, 2 cores, ...)'."""
        kind = self.devices[0].device_kind
        if self.platform == 'cpu':
            library = ', oneDNN' if onednn.version() else ''
            kind = f'{platform.machine()}, {os.cpu_count()} cores{library}'
        plural = '' if self.count == 1 else 's'
        return f'{self.count} {self.platform} device{plural} ({kind})'

    def facts(self) -> dict[str, Any]:
        """Returns what `result.json` says of the devices."""
        return {
            'platform': self.platform,
            'kind': self.devices[0].device_kind,
            'count': self.count,
            'cpu_cores': os.cpu_count(),
            'machine': platform.machine(),
            'onednn': onednn.version() if self.platform == 'cpu' else '',
        }

    def memory_bytes(self) -> int:
        """Returns what a device's memory may hold now: its share of the host's, on CPU."""
        statistics = None if self.platform == 'cpu' else self.devices[0].memory_stats()
        if statistics:
            return statistics['bytes_limit'] - statistics['bytes_in_use']
        return psutil.virtual_memory().available // jax.device_count()

    def replicate(self, tree: Any) -> Any:
        """Puts one copy of every array on every device."""
        return jax.device_put(tree, NamedSharding(self._mesh, PartitionSpec()))

    def split(self, batches: Mapping[str, np.ndarray], axis: int) -> dict[str, Any]:
        """Splits arrays over the devices along `axis`, where the examples of a batch lie.

        Of several processes each gives its own share.
        """
        if self._pmap:
            return {
                name: value.reshape(*value.shape[:axis], self.count, -1, *value.shape[axis + 1 :])
                for name, value in batches.items()
            }
        spec = PartitionSpec(*[None] * axis, BATCH_AXIS)
        sharding = NamedSharding(self._mesh, spec)
        return {
            name: jax.make_array_from_process_local_data(sharding, value)
            for name, value in batches.items()
        }

    def map_train(self, steps: Callable, donate: bool = True) -> Any:
        """Maps `steps(state, resident, rates, batches)`.

        `batches` come from `split(..., axis=1)`; all else is replicated, metrics too. With `donate`
        the memory of the state that goes in is reused for the one that comes out.
        """
        donated = (0,) if donate else ()
        if self._pmap:
            return jax.pmap(
                steps,
                BATCH_AXIS,
                in_axes=(None, None, None, 1),
                out_axes=(None, None),
                donate_argnums=donated,
                devices=self.devices,
            )
        replicated = PartitionSpec()
        mapped = jax.shard_map(
            steps,
            mesh=self._mesh,
            in_specs=(replicated, replicated, replicated, PartitionSpec(None, BATCH_AXIS)),
            out_specs=(replicated, replicated),
        )
        return jax.jit(mapped, donate_argnums=donated)

    def map_eval(self, step: Callable) -> Any:
        """Maps `step(variables, resident, batch)`; `batch` comes from `split(..., axis=0)`."""
        if self._pmap:
            return jax.pmap(step, BATCH_AXIS, in_axes=(None, None, 0), devices=self.devices)
        replicated, split = PartitionSpec(), PartitionSpec(BATCH_AXIS)
        return jax.jit(
            jax.shard_map(
                step, mesh=self._mesh, in_specs=(replicated, replicated, split), out_specs=split
            )
        )

    def gather(self, outputs: jax.Array) -> np.ndarray:
        """Returns what `map_eval` gave as one host array with all examples on axis 0."""
        array = np.asarray(outputs)
        return array.reshape(-1, *array.shape[2:]) if self._pmap else array

    def collect(
        self,
        batches: Iterable[tuple[dict[str, np.ndarray], int]],
        step: Callable[[dict[str, np.ndarray]], jax.Array],
    ) -> np.ndarray:
        """Returns the outputs of the real examples of all batches, in order, on axis 0.

        Args:
          batches: `Pipeline.eval_batches`.
          step: from one of these batches to its outputs, mapped by `map_eval`.
        """
        gathered: list[np.ndarray] = []
        running: tuple[jax.Array, int] | None = None
        for batch, real in batches:
            # One batch runs while the one before is read: more would hold all inputs on the device.
            running, before = (step(batch), real), running
            if before:
                gathered.append(self.gather(before[0])[: before[1]])
        if running:
            gathered.append(self.gather(running[0])[: running[1]])
        return np.concatenate(gathered)
