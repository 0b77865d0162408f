"""How fast inputs come: from photos, from the decode cache, and their share of a training step.

  python benchmarks/input.py               all of CASES: about 5 minutes on 2 cores
  python benchmarks/input.py --only=32     those whose names hold the word
  python benchmarks/input.py --json=FILE   the figures, with versions and hardware

600 JPEGs of 1 megapixel are read at the size of each case. The first table has images/s of what the
host does: a first pass (decoding into the empty cache, hashes, splits, statistics), opening the set
from the cache, then the plan of a training batch of a resident set, a batch of a streamed one (read
from the memory-mapped cache), the same through the thread that reads ahead, and a batch of an
evaluation. Batches are far below the cost of a step where images/s are far above those of training.

The second table has milliseconds of what the device does: the inputs of a batch alone (gather,
normalise, augment: `training.step.training_inputs`, compiled by itself), and a training step, with
the images on the device and streamed. The share is that of the inputs in the resident step. All are
medians of rounds in which they are measured in turn. For decoding beside Keras and PyTorch see
`benchmarks/decode.py`, for what each augmentation costs `benchmarks/augmentation.py`.
"""

import contextlib
import itertools
import os
import pathlib
import runpy
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from absl import app, flags, logging

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

import input_pipeline
from benchmarks import common, images, report
from console import Console
from training import compilation_cache
from training import step as training_step
from training.prepared import Prepared, open_devices

_ONLY = flags.DEFINE_string('only', '', 'Part of the names of the cases to run.')
_ROUNDS = flags.DEFINE_integer('rounds', 7, 'Measurements of each figure.')
_PASSES = 3
_PHOTOS = 600
_STORAGES = ('device', 'stream')
_HOST = ('first pass', 'opened', 'resident', 'streamed', 'read ahead', 'evaluation')
_DEVICE = ('inputs', 'step, resident', 'step, streamed')


class Case(NamedTuple):
    """A net on images of a size, by config file (and net)."""

    file: str
    size: int
    batch: int
    augment: str

    @property
    def name(self) -> str:
        """What the tables call it."""
        net = self.file.partition(':')[2] or pathlib.Path(self.file).stem
        return f'{net}, {self.size} px, batch {self.batch}'


CASES = [
    Case('configs/resnet_small.py', 8, 64, 'padded_crop=1,fill=black'),
    Case('configs/nets.py:resnet20', 32, 128, 'padded_crop=4,horizontal_flip=0.5'),
    Case('configs/photos_small.py', 64, 64, 'photos'),
    Case('configs/nets.py:resnet18', 224, 16, 'photos'),
]


def config_of(case: Case, folder: pathlib.Path, storage: str) -> Any:
    """Returns the config of a case, with its photos on the device or streamed."""
    file, _, net = case.file.partition(':')
    config = runpy.run_path(file)['get_config'](f'{net}:folder:{folder}'.removeprefix(':'))
    config.update_from_flattened_dict({
        'dataset.image_size': case.size, 'batch_size': case.batch, 'augment': case.augment,
        'dataset.storage': storage, 'dataset.group_by': 'none', 'epochs': 1e4,
        'evaluate_every_epochs': 1e4,
    })  # fmt: skip
    return config


def load_seconds(case: Case, folder: pathlib.Path, scratch: pathlib.Path) -> dict[str, list[float]]:
    """Returns seconds an image of first passes and of opening what they left."""
    config = config_of(case, folder, 'stream')
    seconds: dict[str, list[float]] = {'first pass': [], 'opened': []}
    for number in range(_PASSES):
        os.environ['LEADLINE_CACHE'] = str(scratch / f'cache-{case.size}-{number}')
        for what in seconds:
            begun = time.perf_counter()
            input_pipeline.load(config, 0, Console(quiet=True))
            seconds[what].append((time.perf_counter() - begun) / _PHOTOS)
    return seconds


