"""How well the small dense and recurrent nets do: a table of two classes, and a chaotic series.

  python benchmarks/tables_and_series.py                about a minute on 2 cores
  python benchmarks/tables_and_series.py --json=FILE    the figures, with versions and hardware

The table is scikit-learn's breast cancer data (Street, Wolberg and Mangasarian 1993), its 10 `mean`
columns of 569 rows, in 5 stratified folds: run i has seed i and fold i as its test split, so that
each row is tested once. scikit-learn's logistic regression sees the same training rows.

The series is that of Mackey and Glass 1977, "Oscillation and Chaos in Physiological Control
Systems", 2,000 rows one unit of time apart, predicted 6 rows ahead; its splits follow time, so the
seeds differ in first weights and order alone.
"""

import csv
import pathlib
import statistics
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from absl import app, flags, logging
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

import input_pipeline
from benchmarks import report
from configs import dense_small, recurrent_small
from console import Console
from training import compilation_cache
from training.loop import train_and_evaluate

_FOLDER = flags.DEFINE_string(
    'folder', 'runs/benchmark-tables-and-series', 'Where tables and run folders go.'
)
_HORIZON = 6
_FOLDS = 5
_STEPS = 100  # Of integration, for one unit of time.


def mackey_glass(rows: int, delay: int = 17, transient: int = 500) -> list[float]:
    """Integrates dx/dt = 0.2 x(t - delay) / (1 + x(t - delay)^10) - 0.1 x(t) from x = 1.2.

    Runge-Kutta of order 4 with 100 steps for a unit of time; the delayed value in the middle of a
    step is the mean of its ends. Returns one value for each unit of time after the transient.
    """

    def slope(now: float, before: float) -> float:
        return 0.2 * before / (1 + before**10) - 0.1 * now

    x, lag, step = [1.2] * (delay * _STEPS + 1), delay * _STEPS, 1 / _STEPS
    for _ in range((rows + transient) * _STEPS):
        now, start, end = x[-1], x[-1 - lag], x[-lag]
        middle = (start + end) / 2
        k1 = slope(now, start)
        k2 = slope(now + step / 2 * k1, middle)
        k3 = slope(now + step / 2 * k2, middle)
        k4 = slope(now + step * k3, end)
        x.append(now + step / 6 * (k1 + 2 * k2 + 2 * k3 + k4))
    return x[lag + 1 :: _STEPS][transient:]


def write(path: pathlib.Path, header: Sequence[str], rows: Iterable[Sequence]) -> pathlib.Path:
    """Writes a csv file and returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open('w', newline='') as file:
        csv.writer(file).writerows([header, *rows])
    return path


def breast_cancer(folder: pathlib.Path) -> list[pathlib.Path]:
    """Writes the 10 `mean` columns and the label once for each fold, which is the test split."""
    data = load_breast_cancer()
    inputs, labels = data.data[:, :10], data.target_names[data.target]
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=0).split(inputs, labels)
    paths = []
    for fold, (_, test) in enumerate(folds):
        splits = np.full(len(labels), 'train')
        splits[test] = 'test'
        rows = [[*row, *ends] for row, *ends in zip(inputs, labels, splits, strict=True)]
        header = [*data.feature_names[:10], 'label', 'split']
        paths.append(write(folder / f'breast_cancer-{fold}.csv', header, rows))
    return paths


def logistic_regression(path: pathlib.Path) -> float:
    """Returns the test accuracy of scikit-learn's logistic regression on the same rows."""
    pipeline = input_pipeline.load(dense_small.get_config(f'table:{path}'), 0, Console(quiet=True))
    inputs, labels = pipeline.source.inputs, pipeline.source.labels
    train, test = pipeline.members['train'], pipeline.members['test']
    model = make_pipeline(StandardScaler(), LogisticRegression())
    return float(model.fit(inputs[train], labels[train]).score(inputs[test], labels[test]))


def train_table(path: pathlib.Path, folder: pathlib.Path, units: tuple, seed: int) -> Any:
    """Trains a dense net with one sigmoid output; returns its result."""
    config = dense_small.get_config(f'table:{path}')
    config.model.hidden_units, config.model.head.outputs = units, 'sigmoid'
    config.seed = seed
    return train_and_evaluate(config, folder / f'dense-{units}-{seed}', quiet=True)


def train_series(path: pathlib.Path, folder: pathlib.Path, seed: int) -> Any:
    """Trains LSTM(64), LSTM(32) and one output; returns its result."""
    config = recurrent_small.get_config(f'series:{path}')
    config.dataset.horizon, config.seed = _HORIZON, seed
    return train_and_evaluate(config, folder / f'recurrent-{seed}', quiet=True)


def main(_) -> None:
    """Trains all nets, prints their figures and writes them."""
    logging.set_verbosity(logging.FATAL)  # What Orbax logs below that.
    compilation_cache.enable()
    folder = pathlib.Path(_FOLDER.value)
    tables = breast_cancer(folder)
    series = write(folder / 'mackey_glass.csv', ['x'], ([x] for x in mackey_glass(2000)))
    runs = {
        'linear': [train_table(table, folder, (), i) for i, table in enumerate(tables)],
        'dense (16,)': [train_table(table, folder, (16,), i) for i, table in enumerate(tables)],
        'LSTM (64, 32)': [train_series(series, folder, seed) for seed in range(3)],
    }
    print('\nmean and standard deviation over seeds, on the test split')
    for name, done in runs.items():
        show(name, done)
    others = [logistic_regression(table) for table in tables]
    print(f'scikit-learn\'s logistic regression {100 * statistics.mean(others):.2f} ± '
          f'{100 * statistics.stdev(others):.2f} % right')  # fmt: skip
    kept = ('config_hash', 'validation', 'test', 'parameters', 'seconds')
    content = {name: [{k: run[k] for k in kept} for run in done] for name, done in runs.items()}
    report.write(content | {'logistic regression': others})


def show(name: str, done: Sequence[Any]) -> None:
    """Prints the test figure of a net over its seeds."""
    tests = [run['test'] for run in done]
    if tests[0]['accuracy'] is None:
        what = f'times as exact as the last value, {_HORIZON} rows ahead'
        values = [test['last_value_rmse'] / test['rmse'] for test in tests]
    else:
        what, values = '% right', [100 * test['accuracy'] for test in tests]
    seconds = statistics.mean(run['seconds']['total'] for run in done)
    print(
        f'{name:14} {done[0]["parameters"]:7,} parameters  {statistics.mean(values):6.2f} ± '
        f'{statistics.stdev(values):.2f} {what} ({len(done)} seeds, {seconds:.0f} s each)'
    )


if __name__ == '__main__':
    app.run(main)
