"""How the cost of a training step grows: with batch, depth, width, image size, devices; memory too.

  python benchmarks/scaling.py                 all of AXES and the memory: about 12 minutes, 2 cores
  python benchmarks/scaling.py --only=depth    one of batch, depth, width, size, devices, memory
  python benchmarks/scaling.py --json=FILE     the figures, with versions and hardware

Each case is a ResNet of He et al. 2016, section 4.2, in float32 on images of noise, in a process of
its own that does real steps: plan of the batch, dispatch, update. The processes of an axis are
alive together and step in turn; the figure is the median over the rounds, after compiling and a
warm-up. The slope is that of log(seconds) over log(FLOPs) by least squares, with its standard
error; 1 is in proportion. The FLOPs are those of convolutions and dense layers, three times the
forward pass. For depth the slope over layers (6n + 2) stands beside it; it would be 1.19 if seconds
were in proportion to FLOPs, since the first and the last layer cost next to nothing.
Devices are host devices, which share the cores: the batch is the same, so seconds should not grow.

For the memory, `train.py` trains ResNet-8 on the digits for 2,000 steps as its user would, with an
evaluation and a checkpoint every 17 steps; VmRSS is read at each line of `metrics.jsonl`. What
grows in the first quarter (TensorFlow is imported, caches fill) is warm-up.
"""

import contextlib
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any, NamedTuple

import numpy as np
import psutil
import scipy.stats
from absl import app, flags, logging

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

from benchmarks import common, images, report
from configs import nets
from console import Console
from training import compilation_cache
from training.prepared import Prepared, open_devices

_ROOT = pathlib.Path(__file__).parent.parent
_IMAGES = 1024
_NOISE = 'images-{}.npz'


class Case(NamedTuple):
    """A step to take the time of: value on the axis, layers are 6n + 2."""

    value: int
    batch: int = 64
    n: int = 1
    width: int = 16
    size: int = 32
    devices: int = 1


AXES = {
    'batch': [Case(b, batch=b, n=3) for b in (32, 64, 128, 256)],
    'depth': [Case(6 * n + 2, n=n) for n in (1, 2, 3, 5, 9)],
    'width': [Case(w, width=w) for w in (8, 16, 32, 64)],
    'size': [Case(s, size=s) for s in (16, 24, 32, 48, 64)],
    'devices': [Case(d, batch=128, n=3, devices=d) for d in (1, 2, 4)],
}
_ONLY = flags.DEFINE_enum('only', None, [*AXES, 'memory'], 'The axis to measure, if not all.')
_ROUNDS = flags.DEFINE_integer('rounds', 7, 'Measurements of each case.')
_STEPS = flags.DEFINE_integer('steps', 2000, 'Steps of the run whose memory is watched.')
_CHILD = flags.DEFINE_string('child', '', 'Of this script alone: what a process of it does.')


# A process for each case.


def work(case: Case, scratch: pathlib.Path) -> None:
    """Prepares a case, says what it is, and takes the time of a step for each line it is sent."""
    compilation_cache.enable()
    config = nets.get_config(f'resnet20:npz:{scratch / _NOISE.format(case.size)}')
    config.update_from_flattened_dict({
        'batch_size': case.batch, 'model.stage_sizes': (case.n,) * 3, 'model.width': case.width,
        'epochs': 1e4, 'evaluate_every_epochs': 1e4,
    })  # fmt: skip
    with contextlib.closing(Prepared(config, open_devices(config), Console(quiet=True))) as run:
        run.place_data()
        measure = common.training_step(run)
        for _ in range(3):
            measure()
        flops = 3 * sum(row.flops for row in run.layers) * case.batch
        print(json.dumps({'flops': flops, 'compile_seconds': run.compile_seconds}), flush=True)
        for _ in sys.stdin:
            print(measure(), flush=True)


