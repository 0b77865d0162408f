"""How long a command of `train.py` on the digits takes to start, as its user runs it.

  python benchmarks/startup.py                5 rounds: about 5 minutes on 2 cores
  python benchmarks/startup.py --json=FILE    the figures, with versions and hardware

Each round starts fresh processes of `python train.py --config=configs/resnet_small.py`, one after
the other: with an empty compilation cache; with the cache that this one left, in another run
folder; again in that folder, where the run goes on; and with `--describe`. Training is ended by
SIGTERM, which saves, once the first line of an evaluation is there. The files of the program and
its libraries are in the page cache (a run before the rounds sees to that).

All seconds count from the start of the process. Lines are timed as they arrive: the first of all
comes when libraries are imported, the second when the data are there, the table of layers when the
net is known, `Plan` when the programs that make the first weights and do a step are compiled. The
first training step is `seconds.first_step` of `result.json`, to which the start of the interpreter
itself is added. `start-up` and `compile` are the parts of `result.json`.
"""

import json
import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

from absl import app, flags, logging

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

from benchmarks import report
from console import Console

_ROUNDS = flags.DEFINE_integer('rounds', 5, 'How often each command is started.')
_ROOT = pathlib.Path(__file__).parent.parent
_COMMAND = [sys.executable, 'train.py', '--config=configs/resnet_small.py']
# What is timed, by the first word of its line.
_LINES = {'Leadline': 'first line', 'Data': 'data', 'layer': 'net', 'Plan': 'compiled'}
_MARKS = ('first line', 'data', 'net', 'compiled', 'first step', 'start-up', 'compile', 'end')


def start(cache: pathlib.Path, *arguments: str, ends_at: str = '') -> dict[str, float]:
    """Runs the command and returns the seconds to its lines, and to its end.

    Args:
      cache: folder of compiled programs.
      arguments: of the command, behind the config.
      ends_at: first word of the line upon which the command is told to save and end.
    """
    # Of its own: the user's settings of JAX's cache would be those of every process.
    environment = os.environ | {
        'JAX_COMPILATION_CACHE_DIR': str(cache), 'PYTHONUNBUFFERED': '1',
    }  # fmt: skip
    marks: dict[str, float] = {}
    begun = time.perf_counter()
    with subprocess.Popen(
        [*_COMMAND, *arguments], cwd=_ROOT, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        for line in process.stdout:
            word = line.partition(' ')[0]
            if word in _LINES:
                marks.setdefault(_LINES[word], time.perf_counter() - begun)
            if ends_at and word == ends_at:
                process.send_signal(signal.SIGTERM)
                ends_at = ''
    if process.returncode not in (0, 130):
        sys.exit('train.py has failed; its error stands above.')
    return marks | {'end': time.perf_counter() - begun}


def train(cache: pathlib.Path, folder: pathlib.Path, interpreter: float) -> dict[str, float]:
    """Trains, or goes on, to the first evaluation; returns the marks."""
    path = folder / 'result.json'
    before = json.loads(path.read_text())['seconds'] if path.exists() else {}
    marks = start(cache, f'--workdir={folder}', ends_at='step')
    seconds = json.loads(path.read_text())['seconds']  # Of all sessions.
    return marks | {
        'first step': seconds['first_step'] + interpreter,
        'start-up': seconds['start_up'] - before.get('start_up', 0.0),
        'compile': seconds['compile'] - before.get('compile', 0.0),
    }


def interpreter_seconds() -> float:
    """Returns the seconds of a Python that does nothing."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, '-c', ''], check=True)
    return time.perf_counter() - begun


def measure(scratch: pathlib.Path) -> dict[str, list[dict[str, float]]]:
    """Starts all commands in turn, and returns their marks by round."""
    start(scratch / 'warm-up', '--describe')
    kinds = ('empty cache', 'warm cache', 'goes on', '--describe')
    marks: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
    for number in range(_ROUNDS.value):
        cache, first, second = (scratch / f'{what}-{number}' for what in ('xla', 'first', 'second'))
        interpreter = interpreter_seconds()
        marks['empty cache'].append(train(cache, first, interpreter))
        marks['warm cache'].append(train(cache, second, interpreter))
        marks['goes on'].append(train(cache, second, interpreter))
        marks['--describe'].append(start(cache, '--describe'))
        shutil.rmtree(cache)
    return marks


def main(_) -> None:
    """Starts the commands, and prints and writes medians."""
    logging.set_verbosity(logging.FATAL)
    with tempfile.TemporaryDirectory() as folder:
        marks = measure(pathlib.Path(folder))
    medians: dict[str, dict[str, Any]] = {
        kind: {
            mark: statistics.median(row[mark] for row in rows)
            for mark in _MARKS if all(mark in row for row in rows)
        }
        for kind, rows in marks.items()
    }  # fmt: skip
    print(f'Seconds from the command, medians of {_ROUNDS.value} processes each:')
    Console().table(
        ['', *_MARKS],
        [
            [kind, *(f'{row[mark]:.2f}' if mark in row else '-' for mark in _MARKS)]
            for kind, row in medians.items()
        ],
    )
    both = {kind: row['start-up'] + row['compile'] for kind, row in list(medians.items())[:2]}
    ratio = both['empty cache'] / both['warm cache']
    print(
        f'First training step with a warm cache after {medians["warm cache"]["first step"]:.2f} s; '
        f'start-up and compile {both["empty cache"]:.2f} s with an empty cache, '
        f'{both["warm cache"]:.2f} s with a warm one: {ratio:.2f} times as fast.'
    )
    report.write({'medians': medians, 'ratio': ratio, 'rounds': marks})


if __name__ == '__main__':
    app.run(main)
