"""Batches: order, shares, streaming, class balance, normalisation; and the sources of arrays."""

import json
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT, load, train
from PIL import Image

from configs import default
from console import Console
from data import normalization, sources, tfds
from data.decode import Policy
from errors import UserError

SHARED = ROOT.parent / 'shared' / 'data' / 'tfds'
needs_shared = pytest.mark.skipif(
    not SHARED.is_dir(), reason=f'prepared TFDS sets are not in {SHARED}'
)


@pytest.fixture(scope='module')
def digits():
    return load(default.get_config('digits'))


def source(name, size=0, data_dir=''):
    return sources.load(name, str(data_dir), Policy(size, 'crop', 0), Console(quiet=True))


def test_each_pass_shows_every_training_image_once_in_another_order(digits):
    batch, count = digits.batch_size, digits.sizes['train']
    steps = 3 * count // batch + 1
    stream = np.concatenate([digits.train_batch(i)['index'] for i in range(steps)])
    passes = [stream[i * count : (i + 1) * count] for i in range(3)]
    for order in passes:
        np.testing.assert_array_equal(np.sort(order), digits.members['train'])
    assert not np.array_equal(passes[0], passes[1])


def test_evaluation_counts_every_example_once(digits):
    seen = [plan['index'][:real] for plan, real in digits.eval_batches('test')]
    assert {len(plan['index']) for plan, _ in digits.eval_batches('test')} == {digits.batch_size}
    np.testing.assert_array_equal(np.concatenate(seen), digits.members['test'])


def test_the_shares_of_two_processes_partition_each_batch(digits):
    import input_pipeline

    config = default.get_config('digits')
    whole = load(config)
    halves = [
        input_pipeline.load(config, 0, Console(quiet=True), process=process, processes=2)
        for process in (0, 1)
    ]
    for step in (0, 7, 1000):
        parts = [half.train_batch(step) for half in halves]
        for name, expected in whole.train_batch(step).items():
            np.testing.assert_array_equal(np.concatenate([p[name] for p in parts]), expected)
        # No room on the device: the halves hold images, and only their own.
        images = np.concatenate([part['input'] for part in parts])
        index = whole.train_batch(step)['index']
        np.testing.assert_array_equal(images, digits.source.inputs[index])
    evaluated = [
        np.concatenate([half[0]['index'] for half in step])
        for step in zip(*(half.eval_batches('test') for half in halves), strict=True)
    ]
    for got, (expected, _) in zip(evaluated, whole.eval_batches('test'), strict=True):
        np.testing.assert_array_equal(got, expected['index'])


def test_reading_ahead_changes_nothing():
    import input_pipeline

    config = default.get_config('digits')
    config.dataset.storage = 'stream'
    pipeline = load(config)
    reader = input_pipeline.ReadAhead(pipeline)
    for step in (0, 1, 2, 2, 9, 10, 3):
        for name, expected in pipeline.train_batch(step).items():
            np.testing.assert_array_equal(reader.train_batch(step)[name], expected)
    reader.close()


def test_streaming_and_resident_runs_end_in_the_same_figures(tmp_path):
    figures = {}
    for storage in ('device', 'stream'):
        folder = tmp_path / storage
        out, _ = train(
            '--config=configs/resnet_small.py', '--config.epochs=1', f'--workdir={folder}',
            f'--config.dataset.storage={storage}', '--config.augment=light',
            '--config.model.width=8', '--config.model.stage_sizes=(1,1)',
        )  # fmt: skip
        assert ('streamed' in out) == (storage == 'stream')
        figures[storage] = json.loads((folder / 'result.json').read_text())['validation']
    assert figures['stream']['accuracy'] == figures['device']['accuracy']
    assert figures['stream']['loss'] == pytest.approx(figures['device']['loss'], rel=1e-5)


