"""Shared by all tests: one compilation cache, and the command as users run it."""

import atexit
import functools
import os
import pathlib
import subprocess
import sys
import tempfile

import forks
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


@functools.cache
def _forks():
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    return forks.program(folder.name)


def python(*arguments, devices=1, tensorboard=False, quick=False, **environment):
    """Starts Python on so many host devices and returns the process.

    TensorFlow takes seconds to import: without `tensorboard` it is not found. What the others
    import was imported before, except where variables of JAX ask for a process of its own. With
    `quick` programs are compiled without LLVM's optimization, which takes most of the time.
    """
    options = f'--xla_force_host_platform_device_count={devices}'
    options += ' --xla_backend_optimization_level=0' if quick else ''
    without = {} if tensorboard else {'PYTHONPATH': str(ROOT / 'tests' / 'without_tensorflow')}
    alone = tensorboard or any(name.startswith('JAX_') for name in environment)
    return subprocess.Popen(
        [*([sys.executable] if alone else _forks()), *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, 'XLA_FLAGS': options, **without, **environment},
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


def train_each(commands, command='train.py'):
    """Runs a command for many arguments; returns (status, stdout, stderr) of each."""
    ended = []
    for arguments in commands:
        process = start(*arguments, command=command)
        out, err = process.communicate(timeout=300)
        ended.append((process.returncode, out, err))
    return ended


def call_once(function, *arguments):
    """Calls a function that is worth no optimization, as one program."""
    import jax

    level = {'xla_backend_optimization_level': 0}
    return jax.jit(function).lower(*arguments).compile(compiler_options=level)(*arguments)


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
