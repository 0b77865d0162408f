"""The data doctor: planted faults are found and named, clean data stays silent."""

import functools
import json
import shutil

import numpy as np
import pytest
from conftest import ROOT, audit, train
from PIL import Image, ImageOps
from sklearn.datasets import load_digits, load_sample_image

from auditing import findings
from console import Console
from data import duplicates, sources
from data.decode import Policy

SHARED = ROOT.parent / 'shared' / 'data' / 'tfds'


@functools.cache
def patches(count, seed, side=64):
    """Returns different mixtures of pieces of two photos: busy images without a class."""
    generator = np.random.default_rng(seed)
    photos = [load_sample_image(name) for name in ('china.jpg', 'flower.jpg')]
    pieces = []
    while len(pieces) < count:
        cuts = []
        for photo in photos:
            row, column = generator.integers(0, 330), generator.integers(0, 540)
            piece = Image.fromarray(photo[row : row + 90, column : column + 90])
            cuts.append(np.asarray(piece.resize((side, side), Image.Resampling.LANCZOS), float))
        mixture = 0.7 * cuts[0] + 0.3 * cuts[1]
        if 60 < mixture.mean() < 190 and mixture.std() > 30:
            pieces.append(mixture.astype(np.uint8))
    return pieces


def clean(folder, classes=('ants', 'bees'), per_class=60, seed=0):
    """Writes a folder in which nothing but chance tells the classes apart."""
    images = patches(len(classes) * per_class, seed)
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for i in range(per_class):
            Image.fromarray(images[label * per_class + i]).save(folder / name / f'{i:03}.png')
    return folder


def run(folder, *extra, status):
    out, err = audit(f'--data=folder:{folder}', f'--workdir={folder}-audit', *extra, status=status)
    assert err == ''
    return out, json.loads((folder.parent / f'{folder.name}-audit' / 'audit.json').read_text())


def kinds(content, level='warning'):
    return {f['kind'] for f in content['findings'] if f['level'] == level}


def names(content, kind):
    (found,) = (f['names'] for f in content['findings'] if f['kind'] == kind)
    return {frozenset(entry) if isinstance(entry, list) else entry for entry in found}


def test_clean_photos_get_a_clean_bill(tmp_path):
    out, content = run(clean(tmp_path / 'set'), status=0)
    assert 'Clean' in out
    assert content['findings'] == []
    assert [row['images'] for row in content['classes']] == [60, 60]
    assert content['classes'][0]['modes'] == {'RGB': 60}
    assert content['shortcuts']['corners']['chance'] == 0.5
    assert '--config.dataset.image_size=' in out


def test_planted_copies_are_found_mirrored_turned_and_re_encoded(tmp_path):
    folder = clean(tmp_path / 'set')
    shutil.move(folder, tmp_path / 'moved')
    (folder / 'train').parent.mkdir()
    shutil.move(tmp_path / 'moved', folder / 'train')
    for name in ('ants', 'bees'):
        (folder / 'test' / name).mkdir(parents=True)
        for i in range(50, 60):
            shutil.move(folder / 'train' / name / f'{i:03}.png', folder / 'test' / name)

    def plant(original, copy, change, **options):
        picture = Image.open(folder / original)
        change(picture).save(folder / copy, **options)
        return frozenset((original, copy))

    def turned(degrees):
        return lambda picture: picture.rotate(degrees, expand=True)

    same = plant('train/ants/000.png', 'train/ants/copy.png', lambda p: p)
    near = {
        plant('train/ants/001.png', 'train/ants/mirrored.jpg', ImageOps.mirror, quality=85),
        plant('train/ants/002.png', 'train/bees/turned.jpg', turned(90), quality=85),
        plant('train/bees/003.png', 'test/bees/flipped.png', ImageOps.flip),
        plant('train/bees/004.png', 'test/ants/both.webp',
              lambda p: ImageOps.mirror(p.rotate(270)), quality=90),
        plant('train/bees/005.png', 'train/bees/small.jpg', lambda p: p.resize((48, 48))),
        plant('train/bees/006.png', 'train/bees/dim.png', lambda p: p.point(lambda v: v * 0.8)),
    }  # fmt: skip
    out, content = run(folder, status=1)
    assert names(content, 'exact_duplicates') == {same}
    assert names(content, 'near_duplicates') == near
    assert len(names(content, 'two_labels')) == 2
    assert len(names(content, 'across_splits')) == 2
    assert '4 of them mirrored or turned' in out
    for kind in ('exact_duplicates', 'near_duplicates', 'two_labels', 'across_splits'):
        assert Image.open(tmp_path / 'set-audit' / f'{kind}.png').size[0] > 100
    # A first training says it too, and with the split to draw keeps the copies together.
    shutil.rmtree(folder / 'test')
    out, _ = train(
        f'--config=configs/photos_small.py:folder:{folder}/train', '--config.epochs=0.1',
        f'--workdir={tmp_path / "run"}', '--config.dataset.image_size=32', '--config.model.width=8',
    )  # fmt: skip
    assert '5 pairs of images are equal or nearly so, 1 with two labels, none in two splits' in out