def test_balanced_sampling_shows_classes_equally_and_images_in_turn(tmp_path):
    labels = np.repeat([0, 1, 2], [60, 30, 11])
    np.savez(tmp_path / 'set.npz', images=np.arange(101 * 16, dtype=np.uint8).reshape(101, 4, 4),
             labels=labels)  # fmt: skip
    config = default.get_config(f'npz:{tmp_path}/set.npz')
    config.batch_size, config.class_balance = 10, 'balanced_sampling'
    pipeline = load(config)
    count = pipeline.sizes['train']
    stream = np.concatenate([pipeline.train_batch(i)['index'] for i in range(3 * count // 10)])
    assert set(stream) <= set(pipeline.members['train'])
    shown = np.bincount(labels[stream])
    assert np.ptp(shown) <= 3 + 10  # The last batch ends within a pass.
    for label in range(3):
        times = np.bincount(stream, minlength=101)[pipeline.members['train']]
        times = times[pipeline.labels_of('train') == label]
        assert np.ptp(times) <= 2, (label, times)


# Normalisation.


def expected_normalisation(images, train, kind):
    """The definitions, in NumPy."""
    x, t = images.astype(np.float64), train.astype(np.float64)
    if kind == 'image':
        spread = np.maximum(x.std(axis=(1, 2, 3), keepdims=True), 255 / np.sqrt(x[0].size))
        return (x - x.mean(axis=(1, 2, 3), keepdims=True)) / spread
    return {
        'zscore': lambda: (x - t.mean(axis=(0, 1, 2))) / t.std(axis=(0, 1, 2)),
        'mean': lambda: (x - t.mean(axis=(0, 1, 2))) / 255,
        'min_max': lambda: x / 255,
        'min_max_signed': lambda: x / 127.5 - 1,
        'imagenet': lambda: (x / 255 - 0.449) / 0.226,  # Means over the colours, for grey.
        'pixel_zscore': lambda: (x - t.mean(axis=0)) / np.maximum(t.std(axis=0), 1),
    }[kind]()


@pytest.mark.parametrize('kind', normalization.KINDS)
def test_normalisation_uses_training_images_alone(digits, kind):
    images, members = digits.source.inputs, digits.members['train']
    fitted = normalization.fit(images, members, kind)
    got = normalization.normalize(np.float32(images[:50]), *fitted, kind)
    expected = expected_normalisation(images[:50], images[members], kind)
    np.testing.assert_allclose(got, expected, atol=2e-5)
    other = normalization.fit(images, digits.members['test'], kind)
    fits = kind not in ('min_max', 'min_max_signed', 'image', 'imagenet')
    assert fits != np.array_equal(other.offset, fitted.offset)


def test_an_image_of_one_colour_is_normalised_to_numbers():
    flat = np.full((3, 4, 4, 1), 7, np.uint8)
    for kind in normalization.KINDS:
        fitted = normalization.fit(flat, np.arange(3), kind)
        assert np.isfinite(normalization.normalize(np.float32(flat), *fitted, kind)).all()


# Sources of arrays.


def test_the_same_photos_from_a_folder_tfds_npz_and_npy_give_the_same_batches(tmp_path):
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (60, 16, 16, 3), np.uint8)
    labels = np.repeat(np.arange(3), 20)
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = tmp_path / 'photos' / f'class{label}' / f'{i:03}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    names = np.asarray(['class0', 'class1', 'class2'])
    np.savez(tmp_path / 'photos.npz', images=images, labels=labels, class_names=names)
    (tmp_path / 'npy').mkdir()
    np.save(tmp_path / 'npy' / 'images.npy', images)
    np.save(tmp_path / 'npy' / 'labels.npy', names[labels])
    export_to_tfds(tmp_path, sorted((tmp_path / 'photos').rglob('*.png')), names)
    pipelines = []
    for name in ('folder:photos', 'npz:photos.npz', 'npy:npy', 'tfds:photos'):
        kind, _, path = name.partition(':')
        config = default.get_config(name if kind == 'tfds' else f'{kind}:{tmp_path / path}')
        config.dataset.data_dir = str(tmp_path)
        config.dataset.image_size, config.batch_size = 8, 16
        config.dataset.storage = 'stream'
        pipelines.append(load(config))
    for other in pipelines[1:]:
        assert other.class_names == pipelines[0].class_names
        for step in range(5):
            for name, expected in pipelines[0].train_batch(step).items():
                np.testing.assert_array_equal(other.train_batch(step)[name], expected)


def export_to_tfds(folder, paths, names):
    """Writes photos as a prepared set `photos` of TFDS, the files as they are, in this order."""
    import tensorflow_datasets

    features = tensorflow_datasets.features
    rows = [(i, {'image': str(p), 'label': p.parent.name}) for i, p in enumerate(paths)]
    tensorflow_datasets.dataset_builders.store_as_tfds_dataset(
        name='photos',
        version='1.0.0',
        data_dir=folder,
        features=features.FeaturesDict(
            {
                'image': features.Image(shape=(None, None, 3), encoding_format='png'),
                'label': features.ClassLabel(names=names.tolist()),
            }
        ),
        split_datasets={'train': rows},
        file_format='array_record',
        disable_shuffling=True,
    )


def test_npz_in_the_manner_of_keras_and_medmnist(tmp_path):
    images = np.arange(40 * 16, dtype=np.uint8).reshape(40, 4, 4)
    labels = np.arange(40) % 2
    np.savez(tmp_path / 'keras.npz', x_train=images / 255, y_train=labels, x_test=images[:6],
             y_test=labels[:6])  # fmt: skip
    keras = source(f'npz:{tmp_path}/keras.npz')
    assert {k: len(v) for k, v in keras.official.items()} == {'train': 40, 'test': 6}
    np.testing.assert_array_equal(keras.inputs[:40, ..., 0], images)
    splits = ('train', 'val', 'test')
    med = {f'{split}_images': images for split in splits}
    med |= {f'{split}_labels': labels[:, None] for split in splits}
    np.savez(tmp_path / 'med.npz', **med)
    medmnist = source(f'npz:{tmp_path}/med.npz')
    assert set(medmnist.official) == {'train', 'validation', 'test'}


@pytest.mark.parametrize(
    ('arrays', 'expected'),
    [
        ({'pixels': np.zeros(3)}, 'holds pixels; needed are images and labels'),
        ({'images': np.zeros((4, 2, 2), np.uint8), 'labels': np.arange(3)}, '4 images and 3 label'),
        ({'images': np.zeros((4, 2, 2, 2), np.uint8), 'labels': np.arange(4)}, 'have the shape'),
        ({'images': np.full((4, 2, 2), 300.0), 'labels': np.arange(4)}, 'floats between'),
        ({'images': np.zeros((4, 2, 2), np.uint8), 'labels': np.arange(4) - 1}, 'from 0 to'),
        ({'images': np.zeros((4, 2, 2), np.uint8), 'labels': np.zeros(4, int)}, 'holds one class'),
        ({'images': np.zeros((0, 2, 2), np.uint8), 'labels': np.zeros(0, int)}, 'no images'),
        (
            {
                'images': np.zeros((2, 2, 2), np.uint8),
                'labels': np.array(['a', 'b']),
                'class_names': np.array(['a', 'c']),
            },
            "'b' of .* is none of its class_names",
        ),
        (
            {
                'images': np.zeros((2, 2, 2), np.uint8),
                'labels': np.arange(2),
                'groups': np.arange(1),
            },
            '2 images and 1 groups',
        ),
        ({'images': np.array([None, 1]), 'labels': np.arange(2)}, r'no \.npz file'),
    ],
)
def test_arrays_of_something_else_are_named(tmp_path, arrays, expected):
    np.savez(tmp_path / 'set.npz', **arrays)
    with pytest.raises(UserError, match=expected):
        source(f'npz:{tmp_path}/set.npz')


def test_files_of_something_else_are_named(tmp_path):
    (tmp_path / 'text.npz').write_text('no archive')
    with pytest.raises(UserError, match=r'is no \.npz file'):
        source(f'npz:{tmp_path}/text.npz')
    with pytest.raises(UserError, match='There is no file'):
        source(f'npz:{tmp_path}/absent.npz')
    with pytest.raises(UserError, match='There is no folder'):
        source(f'npy:{tmp_path}/absent')


# TensorFlow Datasets.


@needs_shared
def test_tfds_array_record_reads_without_tensorflow():
    fashion = source('tfds:fashion_mnist', data_dir=SHARED)
    assert fashion.inputs.shape == (70_000, 28, 28, 1)
    assert fashion.class_names[9] == 'Ankle boot'
    assert {k: len(v) for k, v in fashion.official.items()} == {'train': 60_000, 'test': 10_000}
    assert (np.bincount(fashion.labels[fashion.official['test']]) == 1000).all()
    code = (
        'import sys; from data import tfds, decode; '
        f'listing = tfds.load("fashion_mnist", {str(SHARED)!r}); '
        'example = next(iter(listing.examples())); '
        'image = decode.decode(example.encoded, decode.Policy(0, "crop", 1)).image_HWC; '
        'print(image.shape, "tensorflow" in sys.modules)'
    )
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == '(28, 28, 1) False\n', done.stderr


@needs_shared
def test_tfds_tfrecord_reads_too_and_resizes(monkeypatch):
    monkeypatch.setenv('TFDS_DATA_DIR', str(SHARED))
    mnist = source('tfds:mnist', size=14)
    assert mnist.inputs.shape == (70_000, 14, 14, 1)
    assert mnist.labels[mnist.official['test']][:5].tolist() == [2, 0, 4, 8, 7]


def test_an_absent_set_gets_one_message_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr(tfds, '_has_network', lambda: False)
    with pytest.raises(UserError, match='no network to download it') as caught:
        source('tfds:cifar10', data_dir=tmp_path)
    assert 'TFDS_DATA_DIR' in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_an_unknown_set_names_the_nearest(tmp_path):
    with pytest.raises(UserError, match="Did you mean 'fashion_mnist'"):
        source('tfds:fashion_minst', data_dir=tmp_path)
    with pytest.raises(UserError, match="Did you mean 'tfds'"):
        source('tfsd:mnist')
