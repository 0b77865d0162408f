"""A run that is killed or stopped goes on exactly where it was."""

import json
import random
import signal
import time

import jax
import numpy as np
import pytest
from conftest import start, train
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from training.checkpoint import Checkpoints

# Everything that has a state: dropout, augmentation, moving average, batch norm, momentum.
COMMAND = (
    '--config=configs/resnet_small.py',
    '--config.epochs=6',
    '--config.model.width=8',
    '--config.model.dropout=0.1',
    '--config.ema_decay=0.9',
    '--config.evaluate_every_epochs=0.5',
)
TIMINGS = ('seconds',)


def parameters(folder):
    """Returns every array of the last checkpoint, as saved."""
    import orbax.checkpoint as ocp

    manager = ocp.CheckpointManager(folder / 'checkpoints')
    step = manager.latest_step()
    restored = manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore()))
    return [np.asarray(leaf) for leaf in jax.tree.leaves(restored['state'])]


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
    moments = random.Random(time.time_ns())
    for least in (2, 6):
        process = start(*COMMAND, f'--workdir={tmp_path}')
        wait_for(tmp_path, least, process)
        time.sleep(moments.uniform(0.0, 0.4))  # Anywhere between evaluations, or in a save.
        process.kill()
        process.communicate()
        assert not (tmp_path / 'result.json').exists()
    out, _ = train(*COMMAND, f'--workdir={tmp_path}')
    assert 'Going on from step' in out
    assert_same(tmp_path, uninterrupted)
    events = EventAccumulator(str(tmp_path), size_guidance={'tensors': 0}).Reload()
    steps = [event.step for event in events.Tensors('train/loss')]
    _, lines = outcome(tmp_path)
    assert steps == [line['step'] for line in lines]
    assert len(events.Tensors('config')) == 1


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_says_how_to_go_on(tmp_path, uninterrupted, number):
    process = start(*COMMAND, f'--workdir={tmp_path}')
    wait_for(tmp_path, 3, process)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, out + err
    assert 'The same command goes on from there.' in out
    assert json.loads((tmp_path / 'result.json').read_text())['status'] == 'interrupted'
    train(*COMMAND, f'--workdir={tmp_path}')
    assert_same(tmp_path, uninterrupted)


def test_a_damaged_checkpoint_is_named(tmp_path, uninterrupted):
    import shutil

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
    checkpoints = Checkpoints(uninterrupted / 'checkpoints')
    result, lines = outcome(uninterrupted)
    best = max(lines, key=lambda line: (line['validation_accuracy'], line['step']))
    assert checkpoints.best_step == result['best_step'] == best['step']
    assert checkpoints.latest_step == result['last_step'] == lines[-1]['step']
    checkpoints.close()


def test_two_processes_do_not_share_a_run_folder(tmp_path):
    process = start(*COMMAND, f'--workdir={tmp_path}')
    wait_for(tmp_path, 1, process)
    _, err = train(*COMMAND, f'--workdir={tmp_path}', status=2)
    assert 'Another process is training' in err
    process.kill()
    process.communicate()
