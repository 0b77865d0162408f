"""Folders and tables of photos: whatever is in them is read correctly or named."""

import csv
import io
import json
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT, load, train
from PIL import Image, ImageOps

from configs import default, photos_small
from console import Console
from data import cache, sources
from data.decode import Policy, UnreadableImageError, decode
from errors import UserError
from training.loop import train_and_evaluate

PHOTO = np.asarray(  # Smooth, so that JPEG changes it little; no symmetry.
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (4, 5, 3), np.uint8)).resize(
        (60, 48), Image.Resampling.BICUBIC
    )
)
GREY = np.asarray(Image.fromarray(PHOTO).convert('L'))


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """A cache for each test, so that every image is decoded."""
    folder = tmp_path_factory.mktemp('cache')
    monkeypatch.setenv('LEADLINE_CACHE', str(folder))
    return folder


def encode(image, kind, **options):
    buffer = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def photos(folder, classes=('ants', 'bees'), count=12, seed=0):
    """Writes a clean folder of PNGs, each image another, and returns it."""
    generator = np.random.default_rng(seed)
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            image = generator.integers(0, 200, (16, 16, 3), np.uint8)
            image[..., label % 3] += 50
            Image.fromarray(image).save(folder / name / f'{i:02}.png')
    return folder


def source(name, size=16, resize='crop', channels=0):
    return sources.load(str(name), '', Policy(size, resize, channels), Console(quiet=True))


# One image.


def rotated(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = Image.fromarray(PHOTO)
    # The inverse of what a viewer does to show it upright.
    stored = {
        1: upright, 3: upright.rotate(180), 6: upright.rotate(90, expand=True),
        8: upright.rotate(270, expand=True), 2: ImageOps.mirror(upright),
        4: ImageOps.flip(upright), 5: upright.transpose(Image.Transpose.TRANSPOSE),
        7: upright.transpose(Image.Transpose.TRANSVERSE),
    }[orientation]  # fmt: skip
    return stored, exif


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'WEBP', 'TIFF'])
def test_exif_rotation_is_applied_in_every_format(kind, orientation):
    stored, exif = rotated(orientation)
    options = {'quality': 95} if kind == 'JPEG' else {'lossless': True} if kind == 'WEBP' else {}
    got = decode(encode(stored, kind, exif=exif, **options), Policy(0, 'crop', 3))
    assert (got.width, got.height) == (60, 48)
    np.testing.assert_allclose(got.image_HWC.astype(int), PHOTO, atol=16 if kind == 'JPEG' else 0)


def alpha():
    layer = np.full((*PHOTO.shape[:2], 1), 255, np.uint8)
    layer[:20] = 0
    return np.concatenate([PHOTO, layer], axis=2)


def over_white():
    shown = PHOTO.copy()
    shown[:20] = 255
    return shown


def palette():
    return Image.fromarray(PHOTO).quantize(16)


FORMATS = {
    'bmp': (lambda: encode(PHOTO, 'BMP'), PHOTO),
    'tiff': (lambda: encode(PHOTO, 'TIFF', compression='tiff_lzw'), PHOTO),
    'webp': (lambda: encode(PHOTO, 'WEBP', lossless=True), PHOTO),
    'grey': (lambda: encode(GREY, 'PNG'), np.repeat(GREY[..., None], 3, axis=2)),
    'grey jpeg': (
        lambda: encode(GREY, 'JPEG', quality=97), np.repeat(GREY[..., None], 3, axis=2)
    ),
    'one bit': (
        lambda: encode(Image.fromarray(GREY).convert('1', dither=0), 'PNG'),
        np.repeat(np.where(GREY > 127, 255, 0).astype(np.uint8)[..., None], 3, axis=2),
    ),
    'alpha': (lambda: encode(alpha(), 'PNG'), over_white()),
    'grey and alpha': (
        lambda: encode(Image.fromarray(alpha()).convert('LA'), 'PNG'),
        np.where((alpha()[..., 3:] == 0), 255, GREY[..., None]).repeat(3, axis=2),
    ),
    'palette': (lambda: encode(palette(), 'PNG'), np.asarray(palette().convert('RGB'))),
    'palette with transparency': (
        lambda: encode(palette(), 'PNG', transparency=0),
        np.where(np.asarray(palette())[..., None] == 0, 255, np.asarray(palette().convert('RGB'))),
    ),
    'gif': (
        lambda: encode(palette(), 'GIF', save_all=True, append_images=[palette().rotate(180)]),
        np.asarray(palette().convert('RGB')),
    ),
    '16 bit': (
        lambda: encode(GREY.astype(np.uint16) * 257, 'PNG'), np.repeat(GREY[..., None], 3, axis=2)
    ),
    '16 bit tiff': (
        lambda: encode(GREY.astype(np.uint16) * 257, 'TIFF'), np.repeat(GREY[..., None], 3, axis=2)
    ),
    'cmyk': (
        lambda: encode(Image.fromarray(PHOTO).convert('CMYK'), 'JPEG', quality=97), PHOTO
    ),
    'one pixel': (lambda: encode(PHOTO[:1, :1], 'PNG'), PHOTO[:1, :1]),
}  # fmt: skip


