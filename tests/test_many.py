"""Many runs in one process are the runs that single commands give."""

import json
import os
import signal
import time

import filelock
import numpy as np
import pytest
from conftest import TINY, finish, python
from test_resume import assert_same, lines_written, outcome

from errors import UserError
from training import many
from training.follower import Follower
from training.interruption import Interruption
from training.loop import train_and_evaluate
from training.many import train_many

# What may differ: seed, split, learning rate, weight decay, length.
RUNS = [
    {},
    {'seed': 1, 'optimizer.learning_rate': 0.03, 'optimizer.schedule': 'constant'},
    {'dataset.folds': 3, 'dataset.fold': 2, 'optimizer.weight_decay': 0.01},
    {'dataset.subset': 0.5, 'dataset.split_seed': 1, 'epochs': 5.0},
]
# Long enough for a signal to come in time.
# A batch that two devices cannot divide: one on each does not need it.
LONG = TINY | {'epochs': 6.0, 'evaluate_every_epochs': 0.5, 'batch_size': 127}
DENSE = {'model.hidden_units': (16,), 'epochs': 3.0, 'evaluate_every_epochs': 0.5}

# Two threads with a device each, in a process of its own: the first argument is the way, the
# others are folders.
SCRIPT = f"""
import sys
from absl import logging
from configs import default
from training import compilation_cache
from training.many import train_many
logging.set_verbosity(logging.FATAL)
compilation_cache.enable()
family, fields, how, *folders = sys.argv[1:]
configs = []
for run in {RUNS!r}[: len(folders)]:
    config = default.get_config('digits', family)
    config.update_from_flattened_dict(eval(fields) | run)
    configs.append(config)
done = train_many(configs, folders, how=eval(how))
print([run and run['status'] for run in done.results], done.how, done.step_seconds)
"""


def start_on_two_devices(family, fields, how, folders):
    return python('-c', SCRIPT, family, repr(fields), repr(how), *folders, devices=2)


@pytest.fixture(scope='module')
def config_of():
    from configs import default

    def make(fields, family='residual'):
        config = default.get_config('digits', family)
        config.update_from_flattened_dict(fields)
        return config

    return make


@pytest.fixture(scope='module')
def singles(tmp_path_factory, config_of):
    """The runs, each as a command of its own would train it."""
    folder = tmp_path_factory.mktemp('singles')
    for i, run in enumerate(RUNS):
        train_and_evaluate(config_of(LONG | run), folder / str(i), quiet=True)
    return folder


def test_one_after_another_they_are_the_same_bits(tmp_path, singles, config_of, capsys):
    configs = [config_of(LONG | run) for run in RUNS]
    done = train_many(configs, [tmp_path / str(i) for i in range(4)])
    out = capsys.readouterr().out
    assert out.startswith('Leadline  4 runs of digits on 1 cpu device')
    assert '\nRuns      one after another\n' in out
    assert (done.how, done.step_seconds) == ('sequential', {})
    for i, result in enumerate(done.results):
        assert result == json.loads((tmp_path / str(i) / 'result.json').read_text())
        assert_same(tmp_path / str(i), singles / str(i))
        # A program is compiled once.
        assert i == 0 or result['seconds']['compile'] < 0.2
    files = {path.name for path in (tmp_path / '1').iterdir()}
    assert {n for n in files if 'tfevents' not in n} == {
        path.name for path in (singles / '1').iterdir() if 'tfevents' not in path.name
    }
    again = train_many(configs, [tmp_path / str(i) for i in range(4)])
    assert again.results == done.results


def test_one_per_device_stopped_and_gone_on_with_they_are_the_same_bits(tmp_path, singles):
    folders = [tmp_path / str(i) for i in range(4)]
    process = start_on_two_devices('residual', LONG, 'one_per_device', folders)
    while not any(lines_written(folder) for folder in folders):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    out, _ = finish(process)
    assert 'The same call goes on' in out, out
    assert 'None' in out  # Was not begun.
    # Nobody says how, and nothing is measured: it goes on as it began.
    out, _ = finish(start_on_two_devices('residual', LONG, None, folders))
    assert "['finished', 'finished', 'finished', 'finished'] one_per_device {}" in out
    for i, folder in enumerate(folders):
        assert_same(folder, singles / str(i))


def test_on_two_devices_it_measures_and_says_what_it_chose(tmp_path):
    folders = [tmp_path / str(i) for i in range(2)]
    out, _ = finish(start_on_two_devices('dense', DENSE, None, folders))
    assert 'measured in' in out.splitlines()[1]
    how, measured = out.splitlines()[-1].split('] ')[1].split(' ', 1)
    seconds = json.loads(measured.replace("'", '"'))
    assert seconds.keys() == {'sequential', 'one_per_device'}
    assert how == min(seconds, key=seconds.get)


