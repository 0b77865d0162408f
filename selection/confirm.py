"""Confirmation: the choice and the baselines on all training data, and the test split, once."""

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import norm
from scipy.stats import t as student

from selection import ledger
from selection.candidates import Net
from selection.choice import Confirmed
from selection.verdict import scores_of, weights_of
from training.run_folder import RunFolder

if TYPE_CHECKING:
    from selection.driver import Driver

SEEDS = 3
# A little is held out, so that one sees whether training went well; the choice is made.
_HELD_OUT = 0.05
FIELDS = {'dataset.folds': 0, 'dataset.fold': 0, 'dataset.repeat': 0,
          'dataset.validation_fraction': _HELD_OUT}  # fmt: skip
_LEVEL = 0.95
_EVALUATION_SECONDS = 12.0  # Of the final net, by `evaluate.py`; a guess.
_LAYERS_RUNS = 4.0  # What the question after each block takes, in runs of the net; a guess.


def price(driver: 'Driver', net: Net) -> float:
    """Returns what the confirmation will take, in the unit of the budget."""
    nets = _nets(driver, net)
    if driver.request.budget.seconds is None:
        return float(SEEDS * len(nets))
    folds = driver.record.folds
    larger = folds / (folds - 1) * driver.data.growth()
    seconds = sum(driver.record.seconds(each) for each in nets)
    return SEEDS * larger * seconds / len(driver.call.processes) + _EVALUATION_SECONDS


def _nets(driver: 'Driver', net: Net) -> list[Net]:
    search = driver.search
    baselines = [n for n in search.nets.values() if search.roles[n.name] == 'baseline']
    return [net, *[n for n in baselines if n.name != net.name and not
                   driver.record.failure(n.name)]]  # fmt: skip


def confirm(driver: 'Driver') -> dict[str, Any] | None:
    """Trains the finalists, opens the test split and judges them by it.

    Returns:
      Fields of the `Choice`; None where it was interrupted.

    Raises:
      UserError: the test split was opened before.
    """
    recommended = driver.recommended()
    nets = _nets(driver, recommended)
    runs = [(net, seed) for net in nets for seed in range(SEEDS)]
    folders = driver.train_final([(net, _values(driver, net, seed)) for net, seed in runs])
    by_net: dict[str, list[str]] = {}
    for (net, _), folder in zip(runs, folders, strict=True):
        if folder:
            by_net.setdefault(net.name, []).append(folder)
    if recommended.name not in by_net:
        return None
    ledgered = ledger.open_test(driver.folder, [*by_net], driver.request.forced)
    confirmed = tuple(_judged(driver, name, there) for name, there in by_net.items())
    final = by_net[recommended.name][0]
    _evaluate(driver, final)
    return {'confirmed': confirmed, 'openings': ledgered, 'final_run': final}


def _values(driver: 'Driver', net: Net, seed: int) -> dict[str, Any]:
    return {
        **net.fields, **FIELDS, **driver.data.final_fields,
        'seed': driver.request.base.seed + seed,
    }  # fmt: skip


def _judged(driver: 'Driver', name: str, folders: list[str]) -> Confirmed:
    """Returns what runs come to on the test split, with the interval for a new run.

    A new run differs by its seed alone from these, so its interval is that of Student's t for
    one more observation: mean ± t * s * sqrt(1 + 1 / n). The interval of the mean counts the test
    images too: var / N + s^2 / n.
    """
    scores = np.stack([_test_scores(driver, folder) for folder in folders])
    weights = weights_of(driver.data.source.labels[driver.data.test], driver.measure)
    runs = np.average(scores, axis=1, weights=weights)
    mean, count = float(runs.mean()), len(runs)
    found = Confirmed(name, tuple(folders), tuple(map(float, runs)), mean)
    if count < 2:
        return found
    of_seeds = float(runs.var(ddof=1))
    apart = weights * (scores.mean(axis=0) - mean)
    of_images = float(apart.var(ddof=1)) / scores.shape[1]
    quantile = float(student.ppf((1 + _LEVEL) / 2, count - 1))
    normal = float(norm.ppf((1 + _LEVEL) / 2))
    half = np.hypot(normal * np.sqrt(of_images), quantile * np.sqrt(of_seeds / count))
    new = quantile * np.sqrt(of_seeds * (1 + 1 / count))
    return dataclasses.replace(
        found, low=mean - float(half), high=mean + float(half),
        prediction_low=mean - float(new), prediction_high=mean + float(new),
    )  # fmt: skip


def _test_scores(driver: 'Driver', folder: str) -> np.ndarray:
    """Judges the test split by the weights of a run."""
    from evaluation import outputs, trained

    net = trained.open_run(driver.study.folder / folder)
    found = outputs.compute(net, net.own_data(driver.quiet), 'test')
    return scores_of(found.values_NK, found.labels_N, driver.measure, driver.costs)


def _evaluate(driver: 'Driver', folder: str) -> None:
    """Has `evaluate.py` look at the final net, at its blocks too where there is time."""
    from evaluation.evaluate import evaluate_run

    run = RunFolder(driver.study.folder / folder)
    result = run.read_json('result.json')
    seconds = _LAYERS_RUNS * result['seconds']['total'] + _EVALUATION_SECONDS
    with_layers = driver.clock.seconds() + seconds < (driver.request.budget.seconds or np.inf)
    evaluate_run(run.path, split='test', with_layers=with_layers, quiet=True)