@pytest.mark.parametrize('kind', FORMATS)
def test_formats_and_colour_modes_are_read_right(kind):
    content, expected = FORMATS[kind]
    got = decode(content(), Policy(0, 'crop', 3)).image_HWC
    tolerance = 12 if kind in ('grey jpeg', 'cmyk') else 0
    np.testing.assert_allclose(got.astype(int), expected.astype(int), atol=tolerance)


BAD = {
    'empty.jpg': (b'', 'an empty file'),
    'text.jpg': (b'not a photo, but a text\n', 'a text file'),
    'page.png': (b'<html>404 Not Found</html>', 'a text file'),
    'random.jpg': (bytes(range(256)) * 4, 'no image of a known format'),
    'phone.heic': (b'\0\0\0\x18ftypheic' + bytes(200), 'HEIC'),
    'cut.jpg': (encode(PHOTO, 'JPEG')[:700], 'truncated'),
    'cut.png': (encode(PHOTO, 'PNG')[:1500], 'truncated'),
    'header.jpg': (encode(PHOTO, 'JPEG')[:20], '.'),
    'bomb.png': (encode(Image.new('1', (20_000, 20_000)), 'PNG'), 'million pixels'),
    'range.tif': (encode(GREY.astype(np.float32), 'TIFF'), 'floating-point'),
    'depth.tif': (encode(Image.fromarray(GREY.astype(np.int32) * 10**6), 'TIFF'), '32 bits'),
    'damaged.webp': (encode(PHOTO, 'WEBP')[:100], '.'),
}


@pytest.mark.parametrize('name', BAD)
def test_bad_files_say_why(name):
    content, reason = BAD[name]
    with pytest.raises(UnreadableImageError, match=reason):
        decode(content, Policy(16, 'crop', 3))


def test_damaged_exif_does_not_lose_the_photo():
    stored, exif = rotated(1)
    content = bytearray(encode(stored, 'JPEG', exif=exif, quality=95))
    place = content.index(b'Exif\0\0') + 6
    content[place + 4 : place + 26] = b'\xff' * 22
    got = decode(bytes(content), Policy(0, 'crop', 3)).image_HWC
    np.testing.assert_allclose(got.astype(int), PHOTO, atol=16)


@pytest.mark.parametrize('resize', ['crop', 'squeeze', 'pad'])
def test_resizing_agrees_with_pillow(resize):
    picture = Image.fromarray(PHOTO)
    expected = {
        'crop': ImageOps.fit(picture, (16, 16), Image.Resampling.BILINEAR),
        'squeeze': picture.resize((16, 16), Image.Resampling.BILINEAR),
        'pad': ImageOps.pad(picture, (16, 16), Image.Resampling.BILINEAR),
    }[resize]
    got = decode(encode(PHOTO, 'PNG'), Policy(16, resize, 3)).image_HWC
    np.testing.assert_allclose(got.astype(int), np.asarray(expected).astype(int), atol=3)


