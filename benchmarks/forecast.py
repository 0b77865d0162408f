"""What `--describe` predicts against what training then takes: seconds of an epoch, peak memory.

  python benchmarks/forecast.py                    all of CASES in three rounds: 20 minutes, 2 cores
  python benchmarks/forecast.py --only=plain       those whose names hold the word
  python benchmarks/forecast.py --json=FILE        the figures, with versions and hardware

Prediction and training run in a fresh process each, one after the other, on generated images of
32x32 pixels in colour, with a compilation cache of their own (empty before the first case). The
measured epoch is the median time between the evaluations' lines in metrics.jsonl, which holds
training, evaluation and saving; the epoch before the first line, in which TensorFlow is imported,
is not among them. The measured peak is VmHWM of the process, so imports, data and compiled programs
are in it, as they are in the prediction. The table has medians over the rounds.
"""

import json
import os
import pathlib
import runpy
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import app, flags, logging

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

from benchmarks import report

_ONLY = flags.DEFINE_string('only', '', 'Part of the names of the cases to run.')
_CHILD = flags.DEFINE_string('child', '', 'Of this script alone: what a process of it does.')
_ROUNDS = flags.DEFINE_integer('rounds', 3, 'How often each case is predicted and trained.')
_IMAGES, _SIDE, _EPOCHS = 2000, 32, 4.0
_FIGURES = {'epoch_seconds': ('s', 1), 'total_seconds': ('s', 1), 'peak_bytes': ('MiB', 2**20)}


class Case(NamedTuple):
    """A config to predict and to train: its file (and net), and fields by dotted name."""

    name: str
    file: str
    fields: dict[str, Any]


CASES = [
    Case('plain 3x32', 'configs/plain_small.py', {}),
    Case('plain 3x32, batch 512', 'configs/plain_small.py', {'batch_size': 512}),
    Case('plain 3x64', 'configs/plain_small.py', {'model.width': 64}),
    Case('plain 6x32, adamw, ema', 'configs/plain_small.py',
         {'model.stage_sizes': (2, 2, 2), 'optimizer.name': 'adamw', 'ema_decay': 0.99}),
    Case('plain 3x32, flatten, dense', 'configs/plain_small.py',
         {'model.head.pooling': 'flatten', 'model.head.dense_units': (512,)}),
    Case('ResNet-8, width 32', 'configs/resnet_small.py', {'model.width': 32}),
    Case('ResNet-8, width 16, streamed', 'configs/resnet_small.py',
         {'dataset.storage': 'stream'}),
    Case('ResNet-14, width 16, augmented', 'configs/resnet_small.py',
         {'model.stage_sizes': (2, 2, 2), 'augment': 'photos'}),
    Case('ResNet-20 of the paper', 'configs/nets.py:resnet20', {}),
    Case('Keras CNN', 'configs/nets.py:keras_cnn', {}),
    Case('MobileNetV2', 'configs/nets.py:mobilenet_v2', {}),
    Case('ConvNeXt, width 16', 'configs/nets.py:convnext_cifar', {'model.width': 16}),
]  # fmt: skip


def make_images(path: pathlib.Path) -> None:
    """Writes images of noise over one of ten colours."""
    generator = np.random.default_rng(0)
    labels = (np.arange(_IMAGES) % 10).astype(np.int32)
    colours = generator.integers(40, 200, (10, 1, 1, 3))
    noise = generator.integers(-40, 56, (_IMAGES, _SIDE, _SIDE, 3))
    np.savez(path, images=(colours[labels] + noise).astype(np.uint8), labels=labels)


def config_of(case: Case, data: str) -> Any:
    """Returns the config of a case on a data set."""
    file, _, net = case.file.partition(':')
    config = runpy.run_path(file)['get_config'](f'{net}:{data}' if net else data)
    config.update_from_flattened_dict({'epochs': _EPOCHS, 'optimizer.warmup_epochs': 0.5})
    config.update_from_flattened_dict(case.fields)
    return config


def predict(case: Case, data: str) -> dict[str, Any]:
    """Returns what `--describe` says of a case."""
    from training.describe import describe

    predicted = describe(config_of(case, data), quiet=True)['predicted']
    return {
        'epoch_seconds': predicted['epoch_seconds'],
        'peak_bytes': predicted['host_peak_bytes'],
        'total_seconds': predicted['total_seconds'],
    }


def train(case: Case, data: str) -> dict[str, float]:
    """Trains a case and returns what it took."""
    from training.loop import train_and_evaluate
    from training.run_folder import RunFolder

    moments, append = [], RunFolder.append_metrics

    def note(folder, line):
        moments.append(time.perf_counter())
        append(folder, line)

    RunFolder.append_metrics = note
    with tempfile.TemporaryDirectory() as folder:
        result = train_and_evaluate(config_of(case, data), folder, quiet=True)
    status = pathlib.Path('/proc/self/status').read_text()
    return {
        'epoch_seconds': statistics.median(np.diff(moments).tolist()),
        'peak_bytes': 1024 * int(status.partition('VmHWM:')[2].split()[0]),
        'total_seconds': result['seconds']['total'],
    }


def in_a_process(what: str, case: Case, scratch: pathlib.Path) -> dict[str, Any]:
    """Predicts or trains a case in a process of its own."""
    answer = scratch / 'answer.json'
    environment = {
        'JAX_COMPILATION_CACHE_DIR': str(scratch / 'xla'),
        'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0.1',
    }
    subprocess.run(
        [sys.executable, __file__, f'--child={what}:{CASES.index(case)}:{scratch}'],
        env=os.environ | environment, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    return json.loads(answer.read_text())


def main(_) -> None:
    """Runs the cases and prints predicted and measured figures."""
    logging.set_verbosity(logging.FATAL)
    if _CHILD.value:
        what, index, scratch = _CHILD.value.split(':', 2)
        do = {'predict': predict, 'train': train}[what]
        answer = do(CASES[int(index)], f'npz:{scratch}/images.npz')
        pathlib.Path(scratch, 'answer.json').write_text(json.dumps(answer))
        return
    cases = [case for case in CASES if _ONLY.value in case.name]
    rounds: dict[str, list[Any]] = {case.name: [] for case in cases}
    with tempfile.TemporaryDirectory() as folder:
        scratch = pathlib.Path(folder)
        make_images(scratch / 'images.npz')
        # Rounds of all cases, so that what else the machine does meets every case.
        for _ in range(_ROUNDS.value):
            for case in cases:
                both = {what: in_a_process(what, case, scratch) for what in ('predict', 'train')}
                rounds[case.name].append(both)
                show(case.name, [both])
    print(f'Medians of {_ROUNDS.value} rounds; predicted / measured, ratio:')
    for name, pairs in rounds.items():
        show(name, pairs)
    report.write(rounds)


def show(name: str, pairs: Sequence[dict[str, Any]]) -> None:
    """Prints a line: medians of what was predicted and measured, and their ratio."""
    cells = [f'{name:30}']
    for figure, (unit, scale) in _FIGURES.items():
        predicted, measured = (
            statistics.median(pair[what][figure] for pair in pairs) / scale
            for what in ('predict', 'train')
        )
        cells.append(
            f'{figure.partition("_")[0]} {predicted:,.1f} / {measured:,.1f} {unit}, '
            f'{predicted / measured:.2f}'
        )
    print('   '.join(cells), flush=True)


if __name__ == '__main__':
    app.run(main)