def host_measures(
    runs: dict[str, Prepared], stack: contextlib.ExitStack
) -> dict[str, Callable[[], float]]:
    """Returns what takes the seconds of an image on the host, by name."""
    resident, streamed = (runs[storage].pipeline for storage in _STORAGES)
    ahead = stack.enter_context(contextlib.closing(input_pipeline.ReadAhead(streamed)))
    evaluation = itertools.chain.from_iterable(
        streamed.eval_batches('train') for _ in itertools.count()
    )
    # Steps follow one another, as in training.
    steps = {name: itertools.count() for name in ('resident', 'streamed', 'read ahead')}
    batches = {
        'resident': lambda: resident.train_batch(next(steps['resident'])),
        'streamed': lambda: streamed.train_batch(next(steps['streamed'])),
        'read ahead': lambda: ahead.train_batch(next(steps['read ahead'])),
        'evaluation': lambda: next(evaluation),
    }
    size = resident.batch_size
    return {name: _over(common.repeated(batch), size) for name, batch in batches.items()}


def _over(measure: Callable[[], float], count: int) -> Callable[[], float]:
    return lambda: measure() / count


def inputs_alone(run: Prepared) -> Callable[[], Any]:
    """Returns a function that makes the inputs of a training batch on the devices."""
    batch = run.devices.split(run.pipeline.train_batch(0), axis=0)
    normalization = run.devices.replicate(run.pipeline.normalization._asdict())
    inputs = run.devices.map_eval(
        lambda normalization, resident, batch: training_step.training_inputs(
            run.recipe, normalization, resident, batch, jnp.int32(0)
        )
    )
    return lambda: inputs(normalization, run.placed, batch)


def measure(case: Case, folder: pathlib.Path, scratch: pathlib.Path) -> dict[str, list[float]]:
    """Returns seconds an image on the host and seconds a step on the device, by round."""
    seconds = load_seconds(case, folder, scratch)
    with contextlib.ExitStack() as stack:
        runs = {}
        for storage in _STORAGES:
            config = config_of(case, folder, storage)
            run = Prepared(config, open_devices(config), Console(quiet=True))
            runs[storage] = stack.enter_context(contextlib.closing(run))
            run.place_data()
        measures = host_measures(runs, stack) | {
            'inputs': common.repeated(inputs_alone(runs['device'])),
            'step, resident': common.training_step(runs['device']),
            'step, streamed': common.training_step(runs['stream']),
        }
        common.in_turn(measures, 2)  # Compiles, and touches memory for the first time.
        return seconds | common.in_turn(measures, _ROUNDS.value)


def main(_) -> None:
    """Measures the cases and prints two tables."""
    logging.set_verbosity(logging.FATAL)
    compilation_cache.enable()
    cases = [case for case in CASES if _ONLY.value in case.name]
    seconds: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch, 'photos')
        images.make_photos(folder, _PHOTOS)
        for case in cases:
            seconds[case.name] = measure(case, folder, pathlib.Path(scratch))
    medians = {
        name: {what: statistics.median(times) for what, times in figures.items()}
        for name, figures in seconds.items()
    }
    console = Console()
    print('Images/s on the host:')
    console.table(
        ['', *_HOST],
        [[name, *(f'{1 / row[w]:,.0f}' for w in _HOST)] for name, row in medians.items()],
    )
    print('\nMilliseconds on the device:')
    rows = []
    for case in cases:
        row = medians[case.name]
        step = row['step, resident']
        times = [f'{1e3 * row[what]:.2f}' for what in _DEVICE]
        rows.append(
            [case.name, *times, f'{100 * row["inputs"] / step:.1f} %', f'{case.batch / step:,.0f}']
        )
    console.table(['', *_DEVICE, 'share of inputs', 'images/s'], rows)
    report.write({'medians': medians, 'seconds': seconds})


if __name__ == '__main__':
    app.run(main)
