"""Points of a space, as Optuna draws and stores them."""

import hashlib
import itertools
import json
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import optuna

from configs import default
from configs.sweeps.factors import Factor, grid_size

# Samplers whose points depend on no result: they are drawn in one order, whoever trains them.
PLANNED = ('grid', 'random', 'quasi_random')
# No sampler: points are those that a program asks for, see `Study.ask`.
ASKED = 'asked'
# What all runs of a sweep have: the test split is for the last look, and of thousands of short runs
# nobody looks at pictures, and few are killed.
OF_RUNS = {'evaluate_test': False, 'checkpoint_seconds': 10.0, 'pictures': False}
_MOST_REPEATED = 1000  # Draws in a row that bring no new point, after which there is none.


def sampler(kind: str, seed: int) -> optuna.samplers.BaseSampler:
    """Returns Optuna's sampler of this name."""
    warnings.filterwarnings('ignore', category=optuna.exceptions.ExperimentalWarning)
    if kind == 'tpe':
        return optuna.samplers.TPESampler(
            seed=seed, multivariate=True, group=True, constant_liar=True
        )
    if kind == 'gp':
        return optuna.samplers.GPSampler(seed=seed)
    if kind == 'quasi_random':
        return optuna.samplers.QMCSampler(qmc_type='sobol', scramble=True, seed=seed)
    return optuna.samplers.RandomSampler(seed=seed)


def suggest(trial: optuna.Trial, factors: Sequence[Factor]) -> dict[str, Any]:
    """Lets Optuna choose the value of each factor that applies; returns them by field."""
    values: dict[str, Any] = {}
    for f in factors:
        if not f.applies(values):
            continue
        if f.choices:
            stored = trial.suggest_categorical(f.name, [_stored(value) for value in f.choices])
            values[f.name] = _value(f, stored)
        elif isinstance(f.low, int):
            values[f.name] = trial.suggest_int(f.name, f.low, int(f.high), log=f.log)
        else:
            values[f.name] = trial.suggest_float(f.name, f.low, f.high, log=f.log)
    return values


def stored(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values of a point as Optuna stores them."""
    return {name: _stored(value) for name, value in values.items()}


def values_of(params: Mapping[str, Any], factors: Sequence[Factor]) -> dict[str, Any]:
    """Returns the point that Optuna stored, in the order of the factors."""
    return {f.name: _value(f, params[f.name]) for f in factors if f.name in params}


def key(values: Mapping[str, Any]) -> str:
    """Returns a text that is the same for equal points only."""
    return json.dumps(stored(values), sort_keys=True)


def folder_name(values: Mapping[str, Any]) -> str:
    """Returns the name of the folder of a point, which says what it is."""
    said = [f'{name.rpartition(".")[2]}={_short(value)}' for name, value in values.items()]
    name = re.sub(r'[^A-Za-z0-9._=,+-]+', '_', ','.join(said))
    # Two points may read the same: names are cut, and numbers rounded.
    return f'{name[:80]}-{hashlib.sha256(key(values).encode()).hexdigest()[:8]}'


def planned(kind: str, factors: Sequence[Factor], seed: int) -> Iterator[dict[str, Any]]:
    """Gives the points of a planned sampler in their order, each once, as long as there are any.

    The grid is in the order of the space, the last factor fastest.
    """
    if kind == 'grid':
        yield from _grid(factors)
        return
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=sampler(kind, seed))
    seen: set[str] = set()
    size = grid_size(factors)
    repeated = 0
    while repeated < _MOST_REPEATED and (size is None or len(seen) < size):
        trial = study.ask()
        values = suggest(trial, factors)
        study.tell(trial, 0.0)  # The quasi-random sampler learns the space from the first one.
        if key(values) in seen:
            repeated += 1
            continue
        repeated = 0
        seen.add(key(values))
        yield values


def _grid(factors: Sequence[Factor]) -> Iterator[dict[str, Any]]:
    seen = set()
    for chosen in itertools.product(*(f.choices for f in factors)):
        values: dict[str, Any] = {}
        for f, value in zip(factors, chosen, strict=True):
            if f.applies(values):
                values[f.name] = value
        if key(values) not in seen:  # Points differ in factors that apply alone.
            seen.add(key(values))
            yield values


def configs(sweep: Any, values: Mapping[str, Any], replicates: Sequence[int]) -> list[Any]:
    """Returns the training config of each of these replicates of a point.

    Replicate r has the same seed and the same split at all points, so that they can be compared
    in pairs.

    Args:
      sweep: the config of the sweep.
      values: of the factors.
      replicates: their numbers, from 0 on.
    """
    made = []
    for r in replicates:
        config = _of_family(sweep.base, values.get('model.family', sweep.base.model.family))
        config.update_from_flattened_dict(OF_RUNS | dict(values))
        config.seed += r
        if sweep.vary_splits and config.dataset.folds:
            config.dataset.repeat += (config.dataset.fold + r) // config.dataset.folds
            config.dataset.fold = (config.dataset.fold + r) % config.dataset.folds
        elif sweep.vary_splits:
            config.dataset.repeat += r
        made.append(config)
    return made


def _of_family(base: Any, family: str) -> Any:
    """Returns a copy of a training config; of another family with that family's defaults."""
    fields = default.flatten(base)
    if family != base.model.family:
        fields = {n: v for n, v in fields.items() if not n.startswith('model.')}
        described = default.described(family).items()
        fields |= {n: f.default for n, f in described if n.startswith('model.')}
    return default.unflatten(fields)


def _stored(value: Any) -> Any:
    """Returns what stands for a value in Optuna, whose categories are simple values."""
    return value if isinstance(value, bool | int | float | str) else json.dumps(value)


def _value(f: Factor, stored_value: Any) -> Any:
    matching = (value for value in f.choices if _stored(value) == stored_value)
    return next(matching, stored_value)


def _short(value: Any) -> str:
    if isinstance(value, tuple | list):
        return 'x'.join(map(str, value))
    return f'{value:.4g}' if isinstance(value, float) else str(value)
