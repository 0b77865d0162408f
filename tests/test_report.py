"""The page: whole without a network, safe against names, readable on a phone; plain errors."""

import json
import os
import shutil

import numpy as np
import pytest
from conftest import TINY, finish, start
from pages import Page, at_390_pixels, check_whole
from PIL import Image
from sklearn.datasets import load_digits

from configs import default
from errors import UserError
from reporting import comparison, page, runs
from training.loop import train_and_evaluate

EVIL = '<script>alert("x")'


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Two seeds of one net on photos, one of which was evaluated, and a run on a table."""
    folder = tmp_path_factory.mktemp('runs')
    bunch = load_digits()
    for digit, name in ((0, 'zero'), (1, EVIL)):
        for i, image in enumerate(bunch.images[bunch.target == digit][:80]):
            path = folder / 'photos' / name / f'{i:03}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((image * 15).astype(np.uint8)).save(path)
    for seed in (0, 1):
        config = default.get_config(f'folder:{folder / "photos"}', 'plain')
        fields = {'batch_size': 32, 'augment': 'none', 'dataset.image_size': 8, 'seed': seed}
        config.update_from_flattened_dict(TINY | fields)
        train_and_evaluate(config, folder / f'seed{seed}', quiet=True)
    values = np.random.default_rng(0).normal(size=(120, 2)).round(4)
    lines = ['a,b,target', *(f'{a},{b},{2 * a - b:.4f}' for a, b in values)]
    (folder / 'table.csv').write_text('\n'.join(lines))
    config = default.get_config(f'table:{folder / "table.csv"}', 'dense')
    config.update_from_flattened_dict({'epochs': 5.0, 'batch_size': 32})
    train_and_evaluate(config, folder / 'numbers', quiet=True)
    return folder


@pytest.fixture(scope='module')
def report(folder):
    """The page of both seeds, and what the command said."""
    arguments = (folder / 'seed0', folder / 'seed1', f'--output={folder / "page.html"}')
    out, err = finish(start(*arguments, command='report.py'))
    assert err == ''
    return folder / 'page.html', out


def command(*arguments, status=0):
    return finish(start(*arguments, command='report.py'), status)


def test_the_page_is_whole_and_asks_for_nothing(report):
    path, out = report
    assert 'seed0 was not evaluated yet: python evaluate.py' in out
    parsed = Page(path.read_text())
    check_whole(parsed)
    assert len(parsed.all('img')) >= 10
    ids = [attributes['id'] for _, attributes in parsed.tags if attributes.get('id')]
    links = {a['href'].removeprefix('#') for a in parsed.all('a')}
    assert links <= set(ids)
    for section in ('summary', 'diagnosis', 'data', 'net', 'curves', 'classes', 'calibration',
                    'mistakes', 'layers', 'cost', 'again'):  # fmt: skip
        assert {f'run1-{section}', f'run2-{section}'} <= set(ids)


def test_names_cannot_run_as_code(report):
    text = report[0].read_text()
    parsed = Page(text)
    assert not parsed.all('script')
    assert EVIL in parsed.text
    assert '<script' not in text


def test_the_figures_stand_beside_the_page(report, folder):
    figures = json.loads(report[0].with_suffix('.json').read_text())
    accuracy = [run['evaluation']['figures']['accuracy']['value'] for run in figures['runs']]
    (config,) = figures['comparison']['configs']
    assert config['runs'] == ['seed0', 'seed1']
    assert config['mean'] == pytest.approx(np.mean(accuracy))
    assert config['deviation'] == pytest.approx(np.std(accuracy, ddof=1))
    difference = figures['comparison']['runs'][1]['difference']
    assert difference['value'] == pytest.approx(accuracy[1] - accuracy[0])
    assert difference['low'] < difference['value'] < difference['high']
    assert difference['examples'] == figures['runs'][0]['result']['validation']['examples']


def test_a_run_of_numbers_and_what_is_up_to_date(folder):
    out, _ = command(folder / 'numbers')
    assert 'was not evaluated yet' in out
    parsed = Page((folder / 'numbers' / 'report.html').read_text())
    assert 'wrong by' in parsed.text
    out, _ = command(folder / 'numbers')
    assert 'evaluated' not in out
    later = (folder / 'numbers' / 'evaluation' / 'validation' / 'evaluation.json').stat().st_mtime
    os.utime(folder / 'numbers' / 'result.json', (later + 9, later + 9))
    assert runs.to_be_judged(folder / 'numbers') == 'was evaluated before it ended'


def test_several_configs_are_compared_with_their_seeds(report, folder):
    def wider(run):
        content = {**run.content, 'figures': {**run.content['figures']}}
        return runs.Run(run.path / 'wider', {**run.config, 'model.width': 16}, run.result,
                        run.lines, run.splits, run.folder, content)  # fmt: skip

    both = [runs.read(folder / name) for name in ('seed0', 'seed1')]
    compared = comparison.compare([*both, *map(wider, both)])
    first, second = compared['configs']
    assert first['difference'] is None
    assert second['changes'] == ['--config.model.width=16']
    assert second['difference']['value'] == 0
    assert second['difference']['low'] <= 0 <= second['difference']['high']


def test_mistakes_end_in_one_line(report, folder, tmp_path):
    _, err = command(tmp_path / 'none', status=2)
    assert err == f'report.py: There is no run folder {tmp_path / "none"}.\n'
    _, err = command(status=2)
    assert err.startswith('report.py: Name a run folder, or several')
    unfinished = shutil.copytree(folder / 'seed0', tmp_path / 'unfinished')
    (unfinished / 'result.json').unlink()
    with pytest.raises(UserError, match='has not ended'):
        runs.to_be_judged(unfinished)
    one, other = runs.read(folder / 'seed0'), runs.read(folder / 'seed1')
    with pytest.raises(UserError, match='There is no folder'):
        page.write([one], tmp_path / 'nowhere' / 'page.html')
    other.result['class_names'] = ['a', 'b']
    with pytest.raises(UserError, match='have other classes'):
        page.write([one, other], tmp_path / 'page.html')
    other.result['class_names'] = one.class_names
    for split in other.content['data_splits']:
        other.splits[split] = ['other']
    with pytest.raises(UserError, match='have not one example in common'):
        page.write([one, other], tmp_path / 'page.html')


def test_a_browser_shows_it_at_390_pixels(report, tmp_path):
    width, shown, broken = at_390_pixels(report[0], tmp_path)
    assert width <= 390
    assert shown >= 10
    assert broken == 0
