"""Many runs in one process against as many commands: start-up, total time, and equal results.

  python benchmarks/many_runs.py                     8 seeds of the digits net: minutes, 2 cores
  python benchmarks/many_runs.py --vary=rates        8 learning rates and weight decays
  python benchmarks/many_runs.py --epochs=6          shorter runs
  python benchmarks/many_runs.py --json=FILE         the figures, with versions and hardware

The same 8 runs of configs/resnet_small.py are trained as 8 commands one after another, by
`train_many` one after another on one device, and by `train_many` one on each of two host devices.
Each has a compilation cache of its own, which is empty in the first pass and, as `warm`, filled by
it in the second. With an empty cache the first command alone compiles; it is what the others are
compared with. Of a run is shown what was not training, in two ways: the seconds `start_up` and
`compile` of result.json, and the seconds of the process but for training and evaluation (so with
imports, writing, and waiting for TensorBoard), divided by the runs. On two devices two runs go at a
time, so half of the seconds that they report count.
"""

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
from absl import app, flags, logging

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

from benchmarks import report

_VARY = flags.DEFINE_enum('vary', 'seeds', ['seeds', 'rates'], 'What the runs differ in.')
_EPOCHS = flags.DEFINE_float('epochs', 30.0, 'Length of each run.')
_CHILD = flags.DEFINE_string('child', '', 'Of this script alone: folder to train the runs in.')
_FILE = 'configs/resnet_small.py'
_RATES = [
    {'optimizer.learning_rate': rate, 'optimizer.weight_decay': decay}
    for rate in (0.03, 0.05, 0.1, 0.2)
    for decay in (1e-4, 1e-3)
]
_SEEDS = [{'seed': seed} for seed in range(8)]


class Way(NamedTuple):
    """How the runs are trained: a name, the host devices, and `how` of `train_many` or ''."""

    name: str
    devices: int
    how: str


WAYS = [
    Way('commands', 1, ''),
    Way('sequential', 1, 'sequential'),
    Way('one per device', 2, 'one_per_device'),
]


def fields() -> list[dict[str, Any]]:
    """Returns what is set in the config of each run."""
    runs = _SEEDS if _VARY.value == 'seeds' else _RATES
    return [each | {'epochs': _EPOCHS.value} for each in runs]


def train_in_this_process(folder: pathlib.Path, how: str) -> None:
    """Trains all runs by `train_many`."""
    from configs import resnet_small
    from training import compilation_cache
    from training.many import train_many

    compilation_cache.enable()
    configs = [resnet_small.get_config() for _ in fields()]
    for config, each in zip(configs, fields(), strict=True):
        config.update_from_flattened_dict(each)
    workdirs = [folder / str(i) for i in range(len(configs))]
    train_many(configs, workdirs, quiet=True, how=how)


def train(way: Way, folder: pathlib.Path, cache: pathlib.Path) -> dict[str, Any]:
    """Trains all runs in one way; returns what it took."""
    environment = os.environ | {
        'JAX_COMPILATION_CACHE_DIR': str(cache),
        'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0.1',
        'XLA_FLAGS': f'--xla_force_host_platform_device_count={way.devices}',
    }
    commands = [
        [sys.executable, 'train.py', f'--config={_FILE}', f'--workdir={folder / str(i)}', '--quiet',
         *(f'--config.{name}={value}' for name, value in each.items())]
        for i, each in enumerate(fields())
    ]  # fmt: skip
    if way.how:
        child = f'--child={way.how}:{folder}'
        flags_ = [f'--vary={_VARY.value}', f'--epochs={_EPOCHS.value}']
        commands = [[sys.executable, __file__, child, *flags_]]
    walls = []
    for command in commands:
        begun = time.perf_counter()
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        walls.append(time.perf_counter() - begun)
    results = [json.loads((folder / str(i) / 'result.json').read_text()) for i in range(8)]
    seconds = [result['seconds'] for result in results]
    return {
        'walls': walls,
        'start_up_and_compile': [each['start_up'] + each['compile'] for each in seconds],
        'train_and_evaluate': [each['train'] + each['evaluate'] for each in seconds],
    }


