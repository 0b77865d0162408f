"""Pruners, and how they go together with replicates."""

import warnings
from collections.abc import Sequence
from typing import Any

import optuna


def pruner(config: Any) -> optuna.pruners.BasePruner:
    """Returns Optuna's pruner of `config.pruner`."""
    base = config.base
    evaluations = max(1, round(base.epochs / base.evaluate_every_epochs))
    if config.pruner == 'median':
        return optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=evaluations // 10)
    if config.pruner == 'successive_halving':
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3)
    if config.pruner == 'hyperband':
        return optuna.pruners.HyperbandPruner(
            min_resource=1, max_resource=evaluations, reduction_factor=3
        )
    if config.pruner == 'wilcoxon':
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', optuna.exceptions.ExperimentalWarning)
            return optuna.pruners.WilcoxonPruner(p_threshold=0.1)
    return optuna.pruners.NopPruner()


def by_epochs(pruner: str) -> bool:
    """Tells whether a pruner looks at the evaluations of a run, rather than at whole runs."""
    return pruner in ('median', 'successive_halving', 'hyperband')


def stages(pruner: str, replicates: int) -> list[Sequence[int]]:
    """Returns the replicates of a point in the groups between which it may be pruned."""
    numbers = range(replicates)
    if pruner == 'wilcoxon':
        return [[r] for r in numbers]
    if by_epochs(pruner) and replicates > 1:
        return [[0], list(numbers[1:])]
    return [list(numbers)]
