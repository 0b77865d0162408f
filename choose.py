"""Chooses a net for a data set, says how sure that is, and trains it."""

import pathlib
import re
import time
from typing import Any

_STARTED = time.monotonic()

from absl import flags  # noqa: E402
from ml_collections import config_flags  # noqa: E402

import command_line  # noqa: E402
from errors import UserError  # noqa: E402

_DATA = flags.DEFINE_string(
    'data',
    None,
    'Data set, such as folder:PATH, digits, tfds:NAME, table:PATH or series:PATH; or --config.',
)
_CONFIG = config_flags.DEFINE_config_file(
    'config', None, 'Training config whose recipe and length all nets have, with its data set.'
)
_BUDGET = flags.DEFINE_string(
    'budget', '60m', 'What it may take: minutes, hours or seconds, such as 60m, or runs: 200runs.'
)
_WORKDIR = flags.DEFINE_string('workdir', None, 'Where everything goes; by default choices/<data>.')
_STORAGE = flags.DEFINE_string(
    'storage', '', 'Database that several hosts share, as of sweep.py; by default SQLite.'
)
_DELTA = flags.DEFINE_float('delta', 0.01, 'The smallest difference that matters to you.')
_MEASURE = flags.DEFINE_enum(
    'measure', 'accuracy', ['accuracy', 'balanced_accuracy', 'log_loss'], 'What is compared.'
)
_COSTS = flags.DEFINE_string(
    'costs', '', 'csv file with a cost matrix, as of evaluate.py: the mean cost is compared.'
)
_GOAL = flags.DEFINE_string(
    'goal', '', 'What you want to reach, such as balanced_accuracy>=0.95; sets --measure.'
)
_MAX = {
    'parameters': flags.DEFINE_integer('max_parameters', 0, 'No net of more parameters; 0: any.'),
    'flops': flags.DEFINE_float('max_flops', 0.0, 'No net of more FLOPs for an example; 0: any.'),
    'latency_ms': flags.DEFINE_float(
        'max_latency_ms', 0.0, 'No net that takes longer here to predict; 0: any.'
    ),
    'memory_mb': flags.DEFINE_float(
        'max_memory_mb', 0.0, 'No net that needs more megabytes to predict; 0: any.'
    ),
}
_RATE = flags.DEFINE_float(
    'min_images_per_second', 0.0, 'No net that predicts slower here; 0: any.'
)
_BATCH = flags.DEFINE_integer(
    'predict_batch', 1, 'Images predicted at once where latency, memory and rate are measured.',
    lower_bound=1,
)  # fmt: skip
_CHEAPER = flags.DEFINE_enum(
    'cost', 'flops', ['flops', 'parameters', 'latency_ms'], 'By what a net is cheaper.'
)
_FORCE = flags.DEFINE_bool('force_test', False, 'Open the test split again; the report says so.')
_QUIET = flags.DEFINE_bool('quiet', False, 'Print the headline and the answer alone.')

_USAGE = """
Finds the smallest net that is good enough for your images, and how sure that is.

  python choose.py --data=folder:leaves --budget=60m      one folder for each class
  python choose.py --data=digits --budget=10m
  python choose.py --data=digits --budget=200runs         the same answer each time
  python choose.py --data=folder:leaves --goal="balanced_accuracy>=0.95" --max_latency_ms=20

The first recommendation is there after the first runs (recommended_config.py in the workdir, which
train.py trains as it is), and is replaced as evidence grows. The same command goes on with a choice
that was interrupted.
Exit status: 0 done, 2 a mistake in the command, 130 interrupted.
"""


def main() -> int:
    """Runs the command and returns its exit status."""
    from console import Console
    from selection import clock, driver

    console = Console(_QUIET.value)
    if (_DATA.value is None) == (_CONFIG.value is None):
        raise UserError('Give --data or --config: python choose.py --data=folder:PATH, or --help.')
    request = _request(clock.parse(_BUDGET.value))
    name = request.base.dataset.name.removeprefix('tfds:').removeprefix('folder:')
    safe = re.sub(r'[^A-Za-z0-9._=-]+', '_', name).strip('_')
    folder = pathlib.Path(_WORKDIR.value or pathlib.Path('choices') / safe)
    return 0 if driver.choose(request, folder, _STORAGE.value, console, _STARTED) else 130


def _request(budget: Any) -> Any:
    from configs import default
    from selection import outlook
    from selection.driver import FOLDS, Request

    base = _CONFIG.value or default.get_config(_DATA.value, _family(_DATA.value))
    default.validate(base)
    if not base.dataset.folds:
        base.dataset.folds = FOLDS
    limits = {name: flag.value for name, flag in _MAX.items() if flag.value}
    if _RATE.value:
        latency = 1000 * _BATCH.value / _RATE.value
        limits['latency_ms'] = min(latency, limits.get('latency_ms', latency))
    if not _DELTA.value > 0:
        raise UserError(f'--delta={_DELTA.value:g} is no difference: it must be above 0.')
    goal = outlook.parse_goal(_GOAL.value)
    measure = goal[0] if goal else 'cost' if _COSTS.value else _MEASURE.value
    if measure == 'cost' and not _COSTS.value:
        raise UserError(f'--goal={_GOAL.value} needs --costs=FILE, a cost matrix.')
    return Request(
        base=base, budget=budget, delta=_DELTA.value, measure=measure, goal=_GOAL.value,
        costs_file=_COSTS.value, limits=limits, cost=_CHEAPER.value, forced=_FORCE.value,
        predict_batch=_BATCH.value,
    )  # fmt: skip


def _family(data: str) -> str:
    return 'dense' if data.startswith(('table:', 'series:')) else 'plain'


if __name__ == '__main__':
    command_line.run(main, _USAGE, takes='config', instead_of_config=('data',))
