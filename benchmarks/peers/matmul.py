"""The most FLOP/s that this machine reaches: a product of two large square matrices."""

import contextlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np

_SECONDS = 1.0
_SIDES = {'cpu': 2048, 'gpu': 8192}


def measure(dtype: str) -> dict[str, Any]:
    """Returns the platform, the side of the matrices, and FLOP/s by library, best of a second.

    NumPy counts on a CPU and in float32 alone, PyTorch where it is installed.
    """
    import jax
    import jax.numpy as jnp

    platform = jax.default_backend()
    side = _SIDES.get(platform, _SIDES['gpu'])
    a_NN = np.random.default_rng(0).normal(size=(side, side)).astype(np.float32)
    found = {}
    if platform == 'cpu' and dtype == 'float32':
        found['numpy'] = _best(lambda: a_NN @ a_NN, side)
    jax_NN, product = jnp.asarray(a_NN, dtype), jax.jit(jnp.matmul)
    found['jax'] = _best(lambda: product(jax_NN, jax_NN).block_until_ready(), side)
    with contextlib.suppress(ModuleNotFoundError):
        found['torch'] = _pytorch(a_NN, dtype, side)
    return {'platform': platform, 'side': side, 'flops_per_second': found}


def _pytorch(a_NN: np.ndarray, dtype: str, side: int) -> float:
    import torch

    gpu = torch.cuda.is_available()
    if gpu:
        torch.set_float32_matmul_precision('high')
    torch_NN = torch.from_numpy(a_NN).to('cuda' if gpu else 'cpu', getattr(torch, dtype))

    def product() -> None:
        torch_NN @ torch_NN
        if gpu:
            torch.cuda.synchronize()

    return _best(product, side)


def _best(product: Callable[[], Any], side: int) -> float:
    product()
    times: list[float] = []
    begun = time.perf_counter()
    while time.perf_counter() - begun < _SECONDS:
        before = time.perf_counter()
        product()
        times.append(time.perf_counter() - before)
    return 2 * side**3 / min(times)