def not_training(way: Way, took: dict[str, Any], cache: str) -> dict[str, float]:
    """Returns the seconds of a run that are not training, in both ways of counting.

    Of commands that begin with an empty cache it is the first.
    """
    walls, trained = took['walls'], took['train_and_evaluate']
    by_part = took['start_up_and_compile']
    if way.how:
        by_clock = (sum(walls) - sum(trained) / way.devices) / len(trained)
        by_part = statistics.mean(by_part) / way.devices
        return {'start_up_and_compile': by_part, 'by_clock': by_clock}
    first = 1 if cache == 'empty' else len(walls)
    by_clock = statistics.mean(wall - own for wall, own in zip(walls, trained, strict=True))
    if first == 1:
        by_clock = walls[0] - trained[0]
    return {'start_up_and_compile': statistics.mean(by_part[:first]), 'by_clock': by_clock}


def content(folder: pathlib.Path) -> dict[str, Any]:
    """Returns everything in a run folder that should not depend on how it was trained."""
    import orbax.checkpoint as ocp

    result = json.loads((folder / 'result.json').read_text())
    lines = [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]
    arrays: dict[str, Any] = dict(np.load(folder / 'predictions.npz'))
    with ocp.CheckpointManager((folder / 'checkpoints').absolute()) as manager:
        restore = ocp.args.Composite(state=ocp.args.StandardRestore())
        for step in manager.all_steps():
            arrays[f'checkpoint {step}'] = manager.restore(step, args=restore)['state']
    return {
        'result': {name: value for name, value in result.items() if name != 'seconds'},
        'metrics': [{n: v for n, v in ln.items() if n != 'images_per_second'} for ln in lines],
        'arrays': arrays,
    }


def same(ours: Any, theirs: Any) -> bool:
    """Tells whether two trees are equal, arrays to the bit."""
    import jax

    leaves, others = (jax.tree_util.tree_leaves_with_path(tree) for tree in (ours, theirs))
    return len(leaves) == len(others) and all(
        path == other_path and np.array_equal(np.asarray(leaf), np.asarray(other))
        for (path, leaf), (other_path, other) in zip(leaves, others, strict=True)
    )


def main(_) -> None:
    """Trains in all ways and prints what it took."""
    logging.set_verbosity(logging.FATAL)
    if _CHILD.value:
        how, folder = _CHILD.value.split(':', 1)
        return train_in_this_process(pathlib.Path(folder), how)
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        reference: list[Any] = []
        for cache in ('empty', 'warm'):
            for way in WAYS:
                folder = pathlib.Path(scratch, cache, way.how or 'commands')
                took = train(way, folder, pathlib.Path(scratch, f'xla-{way.how}'))
                runs = [content(folder / str(i)) for i in range(8)]
                reference = reference or runs
                took |= not_training(way, took, cache) | {'total': sum(took['walls'])}
                took['identical'] = sum(map(same, runs, reference))
                figures.setdefault(cache, {})[way.name] = took
                show(cache, way.name, figures[cache])
    report.write(figures)


def show(cache: str, name: str, figures: dict[str, Any]) -> None:
    """Prints a line: what was not training, the total, beside those of the commands."""
    ours, base = figures[name], figures['commands']
    print(
        f'{cache:6} cache  {name:15} not training, a run: '
        + ', '.join(
            f'{words} {ours[key]:5.2f} s ({ours[key] / base[key]:.2f})'
            for key, words in (('start_up_and_compile', 'start-up and compile'),
                               ('by_clock', 'by the clock'))
        )
        + f'; all {ours["total"]:6.1f} s ({ours["total"] / base["total"]:.2f}), '
        f'{ours["identical"]} of 8 identical',
        flush=True,
    )  # fmt: skip


if __name__ == '__main__':
    app.run(main)