@pytest.mark.parametrize('frames', [4, 20])
def test_any_number_of_copies_is_found(frames):
    scenes, others = patches(12, 3), patches(100, 4)
    generator = np.random.default_rng(0)
    images = [np.clip(scene + generator.normal(0, 4, scene.shape), 0, 255).astype(np.uint8)
              for scene in scenes for _ in range(frames)] + others  # fmt: skip
    clusters = duplicates.clusters(duplicates.find(np.stack(images)), len(images))
    for i in range(12):
        assert len(set(clusters[i * frames : (i + 1) * frames])) == 1
    assert len(set(clusters)) == 112


@pytest.mark.parametrize('where', ['border', 'corners', 'image_size', 'file_size', 'mean_colour'])
def test_a_planted_shortcut_is_found(tmp_path, where):
    folder = clean(tmp_path / 'set')
    for i, path in enumerate(sorted((folder / 'ants').iterdir())):
        image = np.array(Image.open(path))
        if where == 'border':
            for edge in (np.s_[:2], np.s_[-2:], np.s_[:, :2], np.s_[:, -2:]):
                image[edge] = image[edge] // 2
        if where == 'corners':
            image[:3, :3] //= 3
        if where == 'mean_colour':
            image = (image * [1.0, 0.5, 0.5]).astype(np.uint8)
        picture = Image.fromarray(image)
        if where == 'image_size' and i % 3:
            picture = picture.resize((80, 80))
        picture.save(path, compress_level=0 if where == 'file_size' else 6)
    source = sources.load(f'folder:{folder}', '', Policy(64, 'squeeze', 0), Console(True))
    found, _ = findings.audit(source)
    probes = {f.text for f in found if f.kind == 'shortcut'}
    assert {f.level for f in found if f.kind == 'shortcut'} == {'warning'}
    expected = {'border': 'the border', 'corners': 'corners', 'image_size': 'width and height',
                'file_size': 'the size of the file', 'mean_colour': 'the mean colour'}  # fmt: skip
    assert any(expected[where] in text for text in probes), probes