def test_scaled_decoding_of_large_jpegs_is_near_full_decoding():
    large = Image.fromarray(PHOTO).resize((1200, 960), Image.Resampling.BICUBIC)
    full = np.asarray(ImageOps.fit(large, (32, 32), Image.Resampling.BILINEAR)).astype(int)
    got = decode(encode(large, 'JPEG', quality=95), Policy(32, 'crop', 3))
    assert (got.width, got.height) == (1200, 960)
    assert abs(got.image_HWC.astype(int) - full).mean() < 1.5


# Folders.


def test_a_hostile_folder_is_read_or_named_and_trains(tmp_path):
    folder = photos(tmp_path / 'my photos', ('Fähre', '树叶'), count=20)
    nested = folder / 'Fähre' / 'deep er'
    nested.mkdir()
    Image.fromarray(PHOTO).save(nested / 'LOUD NAME.JPG', quality=95)
    (folder / 'Fähre' / 'linked.png').symlink_to(nested / 'LOUD NAME.JPG')
    (folder / '树叶' / 'round').symlink_to(folder / '树叶', target_is_directory=True)
    (folder / '树叶' / 'broken.png').symlink_to(folder / 'nowhere.png')
    for clutter in ('.DS_Store', 'Thumbs.db', '._02.png', 'notes.txt'):
        (folder / 'Fähre' / clutter).write_bytes(b'clutter')
    (folder / '__MACOSX').mkdir()
    os.mkfifo(folder / '树叶' / 'pipe.jpg')
    (folder / 'test').mkdir()
    Image.fromarray(PHOTO).save(folder / 'test' / 'no class.png')
    for kind, (content, _) in FORMATS.items():
        suffix = '.gif' if kind == 'gif' else '.jpg' if 'jpeg' in kind or kind == 'cmyk' else '.png'
        (folder / '树叶' / f'{kind}{suffix}').write_bytes(content())
    for name, (content, _) in BAD.items():
        (folder / '树叶' / name).write_bytes(content)
    secret = os.geteuid() != 0  # Root reads everything.
    if secret:
        shutil.copy(nested / 'LOUD NAME.JPG', folder / 'Fähre' / 'secret.jpg')
        (folder / 'Fähre' / 'secret.jpg').chmod(0)
    bad = {f'树叶/{name}' for name in (*BAD, 'broken.png', 'pipe.jpg')} | (
        {'Fähre/secret.jpg'} if secret else set()
    )

    with pytest.raises(UserError, match=r'14 of \d+ images cannot be read, more than .*bomb.png'):
        load(default.get_config(f'folder:{folder}'))
    out, err = train(
        '--config=configs/photos_small.py:folder:' + str(folder), f'--workdir={tmp_path / "run"}',
        '--config.dataset.max_unreadable=0.4', '--config.epochs=1', '--config.model.width=8',
        '--config.dataset.image_size=32',
    )  # fmt: skip
    assert err == ''
    assert f'{len(bad)} of ' in out
    assert 'test/ holds no class folders' in out
    assert '1 files are no images by their ending (.txt)' in out
    splits = json.loads((tmp_path / 'run' / 'splits.json').read_text())
    assert {skipped['name'] for skipped in splits['skipped']} == bad
    assert all(skipped['reason'] for skipped in splits['skipped'])
    names = {splits['names'][digest] for part in ('train', 'validation', 'test')
             for digest in splits[part]}  # fmt: skip
    read = {p.relative_to(folder).as_posix() for p in folder.rglob('*.*')
            if not p.is_dir() and p.name not in ('.DS_Store', 'Thumbs.db', '._02.png', 'notes.txt')
            and p.parent.name != 'test'} - bad  # fmt: skip
    # The linked photo has the same content, so the same hash, as the one it links to.
    assert names | {'Fähre/linked.png', 'Fähre/deep er/LOUD NAME.JPG'} == read
    assert json.loads((tmp_path / 'run' / 'result.json').read_text())['status'] == 'finished'