def test_together_they_agree_up_to_rounding_and_harm_nobody(tmp_path, config_of):
    """One diverges and one is longer, while the others go on."""
    runs = [{}, {'optimizer.learning_rate': 1e35}, {'seed': 3, 'epochs': 5.0}]
    configs = [config_of(DENSE | run, 'dense') for run in runs]
    done = train_many(configs, [tmp_path / str(i) for i in range(3)], how='vmapped')
    assert [r['status'] for r in done.results] == ['finished', 'diverged', 'finished']
    for i in (0, 2):
        train_and_evaluate(configs[i], tmp_path / f'single{i}', quiet=True)
        lines, expected = (outcome(tmp_path / name)[1] for name in (str(i), f'single{i}'))
        assert len(lines) == len(expected) > 5
        for ours, theirs in zip(lines, expected, strict=True):
            for norms in ('gradient_norms', 'weight_norms'):
                assert ours.pop(norms) == pytest.approx(theirs.pop(norms), rel=1e-3)
            assert ours == pytest.approx(theirs, rel=1e-3)
        ours, theirs = (np.load(tmp_path / n / 'predictions.npz') for n in (str(i), f'single{i}'))
        np.testing.assert_allclose(ours['test_logits'], theirs['test_logits'], atol=1e-3)


def test_a_second_ctrl_c_waits_until_what_trains_is_saved(tmp_path, config_of, monkeypatch):
    held = []

    def slow(config, folder, *_):
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1.0)  # On a busy machine two at once would count as one.
        with pytest.raises(filelock.Timeout):
            filelock.FileLock(folder.path / '.lock').acquire(timeout=0)
        held.append(folder.path)
        return {'status': 'interrupted', 'diverged_step': None, 'last_step': 1,
                'validation': {'examples': None}}  # fmt: skip

    monkeypatch.setattr(many, 'train', slow)
    # What runs in the background of a shell is told to ignore it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.raises(KeyboardInterrupt):
        train_many([config_of(TINY)], [tmp_path / 'run'], quiet=True)
    signal.signal(signal.SIGINT, before)
    assert held == [tmp_path / 'run']


def test_runs_that_cannot_share_are_refused(tmp_path, config_of):
    def refused(match, configs, folders):
        with pytest.raises(UserError, match=match):
            train_many(configs, folders, quiet=True)
        assert not any(tmp_path.iterdir())

    tiny, wide = config_of(TINY), config_of(TINY | {'model.width': 16})
    refused(r'config.model.width: it is 8 in the first and 16 in', [tiny, wide], ['a', 'b'])
    refused('Two runs have the run folder', [tiny, tiny], [tmp_path / 'a', tmp_path / '.' / 'a'])
    refused('give one folder for each', [tiny, tiny], ['a'])


def test_an_error_in_one_run_keeps_no_other_from_training(tmp_path, config_of):
    """The second run of three has a damaged checkpoint."""
    configs = [config_of(DENSE | {'seed': seed}, 'dense') for seed in range(3)]
    folders = [tmp_path / str(i) for i in range(3)]
    train_and_evaluate(configs[1], folders[1], quiet=True)
    (folders[1] / 'result.json').unlink()
    for path in folders[1].glob('checkpoints/*/state/**/*'):
        if path.is_file():
            path.write_bytes(b'not a checkpoint')
    with pytest.raises(UserError, match='cannot be read'):
        train_many(configs, folders, quiet=True)
    assert all((folders[i] / 'result.json').exists() for i in (0, 2))


class Stopper(Follower):
    """Stops the run after some steps, and remembers what it heard."""

    def __init__(self, at):
        self.at, self.steps, self.lines = at, [], []

    def stepped(self, step):
        self.steps.append(step)
        return step == self.at

    def evaluated(self, line):
        self.lines.append(line['step'])


def test_a_run_that_is_followed_and_has_few_checkpoints_is_the_same(tmp_path, singles, config_of):
    config = config_of(LONG | {'checkpoint_seconds': 1000.0, 'evaluate_test': False})
    first, second = Stopper(20), Stopper(None)
    done = train_many([config], [tmp_path], quiet=True, follow=lambda run: first)
    assert done.results[0]['status'] == 'interrupted'
    assert first.steps == list(range(1, 21))
    assert [int(p.name) for p in tmp_path.glob('checkpoints/*')] == [20]
    (result,) = train_many([config], [tmp_path], quiet=True, follow=lambda run: second).results
    assert second.steps[0] == 21
    lines, expected = outcome(tmp_path)[1], outcome(singles / '0')[1]
    assert lines == expected
    assert second.lines == [line['step'] for line in expected]  # Those of before come first.
    assert sorted(int(p.name) for p in tmp_path.glob('checkpoints/*')) == [20, result['last_step']]
    assert result['test'] == dict.fromkeys(result['test'])
    assert 'test_logits' not in np.load(tmp_path / 'predictions.npz')


def test_what_breaks_one_call_stops_no_other(tmp_path, config_of, monkeypatch):
    """A worker of a sweep gives all its calls the same signals."""

    def broken(*_):
        raise RuntimeError('of the device')

    signals = Interruption()
    with monkeypatch.context() as patch:
        patch.setattr(many, 'train', broken)
        with pytest.raises(RuntimeError, match='of the device'):
            train_many([config_of(TINY)], [tmp_path / 'a'], quiet=True, signals=signals)
    assert not signals.received
    signals.received = True
    done = train_many([config_of(TINY)], [tmp_path / 'b'], quiet=True, signals=signals)
    assert done.results == [None]