def test_odd_images_and_small_classes_are_named(tmp_path):
    folder = clean(tmp_path / 'set', ('ants', 'bees', 'wasps'))
    for i in range(45):
        (folder / 'wasps' / f'{i:03}.png').unlink()
    one = Image.open(folder / 'ants' / '000.png')
    one.point(lambda v: v // 8).save(folder / 'ants' / 'dark.png')
    Image.new('RGB', (64, 64), (200, 10, 30)).save(folder / 'ants' / 'flat.png')
    Image.open(folder / 'bees' / '001.png').resize((4, 4)).resize((64, 64), 3).save(
        folder / 'bees' / 'blurred.png'
    )
    Image.open(folder / 'bees' / '002.png').resize((5, 5)).save(folder / 'bees' / 'tiny.png')
    (folder / 'bees' / 'broken.jpg').write_bytes(b'')
    out, content = run(folder, status=1)
    assert names(content, 'dark') == {'ants/dark.png'}
    assert names(content, 'single_colour') == {'ants/flat.png'}
    assert 'bees/blurred.png' in names(content, 'blurred')
    assert names(content, 'tiny') == {'bees/tiny.png'}
    assert content['unreadable'] == [
        {'name': 'bees/broken.jpg', 'class': 'bees', 'reason': 'an empty file'}
    ]
    assert kinds(content) >= {'few', 'unreadable'}
    assert 'imbalance' in kinds(content) | kinds(content, 'note')
    assert "the class 'wasps' has 15 images" in out


def test_an_unusable_set_says_so(tmp_path):
    folder = clean(tmp_path / 'set', per_class=20)
    for path in sorted((folder / 'bees').iterdir())[2:]:
        path.write_text('no image')
    out, content = run(folder, status=3)
    assert 'Unusable' in out
    assert kinds(content, 'obstacle') == {'unreadable', 'too_few'}
    assert len(content['unreadable']) == 18


@pytest.mark.parametrize('build', ['one class', 'nothing readable'])
def test_what_cannot_be_read_at_all_is_unusable_too(tmp_path, build):
    folder = clean(tmp_path / 'set', per_class=5)
    if build == 'one class':
        shutil.rmtree(folder / 'bees')
    for path in folder.rglob('*.png'):
        if build != 'one class':
            path.write_bytes(b'')
    out, content = run(folder, status=3)
    assert 'Unusable' in out
    assert kinds(content, 'obstacle') == {'unusable'}


def test_images_of_one_colour_and_odd_names_are_no_trouble(tmp_path):
    for name in ('[/bold] a, b', 'caf\udce9'):
        (tmp_path / 'set' / name).mkdir(parents=True)
        for i in range(30):
            Image.new('RGB', (16, 16), (i, 2 * i, 3 * i)).save(tmp_path / 'set' / name / f'{i}.png')
    out, content = run(tmp_path / 'set', status=1)
    assert '[/bold] a, b' in out
    assert kinds(content) >= {'single_colour'}


def test_any_source_is_audited_and_augmentation_is_shown(tmp_path):
    digits = load_digits()
    images, labels = digits.images[:600] * 15, digits.target[:600]
    np.savez(tmp_path / 'digits.npz', images=images.astype(np.uint8), labels=labels)
    out, err = audit(f'--data=npz:{tmp_path}/digits.npz', f'--workdir={tmp_path}', status=0)
    assert err == ''
    assert 'Clean' in out
    preview, _ = audit('--data=digits', f'--workdir={tmp_path}', '--preview=digits,noise=0.05')
    assert 'rotation=10' in preview
    picture = np.asarray(Image.open(tmp_path / 'preview.png'))
    assert picture.shape == (10 * 34, 9 * 34, 3)


@pytest.mark.parametrize(
    ('arguments', 'expected'),
    [
        ([], '--data is missing'),
        (['--data=folder:nowhere'], 'There is no folder'),
        (['--data=digits', '--preview=fotos'], "Did you mean 'photos'"),
        (['--dat=digits'], "Did you mean 'data'"),
        (['digits'], "Unexpected argument 'digits'"),
    ],
)
def test_mistakes_are_one_line(tmp_path, arguments, expected):
    _, err = audit(*arguments, f'--workdir={tmp_path / "audit"}', status=2)
    assert expected in err
    assert not (tmp_path / 'audit').exists()
    assert err.startswith('audit.py: ')
    assert err.count('\n') == 1


@pytest.mark.skipif(not SHARED.is_dir(), reason=f'prepared TFDS sets are not in {SHARED}')
def test_class_balanced_samples_of_fashion_mnist_raise_no_alarm():
    import dataclasses

    whole = sources.load('tfds:fashion_mnist', str(SHARED), Policy(0, 'squeeze', 0), Console(True))
    generator = np.random.default_rng(1)
    for _ in range(2):
        chosen = np.concatenate(
            [generator.permutation(np.flatnonzero(whole.labels == k))[:40] for k in range(10)]
        )
        sample = dataclasses.replace(
            whole, inputs=whole.inputs[chosen], labels=whole.labels[chosen],
            hashes=whole.hashes[chosen], names=[whole.names[i] for i in chosen], official={},
            files={name: values[chosen] for name, values in whole.files.items()}, cache=None,
        )  # fmt: skip
        found, _ = findings.audit(sample)
        assert [f.text for f in found] == []
