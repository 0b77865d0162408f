"""Data: splits, order, evaluation batches, normalisation, augmentation, TFDS."""

import subprocess
import sys

import jax
import numpy as np
import pytest
from conftest import ROOT

import input_pipeline
from configs import default
from data import preprocess, sources, splits
from errors import UserError

SHARED = ROOT.parent / 'shared' / 'data' / 'tfds'
needs_shared = pytest.mark.skipif(
    not SHARED.is_dir(), reason=f'prepared TFDS sets are not in {SHARED}'
)


@pytest.fixture(scope='module')
def digits():
    return input_pipeline.load(default.get_config('digits'))


def test_digits_splits_are_stratified_disjoint_and_complete(digits):
    assert digits.sizes == {'train': 1077, 'test': 360, 'validation': 360}
    everything = np.concatenate(list(digits.members.values()))
    assert sorted(everything) == list(range(1797))
    shares = np.bincount(digits.labels) / 1797
    for split in digits.members:
        counts = np.bincount(digits.labels_of(split))
        np.testing.assert_allclose(counts, shares * counts.sum(), atol=1)


def test_the_split_seed_is_apart_from_the_seed(digits):
    config = default.get_config('digits')
    config.seed = 5
    other_run = input_pipeline.load(config)
    config.dataset.split_seed = 1
    other_split = input_pipeline.load(config)
    for split in digits.members:
        np.testing.assert_array_equal(digits.members[split], other_run.members[split])
        assert not np.array_equal(digits.members[split], other_split.members[split])
    assert not np.array_equal(digits.train_batch(0)['index'], other_run.train_batch(0)['index'])


def test_each_pass_shows_every_training_image_once_in_another_order(digits):
    batch = digits.batch_size
    stream = np.concatenate([digits.train_batch(i)['index'] for i in range(3 * 1077 // batch + 1)])
    passes = [stream[i * 1077 : (i + 1) * 1077] for i in range(3)]
    for order in passes:
        np.testing.assert_array_equal(np.sort(order), digits.members['train'])
    assert not np.array_equal(passes[0], passes[1])


def test_evaluation_counts_every_example_once(digits):
    seen = [plan['index'][:real] for plan, real in digits.eval_batches('test')]
    assert {len(plan['index']) for plan, _ in digits.eval_batches('test')} == {digits.batch_size}
    np.testing.assert_array_equal(np.concatenate(seen), digits.members['test'])


def test_official_splits_stay_and_validation_comes_from_training():
    labels = np.arange(100) % 2
    official = {'train': np.arange(80), 'test': np.arange(80, 100)}
    parts = splits.split(labels, official, 0, 0.25, 0.5, stopping_fraction=0.1)
    assert {name: len(members) for name, members in parts.items()} == {
        'train': 54, 'test': 20, 'validation': 20, 'stopping': 6,
    }  # fmt: skip
    np.testing.assert_array_equal(parts['test'], official['test'])


@pytest.mark.parametrize(('validation', 'test'), [(0.5, 0.5), (0.999, 0.0005)])
def test_fractions_that_leave_nothing_are_refused(validation, test):
    with pytest.raises(UserError, match=r'leave nothing|Cannot set images aside'):
        splits.split(np.arange(100) % 2, {}, 0, validation, test)


def test_normalisation_uses_training_images_alone(digits):
    train = digits.images_NHWC[digits.members['train']].astype(np.float64)
    offset, scale = digits.normalization
    assert offset[0] == pytest.approx(train.mean())
    assert scale[0] == pytest.approx(train.std())
    assert offset[0] != pytest.approx(digits.images_NHWC.mean(), rel=1e-6)
    images = digits.images_NHWC[:8]
    for kind, low, high in (('zscore', -2, 4), ('mean', -1, 1), ('min_max', 0, 1)):
        fitted = preprocess.fit_normalization(digits.images_NHWC, kind)
        values = np.asarray(preprocess.normalize(images, *fitted))
        assert low <= values.min() < values.max() <= high
    constant = preprocess.fit_normalization(np.full((3, 4, 4, 1), 7, np.uint8), 'zscore')
    assert np.isfinite(preprocess.normalize(images, *constant)).all()


def test_augmentation_shifts_and_mirrors_by_key():
    images = np.arange(1, 4 * 5 * 5 + 1, dtype=np.float32).reshape(4, 5, 5, 1)
    keys = jax.random.split(jax.random.key(0), 4)
    np.testing.assert_array_equal(preprocess.augment(images, keys, 0, False), images)

    many = jax.random.split(jax.random.key(1), 400)
    flipped = np.asarray(preprocess.augment(images[[0] * 400], many, 0, True))
    mirrored = (flipped == images[0][:, ::-1]).all(axis=(1, 2, 3))
    assert ((flipped == images[0]).all(axis=(1, 2, 3)) ^ mirrored).all()
    assert 150 < mirrored.sum() < 250

    shifted = np.asarray(preprocess.augment(images[[0] * 400], many, 2, False))
    # The centre pixel holds what was up to 2 pixels away, each of the 25 offsets about as often.
    found, counts = np.unique(shifted[:, 2, 2, 0], return_counts=True)
    assert len(found) == 25
    assert counts.min() > 4
    # An image's draw follows its own key, not its neighbours.
    np.testing.assert_array_equal(
        preprocess.augment(images[1:2], keys[1:2], 2, True),
        preprocess.augment(images, keys, 2, True)[1:2],
    )


@needs_shared
def test_tfds_array_record_reads_without_tensorflow():
    source = sources.load('tfds:fashion_mnist', str(SHARED), 0)
    assert source.images_NHWC.shape == (70_000, 28, 28, 1)
    assert source.class_names[9] == 'Ankle boot'
    assert {k: len(v) for k, v in source.official.items()} == {'train': 60_000, 'test': 10_000}
    assert (np.bincount(source.labels[source.official['test']]) == 1000).all()
    code = (
        'import sys; from data import sources; '
        f'sources.load("tfds:fashion_mnist", {str(SHARED)!r}, 0); '
        'print("tensorflow" in sys.modules)'
    )
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == 'False\n', done.stderr


@needs_shared
def test_tfds_tfrecord_reads_too_and_resizes(monkeypatch):
    monkeypatch.setenv('TFDS_DATA_DIR', str(SHARED))
    source = sources.load('tfds:mnist', '', 14)
    assert source.images_NHWC.shape == (70_000, 14, 14, 1)
    assert source.labels[source.official['test']][:5].tolist() == [2, 0, 4, 8, 7]


def test_an_absent_set_gets_one_message_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, '_has_network', lambda: False)
    with pytest.raises(UserError, match='no network to download it') as caught:
        sources.load('tfds:cifar10', str(tmp_path), 0)
    assert 'TFDS_DATA_DIR' in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_an_unknown_set_names_the_nearest(tmp_path):
    with pytest.raises(UserError, match="Did you mean 'fashion_mnist'"):
        sources.load('tfds:fashion_minst', str(tmp_path), 0)
    with pytest.raises(UserError, match="Did you mean 'tfds'"):
        sources.load('tfsd:mnist', '', 0)
