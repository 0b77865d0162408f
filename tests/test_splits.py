"""Splits: stratified, in whole groups, in folds and replicates, of a subset, or from a file."""

import json

import numpy as np
import pytest
from conftest import load, train
from PIL import Image

from configs import default
from data import duplicates, splits
from errors import UserError


def config(**changes):
    made = default.get_config('digits')
    for name, value in changes.items():
        made.dataset[name] = value
    return made


def members(**changes):
    return load(config(**changes)).members


@pytest.fixture(scope='module')
def digits():
    return load(config())


def same(first, second):
    return all(np.array_equal(first[name], second[name]) for name in first)


def test_splits_are_stratified_disjoint_and_complete(digits):
    assert digits.sizes == {'train': 1078, 'validation': 360, 'test': 359}
    everything = np.concatenate(list(digits.members.values()))
    assert sorted(everything) == list(range(1797))
    shares = np.bincount(digits.source.labels) / 1797
    for split in digits.members:
        counts = np.bincount(digits.labels_of(split))
        np.testing.assert_allclose(counts, shares * counts.sum(), atol=2.5)


def test_the_split_seed_is_apart_from_the_seed(digits):
    other_run = config()
    other_run.seed = 5
    pipeline = load(other_run)
    assert same(digits.members, pipeline.members)
    assert not np.array_equal(digits.train_batch(0)['index'], pipeline.train_batch(0)['index'])
    assert not same(digits.members, members(split_seed=1))


def test_replicates_and_folds_share_the_test_split(digits):
    seen = []
    for fold in range(4):
        parts = members(folds=4, fold=fold)
        np.testing.assert_array_equal(parts['test'], digits.members['test'])
        assert not set(parts['train']) & set(parts['validation'])
        seen.append(parts['validation'])
    assert sorted(np.concatenate(seen)) == sorted(
        np.concatenate([digits.members['train'], digits.members['validation']])
    )
    for part in seen:
        counts = np.bincount(digits.source.labels[part], minlength=10)
        assert counts.min() >= 33
        assert counts.max() <= 39
    for changes in ({'folds': 4}, {}):
        first, again = members(repeat=1, **changes), members(repeat=2, **changes)
        np.testing.assert_array_equal(first['test'], digits.members['test'])
        assert not np.array_equal(first['validation'], again['validation'])


@pytest.mark.parametrize('subset', [0.25, 360.0])
def test_a_subset_keeps_shares_and_leaves_the_test_split(digits, subset):
    parts = members(subset=subset)
    np.testing.assert_array_equal(parts['test'], digits.members['test'])
    kept = np.concatenate([parts['train'], parts['validation']])
    assert len(kept) == pytest.approx(360, abs=1)
    assert np.ptp(np.bincount(digits.source.labels[kept])) <= 4


def test_official_splits_stay_and_the_rest_comes_from_training(tmp_path):
    images = np.arange(100 * 16, dtype=np.uint8).reshape(100, 4, 4)
    np.savez(tmp_path / 'set.npz', x_train=images[:80], y_train=np.arange(80) % 2,
             x_test=images[80:], y_test=np.arange(20) % 2)  # fmt: skip
    made = default.get_config(f'npz:{tmp_path}/set.npz')
    made.dataset.validation_fraction = 0.25
    made.early_stopping.patience_epochs = 1.0
    parts = load(made).members
    assert {name: len(indices) for name, indices in parts.items()} == {
        'train': 54, 'validation': 20, 'test': 20, 'stopping': 6,
    }  # fmt: skip
    np.testing.assert_array_equal(parts['test'], np.arange(80, 100))


def test_groups_are_never_torn_and_classes_keep_their_shares():
    generator = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [300, 200, 60])
    groups = np.arange(560)
    for number in range(40):  # Groups of 2 to 12 images of a class.
        start = generator.integers(0, 540)
        same_label = np.flatnonzero(labels == labels[start])
        groups[generator.choice(same_label, generator.integers(2, 13))] = 1000 + number
    names = ['a', 'b', 'c']
    for seed in range(20):
        parts = splits.deal(labels, groups, np.arange(560), [0.6, 0.2, 0.2],
                            np.random.SeedSequence(seed), names)  # fmt: skip
        assert sorted(np.concatenate(parts)) == list(range(560))
        owners = [set(groups[part]) for part in parts]
        assert not owners[0] & owners[1]
        assert not owners[0] & owners[2]
        assert not owners[1] & owners[2]
        for part, share in zip(parts, (0.6, 0.2, 0.2), strict=True):
            counts = np.bincount(labels[part], minlength=3)
            np.testing.assert_allclose(counts, share * np.array([300, 200, 60]), atol=12)


def test_one_changed_group_moves_little_else():
    labels = np.arange(1000) % 5
    shares, names = [0.8, 0.2], list('abcde')
    seed = np.random.SeedSequence(3)
    before = splits.deal(labels, np.arange(1000), np.arange(1000), shares, seed, names)
    joined = np.arange(1000)
    joined[[0, 5]] = 2000
    after = splits.deal(labels, joined, np.arange(1000), shares, np.random.SeedSequence(3), names)
    assert len(set(before[1]) ^ set(after[1])) <= 4


