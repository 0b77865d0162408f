"""Confirmation: the choice and the baselines on all training data, and the test split, once."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import norm
from scipy.stats import t as student

from errors import UserError
from selection import ledger
from selection.candidates import Net
from selection.choice import MEASURES, Confirmed
from selection.record import FINAL
from selection.verdict import weights_of
from training.run_folder import RunFolder

if TYPE_CHECKING:
    from selection.driver import Driver

_LEVEL = 0.95
_EVALUATION_SECONDS = 12.0  # Of the final net, by `evaluate.py`; a guess.
_LAYERS_RUNS = 4.0  # What the question after each block takes, in runs of the net; a guess.


def price(driver: 'Driver', net: Net) -> float:
    """Returns what the confirmation will take, in the unit of the budget."""
    if driver.request.budget.seconds is None:
        return float(FINAL * (1 + len(_baselines(driver))))  # The choice may still become another.
    seconds = sum(driver.record.seconds(each) for each in _nets(driver, net))
    training = FINAL * driver.data.growth * seconds / len(driver.call.processes)
    return training + _EVALUATION_SECONDS


def _nets(driver: 'Driver', net: Net) -> list[Net]:
    return [net, *[each for each in _baselines(driver) if each.name != net.name]]


def _baselines(driver: 'Driver') -> list[Net]:
    search, failed = driver.search, driver.record.failure
    return [n for n in search.nets.values()
            if search.roles[n.name] == 'baseline' and not failed(n.name)]  # fmt: skip


def train(driver: 'Driver') -> dict[str, list[str]] | None:
    """Trains the choice and the baselines on all data but the test split.

    Returns:
      Folders of the runs of each net, the recommended first, as many as the budget allowed; None
      where it was interrupted.

    Raises:
      UserError: the recommended net cannot be trained on all data.
    """
    recommended = driver.recommended()
    nets = _nets(driver, recommended)
    runs = [(net, seed) for net in nets for seed in range(FINAL)]
    wanted = [(net, _values(driver, net, seed)) for net, seed in runs]
    folders = driver.train_final(wanted)
    if not folders[0] and not driver.signals.received:
        # The budget is spent; but what was asked for is a trained net.
        folders[0] = driver.train_final(wanted[:1], within_budget=False)[0]
    by_net: dict[str, list[str]] = {}
    for (net, _), folder in zip(runs, folders, strict=True):
        if folder:
            by_net.setdefault(net.name, []).append(folder)
    if driver.signals.received:
        return None
    if recommended.name not in by_net:
        raise UserError(
            f'The final fit of {recommended.name} failed, though its runs over folds did not: '
            f'python sweep.py --show={driver.folder} says why.'
        )
    return by_net


def judge(driver: 'Driver', folders: Mapping[str, list[str]]) -> dict[str, Any]:
    """Opens the test split, judges the nets by it, and has the final one evaluated.

    Args:
      driver: of the choice.
      folders: as from `train`.

    Returns:
      Fields of the `Choice`.

    Raises:
      UserError: the test split was opened before, for other nets.
    """
    final = next(iter(folders.values()))[0]
    openings = ledger.open_test(driver.folder, folders, driver.request.forced)
    confirmed = _judged(driver, folders)
    _evaluate(driver, final)
    return {'confirmed': confirmed, 'openings': openings, 'final_run': final}


def _values(driver: 'Driver', net: Net, seed: int) -> dict[str, Any]:
    return {
        **net.fields, **driver.data.final_fields,
        'seed': driver.request.base.seed + seed,
    }  # fmt: skip


def _judged(driver: 'Driver', folders: Mapping[str, list[str]]) -> tuple[Confirmed, ...]:
    """Returns what nets come to on the test split, with intervals of the mean and of a new run.

    With n runs of a net, s^2 the variance of runs pooled over the nets (few seeds tell little of
    one), and var the variance of an image's mean score over N images, the half-width of the mean
    is the root of z^2 var / N + t^2 s^2 / n. A new run is judged by the same images and differs
    by its seed: its interval is mean ± t * s * sqrt(1 + 1 / n), Student's t for one more.
    """
    kind = MEASURES[driver.measure]
    sign = -1 if kind.less_is_better else 1
    scores = {
        name: sign * np.stack([_test_scores(driver, folder) for folder in of_net])
        for name, of_net in folders.items()
    }
    weights = weights_of(driver.data.source.labels[driver.data.test], driver.measure)
    runs = {name: np.average(each, axis=1, weights=weights) for name, each in scores.items()}
    freedom = sum(len(each) - 1 for each in runs.values())
    apart = sum(float(((each - each.mean()) ** 2).sum()) for each in runs.values())
    found = []
    for name, each in runs.items():
        mean, count = float(each.mean()), len(each)
        here = Confirmed(name, tuple(folders[name]), tuple(map(float, each)), mean)
        if freedom:
            of_image = weights * (scores[name].mean(axis=0) - mean)
            quantile = float(student.ppf((1 + _LEVEL) / 2, freedom))
            seeds = apart / freedom
            images = float(norm.ppf((1 + _LEVEL) / 2)) * np.sqrt(
                of_image.var(ddof=1) / len(weights)
            )
            half = np.hypot(images, quantile * np.sqrt(seeds / count))
            new = quantile * np.sqrt(seeds * (1 + 1 / count))
            most = 1.0 if kind.is_share else np.inf
            bounds = np.clip([mean - half, mean + half, mean - new, mean + new], 0.0, most)
            low, high, new_low, new_high = map(float, bounds)
            here = dataclasses.replace(
                here, low=low, high=high, prediction_low=new_low, prediction_high=new_high
            )
        found.append(here)
    return tuple(found)


def _test_scores(driver: 'Driver', folder: str) -> np.ndarray:
    """Judges the test split by the weights of a run."""
    from evaluation import outputs, trained

    net = trained.open_run(driver.study.folder / folder)
    pipeline = net.own_data(driver.quiet)
    found = outputs.compute(net, pipeline, 'test')
    predicted = net.recipe.task.predictions(found.values_NK, pipeline)
    return driver.scores({**predicted, 'label': found.labels_N})


def _evaluate(driver: 'Driver', folder: str) -> None:
    """Has `evaluate.py` look at the final net, at its blocks too where there is time."""
    from evaluation.evaluate import evaluate_run

    run = RunFolder(driver.study.folder / folder)
    result = run.read_json('result.json')
    seconds = _LAYERS_RUNS * result['seconds']['total'] + _EVALUATION_SECONDS
    in_time = driver.clock.seconds() + seconds < (driver.request.budget.seconds or np.inf)
    with_layers = in_time and run.read_json('config.json')['model']['family'] != 'dense'
    evaluate_run(run.path, split='test', with_layers=with_layers, quiet=True)
