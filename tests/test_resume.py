"""A run that is killed or stopped goes on exactly where it was."""

import json
import random
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from conftest import ROOT, finish, start, train
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_step import checkpoint

import training.loop
from errors import BusyError
from training.loop import train_and_evaluate
from training.run_folder import RunFolder

# Everything that has a state: dropout, augmentation, moving average, batch norm, momentum.
COMMAND = (
    '--config=configs/resnet_small.py',
    '--config.epochs=6',
    '--config.model.width=8',
    '--config.model.head.dropout=0.1',
    '--config.ema_decay=0.9',
    '--config.evaluate_every_epochs=0.5',
    '--config.dataset.storage=stream',
)
TIMINGS = ('seconds',)


def parameters(folder):
    """Returns every array of the last checkpoint, as saved."""
    latest = max(int(p.name) for p in (folder / 'checkpoints').iterdir())
    return jax.tree.leaves(checkpoint(folder, latest))


def outcome(folder):
    result = json.loads((folder / 'result.json').read_text())
    lines = [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]
    for line in lines:
        line.pop('images_per_second')
    return {k: v for k, v in result.items() if k not in TIMINGS}, lines


@pytest.fixture(scope='module')
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp('whole')
    train(*COMMAND, f'--workdir={folder}')
    return folder


def lines_written(folder):
    path = folder / 'metrics.jsonl'
    return path.read_text().count('\n') if path.exists() else 0


def wait_for(folder, lines, process):
    """Waits until the run has written so many evaluations."""
    while lines_written(folder) < lines:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def assert_same(folder, uninterrupted):
    assert outcome(folder) == outcome(uninterrupted)
    arrays, expected = parameters(folder), parameters(uninterrupted)
    assert len(arrays) == len(expected) > 50
    for array, other in zip(arrays, expected, strict=True):
        np.testing.assert_array_equal(array, other)
    ours, theirs = np.load(folder / 'predictions.npz'), np.load(uninterrupted / 'predictions.npz')
    for name in theirs.files:
        np.testing.assert_array_equal(ours[name], theirs[name])


def test_killed_twice_ends_in_the_same_bits(tmp_path, uninterrupted):
    # Anywhere between evaluations, or in a save; the seed is printed where the test fails.
    seed = time.time_ns()
    print(f'moments of the kills: random.Random({seed})')
    moments = random.Random(seed)
    for more in (2, 3):
        lines = lines_written(tmp_path)
        process = start(*COMMAND, f'--workdir={tmp_path}', tensorboard=True)
        wait_for(tmp_path, lines + more, process)
        time.sleep(moments.uniform(0.0, 0.4))
        process.kill()
        process.communicate()
        assert not (tmp_path / 'result.json').exists()
    out, _ = train(*COMMAND, f'--workdir={tmp_path}', tensorboard=True)
    assert 'Going on from step' in out
    assert_same(tmp_path, uninterrupted)
    events = EventAccumulator(str(tmp_path), size_guidance={'tensors': 0}).Reload()
    steps = [event.step for event in events.Tensors('train/loss')]
    _, lines = outcome(tmp_path)
    assert steps == [line['step'] for line in lines]
    assert len(events.Tensors('config')) == 1


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_says_how_to_go_on(tmp_path, uninterrupted, number):
    # TensorFlow is being imported when the first signal comes.
    process = start(*COMMAND, f'--workdir={tmp_path}', tensorboard=number == signal.SIGTERM)
    wait_for(tmp_path, 3, process)
    process.send_signal(number)
    out, _ = finish(process, status=130)
    assert 'The same command goes on from there.' in out
    assert json.loads((tmp_path / 'result.json').read_text())['status'] == 'interrupted'
    if number == signal.SIGTERM:
        train(*COMMAND, f'--workdir={tmp_path}')
        assert_same(tmp_path, uninterrupted)


def test_a_damaged_checkpoint_is_named(tmp_path, uninterrupted):
    folder = tmp_path / 'run'
    shutil.copytree(uninterrupted, folder)
    (folder / 'result.json').unlink()
    newest = max((p for p in (folder / 'checkpoints').iterdir()), key=lambda p: int(p.name))
    for path in (newest / 'state').rglob('*'):
        if path.is_file():
            path.write_bytes(b'not a checkpoint')
    _, err = train(*COMMAND, f'--workdir={folder}', status=2)
    assert str(newest) in err
    assert err.count('\n') == 1
    shutil.rmtree(newest)
    train(*COMMAND, f'--workdir={folder}')
    assert_same(folder, uninterrupted)