def test_split_folders_are_recognised_and_said(tmp_path):
    for split, count in (('Train', 12), ('val', 4), ('TEST', 5)):
        photos(tmp_path / split, count=count, seed=count)
    photos(tmp_path / 'extra')
    found = source(f'folder:{tmp_path}')
    assert found.class_names == ['ants', 'bees']
    assert {name: len(part) for name, part in found.official.items()} == {
        'train': 24, 'validation': 8, 'test': 10,
    }  # fmt: skip
    said = ' '.join(found.notes)
    assert 'Train/ holds the train split' in said
    assert 'extra beside train/ is left out' in said


def test_a_folder_called_test_beside_class_folders_is_a_split(tmp_path):
    photos(tmp_path)
    photos(tmp_path / 'test', count=3, seed=5)
    found = source(f'folder:{tmp_path}')
    assert found.class_names == ['ants', 'bees']
    assert {name: len(part) for name, part in found.official.items()} == {'train': 24, 'test': 6}


@pytest.mark.parametrize(
    ('build', 'expected'),
    [
        (lambda f: None, 'There is no folder'),
        (lambda f: f.mkdir(), 'holds no images in class folders'),
        (lambda f: photos(f, ('ants',)), "one class folder with images, 'ants'"),
        (lambda f: photos(f / 'inner'), r'It holds 2 folders: did you mean folder:.*inner'),
        (lambda f: photos(f, count=2), "'ants' has 2 examples, too few for every split"),
        (lambda f: (f.mkdir(), Image.fromarray(PHOTO).save(f / 'a.png')), 'such as a.png outside'),
        (lambda f: (photos(f / 'train'), photos(f / 'test', ('wasps',))), "'wasps' of .* no image"),
        (lambda f: (photos(f), [p.write_text('x') for p in f.rglob('*.png')]), 'None of the 24'),
    ],
    ids=['absent', 'empty', 'one class', 'one too deep', 'two images', 'loose', 'lost', 'all bad'],
)
def test_folders_that_cannot_be_used_are_explained(tmp_path, build, expected):
    build(tmp_path / 'set')
    with pytest.raises(UserError, match=expected):
        load(default.get_config(f'folder:{tmp_path / "set"}'))


# Tables.


def table(folder, rows, name='table.csv'):
    with (folder / name).open('w', newline='', encoding='utf-8') as file:
        if name.endswith('.csv'):
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        else:
            file.writelines(json.dumps(row) + '\n' for row in rows)
    return f'folder:{folder / name}'


@pytest.mark.parametrize('name', ['table.csv', 'table.jsonl'])
def test_tables_give_labels_groups_and_splits(tmp_path, name):
    photos(tmp_path)
    rows = [
        {'path': str(p.relative_to(tmp_path)), 'label': p.parent.name.upper(),
         'group': f'tree {i // 4}', 'split': 'test' if i % 12 >= 8 else 'train'}
        for i, p in enumerate(sorted(tmp_path.rglob('*.png')))
    ]  # fmt: skip
    found = source(table(tmp_path, rows, name))
    assert found.class_names == ['ANTS', 'BEES']
    assert {s: len(part) for s, part in found.official.items()} == {'train': 16, 'test': 8}
    assert found.groups[0] == 'tree 0'
    config = default.get_config(table(tmp_path, rows, name))
    config.dataset.validation_fraction = 0.4
    members = load(config).members
    for part in members.values():
        for other in members.values():
            if part is not other:
                assert not set(found.groups[part]) & set(found.groups[other])


