"""The command as users run it: what it prints, what it leaves in the run folder."""

import json

import numpy as np
import pytest
from conftest import ROOT, TINY, flags, train
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tensor_util

from configs import default
from training import run_folder
from training.writers import TensorBoard

RESULT_KEYS = {
    'status', 'test', 'validation', 'best_step', 'last_step', 'parameters', 'flops_per_example',
    'seconds', 'config_hash', 'dataset', 'versions', 'device', 'git_revision',
}  # fmt: skip


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """One whole run of the README's command on digits, shortened to 8 epochs."""
    folder = tmp_path_factory.mktemp('runs') / 'first'
    command = '--config=configs/resnet_small.py', f'--workdir={folder}', '--config.epochs=8'
    out, err = train(*command, tensorboard=True)
    return folder, out, err


def test_it_learns_and_reports(run):
    folder, out, err = run
    result = json.loads((folder / 'result.json').read_text())
    assert result.keys() >= RESULT_KEYS
    assert result['status'] == 'finished'
    assert result['test'].keys() >= {
        'examples', 'loss', 'accuracy', 'balanced_accuracy', 'macro_f1', 'recall',
    }  # fmt: skip
    assert (result['test']['examples'], result['validation']['examples']) == (359, 360)
    assert result['test']['accuracy'] > 0.95
    assert result['parameters'] == 77_754
    assert result['last_step'] == 135
    assert 0 < result['seconds']['first_step'] < result['seconds']['total']
    assert err == ''
    assert f'{100 * result["test"]["accuracy"]:.2f} %' in out


def test_output_without_a_terminal_is_plain(run):
    _, out, _ = run
    assert out.startswith('Leadline  digits on 1 cpu device')
    assert '\x1b' not in out
    assert '\r' not in out
    for word in ('1,797 images', 'receptive field', 'stage2/block1/conv1', 'ETA', 'tensorboard'):
        assert word in out


def test_metrics_lines_hold_the_contract(run):
    folder, _, _ = run
    lines = [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]
    keys = {
        'step', 'epoch', 'train_loss', 'train_accuracy', 'validation_loss',
        'validation_accuracy', 'learning_rate', 'images_per_second',
    }  # fmt: skip
    assert all(line.keys() >= keys for line in lines)
    assert [line['step'] for line in lines] == [17, 34, 51, 68, 85, 102, 119, 135]
    assert lines[-1]['train_loss'] < lines[0]['train_loss']


def test_predictions_and_splits_agree_with_the_result(run):
    folder, _, _ = run
    result = json.loads((folder / 'result.json').read_text())
    splits = json.loads((folder / 'splits.json').read_text())
    predictions = np.load(folder / 'predictions.npz')
    for split in ('validation', 'test'):
        assert predictions[f'{split}_hash'].tolist() == splits[split]
        right = predictions[f'{split}_logits'].argmax(-1) == predictions[f'{split}_label']
        assert right.mean() == result[split]['accuracy']
    assert len(splits['train']) == 1078
    # Two of the 1,797 digits could be equal to the pixel; none are.
    assert not set(splits['train']) & set(splits['test'] + splits['validation'])


def test_tensorboard_reads_scalars_hparams_images_and_text(run):
    folder, _, _ = run
    events = EventAccumulator(str(folder), size_guidance={'tensors': 0, 'scalars': 0, 'images': 0})
    events.Reload()
    plugins = {
        tag: events.SummaryMetadata(tag).plugin_data.plugin_name for tag in events.Tags()['tensors']
    }
    scalars = {tag for tag, plugin in plugins.items() if plugin == 'scalars'}
    assert scalars >= {'train/loss', 'train/accuracy', 'validation/loss', 'validation/accuracy',
                       'learning_rate', 'gradient_norm', 'images_per_second',
                       'gradient_norms/stem', 'weight_norms/head'}  # fmt: skip
    images = {tag for tag, plugin in plugins.items() if plugin == 'images'}
    assert images == {
        'training_images', 'confusion_matrix/validation', 'mistakes/validation'
    }  # fmt: skip
    drawn = [event.step for event in events.Tensors('confusion_matrix/validation')]
    assert drawn == [17, 34, 68, 135]  # After the 1st, 2nd, 4th and last evaluation.
    texts = {tag for tag, plugin in plugins.items() if plugin == 'text'}
    assert texts == {'config', 'model'}
    assert '_hparams_/session_start_info' in events.summary_metadata
    lines = [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]
    written = {
        event.step: float(tensor_util.make_ndarray(event.tensor_proto))
        for event in events.Tensors('validation/accuracy')
    }
    assert written == pytest.approx({ln['step']: ln['validation_accuracy'] for ln in lines})


