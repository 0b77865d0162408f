"""Shared by all tests: one compilation cache, and the command as users run it."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
# One folder for all tests and the commands they start, so that XLA compiles each program once.
os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(ROOT / '.cache' / 'xla'))
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0.1')
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


def start(*arguments, command='train.py', devices=1, **environment):
    """Starts `python train.py ...` on so many host devices and returns the process."""
    options = f'--xla_force_host_platform_device_count={devices}'
    return subprocess.Popen(
        [sys.executable, command, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, 'XLA_FLAGS': options, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def train(*arguments, devices=1, status=0, **environment):
    """Runs `python train.py ...`, checks its exit status and returns (stdout, stderr)."""
    process = start(*arguments, devices=devices, **environment)
    out, err = process.communicate(timeout=300)
    assert process.returncode == status, f'{out}\n{err}'
    return out, err


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


def audit(*arguments, status=0, **environment):
    """Runs `python audit.py ...`, checks its exit status and returns (stdout, stderr)."""
    process = start(*arguments, command='audit.py', **environment)
    out, err = process.communicate(timeout=300)
    assert process.returncode == status, f'{out}\n{err}'
    return out, err
