"""Sweep files: the ready ones are right, and mistakes in others get one line each."""

import importlib
import pathlib

import pytest
from conftest import train_each

from configs import dense_small, plain_small
from configs.sweeps import default
from configs.sweeps.factors import choice, grid_size, integer, log_uniform, uniform
from errors import UserError

FOLDER = pathlib.Path(default.__file__).parent
READY = sorted({p.stem for p in FOLDER.glob('*.py')} - {'__init__', 'default', 'factors',
                                                        'objectives'})  # fmt: skip
WIDTH = choice('model.width', 8, 16)
RATE = log_uniform('optimizer.learning_rate', 0.01, 1)


def sweep(*space, **changes):
    return default.get_config(plain_small.get_config(), space, **changes)


@pytest.mark.parametrize('dataset', ['digits', 'fashion_mnist', 'folder:photos', 'npz:a.npz'])
@pytest.mark.parametrize('name', READY)
def test_ready_sweeps_are_valid(name, dataset):
    config = importlib.import_module(f'configs.sweeps.{name}').get_config(dataset)
    default.validate(config)
    assert config.is_locked
    points = grid_size(config.space)
    assert points is None or 2 <= points <= 20


def test_the_depth_sweep_asks_about_stages_and_convolutions():
    config = importlib.import_module('configs.sweeps.depth').get_config()
    [factor] = config.space
    assert factor.name == 'model.stage_sizes'
    assert {(1,), (1, 1, 1, 1), (2,), (2, 2, 2, 2)} <= {*factor.choices}


def test_conditions_and_ranges_of_all_kinds_are_valid():
    config = sweep(
        choice('optimizer.name', 'sgd', 'adamw'),
        choice('model.pooling', 'max', 'stride', when={'optimizer.name': 'adamw'}),
        log_uniform('ema_decay', 0.9, 0.999, when={'model.pooling': ['max', 'stride']}),
        integer('model.width', 8, 64, log=True),
        uniform('model.dropout', 0, 0.5, when={'model.width': 8}),
        sampler='tpe', pruner='wilcoxon', replicates=5, **{'budget.hours': 0.5},
    )  # fmt: skip
    default.validate(config)
    # Whole numbers come to an end without a budget.
    default.validate(sweep(integer('model.width', 8, 64), sampler='random'))


def test_replicates_of_a_series_share_its_splits():
    base = dense_small.get_config('series:rows.csv')
    space = [choice('model.hidden_units', (), (8,))]
    default.validate(default.get_config(base, space))
    with pytest.raises(UserError, match=r'whose splits follow time.*vary_splits=false'):
        default.validate(default.get_config(base, space, vary_splits=True))


BAD_SPACES = [
    ([], 'config.space must hold what is varied'),
    (['model.width'], 'config.space must hold what is varied'),
    ([choice('model.widht', 8)], "model.widht is no field of the base. Did you mean 'model.width'"),
    ([choice('base.model.width', 8)], "Did you mean 'model.width'"),
    ([choice('model.skip', True)], 'It belongs to the family residual'),
    ([WIDTH, WIDTH], 'model.width is there twice'),
    ([choice('model.width', 8, 0)], 'has the value 0: config.model.width must be at least 1'),
    ([choice('model.width', 8, 8.5)], 'has the value 8.5: config.model.width must be of type int'),
    ([choice('model.width', 8, 8)], 'has the value 8 twice'),
    ([choice('model.width')], 'a choice at least one value'),
    ([choice('model.stage_sizes', [1, 1])], 'has the list [1, 1]: write a tuple'),
    ([choice('model.activation', 'relo')], 'must be one of relu'),
    ([choice('augment', 'photo')], "'photo' is no preset"),
    ([choice('dataset.channels', 2)], 'must be 0, 1 or 3'),
    ([uniform('label_smoothing', 0, 1)], 'has the value 1.0: config.label_smoothing must be below'),
    ([uniform('model.dropout', 0.5, 0.1)], 'a range must have low < high'),
    ([log_uniform('model.dropout', 0, 0.5)], 'begin above 0'),
    ([choice('model.width', 8, when={'model.pooling': 'max'})], 'is no factor before it'),
    ([WIDTH, choice('model.norm', 'none', when={'model.width': 9})], 'model.width=9, which never'),
    ([choice('seed', 1, 2)], 'set config.replicates'),
    ([choice('dataset.repeat', 1, 2)], 'config.vary_splits=false'),
    ([choice('dataset.split_seed', 1, 2)], 'the test images of some points would train'),
    ([choice('model.family', 'plain')], 'make a sweep for each'),
    ([choice('evaluate_test', False)], 'sets it for all runs'),
    ([RATE], 'config.sampler=grid needs values, and optimizer.learning_rate is a range'),
]  # fmt: skip
BAD_FIELDS = [
    ({'sampler': 'tep'}, 'config.sampler must be one of grid'),
    ({'replicates': 0}, 'config.replicates must be at least 1'),
    ({'objective': 'validation_acuracy'}, "Did you mean 'validation_accuracy'"),
    ({'objective': 'flops,flops'}, 'names flops twice'),
    ({'objective': 'validation_loss, flops', 'pruner': 'median'}, 'compares one figure'),
    ({'objective': 'flops', 'pruner': 'hyperband'}, 'flops is known before'),
    ({'pruner': 'wilcoxon', 'replicates': 4}, 'needs config.replicates=5 or more'),
    ({'sampler': 'random', 'budget.runs': 0}, 'would never end'),
    ({'base.epochs': 0.0}, 'The base of the sweep: config.epochs must be above 0'),
]


