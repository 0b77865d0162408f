"""Runs of a study in MLflow, through its own client: `tracking='mlflow'`.

MLflow is not among the requirements: see `requirements-tracking.txt`. A run folder becomes one
MLflow run, whoever logs it and how often. The figures of the test split stay out of it.
"""

import hashlib
import importlib
import logging
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import filelock

from configs import default
from console import Console
from errors import UserError
from training.run_folder import RunFolder

# MLflow sends figures of its use to its makers, and tries for minutes to reach a server that is
# down. Who has set these variables knows better.
_SETTINGS = {
    'MLFLOW_DISABLE_TELEMETRY': 'true',
    'MLFLOW_HTTP_REQUEST_MAX_RETRIES': '2',
    'MLFLOW_HTTP_REQUEST_TIMEOUT': '20',
}
_KEY = 'run_hash'  # The tag by which a run folder is found again.
_MOST_METRICS, _MOST_PARAMETERS = 1000, 100  # Of one request, as MLflow's REST API limits them.


class MLflow:
    """Logs the runs of a study that have ended.

    They go to the server of MLFLOW_TRACKING_URI, and where it is not set into `mlflow.db` and
    `mlruns/` of the study folder: MLflow 3 has given up stores of plain files.

    Args:
      study: its folder, whose name is that of the experiment.
      console: is told, once, where MLflow fails.

    Raises:
      UserError: MLflow is not installed.
    """

    def __init__(self, study: str | os.PathLike, console: Console):
        for name, value in _SETTINGS.items():
            os.environ.setdefault(name, value)
        try:
            self._mlflow = importlib.import_module('mlflow')
        except ImportError as error:
            raise UserError(
                f"config.tracking='mlflow' needs MLflow ({error}): pip install -r "
                'requirements-tracking.txt, or set --config.tracking=none.'
            ) from error
        for name in ('mlflow', 'alembic'):  # They tell how a database is made.
            logging.getLogger(name).setLevel(logging.ERROR)
        self._study, self._console = pathlib.Path(study).resolve(), console
        self._client: Any = None
        self._warned = False

    def log(
        self, workdir: str | os.PathLike, point: int, replicate: int, factors: Mapping[str, Any]
    ) -> bool:
        """Logs a run folder that holds a final result; one that is logged already is left alone.

        A study must not end by its tracking: what goes wrong in MLflow is said in one line.

        Args:
          workdir: the run folder.
          point: number of the point.
          replicate: number of its run.
          factors: values of the factors, by dotted name.

        Returns:
          Whether MLflow holds the run now.
        """
        run = _Run(RunFolder(workdir), point, replicate, factors)
        try:
            # Of several processes one looks and creates at a time, and makes the database.
            with filelock.FileLock(self._study / '.mlflow.lock', timeout=60):
                self._log(run)
        except Exception as error:  # Whatever MLflow and what it stands on may raise.
            if not self._warned:
                reason = ' '.join(str(error).split())[:300] or type(error).__name__
                self._console.line(
                    f'Warning   MLflow has not taken {workdir}: {reason}. The study goes on.',
                    always=True,
                )
            self._warned = True
            return False
        return True

    def _log(self, run: '_Run') -> None:
        client = self._client = self._client or self._open()
        experiment = self._experiment(client)
        found = client.search_runs(
            [experiment],
            f"tags.{_KEY} = '{run.hash}'",
            run_view_type=self._mlflow.entities.ViewType.ALL,  # One deleted there stays so.
        )
        if found and found[0].info.status != 'RUNNING':
            return
        # Whoever was killed while logging left a run, which takes the same figures once more.
        logged = found[0] if found else client.create_run(
            experiment, start_time=run.began, tags=run.tags, run_name=run.name
        )  # fmt: skip
        number = logged.info.run_id
        entities = self._mlflow.entities
        metrics = [entities.Metric(*each) for each in run.metrics()]
        parameters = [entities.Param(*each) for each in run.parameters().items()]
        for i in range(0, len(metrics), _MOST_METRICS):
            client.log_batch(number, metrics=metrics[i : i + _MOST_METRICS])
        for i in range(0, len(parameters), _MOST_PARAMETERS):
            client.log_batch(number, params=parameters[i : i + _MOST_PARAMETERS])
        client.log_artifact(number, os.fspath(run.folder.path / 'config.json'))
        client.log_dict(number, run.result, 'result.json')
        status = 'FAILED' if run.result['status'] == 'diverged' else 'FINISHED'
        client.set_terminated(number, status, end_time=run.ended)

    def _open(self) -> Any:
        local = f'sqlite:///{self._study / "mlflow.db"}'
        return self._mlflow.MlflowClient(os.environ.get('MLFLOW_TRACKING_URI') or local)

    def _experiment(self, client: Any) -> str:
        """Returns the number of the experiment, which is made where there is none."""
        if found := client.get_experiment_by_name(self._study.name):
            return found.experiment_id
        own = None if os.environ.get('MLFLOW_TRACKING_URI') else (self._study / 'mlruns').as_uri()
        try:
            return client.create_experiment(self._study.name, artifact_location=own)
        except self._mlflow.MlflowException:
            # Another host was faster, or it cannot be made.
            if found := client.get_experiment_by_name(self._study.name):
                return found.experiment_id
            raise


class _Run:
    """What MLflow is told of a run folder."""

    def __init__(self, folder: RunFolder, point: int, replicate: int, factors: Mapping[str, Any]):
        self.folder, self._factors = folder, factors
        self._config = default.flatten(folder.read_json('config.json'))
        whole = folder.read_json('result.json')
        self.result = {name: value for name, value in whole.items() if name != 'test'}
        # A result is written once and holds its seconds: no other run has the same content.
        content = (folder.path / 'result.json').read_bytes()
        self.hash = hashlib.sha256(content).hexdigest()
        self.name = f'{point}/{replicate}'
        self.ended = int(1000 * (folder.path / 'result.json').stat().st_mtime)
        self.began = self.ended - int(1000 * self.result['seconds']['total'])
        self.tags = {
            _KEY: self.hash,
            'point': str(point),
            'replicate': str(replicate),
            'seed': str(self._config['seed']),
            'mlflow.source.git.commit': str(self.result['git_revision']),
            **{name: self.result[name] for name in ('config_hash', 'dataset', 'status')},
        }

    def parameters(self) -> dict[str, str]:
        """Returns the fields that are not at their defaults, and the factors, as text."""
        fields = default.described(self._config['model.family'])
        changed = {n: v for n, v in self._config.items() if v != fields[n].default}
        return {name: str(value) for name, value in (changed | dict(self._factors)).items()}

    def metrics(self) -> Iterator[tuple[str, float, int, int]]:
        """Yields name, value, time in milliseconds and step.

        The time is that of the end: it is the same whenever the run is logged.
        """
        for line in self.folder.read_metrics():
            for name, value in _numbers(line):
                if name != 'step':
                    yield name, value, self.ended, line['step']
        result = self.result
        reported = {
            'final': {f'validation_{name}': value for name, value in result['validation'].items()},
            'net': {name: result[name] for name in ('parameters', 'flops_per_example')},
            'seconds': result['seconds'],
        }
        for name, value in _numbers(reported):
            yield name, value, self.ended, result['last_step']


def _numbers(values: Mapping[str, Any], prefix: str = '') -> Iterator[tuple[str, float]]:
    """Yields the numbers of nested mappings by names such as `seconds/total`."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f'{prefix}{name}/')
        elif isinstance(value, int | float):
            yield f'{prefix}{name}', value
