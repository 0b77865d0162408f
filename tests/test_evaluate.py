"""A run folder judged again: the same figures at any batch size, files, new data, plain errors."""

import csv
import json
import shutil

import numpy as np
import pytest
from conftest import TINY, start
from PIL import Image
from sklearn.datasets import load_digits

from configs import default
from console import Console
from errors import UserError
from evaluation import metrics, outputs
from evaluation.evaluate import evaluate_run
from evaluation.trained import open_run
from training.loop import train_and_evaluate

NAMES = ['eight', 'one', 'zero']
QUIET = Console(quiet=True)


def digits(folder, begin, end, brighter=0):
    """Writes so many digits of each of three classes, in two folders each."""
    bunch = load_digits()
    for digit, name in ((8, 'eight'), (1, 'one'), (0, 'zero')):
        for i, image in enumerate(bunch.images[bunch.target == digit][begin:end]):
            path = folder / name / ('north' if i % 2 else 'south') / f'{begin + i:03}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((image * 13 + brighter).astype(np.uint8)).save(path)
    return folder


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    return digits(tmp_path_factory.mktemp('data') / 'photos', 0, 120)


@pytest.fixture(scope='module')
def run(tmp_path_factory, photos):
    """A run on the photos; tests copy what they change."""
    folder = tmp_path_factory.mktemp('runs') / 'first'
    config = default.get_config(f'folder:{photos}', 'plain')
    fields = TINY | {'batch_size': 64, 'augment': 'none', 'dataset.image_size': 8, 'epochs': 4.0}
    config.update_from_flattened_dict(fields)
    train_and_evaluate(config, folder, quiet=True)
    return folder


def evaluate(*arguments, devices=1, status=0):
    """Runs `python evaluate.py ...` and returns (stdout, stderr)."""
    process = start(*arguments, command='evaluate.py', devices=devices)
    out, err = process.communicate(timeout=300)
    assert process.returncode == status, f'{out}\n{err}'
    return out, err


def rows(path):
    with path.open(newline='') as file:
        return list(csv.DictReader(file))


def test_the_command_writes_figures_tables_and_pictures(run):
    out, err = evaluate(run)
    assert err == ''
    assert out.startswith(f'Leadline  evaluation of {run} on the validation split of folder:')
    for word in ('balanced accuracy', '95 % interval', 'Lowest recall', 'Calibration error',
                 'ms at batch 1', 'Worst slice', 'Everything is in'):  # fmt: skip
        assert word in out
    folder = run / 'evaluation' / 'validation'
    content = json.loads((folder / 'evaluation.json').read_text())
    result = json.loads((run / 'result.json').read_text())['validation']
    for ours, theirs in (('accuracy', 'accuracy'), ('balanced_accuracy', 'balanced_accuracy'),
                         ('macro_f1', 'macro_f1'), ('log_loss', 'loss')):  # fmt: skip
        assert content['figures'][ours]['value'] == pytest.approx(result[theirs], rel=1e-6)
    assert content['beside_training']['changed_predictions'] == 0
    assert content['beside_training']['largest_difference'] < 1e-5
    predictions = rows(folder / 'predictions.csv')
    assert len(predictions) == content['figures']['examples'] == result['examples']
    right = [row['label'] == row['prediction'] for row in predictions]
    assert np.mean(right) == result['accuracy']
    assert all(row['name'].endswith('.png') for row in predictions)
    wrong = rows(folder / 'mistakes.csv')
    assert len(wrong) == content['mistakes']['count'] == len(right) - sum(right)
    confidence = [float(row['confidence']) for row in wrong]
    assert confidence == sorted(confidence, reverse=True)
    confusion = [[int(row[n]) for n in NAMES] for row in rows(folder / 'confusion.csv')]
    assert confusion == content['confusion']['counts']
    assert [row['class'] for row in rows(folder / 'per_class.csv')] == NAMES
    assert len(rows(folder / 'suspects.csv')) == len(predictions)
    assert {s['by'] for s in content['slices']['slices']} == {'folder', 'brightness'}
    for name in ('confusion', 'reliability', 'recall', 'least_sure', *content['maps']):
        assert Image.open(folder / f'{name}.png').size[0] > 100
    assert [b['batch'] for b in content['cost']['batches']] == [1, 8, 64]
    assert all(b['p50_seconds'] > 0 for b in content['cost']['batches'])