class Worker:
    """The process of a case, ready to be asked for the time of a step."""

    def __init__(self, case: Case, scratch: pathlib.Path):
        devices = f'--xla_force_host_platform_device_count={case.devices}'
        self._process = subprocess.Popen(
            [sys.executable, __file__, f'--child={json.dumps(case)}', str(scratch)],
            env=os.environ | {'XLA_FLAGS': f'{os.environ.get("XLA_FLAGS", "")} {devices}'},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.facts = json.loads(self._answer())

    def step_seconds(self) -> float:
        """Returns the seconds of a training step now."""
        assert self._process.stdin
        self._process.stdin.write('\n')
        self._process.stdin.flush()
        return float(self._answer())

    def close(self) -> None:
        """Ends the process."""
        self._process.communicate()

    def _answer(self) -> str:
        assert self._process.stdout
        if not (line := self._process.stdout.readline()):
            sys.exit('The process of a case has failed; its error stands above.')
        return line


def measure_axis(name: str, cases: list[Case], scratch: pathlib.Path) -> dict[str, Any]:
    """Takes the times of an axis in turn, prints them and returns them with the slopes."""
    for size in {case.size for case in cases}:
        images.make_noise(scratch / _NOISE.format(size), _IMAGES, size)
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(contextlib.closing(Worker(c, scratch))) for c in cases]
        measures = {str(c.value): w.step_seconds for c, w in zip(cases, workers, strict=True)}
        times = common.in_turn(measures, _ROUNDS.value)
    rows = []
    for case, worker in zip(cases, workers, strict=True):
        seconds = times[str(case.value)]
        rows.append({
            **case._asdict(), 'layers': 6 * case.n + 2, **worker.facts,
            'seconds': statistics.median(seconds), 'all_seconds': seconds,
        })  # fmt: skip
    Console().table(
        [name, 'layers', 'batch', 'width', 'pixels', 'GFLOP', 'ms a step', 'images/s', 'GFLOP/s',
         'compiled in'],
        [
            [str(r['value']), str(r['layers']), str(r['batch']), str(r['width']), str(r['size']),
             f'{r["flops"] / 1e9:.1f}', f'{1e3 * r["seconds"]:.1f}',
             f'{r["batch"] / r["seconds"]:,.0f}', f'{r["flops"] / r["seconds"] / 1e9:.1f}',
             f'{r["compile_seconds"]:.1f} s']
            for r in rows
        ],
    )  # fmt: skip
    seconds = [row['seconds'] for row in rows]
    over = {'devices': ['devices'], 'depth': ['flops', 'layers']}.get(name, ['flops'])
    slopes = {what: common.log_log_slope([r[what] for r in rows], seconds) for what in over}
    for what, slope in slopes.items():
        print(f'Slope of log(seconds) over log({what}): {slope}\n', flush=True)
    return {'cases': rows, 'slopes': {what: slope._asdict() for what, slope in slopes.items()}}


# Memory.


def watch_memory(folder: pathlib.Path) -> dict[str, Any]:
    """Trains through `train.py` and reads its resident memory at each evaluation."""
    epochs = _STEPS.value * 64 / 1078
    command = [
        sys.executable, str(_ROOT / 'train.py'), '--config=configs/resnet_small.py', '--quiet',
        f'--workdir={folder}', f'--config.epochs={epochs}',
    ]  # fmt: skip
    samples: list[tuple[int, int]] = []
    metrics = folder / 'metrics.jsonl'
    with subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.DEVNULL) as run:
        process = psutil.Process(run.pid)
        while run.poll() is None:
            lines = metrics.read_text().splitlines() if metrics.exists() else []
            if len(lines) > len(samples) and lines[-1].endswith('}'):
                # Lines that came together count once.
                samples += [(json.loads(lines[-1])['step'], process.memory_info().rss)] * (
                    len(lines) - len(samples)
                )
            time.sleep(0.02)
    if run.returncode:
        sys.exit('train.py has failed; its error stands above.')
    figures = memory_growth(sorted(set(samples)))
    print(
        f'Memory over {samples[-1][0]:,} steps: {figures["first_bytes"] / 2**20:,.1f} MiB after '
        f'warm-up (step {figures["first_step"]:,}), {figures["last_bytes"] / 2**20:,.1f} MiB in '
        f'the end: {100 * figures["growth"]:+.2f} %. Slope {figures["bytes_per_step"]:+,.0f} ± '
        f'{figures["standard_error"]:,.0f} bytes a step.',
        flush=True,
    )
    return figures | {'samples': samples}


def memory_growth(samples: list[tuple[int, int]]) -> dict[str, float]:
    """Returns slope and growth of (step, bytes) after the first quarter, which is warm-up.

    The growth is that of the median of the last tenth of all samples over that of the tenth that
    follows the warm-up, as a share.
    """
    steps, held = np.asarray(samples, np.float64).T
    start, tenth = len(steps) // 4, max(1, len(steps) // 10)
    fit = scipy.stats.linregress(steps[start:], held[start:])
    first, last = np.median(held[start : start + tenth]), np.median(held[-tenth:])
    return {
        'first_step': int(steps[start]), 'first_bytes': float(first), 'last_bytes': float(last),
        'growth': float(last / first - 1), 'bytes_per_step': float(fit.slope),
        'standard_error': float(fit.stderr),
    }  # fmt: skip


def main(argv: list[str]) -> None:
    """Measures the axes and the memory, and writes the figures."""
    logging.set_verbosity(logging.FATAL)
    if _CHILD.value:
        work(Case(*json.loads(_CHILD.value)), pathlib.Path(argv[1]))
        return
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, cases in AXES.items():
            if _ONLY.value in (None, name):
                figures[name] = measure_axis(name, cases, pathlib.Path(folder))
        if _ONLY.value in (None, 'memory'):
            figures['memory'] = watch_memory(pathlib.Path(folder, 'run'))
    report.write(figures)


if __name__ == '__main__':
    app.run(main)
