"""Every published net, for real: one training step, bfloat16, a checkpoint, seconds of compiling.

  python benchmarks/nets.py                  all of models.nets.NETS: about 30 minutes on 2 cores
  python benchmarks/nets.py --only=resnet    those whose names hold the word
  python benchmarks/nets.py --scan           with a loop over the equal blocks of a stage
  python benchmarks/nets.py --json=FILE      the figures, with versions and hardware

Nets for 224 pixels and more see 64, the others what they were published with; 8 random images of
10 classes, float32. The step must leave finite loss, gradients and weights; the checkpoint must
come back bit for bit; the logits in bfloat16 must be within a tenth of the largest in float32.
"""

import pathlib
import sys
import tempfile
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags, logging

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

import models
from benchmarks import report
from configs import nets
from console import Console
from models.nets import NETS, Net
from training.checkpoint import Checkpoints
from training.prepared import Prepared, open_devices

_ONLY = flags.DEFINE_string('only', '', 'Part of the names of the nets to run.')
_SCAN = flags.DEFINE_bool('scan', False, 'Sets config.model.scan where the family has it.')
_IMAGES, _BATCH = 60, 8


def make_data(folder: pathlib.Path, net: Net) -> str:
    """Writes a small set of the net's shape and returns its name."""
    generator = np.random.default_rng(0)
    if len(net.input_shape) < 3:
        columns = [*'abcdefghij', 'label'] if net.classes > 1 else ['target']
        table = generator.normal(size=(20 * _IMAGES, len(columns)))
        table[:, -1] = np.arange(len(table)) % 2 if net.classes > 1 else table[:, -1]
        path = folder / 'rows.csv'
        np.savetxt(path, table, '%.6g', ',', header=','.join(columns), comments='')
        return f'{"table" if net.classes > 1 else "series"}:{path}'
    height, width, channels = net.input_shape
    shape = (_IMAGES, min(height, 64), min(width, 64), channels)
    images = generator.integers(0, 256, shape).astype(np.uint8)
    labels = np.arange(_IMAGES) % (2 if net.classes == 2 else 10)
    np.savez(folder / 'images.npz', images=images, labels=labels)
    return f'npz:{folder / "images.npz"}'


def measure(name: str, folder: pathlib.Path) -> dict[str, Any]:
    """Trains a net for one step and returns what it took; raises AssertionError where it fails."""
    config = nets.get_config(f'{name}:{make_data(folder, NETS[name])}')
    config.batch_size, config.augment = _BATCH, 'none'
    if _SCAN.value and 'scan' in config.model:
        config.model.scan = True
    devices = open_devices(config)
    run = Prepared(config, devices, Console(quiet=True))
    run.place_data()
    state = devices.replicate(run.initial_state())
    before = jax.tree.map(np.array, state)
    begun = time.perf_counter()
    program, arguments = run.train_program(state, 0, 1)
    compile_seconds = time.perf_counter() - begun
    state, values = program(*arguments)
    values = {key: float(value[0]) for key, value in values.items()}
    assert all(np.isfinite(value) for value in values.values()), values
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state)), 'weights'
    with tempfile.TemporaryDirectory() as where:
        checkpoints = Checkpoints(pathlib.Path(where))
        checkpoints.save(1, state, {}, 0.0)
        checkpoints.wait()
        restored, _ = checkpoints.restore(before, 1)
        jax.tree.map(np.testing.assert_array_equal, jax.tree.map(np.array, state), restored)
        checkpoints.close()
    run.close()
    return {
        'parameters': sum(row.parameters for row in run.layers),
        'compile_seconds': compile_seconds,
        'loss': values['loss'],
        'gradient_norm': values['gradient_norm'],
        'bfloat16_difference': bfloat16_difference(run, before),
    }


def bfloat16_difference(run: Prepared, state: Any) -> float:
    """Returns how far bfloat16 takes the logits, relative to the largest in float32."""
    shape = (_BATCH, *run.pipeline.input_shape)
    inputs = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    variables = {'params': state.params, 'batch_stats': state.batch_stats}
    logits = []
    for dtype in ('float32', 'bfloat16'):
        classes = len(run.pipeline.class_names) or 1
        net = models.build(run.config.model.to_dict(), classes, dtype)
        apply = jax.jit(lambda variables, x, net=net: net.apply(variables, x, train=False))
        quick: dict[str, Any] = {'xla_backend_optimization_level': 0}
        program = apply.lower(variables, inputs).compile(compiler_options=quick)
        logits.append(np.asarray(program(variables, inputs)))
        assert logits[-1].shape[0] == _BATCH
        assert logits[-1].dtype == jnp.float32
    difference = float(abs(logits[1] - logits[0]).max() / abs(logits[0]).max())
    assert difference < 0.1, difference
    return difference


def main(_) -> None:
    """Prints a line for each net."""
    logging.set_verbosity(logging.FATAL)
    figures: dict[str, Any] = {}
    failed = []
    for name in NETS:
        if _ONLY.value not in name:
            continue
        with tempfile.TemporaryDirectory() as folder:
            try:
                figures[name] = row = measure(name, pathlib.Path(folder))
            except AssertionError as error:
                failed.append(name)
                print(f'{name:18} FAILED: {error}', flush=True)
                continue
        print(
            f'{name:18} {row["parameters"]:12,}  compiled in {row["compile_seconds"]:6.1f} s  '
            f'loss {row["loss"]:7.3f}  gradient {row["gradient_norm"]:9.3g}  '
            f'bfloat16 {row["bfloat16_difference"]:.4f}',
            flush=True,
        )
        jax.clear_caches()
    report.write({'nets': figures})
    if failed:
        sys.exit(f'{len(failed)} failed: {", ".join(failed)}')


if __name__ == '__main__':
    app.run(main)
