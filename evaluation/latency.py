"""What a prediction costs on this device: latency, throughput, memory, size."""

import functools
import resource
import sys
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from evaluation import blocks as net_blocks
from evaluation.blocks import Block
from evaluation.trained import Trained
from training import memory, step
from training.data_parallel import DataParallel
from training.recipe import Recipe

BATCHES = (1, 8, 64)
_SECONDS = 1.5  # Of calls at each batch size.
_MOST_CALLS = 1000
_FOR_P99 = 100  # Calls below which the hundredth slowest is nobody.
_WARM_UP = 5
BLOCKS_BATCH = 64
_BLOCKS_ROUNDS, _BLOCKS_SECONDS = 15, 1.0  # At most; seconds for each block.


def measure(trained: Trained) -> dict[str, Any]:
    """Times predictions of one device: from pixels on the host to outputs on the host.

    Decoding is not in it, nor compiling, which is timed apart. Inputs are random, for nothing in a
    net's arithmetic depends on their values.

    Returns:
      `parameters`; `weight_bytes`; `flops_per_example`; `device`; `peak_process_bytes`, of this
      process so far; and `batches`, each with `batch`, `calls`, `p50_seconds`, `p99_seconds` (None
      of fewer than 100 calls), `examples_per_second` (at the median), `compile_seconds` and
      `program_bytes`, the memory that XLA plans for weights, inputs and all between.
    """
    weights = {k: v for k, v in trained.variables.items() if k != 'normalization'}
    devices = DataParallel('shard_map', trained.devices.devices[:1])
    variables = devices.replicate(jax.tree.map(np.asarray, trained.variables))
    return {
        'parameters': trained.result['parameters'],
        'weight_bytes': memory.nbytes(weights),
        # The mirror image is a second example.
        'flops_per_example': trained.result['flops_per_example']
        * (1 + trained.recipe.evaluate_mirrored),
        'device': devices.describe(),
        'batches': [
            of_batch(trained.recipe, trained.input_shape, devices, variables, batch)
            for batch in BATCHES
        ],
        'peak_process_bytes': _peak(),
    }


def of_batch(
    recipe: Recipe, input_shape: tuple[int, ...], devices: DataParallel, variables: Any, batch: int
) -> dict[str, Any]:
    """Times predictions of a batch, as `measure` says; returns an element of `batches`."""
    shape = (batch, *input_shape)
    generator = np.random.default_rng(0)
    values = generator.integers(0, 256, shape, np.uint8)
    given = {'input': values if len(shape) == 4 else values.astype(np.float32) / 256}
    mapped = devices.map_eval(functools.partial(step.eval_step, recipe))
    begun = time.perf_counter()
    program = mapped.lower(variables, {}, devices.split(given, axis=0)).compile()
    compiled = time.perf_counter() - begun

    def call() -> float:
        begun = time.perf_counter()
        devices.gather(program(variables, {}, devices.split(given, axis=0)))
        return time.perf_counter() - begun

    for _ in range(_WARM_UP):
        call()
    seconds: list[float] = []
    while len(seconds) < _MOST_CALLS and (len(seconds) < 3 or sum(seconds) < _SECONDS):
        seconds.append(call())
    median = float(np.median(seconds))
    enough = len(seconds) >= _FOR_P99
    return {
        'batch': batch,
        'calls': len(seconds),
        'p50_seconds': median,
        'p99_seconds': float(np.quantile(seconds, 0.99)) if enough else None,
        'examples_per_second': batch / median,
        'compile_seconds': compiled,
        'program_bytes': memory.planned(program).get('total'),
    }


def of_blocks(trained: Trained, blocks: Sequence[Block]) -> list[dict[str, float]]:
    """Measures what each block adds to the seconds of a batch of 64, on one device, in turn.

    Returns:
      For each block `value`, the median over rounds of the time of the whole net minus that
      without the block, with the quartiles as `low` and `high`; it may be below 0 by chance.
    """
    devices = DataParallel('shard_map', trained.devices.devices[:1])
    variables = devices.replicate(jax.tree.map(np.asarray, trained.variables))
    shape = (BLOCKS_BATCH, *trained.input_shape)
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    given = devices.split({'input': images}, axis=0)
    programs = [
        devices.map_eval(functools.partial(step.eval_step, recipe)).lower(variables, {}, given)
        .compile()
        for recipe in (
            net_blocks.without(trained.recipe, blocks, removed)
            for removed in (None, *range(len(blocks)))
        )
    ]  # fmt: skip

    def call(program: Any) -> float:
        begun = time.perf_counter()
        jax.block_until_ready(program(variables, {}, given))
        return time.perf_counter() - begun

    for program in programs:
        call(program)
    rounds: list[list[float]] = []
    begun = time.perf_counter()
    while len(rounds) < 5 or (
        len(rounds) < _BLOCKS_ROUNDS
        and time.perf_counter() - begun < _BLOCKS_SECONDS * len(programs)
    ):
        rounds.append([call(program) for program in programs])
    times = np.asarray(rounds)
    low, middle, high = np.quantile(times[:, :1] - times[:, 1:], (0.25, 0.5, 0.75), axis=0)
    return [
        {'value': float(m), 'low': float(a), 'high': float(b)}
        for m, a, b in zip(middle, low, high, strict=True)
    ]


def _peak() -> int:
    """Returns the most memory that this process has held, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == 'darwin' else 1024 * peak
