"""choose.py as people run it: its answer, again, with more budget, killed, and misused."""

import ast
import fcntl
import json
import os
import random
import runpy
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT, finish, python

from configs import default
from console import Console
from selection import choice
from selection.data import Data
from training.loop import train_and_evaluate

SHORT = [
    '--config=configs/plain_small.py', '--config.epochs=5', '--config.batch_size=64',
    '--config.optimizer.warmup_epochs=1', '--config.evaluate_every_epochs=5',
    '--config.pictures=False', '--config.augment=none', '--max_flops=3.2e5',
]  # fmt: skip
BUDGET = 28


def start(workdir, *arguments, budget=BUDGET):
    return python('choose.py', *SHORT, f'--budget={budget}runs', f'--workdir={workdir}', *arguments,
                  quick=True)  # fmt: skip


def choose(workdir, *arguments, status=0, **options):
    return finish(start(workdir, *arguments, **options), status)


def ledger(workdir):
    return json.loads((workdir / 'test_openings.json').read_text())['openings']


def lasting(found):
    """What a choice came to, without what differs from call to call."""
    nets = [(net.name, net.fields, net.runs, net.mean, net.low, net.high, net.status)
            for net in found.candidates]  # fmt: skip
    return found.recommended, nets, found.verdicts, found.confirmed, found.resolution