def test_the_latest_and_the_best_checkpoint_are_kept(uninterrupted):
    result, lines = outcome(uninterrupted)
    best = max(lines, key=lambda line: (line['validation_accuracy'], line['step']))
    assert result['best_step'] == best['step']
    saved = {int(p.name) for p in (uninterrupted / 'checkpoints').iterdir()}
    assert saved == {best['step'], *(line['step'] for line in lines[-2:])}


def test_a_signal_at_any_moment_loses_no_metrics(tiny_config, tmp_path, monkeypatch):
    """The signal comes between two looks at it: within the third pass of the loop."""

    class Late:
        looks = 0

        def __enter__(self):
            return self

        def __exit__(self, *exception):
            pass

        @property
        def received(self):
            self.looks += 1
            return self.looks >= 4

    config = tiny_config(epochs=1.0)
    train_and_evaluate(config, tmp_path / 'whole', quiet=True)
    with monkeypatch.context() as patched:
        patched.setattr(training.loop, 'Interruption', Late)
        stopped = train_and_evaluate(config, tmp_path / 'stopped', quiet=True)
    assert (stopped['status'], stopped['last_step']) == ('interrupted', 3)
    train_and_evaluate(config, tmp_path / 'stopped', quiet=True)
    assert outcome(tmp_path / 'stopped') == outcome(tmp_path / 'whole')


def test_a_kill_while_the_result_is_written_loses_nothing(tmp_path, uninterrupted):
    folder = tmp_path / 'run'
    shutil.copytree(uninterrupted, folder)
    (folder / 'result.json').unlink()
    train(*COMMAND, f'--workdir={folder}', tensorboard=True)
    assert_same(folder, uninterrupted)
    events = EventAccumulator(str(folder), size_guidance={'tensors': 0}).Reload()
    assert len(events.Tensors('train/loss')) == len(outcome(folder)[1])
    assert len(events.Tensors('confusion_matrix/validation')) == 1


@pytest.mark.parametrize('last_line', ['Leadline', 'head/logits'])
def test_sigterm_before_training_says_so(tmp_path, last_line):
    process = start(*COMMAND, f'--workdir={tmp_path}', JAX_ENABLE_COMPILATION_CACHE='false')
    # Behind the headline data and net come next, behind the table of the net XLA compiles.
    while not process.stdout.readline().startswith(last_line):
        pass
    time.sleep(0.0 if last_line == 'Leadline' else 2.0)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.startswith('train.py: Interrupted')
    assert err.count('\n') == 1


def test_a_signal_that_comes_while_python_clears_an_object_away_is_heard():
    script = """
import signal, weakref, command_line
class Thing: pass
def main():
    thing = Thing()
    watch = weakref.ref(thing, lambda _: signal.raise_signal(signal.SIGTERM))
    del thing
    return 0
command_line.run(main, '', takes='data')
"""
    ended = subprocess.run([sys.executable, '-c', script], cwd=ROOT, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (130, '-c: Interrupted.\n')


def test_a_full_disk_ends_without_a_traceback_and_loses_nothing(tmp_path):
    disk = tmp_path / 'disk'
    disk.mkdir()
    mount = subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', str(disk)])
    if mount.returncode:
        pytest.skip('mounting a small disk needs root')
    try:
        _, err = train(*COMMAND, f'--workdir={disk}/run', status=1, tensorboard=True)
        # TensorFlow may log its own words about the disk first.
        assert err.splitlines()[-1].startswith('train.py: No space left on device'), err
        assert 'Traceback' not in err
        subprocess.run(['mount', '-o', 'remount,size=50m', str(disk)], check=True)
        train(*COMMAND, f'--workdir={disk}/run')
    finally:
        subprocess.run(['umount', str(disk)], check=True)


def test_two_runs_do_not_share_a_run_folder(tmp_path, tiny_config):
    config = tiny_config()
    with RunFolder(tmp_path).claim(config):
        with pytest.raises(BusyError, match='Another process is training in'):
            train_and_evaluate(config, tmp_path, quiet=True)
        assert [path.name for path in tmp_path.iterdir()] == ['.lock']