def test_faults_of_a_table_are_named(tmp_path):
    photos(tmp_path)
    rows = [{'path': str(p.relative_to(tmp_path)), 'label': p.parent.name}
            for p in sorted(tmp_path.rglob('*.png'))]  # fmt: skip
    bad = [{'path': 'gone.png', 'label': 'ants'}, {'path': 'ants/00.png', 'label': 'bees'},
           {'path': 'bees/00.png', 'label': ''}]  # fmt: skip
    found = source(table(tmp_path, [*rows, *bad]))
    assert len(found.labels) == 24
    reasons = {name: reason for name, _, reason in found.skipped}
    assert 'not there' in reasons['gone.png']
    assert reasons['ants/00.png'] == 'line 27 of table.csv names it again, as bees after ants'
    assert reasons['bees/00.png'] == 'no label in line 28 of table.csv'
    with pytest.raises(UserError, match='has no column label; it has path'):
        source(table(tmp_path, [{'path': 'x'}]))
    with pytest.raises(UserError, match='the split is'):
        source(table(tmp_path, [{**row, 'split': 'tset'} for row in rows]))
    assert [label for name, label, _ in found.skipped if name == 'bees/00.png'] == [-1]
    (tmp_path / 'list.jsonl').write_text('[1, 2]')
    with pytest.raises(UserError, match='is no object'):
        source(f'folder:{tmp_path / "list.jsonl"}')
    (tmp_path / 'bad.jsonl').write_text('{"path": ')
    with pytest.raises(UserError, match='cannot be read as a table'):
        source(f'folder:{tmp_path / "bad.jsonl"}')
    with pytest.raises(UserError, match='is a file: give a folder'):
        source(f'folder:{tmp_path / "ants" / "00.png"}')


# The decode cache.


def entries(folder):
    return sorted(p for p in (folder / 'images').iterdir() if p.suffix == '')


def count_decodes(monkeypatch):
    calls = []
    original = cache.decode.decode
    monkeypatch.setattr(
        cache.decode, 'decode', lambda *given: (calls.append(given), original(*given))[1]
    )
    return calls


def test_photos_are_decoded_once_until_they_or_the_policy_change(tmp_path, own_cache, monkeypatch):
    calls = count_decodes(monkeypatch)
    folder = photos(tmp_path / 'set')
    first = source(f'folder:{folder}', channels=3)
    assert len(calls) == 24
    second = source(f'folder:{folder}', channels=3)
    assert len(calls) == 24
    np.testing.assert_array_equal(first.inputs, second.inputs)
    assert isinstance(second.inputs, np.memmap)
    source(f'folder:{folder}', size=8, channels=3)
    assert len(calls) == 48
    Image.fromarray(PHOTO).save(folder / 'ants' / '00.png')
    changed = source(f'folder:{folder}', channels=3)
    assert len(calls) == 72
    assert (changed.hashes != first.hashes).sum() == 1


def test_a_grey_set_has_one_channel_and_a_colour_photo_makes_it_three(tmp_path):
    folder = tmp_path / 'set'
    for name in ('a', 'b'):
        (folder / name).mkdir(parents=True)
        for i in range(4):
            Image.fromarray(np.roll(GREY, i, axis=0)).save(folder / name / f'{i}.png')
    assert source(f'folder:{folder}').inputs.shape == (8, 16, 16, 1)
    Image.fromarray(PHOTO).save(folder / 'b' / 'z.png')
    assert source(f'folder:{folder}').inputs.shape == (9, 16, 16, 3)
    assert source(f'folder:{folder}', channels=1).inputs.shape == (9, 16, 16, 1)


