"""Runs of a study in MLflow; all but the messages only where it is installed."""

import json
import sys

import pytest

from console import Console
from errors import UserError
from sweeping.tracking import MLflow
from training.loop import train_and_evaluate


def test_it_says_how_to_get_mlflow(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'mlflow', None)
    with pytest.raises(UserError, match=r'pip install -r requirements-tracking\.txt'):
        MLflow(tmp_path, Console())


@pytest.fixture(scope='module')
def study(tmp_path_factory):
    """A study folder with one run."""
    pytest.importorskip('mlflow')
    from configs import default

    folder = tmp_path_factory.mktemp('tracked') / 'depth'
    config = default.get_config('digits', 'dense')
    config.update_from_flattened_dict({'model.hidden_units': (4,), 'epochs': 2.0})
    train_and_evaluate(config, folder / 'runs' / '3' / '1', quiet=True)
    return folder


@pytest.fixture
def client(study, monkeypatch):
    """MLflow's own client of the study's store."""
    import mlflow

    monkeypatch.delenv('MLFLOW_TRACKING_URI', raising=False)
    return mlflow.MlflowClient(f'sqlite:///{study}/mlflow.db')


def test_a_run_killed_while_it_was_logged_is_logged_once(study, client, monkeypatch, capsys):
    run, factors = study / 'runs' / '3' / '1', {'optimizer.learning_rate': 0.1}

    def killed(*_, **__):
        raise RuntimeError('no\nmore')

    with monkeypatch.context() as patch:
        patch.setattr(type(client), 'set_terminated', killed)
        assert not MLflow(study, Console()).log(run, 3, 1, factors)
    assert f'MLflow has not taken {run}: no more. The study goes on.' in capsys.readouterr().out
    assert MLflow(study, Console()).log(run, 3, 1, factors)
    assert MLflow(study, Console()).log(run, 3, 1, factors)

    experiment = client.get_experiment_by_name('depth')
    (logged,) = client.search_runs([experiment.experiment_id])
    result = json.loads((run / 'result.json').read_text())
    assert (logged.info.status, logged.info.run_name) == ('FINISHED', '3/1')
    assert logged.data.params == {
        'model.hidden_units': '(4,)', 'epochs': '2.0', 'optimizer.learning_rate': '0.1',
        'augment': 'padded_crop=1,fill=black', 'batch_size': '64',  # Those of digits.
    }  # fmt: skip
    expected = {'point': '3', 'replicate': '1', 'seed': '0', 'dataset': 'digits'}
    expected |= {'config_hash': result['config_hash'], 'status': 'finished'}
    assert expected.items() <= logged.data.tags.items()
    metrics = logged.data.metrics
    assert metrics['final/validation_accuracy'] == result['validation']['accuracy']
    assert metrics['net/parameters'] == result['parameters']
    assert metrics['seconds/train'] == result['seconds']['train']
    history = client.get_metric_history(logged.info.run_id, 'validation_accuracy')
    lines = [json.loads(line) for line in (run / 'metrics.jsonl').read_text().splitlines()]
    assert [(each.step, each.value) for each in history] == [
        (line['step'], line['validation_accuracy']) for line in lines
    ]


def test_the_test_split_stays_sealed(study, client):
    MLflow(study, Console()).log(study / 'runs' / '3' / '1', 3, 1, {})
    experiment = client.get_experiment_by_name('depth')
    (logged,) = client.search_runs([experiment.experiment_id])
    number = logged.info.run_id
    assert [each.path for each in client.list_artifacts(number)] == ['config.json', 'result.json']
    held = json.loads((study / 'mlruns' / number / 'artifacts' / 'result.json').read_text())
    whole = json.loads((study / 'runs' / '3' / '1' / 'result.json').read_text())
    assert whole.pop('test')
    assert held == whole
    assert not any('test' in name for name in logged.data.metrics)


def test_a_server_that_is_down_does_not_end_the_study(study, monkeypatch, capsys):
    monkeypatch.setenv('MLFLOW_TRACKING_URI', 'http://127.0.0.1:9')
    monkeypatch.setenv('MLFLOW_HTTP_REQUEST_MAX_RETRIES', '0')
    tracker = MLflow(study, Console())
    assert not any(tracker.log(study / 'runs' / '3' / '1', 3, 1, {}) for _ in range(2))
    assert capsys.readouterr().out.count('Warning   MLflow has not taken') == 1
