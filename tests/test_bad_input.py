"""Mistakes of users: one line that names the thing and the remedy, a status, no traceback."""

import pytest
from conftest import train, train_each

from configs import default, resnet_small
from errors import UserError

GOOD = '--config=configs/resnet_small.py'

COMMANDS = [
    ([], '--config is missing'),
    (['--config=configs/resnet_smal.py'], "Did you mean 'configs/resnet_small.py'"),
    ([f'{GOOD}:fashion_minst'], "Did you mean 'fashion_mnist'"),
    ([f'{GOOD}:'], 'No data set after the colon'),
    ([GOOD, '--config.modle.width=8'], "Did you mean 'model.width'"),
    ([GOOD, '--config.model.widht=8'], "Did you mean 'model.width'"),
    ([GOOD, '--config.optimizer=sgd'], 'config.optimizer is a group'),
    ([GOOD, '--config.batch_size=many'], "config.batch_size must be of type int; it is 'many'"),
    ([GOOD, '--config.batch_size=1.5'], "config.batch_size must be of type int; it is '1.5'"),
    ([GOOD, '--config.model.stage_sizes=(1,0)'], '(1, 0) has a stage without blocks'),
    ([GOOD, '--config.model.skip=perhaps'], "config.model.skip must be of type bool"),
    ([GOOD, '--config.batch_size=0'], 'config.batch_size must be at least 1; it is 0'),
    ([GOOD, '--config.optimizer.learning_rate=nan'], 'must be a finite number'),
    ([GOOD, '--config.model.activation=relo'], 'must be one of relu,'),
    ([GOOD, '--config.model.family=plain'], 'config.model.'),
    ([GOOD, '--config.dtype=float64'], 'JAX_ENABLE_X64=1'),
    ([GOOD, '--config.=3'], 'config. is no field'),
    ([f'{GOOD}:tfds:mnist:9.9.9'], 'cannot be loaded at version 9.9.9'),
    ([f'{GOOD}:digits:x'], 'digits takes nothing after its colon'),
    ([GOOD, '--config.seed=99999999999'], 'config.seed must be at most'),
    ([GOOD, '--workdri=x'], "Did you mean 'workdir'"),
    ([GOOD, 'fashion_mnist'], "Unexpected argument 'fashion_mnist'"),
    ([GOOD, '--workdir=/proc/leadline'], 'Cannot make the run folder /proc'),
    ([GOOD, '--workdir=LICENSE'], 'Cannot make the run folder LICENSE (File exists)'),
    ([GOOD, '--json=figures.json'], '--json is for --describe'),
    ([GOOD, '--describe', '--json=/nowhere/figures.json'], 'there is no folder /nowhere'),
    ([GOOD, '--describe', '--config.debug_nans'], 'leave out --config.debug_nans'),
    ([GOOD, '--config.init.freeze=stage9'],
     "config.init.freeze names 'stage9'; the parts of this net"),
    ([GOOD, '--config.init.freeze=body,head'], 'leaves nothing to train'),
    ([GOOD, '--config.init.weights=nowhere.pth'], 'there is no file nowhere.pth'),
    ([GOOD, '--config.init.weights=hub:resnet'], 'write hub:OWNER/NAME'),
    ([GOOD, '--config.init.grow_from=nowhere'], 'grow_from: There is no run folder nowhere'),
]  # fmt: skip


# In a config file that begins with the data set's config.
FILES = [
    ('config.modle.width = 3', 'line 4: AttributeError'),
    ('config.batch_size = "many"', 'line 4: TypeError'),
    ('config = default.get_config(dataset, "plian")', "Did you mean 'plain'"),
    ('syntax error', 'SyntaxError'),
]


@pytest.fixture(scope='module')
def answers(tmp_path_factory):
    """Returns what the commands answer: (status, stdout, stderr)."""
    folder = tmp_path_factory.mktemp('answers')
    commands = [list(arguments) for arguments, _ in COMMANDS]
    for number, (text, _) in enumerate(FILES):
        file = folder / f'mine{number}.py'
        file.write_text(
            'from configs import default\ndef get_config(dataset="digits"):\n'
            f'    config = default.get_config(dataset)\n    {text}\n    return config\n'
        )
        commands.append([f'--config={file}'])
    for command in commands:
        if not any('--workdir=' in argument for argument in command):
            command.append(f'--workdir={folder / "run"}')
    yield train_each(commands)
    assert not (folder / 'run').exists()


@pytest.mark.parametrize('number', range(len(COMMANDS) + len(FILES)))
def test_one_line_names_the_mistake(answers, number):
    status, out, err = answers[number]
    assert (COMMANDS + FILES)[number][1] in err
    assert status == 2
    assert err.startswith('train.py: ')
    assert err.count('\n') == 1, err
    assert 'Traceback' not in out + err


def test_a_batch_that_does_not_divide_the_devices_gets_the_nearest_sizes(tmp_path):
    _, err = train(GOOD, '--config.batch_size=12', f'--workdir={tmp_path}', devices=8, status=2)
    assert 'does not divide over 8 devices; the nearest sizes are 8 and 16' in err


def test_a_config_built_by_hand_is_checked_too(tmp_path):
    from training.loop import train_and_evaluate

    config = resnet_small.get_config().unlock()
    config.optimizer.learning_rat = 0.1
    with pytest.raises(UserError, match=r'learning_rat is no field.*learning_rate'):
        train_and_evaluate(config, tmp_path / 'run')
    del config.optimizer.learning_rat
    del config.batch_size
    with pytest.raises(UserError, match='batch_size is missing'):
        default.validate(config)


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / 'thesis.txt').write_text('years of work')
    _, err = train(GOOD, f'--workdir={tmp_path}', status=2)
    assert 'not of a run of Leadline' in err
    assert [p.name for p in tmp_path.iterdir() if p.name != '.lock'] == ['thesis.txt']