@pytest.mark.parametrize(('space', 'text'), BAD_SPACES)
def test_one_line_names_the_mistake_in_a_space(space, text):
    check(sweep(*space, sampler='grid'), text)


@pytest.mark.parametrize(('changes', 'text'), BAD_FIELDS)
def test_one_line_names_the_mistake_in_a_field(changes, text):
    check(sweep(RATE, **{'sampler': 'random', 'budget.runs': 9} | changes), text)


def test_gaussian_processes_need_torch(monkeypatch):
    monkeypatch.setattr(default.importlib.util, 'find_spec', lambda name: None)
    check(sweep(WIDTH, sampler='gp'), 'pip install torch')


def test_a_config_built_by_hand_is_checked_too():
    config = sweep(WIDTH).unlock()
    config.replicatse = 3
    check(config, "config.replicatse is no field of this config. Did you mean 'replicates'")
    del config['replicatse'], config['space']
    check(config, 'config.space is missing')


def check(config, text):
    with pytest.raises(UserError) as error:
        default.validate(config)
    assert text in str(error.value)
    assert '\n' not in str(error.value)


DEPTH = '--config=configs/sweeps/depth.py'
# A command that takes sweeps, or shows one without --config.
COMMAND = """
from absl import flags
from ml_collections import config_flags
import command_line
from configs.sweeps import default

CONFIG = config_flags.DEFINE_config_file('config', None, 'Sweep file and data set.')
flags.DEFINE_string('show', None, 'Study to show.')

def main():
    if CONFIG.value is not None:
        default.validate(CONFIG.value)
        print(CONFIG.value.base.epochs, CONFIG.value.replicates, CONFIG.value.base.dataset.name)
    return 0

command_line.run(main, 'Tries sweeps.', 'sweep', ['show'])
"""
COMMANDS = [
    ([], 2, '--config is missing: try --config=configs/sweeps/depth.py'),
    (['--show=study'], 0, ''),
    (['--show=study', '--config.replicates=5'], 2, 'config.replicates is set, but --config is'),
    ([f'{DEPTH}:mnist', '--config.base.epochs=2', '--config.replicates=5'], 0, '2.0 5 tfds:mnist'),
    ([DEPTH, '--config.replicates=five'], 2, "config.replicates must be of type int; it is 'five'"),
    ([DEPTH, '--config.base.modle.width=8'], 2, "Did you mean 'base.model.width'"),
    ([DEPTH, '--config.model.width=8'], 2, "Did you mean 'base.model.width'"),
    ([DEPTH, '--config.base.model.skip=true'], 2, 'It belongs to the family residual'),
    ([DEPTH, '--config.budget=3'], 2, 'budget.epochs, budget.hours, budget.runs'),
    ([DEPTH, '--config.space=3'], 2, 'write a sweep file'),
    ([DEPTH, '--config.base.epochs=0'], 2, 'The base of the sweep: config.epochs must be above'),
    (['--config=configs/sweeps/dept.py'], 2, 'configs/sweeps/width.py.'),
    (['--config=configs/plain_small.py:mnist'], 2, 'is the config of one run'),
    (['--help'], 0, '  replicates = 3: Runs of each point'),
]  # fmt: skip


@pytest.fixture(scope='module')
def answers(tmp_path_factory):
    """Returns what the command answers: (status, stdout, stderr)."""
    folder = tmp_path_factory.mktemp('answers')
    (folder / 'command.py').write_text(COMMAND)
    arguments = [command for command, _, _ in COMMANDS]
    return train_each(arguments, command=folder / 'command.py')


@pytest.mark.parametrize('number', range(len(COMMANDS)))
def test_the_command_line_takes_sweeps(answers, number):
    _, expected, text = COMMANDS[number]
    status, out, err = answers[number]
    assert status == expected, err
    assert text in (err if expected else out)
    assert err.count('\n') == (1 if expected else 0), err


def test_help_lists_the_ready_sweeps(answers):
    out = answers[len(COMMANDS) - 1][1]
    assert all(f'configs/sweeps/{name}.py: ' in out for name in READY)
    assert 'default.py' not in out