@pytest.fixture(scope='module')
def chosen(tmp_path_factory):
    """A whole choice: workdir and what was printed. Made by one process of the tests for all."""
    of_process = tmp_path_factory.getbasetemp()
    folder = of_process.parent if 'PYTEST_XDIST_WORKER' in os.environ else of_process
    workdir, printed = folder / 'choice of digits', folder / 'choice of digits.txt'
    with open(folder / 'choice of digits.lock', 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not printed.is_file():
            out, err = choose(workdir)
            assert err == ''
            printed.write_text(out)
    return workdir, printed.read_text()


def test_an_answer_a_config_a_page_and_a_ledger(chosen):
    workdir, out = chosen
    found = choice.read(workdir)
    assert found.finished
    assert found.dataset == 'digits'
    assert found.test_images == 359
    best = found.candidate(found.recommended)
    assert best.runs >= 4
    assert best.low < best.mean < best.high
    assert [v.answer for v in found.verdicts]
    assert {net.role for net in found.candidates} >= {'constant', 'linear', 'ladder'}
    (confirmed,) = found.confirmed
    assert confirmed.name == found.recommended
    assert len(confirmed.runs) == len(confirmed.test) == 3
    assert confirmed.prediction_low <= confirmed.mean <= confirmed.prediction_high
    runs = [p for p in workdir.glob('runs/*/0/result.json')]
    assert len(runs) <= sum(spent.runs for spent in found.spent) <= BUDGET
    assert [entry['forced'] for entry in ledger(workdir)] == [False]
    tested = {json.loads(path.read_text())['test']['accuracy'] for path in runs}
    assert tested == {None}, 'only the ledger opens the test split'
    assert str(workdir / 'recommended_config.py') in out
    assert (workdir / 'choice.html').read_text().count(best.label)
    assert [*(workdir / found.final_run).rglob('evaluation.json')]
    assert 'convolution' in out


def test_train_trains_the_recommended_config_as_it_is(chosen, tmp_path):
    workdir, _ = chosen
    path = workdir / 'recommended_config.py'
    assert ast.get_docstring(ast.parse(path.read_text())).startswith('What choose.py recommends')
    config = runpy.run_path(str(path))['get_config']()
    trained = json.loads((workdir / choice.read(workdir).final_run / 'config.json').read_text())
    names = [name for name in default.flatten(trained) if name.startswith(('model', 'optimizer'))]
    assert {name: default.flatten(config)[name] for name in names} == {
        name: default.flatten(trained)[name] for name in names
    }
    result = train_and_evaluate(config, tmp_path / 'run', quiet=True)
    (confirmed,) = choice.read(workdir).confirmed
    assert result['test']['accuracy'] == pytest.approx(confirmed.mean, abs=0.02)


def test_the_same_command_shows_the_answer_and_opens_nothing(chosen):
    workdir, first = chosen
    before = {p: p.stat().st_mtime_ns for p in workdir.rglob('*') if p.is_file()}
    out, _ = choose(workdir)
    assert 'holds a choice that has ended' in out
    assert choice.read(workdir).recommended
    assert out.splitlines()[-1] == first.splitlines()[-1]
    assert {p: p.stat().st_mtime_ns for p in workdir.rglob('*') if p.is_file()} == before


def test_a_second_opening_is_refused_or_said(chosen, tmp_path):
    workdir = tmp_path / 'copy'
    subprocess.run(['cp', '-r', chosen[0], workdir], check=True)
    _, err = choose(workdir, budget=5, status=2)
    (line,) = err.splitlines()
    assert 'The test split was opened' in line
    assert '--force_test' in line
    assert len(ledger(workdir)) == 1
    choose(workdir, '--force_test', budget=5)
    assert [entry['forced'] for entry in ledger(workdir)] == [False, True]
    assert choice.read(workdir).openings[1].forced
    assert 'The test split was opened 2 times' in (workdir / 'choice.html').read_text()


def kill_group(workdir, reached, delay):
    """Kills the command and all its processes a while after `reached(workdir)`."""
    process = subprocess.Popen(
        [sys.executable, 'choose.py', *SHORT, f'--budget={BUDGET}runs', f'--workdir={workdir}'],
        cwd=ROOT, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        env={**os.environ, 'XLA_FLAGS': '--xla_backend_optimization_level=0',
             'PYTHONPATH': str(ROOT / 'tests' / 'without_tensorflow')},
    )  # fmt: skip
    while not reached(workdir):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    time.sleep(delay)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def test_killed_it_goes_on_to_the_same_answer(chosen, tmp_path):
    workdir = tmp_path / 'killed'
    count = random.randrange(1, 12)
    delay = random.random()
    kill_group(workdir, lambda w: len([*w.glob('runs/*/0/result.json')]) >= count, delay)
    early = choice.read(workdir)
    assert not early.finished, 'what is known so far is there at any time'
    assert early.recommended
    assert (workdir / 'recommended_config.py').is_file()
    kill_group(workdir, lambda w: (w / 'test_openings.json').is_file(), 0.2)
    choose(workdir)
    assert lasting(choice.read(workdir)) == lasting(choice.read(chosen[0])), (count, delay)
    assert len(ledger(workdir)) == 1


@pytest.mark.parametrize(('subset', 'growth'), [(1.0, 1438 / 1078), (400, 400 / 300)])
def test_the_final_fit_is_as_long_as_its_images(subset, growth):
    """The budget that is kept back for it was 4.5 times too much where a part was asked for."""
    base = default.get_config()
    base.dataset.name, base.dataset.folds, base.dataset.subset = 'digits', 4, subset
    data = Data(base, Console(quiet=True))
    assert data.growth == pytest.approx(0.95 * growth, rel=0.02)


MISTAKES = [
    ([], '--config is missing'),
    (['--dta=digits'], "Did you mean 'data'"),
    (['--data=digits', '--config=configs/plain_small.py'], 'Give --data or --config'),
    (['--data=digits', '--goal=acuracy>=0.9'], "Did you mean 'accuracy'"),
    (['--data=digits', '--goal=very good'], 'is no goal: write a measure and a bound'),
    (['--data=digits', '--budget=soon'], '--budget=soon is no budget'),
    (['--data=digits', '--budget=2runs'], '--budget=2runs is too little'),
    (['--data=digits', '--delta=0'], 'above 0'),
    (['--data=digits', '--goal=log_loss>=0.2'], 'log_loss is to be <='),
    (['--data=digits', '--goal=loss<=0.2'], 'labels of digits are classes'),
    (['--data=digits', '--goal=cost<=0.2'], 'needs --costs=FILE'),
    (['--data=series:shared.csv'], 'shared.csv'),
    (['--data=folder:/nowhere'], '/nowhere'),
    (['--data=digits', '--costs=nowhere.csv'], 'nowhere.csv'),
    (['--data=digits', '--budgte=5m'], "Did you mean 'budget'"),
]


def test_mistakes_are_said_in_one_line(tmp_path):
    for number, (arguments, words) in enumerate(MISTAKES):
        process = python('choose.py', *arguments, f'--workdir={tmp_path / str(number)}')
        _, err = finish(process, 2)
        assert err.count('\n') == 1, err
        assert words in err, (arguments, err)
        assert not (tmp_path / str(number) / 'choice.json').exists()
