"""A run folder judged again: the same figures at any batch size, files, new data, plain errors."""

import csv
import json
import os
import shutil

import numpy as np
import pytest
from conftest import TINY, start
from PIL import Image
from sklearn.datasets import load_digits

from configs import default
from console import Console
from errors import UserError
from evaluation import metrics, mistakes, outputs
from evaluation.evaluate import evaluate_run
from evaluation.trained import open_run
from training.loop import train_and_evaluate

pytestmark = pytest.mark.usefixtures('short_latency')
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
    for name in ('confusion', 'reliability', 'recall', 'least_sure'):
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


def test_new_photos_costs_and_mirror_images(run, tmp_path, capsys):
    new = digits(tmp_path / 'new', 120, 170, brighter=20)
    shutil.rmtree(new / 'one')
    odd = next((new / 'zero').rglob('*.png'))
    odd.rename(odd.with_name(os.fsdecode(b'caf\xe9.png')))
    (new / 'zero' / 'broken.png').write_bytes(b'no image')
    matrix = tmp_path / 'costs.csv'
    matrix.write_text(',zero,one,eight\nzero,0,1,1\none,1,0,1\neight,50,1,0\n')
    content = evaluate_run(run, data=f'folder:{new}', costs_file=str(matrix), mirrored=True)
    assert '1 images cannot be read and are left out: zero/broken.png' in capsys.readouterr().out
    assert [entry['name'] for entry in content['unreadable']] == ['zero/broken.png']
    (folder,) = (run / 'evaluation').glob('*new-????????-mirrored')
    assert content['figures']['examples'] == 100
    assert [row['examples'] for row in content['per_class']] == [50, 0, 50]
    assert content['per_class'][1]['recall']['value'] is None
    assert content['costs']['decisions'] == NAMES
    taken = [row['decision'] for row in rows(folder / 'predictions.csv')]
    assert {name: taken.count(name) for name in NAMES} == content['costs']['taken']
    assert not content['calibration']['cross_fitted']
    result = json.loads((run / 'result.json').read_text())
    assert content['cost']['flops_per_example'] == 2 * result['flops_per_example']
    plain = evaluate_run(run, data=f'folder:{new}', quiet=True)
    gain = content['figures']['accuracy']['value'] - plain['figures']['accuracy']['value']
    assert gain
    assert content['mirrored_gain']['value'] == pytest.approx(gain)
    # A run that was trained to average them gains as much over the net without.
    trained_so = shutil.copytree(run, tmp_path / 'run')
    config = json.loads((run / 'config.json').read_text()) | {'evaluate_mirrored': True}
    (trained_so / 'config.json').write_text(json.dumps(config))
    again = evaluate_run(trained_so, data=f'folder:{new}', mirrored=True, quiet=True)
    assert again['mirrored_gain'] == content['mirrored_gain']


def test_new_photos_of_one_class_in_a_folder_of_any_name(run, tmp_path):
    new = digits(tmp_path / 'new' / 'test', 120, 130).parent
    shutil.rmtree(new / 'test' / 'one')
    shutil.rmtree(new / 'test' / 'zero')
    more = digits(tmp_path / 'new_test', 130, 150)
    shutil.rmtree(more / 'zero')
    table = tmp_path / 'table.csv'
    lines = [f'{path},one' for path in sorted(more.glob('one/*/*.png'))]
    table.write_text('\n'.join(['path,label', *lines]))
    for data, examples in ((new, [10, 0, 0]), (new / 'test', [10, 0, 0]), (more, [20, 20, 0]),
                           (table, [0, 20, 0])):  # fmt: skip
        content = evaluate_run(run, data=f'folder:{data}', quiet=True)
        assert [row['examples'] for row in content['per_class']] == examples
    assert len([*(run / 'evaluation').glob('*new_test-????????')]) == 2


def test_what_the_run_knows_does_not_judge_it(run, photos, tmp_path, capsys):
    with pytest.raises(UserError, match='knows all 360 images'):
        evaluate_run(run, data=f'folder:{photos}', quiet=True)
    more = digits(shutil.copytree(photos, tmp_path / 'more'), 120, 125)
    content = evaluate_run(run, data=f'folder:{more}')
    assert content['figures']['examples'] == 15
    assert '360 images of' in capsys.readouterr().out


