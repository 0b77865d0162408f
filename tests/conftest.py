"""Shared by all tests: one compilation cache, and the command as users run it."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
# One folder for all tests and the commands they start, so that XLA compiles each program once.
os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(ROOT / '.cache' / 'xla'))
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0')
os.environ.setdefault('LEADLINE_CACHE', str(ROOT / '.cache' / 'leadline'))
os.environ['TF_CPP_MIN_LOG_LEVEL'] = '3'

# A net and a schedule small enough for a whole run to take a second or two.
TINY = {
    'model.stage_sizes': (1, 1),
    'model.width': 8,
    'epochs': 2.0,
    'batch_size': 128,
    'optimizer.warmup_epochs': 0.5,
}


def flags(fields):
    """Returns config fields as command-line flags."""
    return [f'--config.{name}={value}' for name, value in fields.items()]


def python(*arguments, devices=1, tensorboard=False, stdin=None, **environment):
    """Starts Python on so many host devices and returns the process.

    TensorFlow takes seconds to import: without `tensorboard` it is not found.
    """
    options = f'--xla_force_host_platform_device_count={devices}'
    without = {} if tensorboard else {'PYTHONPATH': str(ROOT / 'tests' / 'without_tensorflow')}
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, 'XLA_FLAGS': options, **without, **environment},
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start(*arguments, command='train.py', **options):
    """Starts `python train.py ...`; the options are those of `python`."""
    return python(command, *arguments, **options)


def finish(process, status=0):
    """Waits for a process, checks its exit status and returns (stdout, stderr)."""
    out, err = process.communicate(timeout=300)
    assert process.returncode == status, f'{out}\n{err}'
    return out, err


def train(*arguments, status=0, **options):
    """Runs `python train.py ...`, checks its exit status and returns (stdout, stderr)."""
    return finish(start(*arguments, **options), status)


# Each command in a fork of one process that has imported what they need.
_FORKS = """
import contextlib, json, os, runpy, sys
import training.loop, training.describe
for number, arguments in enumerate(json.load(sys.stdin)):
    if os.fork() == 0:
        for stream, name in ((sys.stdout, 'out'), (sys.stderr, 'err')):
            path = f'{sys.argv[1]}/{number}.{name}'
            os.dup2(os.open(path, os.O_CREAT | os.O_WRONLY), stream.fileno())
        sys.argv = [sys.argv[2], *arguments]
        runpy.run_path(sys.argv[0], run_name='__main__')
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.wait()[1])
    with open(f'{sys.argv[1]}/{number}.status', 'w') as file:
        file.write(str(status))
"""


def train_each(commands, folder, command='train.py'):
    """Runs a command for many arguments; returns (status, stdout, stderr) of each."""
    process = python('-c', _FORKS, folder, command, stdin=subprocess.PIPE)
    out, err = process.communicate(json.dumps(commands), timeout=300)
    assert process.returncode == 0, f'{out}\n{err}'
    return [
        (int((folder / f'{i}.status').read_text()),
         *((folder / f'{i}.{name}').read_text() for name in ('out', 'err')))
        for i in range(len(commands))
    ]  # fmt: skip


def load(config, room_bytes=1e9):
    """Returns the pipeline of a config."""
    import input_pipeline
    from console import Console

    return input_pipeline.load(config, room_bytes, Console(quiet=True))


@pytest.fixture
def tiny_config():
    """Returns a function from changed fields to the config of a tiny run on digits."""
    from configs import default

    def make(**changes):
        family = changes.pop('family', 'residual')
        config = default.get_config('digits', family)
        changes = {name.replace('__', '.'): value for name, value in changes.items()}
        config.update_from_flattened_dict(TINY | changes)
        return config

    return make


@pytest.fixture
def short_latency(monkeypatch):
    """Evaluations in this process time a few calls, not a second and a half of them."""
    from evaluation import latency

    monkeypatch.setattr(latency, '_SECONDS', 0.01)


def audit(*arguments, status=0, **environment):
    """Runs `python audit.py ...`, checks its exit status and returns (stdout, stderr)."""
    return finish(start(*arguments, command='audit.py', **environment), status)