def figures(run, batch_size):
    net = open_run(run, batch_size)
    found = outputs.compute(net, net.own_data(QUIET), 'test')
    return metrics.classification(found.values_NK, found.labels_N, found.groups_N)


def test_the_batch_size_and_the_devices_change_nothing(run):
    seven, other = figures(run, 7), figures(run, 64)
    code = (
        'import json, sys, jax; sys.path.insert(0, "tests"); import test_evaluate as t; '
        f'print(json.dumps([t.figures({str(run)!r}, 64), jax.device_count()]))'
    )
    eight, devices = json.loads(start(code, command='-c', devices=8).communicate()[0])
    assert devices == 8
    for found in (other, eight):
        assert found['examples'] == seven['examples']
        for name in ('accuracy', 'balanced_accuracy', 'macro_f1'):
            assert found[name] == pytest.approx(seven[name])
        assert found['log_loss']['value'] == pytest.approx(seven['log_loss']['value'], rel=1e-6)


def test_new_photos_costs_and_mirror_images(run, tmp_path):
    new = digits(tmp_path / 'new', 120, 170, brighter=20)
    shutil.rmtree(new / 'one')
    matrix = tmp_path / 'costs.csv'
    matrix.write_text(',zero,one,eight\nzero,0,1,1\none,1,0,1\neight,50,1,0\n')
    content = evaluate_run(
        run, data=f'folder:{new}', costs_file=str(matrix), mirrored=True, quiet=True
    )
    (folder,) = (run / 'evaluation').glob('*new-mirrored')
    assert content['figures']['examples'] == 100
    assert [row['examples'] for row in content['per_class']] == [50, 0, 50]
    assert content['per_class'][1]['recall']['value'] is None
    assert content['mirrored_gain']['low'] <= content['mirrored_gain']['value']
    assert content['costs']['decisions'] == NAMES
    taken = [row['decision'] for row in rows(folder / 'predictions.csv')]
    assert {name: taken.count(name) for name in NAMES} == content['costs']['taken']
    assert not content['calibration']['cross_fitted']