def test_a_finished_run_shows_its_result(run):
    folder, _, _ = run
    before = (folder / 'result.json').read_bytes()
    out, _ = train(
        '--config=configs/resnet_small.py', f'--workdir={folder}', '--config.epochs=8', '--quiet'
    )
    assert 'This run has ended before' in out
    accuracy = json.loads(before)['test']['accuracy']
    assert f'{100 * accuracy:.2f} %' in out
    assert (folder / 'result.json').read_bytes() == before


def test_a_run_folder_of_another_config_is_refused(run):
    folder, _, _ = run
    _, err = train(
        '--config=configs/resnet_small.py',
        f'--workdir={folder}',
        '--config.epochs=8',
        '--config.model.width=8',
        '--config.seed=3',
        status=2,
    )
    assert 'model.width (16 there)' in err
    assert 'seed (0 there)' in err
    assert 'epochs' not in err


def test_the_default_folder_follows_the_command():
    def name(config, **overrides):
        return str(run_folder.default_workdir(config, overrides))

    assert name('configs/resnet_small.py') == 'runs/resnet_small-digits'
    assert name('configs/plain_small.py:mnist', seed=1) == 'runs/plain_small-mnist-seed=1'
    odd = name('configs/plain_small.py:tfds:a/b', **{'model.stage_sizes': (1, 2)})
    assert odd.startswith('runs/plain_small-tfds_a_b-model.stage_sizes=_1_2_-')
    assert odd != name('configs/plain_small.py:tfds:a b', **{'model.stage_sizes': (1, 2)})
    assert len(name('c.py', **{'dataset.data_dir': 'x' * 500})) < 140


@pytest.mark.parametrize('parallel', ['shard_map', 'pmap'])
def test_it_runs_on_eight_devices_and_without_tensorflow(tmp_path, parallel):
    out, err = train(
        '--config=configs/plain_small.py',
        f'--workdir={tmp_path}',
        f'--config.parallel={parallel}',
        *flags(TINY),
        devices=8,
    )
    assert 'on 8 cpu devices' in out
    assert err == ''
    result = json.loads((tmp_path / 'result.json').read_text())
    assert result['device']['count'] == 8
    assert result['test']['examples'] == 359
    assert 'no tensorflow here: no TensorBoard events' in out
    assert (tmp_path / 'metrics.jsonl').read_text().count('\n') == 3


def test_scaled_config_multiplies_width_and_depth(tmp_path):
    out, _ = train(
        '--config=configs/scaled_small.py',
        f'--workdir={tmp_path}',
        '--config.epochs=0.1',
        '--config.scale.width=0.5',
    )
    assert 'stage3/block2' in out
    assert '8x8x8' in out


def test_help_lists_flags_and_every_field():
    out, _ = train('--help')
    fields = [name for family in ('plain', 'residual') for name in default.described(family)]
    for name in fields:
        assert f'\n  {name} = ' in out
    for name in ('--config:', '--workdir:', '--quiet:'):
        assert f'\n  {name} ' in out


def test_the_readme_commands_exist():
    readme = (ROOT / 'README.md').read_text()
    for command in ('make train', 'make test', 'python train.py --config=configs/resnet_small.py'):
        assert command in readme


def test_a_picture_that_fails_costs_a_note_alone(tmp_path):
    board = TensorBoard(tmp_path)
    board.image(0, 'odd', lambda: np.zeros(1 // 0))
    board.scalars({'step': 1, 'loss': 0.5})
    assert board.close().startswith('the picture odd is missing (integer division')
    assert list(tmp_path.glob('events.out.tfevents.*'))