@pytest.mark.parametrize('damage', ['cut', 'overwrite', 'meta', 'columns', 'half columns'])
def test_a_damaged_cache_is_built_anew(tmp_path, own_cache, damage):
    folder = photos(tmp_path / 'set')
    expected = np.array(source(f'folder:{folder}').inputs)
    (entry,) = entries(own_cache)
    images = entry / 'images.bin'
    if damage == 'cut':
        os.truncate(images, images.stat().st_size // 2)
    elif damage == 'overwrite':  # Same size, same time.
        status = images.stat()
        content = bytearray(images.read_bytes())
        content[100] ^= 1
        images.write_bytes(content)
        os.utime(images, ns=(status.st_atime_ns, status.st_mtime_ns))
    elif damage == 'half columns':
        os.truncate(entry / 'columns.npz', (entry / 'columns.npz').stat().st_size // 2)
    else:
        (entry / f'{damage}.{"json" if damage == "meta" else "npz"}').write_bytes(b'{"shape": [')
    np.testing.assert_array_equal(source(f'folder:{folder}').inputs, expected)


def test_a_full_disk_while_caching_leaves_nothing_half_built(tmp_path, own_cache, monkeypatch):
    folder = photos(tmp_path / 'set')
    original = pathlib.Path.open

    def full(path, *given, **named):
        place = pathlib.Path('/dev/full') if path.suffix == '.bin' else path
        return original(place, *given, **named)

    with monkeypatch.context() as patched:
        patched.setattr(pathlib.Path, 'open', full)
        with pytest.raises(OSError, match='No space left'):
            source(f'folder:{folder}')
    assert not entries(own_cache)
    assert not list((own_cache / 'images').glob('*.tmp'))
    assert len(source(f'folder:{folder}').labels) == 24


def test_killed_builds_and_two_builders_at_once(tmp_path, own_cache):
    folder = photos(tmp_path / 'set', count=300)
    code = (
        'import sys; from console import Console; from data import sources; '
        'from data.decode import Policy; '
        's = sources.load(sys.argv[1], "", Policy(64, "crop", 0), Console(True)); '
        'print(s.inputs.sum(dtype="int64"), s.inputs.shape)'
    )

    def start():
        return subprocess.Popen(
            [sys.executable, '-c', code, f'folder:{folder}'], cwd=ROOT, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    killed = start()
    while not list(own_cache.glob('images/*.tmp/images.bin')):
        assert killed.poll() is None, killed.communicate()
    killed.kill()
    killed.communicate()
    assert not entries(own_cache)
    both = [start(), start()]
    outputs = [process.communicate(timeout=120) for process in both]
    assert outputs[0] == outputs[1], outputs
    assert '(600, 64, 64, 3)' in outputs[0][0]
    assert len(entries(own_cache)) == 1


def test_a_damaged_index_of_files_is_made_anew(tmp_path, own_cache):
    folder = photos(tmp_path / 'set')
    expected = source(f'folder:{folder}').hashes
    for content in ('[]', '{', '{"x": 3}'):
        for index in (own_cache / 'files').glob('*.json'):
            index.write_text(content)
        np.testing.assert_array_equal(source(f'folder:{folder}').hashes, expected)


def test_a_link_to_a_folder_above_shows_no_other_class(tmp_path):
    folder = photos(tmp_path / 'set')
    (folder / 'ants' / 'up').symlink_to(folder, target_is_directory=True)
    found = source(f'folder:{folder}')
    assert np.bincount(found.labels).tolist() == [12, 12]


@pytest.mark.skipif(os.geteuid() == 0, reason='root reads everything')
def test_a_folder_without_permission_is_named(tmp_path):
    folder = photos(tmp_path / 'set', ('ants', 'bees', 'wasps'))
    (folder / 'wasps').chmod(0)
    with pytest.raises(UserError, match=r'No permission to read .*wasps'):
        source(f'folder:{folder}')
    (folder / 'wasps').chmod(0o700)


def test_a_class_without_a_readable_image_is_named(tmp_path):
    folder = photos(tmp_path / 'set', count=40)
    (folder / 'wasps').mkdir()
    (folder / 'wasps' / 'empty.png').write_bytes(b'')
    with pytest.raises(UserError, match="'wasps' has no images to train on"):
        load(default.get_config(f'folder:{folder}'))


def test_a_run_does_not_go_on_with_other_photos(tmp_path):
    folder = photos(tmp_path / 'set', count=30)
    config = photos_small.get_config(f'folder:{folder}')
    config.update_from_flattened_dict({
        'epochs': 0.1, 'dataset.image_size': 16, 'model.width': 8, 'model.stage_sizes': (1, 1),
    })  # fmt: skip
    train_and_evaluate(config, tmp_path / 'run', quiet=True)
    (tmp_path / 'run' / 'result.json').unlink()
    shutil.copy(folder / 'ants' / '00.png', folder / 'ants' / 'new.png')
    with pytest.raises(UserError, match='have changed since the run'):
        train_and_evaluate(config, tmp_path / 'run', quiet=True)