def test_what_the_net_was_trained_on_does_not_judge_it(run, photos, tmp_path, capsys):
    content = evaluate_run(run, data=f'folder:{photos}')
    splits = json.loads((run / 'splits.json').read_text())
    assert content['figures']['examples'] == 360 - len(splits['train'])
    assert f'{len(splits["train"])} images of' in capsys.readouterr().out
    known = tmp_path / 'known'
    for digest in splits['train']:
        (known / splits['names'][digest]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(photos / splits['names'][digest], known / splits['names'][digest])
    with pytest.raises(UserError, match='was trained on all'):
        evaluate_run(run, data=f'folder:{known}', quiet=True)


def test_other_runs_speak_of_more_images(run, tmp_path):
    other = shutil.copytree(run, tmp_path / 'other')
    content = evaluate_run(run, others=[str(other)], quiet=True)
    assert content['suspects']['runs'] == 2
    table = rows(run / 'evaluation' / 'validation' / 'suspects.csv')
    assert {row['nets'] for row in table} == {'2'}
    result = json.loads((other / 'result.json').read_text())
    (other / 'result.json').write_text(json.dumps(result | {'class_names': ['a', 'b', 'c']}))
    with pytest.raises(UserError, match='has other classes'):
        evaluate_run(run, others=[str(other)], quiet=True)


def test_data_that_moved_are_found_again(run, photos, tmp_path):
    moved = shutil.copytree(photos, tmp_path / 'moved')
    broken = shutil.copytree(run, tmp_path / 'run')
    config = json.loads((broken / 'config.json').read_text())
    config['dataset']['name'] = f'folder:{tmp_path / "gone"}'
    (broken / 'config.json').write_text(json.dumps(config))
    with pytest.raises(UserError, match=r'There is no folder .*--data=folder:PATH --split'):
        open_run(broken).own_data(QUIET)
    pipeline = open_run(broken).own_data(QUIET, f'folder:{moved}')
    known = json.loads((run / 'splits.json').read_text())['validation']
    assert pipeline.hashes_of('validation').tolist() == known


def test_data_that_changed_are_refused(run, photos, tmp_path):
    def changed(name):
        return shutil.copytree(photos, tmp_path / name)

    def load(folder):
        open_run(run).own_data(QUIET, f'folder:{folder}')

    splits = json.loads((run / 'splits.json').read_text())
    names = [splits['names'][digest] for digest in splits['validation']]
    lost = changed('lost')
    (lost / names[0]).unlink()
    with pytest.raises(UserError, match=r'1 of the 360 images .* are not in the data set'):
        load(lost)
    moved = changed('relabelled')
    name = next(name for name in names if name.startswith('one/'))
    shutil.move(moved / name, moved / 'zero' / 'planted.png')
    with pytest.raises(UserError, match='has changed since the run'):
        load(moved)
    more = changed('more')
    shutil.copytree(digits(tmp_path / 'extra', 120, 125) / 'one', more / 'seven')
    with pytest.raises(UserError, match='the new seven'):
        load(more)


def test_other_classes_are_named(run, tmp_path):
    new = digits(tmp_path / 'new', 120, 125)
    (new / 'zero').rename(new / 'zeros')
    with pytest.raises(UserError, match=r"it has zeros.*Did you mean 'zero'"):
        open_run(run).new_data(f'folder:{new}', QUIET)


def test_a_folder_without_a_net_says_what_is_missing(run, tmp_path):
    _, err = evaluate(run.parent, status=2)
    assert err == (
        f'evaluate.py: {run.parent} is no run folder: it holds no config.json. It holds the runs '
        'first: name one.\n'
    )

    def refused(change, problem):
        copy = shutil.copytree(run, tmp_path / 'copy')
        change(copy)
        with pytest.raises(UserError, match=problem):
            open_run(copy)
        shutil.rmtree(copy)

    def status(name):
        def change(copy):
            result = json.loads((copy / 'result.json').read_text())
            result |= {'status': name, 'diverged_step': 3}
            (copy / 'result.json').write_text(json.dumps(result))

        return change

    with pytest.raises(UserError, match='There is no run folder'):
        open_run(tmp_path / 'nothing')
    refused(lambda copy: shutil.rmtree(copy / 'checkpoints'), 'has no checkpoint')
    refused(lambda copy: (copy / 'result.json').unlink(), 'has not ended')
    refused(status('interrupted'), 'has not ended')
    refused(status('diverged'), 'diverged at step 3')


def test_an_empty_split_is_named(run):
    net = open_run(run)
    pipeline = net.own_data(QUIET)
    pipeline.members['test'] = np.array([], int)
    with pytest.raises(UserError, match=r'The test split of .* is empty'):
        outputs.compute(net, pipeline, 'test')


def test_numbers_have_figures_of_their_own(tmp_path):
    generator = np.random.default_rng(0)
    values = generator.normal(size=(200, 3)).round(4)
    lines = ['a,b,c,target', *(f'{a},{b},{c},{2 * a - b:.4f}' for a, b, c in values)]
    (tmp_path / 'table.csv').write_text('\n'.join(lines))
    config = default.get_config(f'table:{tmp_path / "table.csv"}', 'dense')
    config.update_from_flattened_dict({'epochs': 5.0, 'batch_size': 32})
    result = train_and_evaluate(config, tmp_path / 'run', quiet=True)
    content = evaluate_run(tmp_path / 'run', split='test', quiet=True)
    for name in ('rmse', 'mae', 'r2'):
        assert content['figures'][name]['value'] == pytest.approx(result['test'][name], rel=1e-5)
    assert len(rows(tmp_path / 'run' / 'evaluation' / 'test' / 'predictions.csv')) == 40
    with pytest.raises(UserError, match='--mirrored is for images'):
        evaluate_run(tmp_path / 'run', mirrored=True, quiet=True)
    with pytest.raises(UserError, match='--data is for images'):
        evaluate_run(tmp_path / 'run', data='folder:x', quiet=True)