def test_other_runs_speak_of_the_images_they_held_out(run, tmp_path):
    other = shutil.copytree(run, tmp_path / 'other')
    splits = json.loads((run / 'splits.json').read_text())

    def held_out(hashes, said):
        """Lets the other run have held out these images and said this class of each."""
        labels = [NAMES.index(splits['names'][h].split('/')[0]) for h in hashes]
        logits = np.where(np.arange(3) == NAMES.index(said), 9.0, 0.0)
        arrays = {'hash': np.asarray(hashes), 'label': np.asarray(labels),
                  'logits': np.tile(logits, (len(hashes), 1))}  # fmt: skip
        np.savez(other / 'predictions.npz', **{f'validation_{k}': v for k, v in arrays.items()})

    both, alone, sealed = splits['validation'][:5], splits['train'][:20], splits['test'][:5]
    held_out([*both, *alone, *sealed], 'one')
    content = evaluate_run(run, others=[str(other)], quiet=True)
    examined = len(splits['validation']) + 20
    assert (content['suspects']['runs'], content['suspects']['examined']) == (2, examined)
    table = {row['name']: row for row in rows(run / 'evaluation' / 'validation' / 'suspects.csv')}
    spoken_of_twice = {name for name, row in table.items() if row['nets'] == '2'}
    assert spoken_of_twice == {splits['names'][h] for h in both}
    for name in (splits['names'][h] for h in alone):
        assert table[name]['suggestion'] == 'one'
        assert (float(table[name]['margin']) > 0.9) == name.startswith('one/')

    def refused(message, *others):
        before = sorted(p.name for p in (run / 'evaluation' / 'validation').iterdir())
        with pytest.raises(UserError, match=message):
            evaluate_run(run, others=[str(o) for o in others], quiet=True)
        assert sorted(p.name for p in (run / 'evaluation' / 'validation').iterdir()) == before
        assert not [p for p in (run / 'evaluation').iterdir() if p.name.startswith('.')]

    refused('There is no run folder', run.parent / 'typo')
    refused('twice, or the run itself', run)
    refused('twice, or the run itself', other, tmp_path / '.' / 'other')
    held_out(sealed, 'one')
    refused('none of the 5 images that this run held out', other)
    result = json.loads((other / 'result.json').read_text())
    (other / 'result.json').write_text(json.dumps(result | {'class_names': ['a', 'b', 'c']}))
    refused('has other classes', other)


def test_equal_files_in_two_classes_are_told_apart(run, photos, tmp_path):
    """The other run held out the copy with the wrong label, this one that with the right one."""
    net = open_run(run)
    pipeline = net.own_data(QUIET)
    held, trained = pipeline.members['validation'][0], pipeline.members['train'][0]
    source = pipeline.source
    source.hashes[trained] = source.hashes[held]
    source.labels[trained] = (source.labels[held] + 1) % 3
    found = outputs.compute(net, pipeline, 'validation')
    said = {'hash': source.hashes[[trained]], 'label': source.labels[[trained]],
            'logits': np.eye(3)[source.labels[[held]]] * 9}  # fmt: skip
    content = mistakes.write_suspects(found, {'other': said}, tmp_path)
    assert content['examined'] == len(found.labels_N) + 1
    table = {row['name']: row for row in rows(tmp_path / 'suspects.csv')}
    assert all(row['nets'] == '1' for row in table.values())
    wrong = table[source.names[trained]]
    assert (wrong['label'], wrong['flagged']) == (NAMES[source.labels[trained]], '1')
    assert wrong['suggestion'] == NAMES[source.labels[held]]


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


def test_a_config_field_is_no_flag_of_this_command(run):
    _, err = evaluate(run, '--split=foo', '--config.epochs=1', status=2)
    assert err.count('\n') == 1
    assert err.startswith('evaluate.py: ')


def test_an_empty_split_is_named(run):
    net = open_run(run)
    pipeline = net.own_data(QUIET)
    pipeline.members['test'] = np.array([], int)
    with pytest.raises(UserError, match=r'The test split of .* is empty'):
        outputs.compute(net, pipeline, 'test')


def test_two_classes_with_names_that_look_like_formulas(tmp_path):
    generator = np.random.default_rng(0)
    names = np.asarray([r'$\no$', 'yes_$5$'])
    values = generator.normal(size=(200, 2)).round(4)
    labels = names[(values[:, 0] + generator.normal(size=200) > 0).astype(int)]
    lines = ['a,b,label', *(f'{a},{b},{n}' for (a, b), n in zip(values, labels, strict=True))]
    (tmp_path / 'table.csv').write_text('\n'.join(lines))
    config = default.get_config(f'table:{tmp_path / "table.csv"}', 'dense')
    config.update_from_flattened_dict({'epochs': 3.0, 'batch_size': 32})
    result = train_and_evaluate(config, tmp_path / 'run', quiet=True)
    content = evaluate_run(tmp_path / 'run', split='test', quiet=True)
    two = content['two_classes']
    assert two['roc_auc']['value'] == pytest.approx(result['test']['roc_auc'])
    assert two['roc_auc']['low'] < two['roc_auc']['value'] < two['roc_auc']['high']
    assert 0 < two['threshold']['probability'] < 1
    assert not two['threshold']['cross_fitted']
    folder = tmp_path / 'run' / 'evaluation' / 'test'
    for name in ('confusion', 'recall', 'roc_pr'):
        assert Image.open(folder / f'{name}.png').size[0] > 100
    predictions = rows(folder / 'predictions.csv')
    assert {row['label'] for row in predictions} == set(names)


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
    net = open_run(tmp_path / 'run')
    changed = 1 + net.own_data(QUIET).members['train'][0]
    lines[changed] = ','.join([*lines[changed].split(',')[:3], '9.0'])
    (tmp_path / 'table.csv').write_text('\n'.join(lines))
    with pytest.raises(UserError, match='the targets of its training split'):
        net.own_data(QUIET)
    with pytest.raises(UserError, match='--costs and --others are for classes'):
        evaluate_run(tmp_path / 'run', costs_file='costs.csv', quiet=True)
    with pytest.raises(UserError, match='--mirrored is for images'):
        evaluate_run(tmp_path / 'run', mirrored=True, quiet=True)
    with pytest.raises(UserError, match='--data is for images'):
        evaluate_run(tmp_path / 'run', data='folder:x', quiet=True)