def write_pattern_set(folder):
    from test_photos import photos

    photos(folder / 'a', ('ants', 'bees'), count=40)
    for label in ('ants', 'bees'):
        target = folder / 'set' / label
        target.mkdir(parents=True)
        for i, path in enumerate(sorted((folder / 'a' / label).iterdir())):
            path.rename(target / f'plant{i // 4}_{i}.png')
    return f'folder:{folder / "set"}'


def test_groups_by_a_pattern_on_the_path(tmp_path):
    made = default.get_config(write_pattern_set(tmp_path))
    made.dataset.group_by = r'regex:(\w+/plant\d+)_'
    pipeline = load(made)
    plants = [name.split('_')[0] for name in pipeline.source.names]
    owner = {}
    for split, indices in pipeline.members.items():
        for i in indices:
            assert owner.setdefault(plants[i], split) == split
    assert len(owner) == 20
    for pattern, expected in (('regex:oak', 'matches no path'), ('regex:(', 'is no pattern')):
        made.dataset.group_by = pattern
        with pytest.raises(UserError, match=expected):
            load(made)
    made.dataset.group_by = 'column'
    with pytest.raises(UserError, match='no group column'):
        load(made)


@pytest.mark.parametrize(('validation', 'test'), [(0.5, 0.5), (0.9, 0.2)])
def test_fractions_that_leave_nothing_are_refused(validation, test):
    with pytest.raises(UserError, match='leave nothing to train on'):
        members(validation_fraction=validation, test_fraction=test)


def test_splits_written_by_one_run_are_given_to_another(tmp_path, digits):
    out = tmp_path / 'first'
    train('--config=configs/plain_small.py', f'--workdir={out}', '--config.epochs=0.1',
          '--config.dataset.split_seed=3')  # fmt: skip
    path = out / 'splits.json'
    given = members(splits_file=str(path), image_size=16)
    assert same(given, members(split_seed=3))
    content = json.loads(path.read_text())
    content['train'].append('0' * 16)
    (tmp_path / 'other.json').write_text(json.dumps(content))
    with pytest.raises(UserError, match=r'1 of the 1,798 images .* are not in the data set'):
        members(splits_file=str(tmp_path / 'other.json'))
    content['train'].pop()
    content['validation'] = []
    (tmp_path / 'empty.json').write_text(json.dumps(content))
    with pytest.raises(UserError, match='The validation split is empty'):
        members(splits_file=str(tmp_path / 'empty.json'))
    (tmp_path / 'no.json').write_text('{')
    with pytest.raises(UserError, match='cannot be read'):
        members(splits_file=str(tmp_path / 'no.json'))


def test_a_splits_file_with_equal_images_in_two_splits_is_read_back(tmp_path):
    images = np.random.default_rng(0).integers(0, 255, (60, 4, 4), np.uint8)
    images[50] = images[0]
    images[20:30] = images[10:20]  # Of some pairs the first is drawn for validation.
    images[31] = images[30]  # With another label.
    np.savez(tmp_path / 'set.npz', x_train=images[:40], y_train=np.arange(40) % 2,
             x_test=images[40:], y_test=np.arange(20) % 2)  # fmt: skip
    made = default.get_config(f'npz:{tmp_path}/set.npz')
    pipeline = load(made)
    described = splits.describe(pipeline.source, pipeline.members)
    (tmp_path / 'splits.json').write_text(json.dumps(described))
    made.dataset.splits_file = str(tmp_path / 'splits.json')
    assert described['copies']
    assert same(pipeline.members, load(made).members)
    made.early_stopping.patience_epochs = 1.0
    assert len(load(made).members['stopping']) == pytest.approx(3, abs=1)


def test_photos_have_the_same_splits_at_every_image_size(tmp_path):
    # The same shades with other grain: alike at 16 pixels, not at 64.
    generator = np.random.default_rng(0)
    for name in ('one', 'two'):
        (tmp_path / name).mkdir()
        for shade in range(15):
            shades = generator.integers(60, 200, (4, 4)).repeat(16, 0).repeat(16, 1)
            for copy in range(2):
                grained = shades + generator.normal(0, 26, shades.shape)
                image = Image.fromarray(grained.clip(0, 255).astype(np.uint8))
                image.save(tmp_path / name / f'{shade}-{copy}.png')

    def at(size):
        made = default.get_config(f'folder:{tmp_path}')
        made.dataset.image_size, made.dataset.folds = size, 4
        return load(made)

    pipelines = {size: at(size) for size in (16, 64, 100)}
    alike = duplicates.find(pipelines[16].source.inputs)
    assert len(alike.first) >= 15
    for pipeline in pipelines.values():
        assert len(duplicates.find_once(pipeline.source).first) == 0
        assert same(pipelines[64].members, pipeline.members)
