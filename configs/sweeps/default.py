"""Every field of a sweep, beside its `base` and its `space`: default, possible values, meaning.

A sweep file states a base config, what is varied, and differences: see `configs/sweeps/depth.py`.
"""

import dataclasses
import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from configs import default, photos_small, plain_small
from configs.sweeps import objectives
from configs.sweeps.factors import Factor
from errors import UserError, did_you_mean
from models.fields import field

FIELDS: dict[str, dataclasses.Field] = {
    'sampler': field(
        'grid', 'Which points are tried: all of them, at random, evenly spread (quasi_random), or '
        'near the best so far by Parzen estimators (tpe) or a Gaussian process (gp).',
        choices=('grid', 'random', 'quasi_random', 'tpe', 'gp')
    ),
    'seed': field(
        0, 'Seed of the sampler; that of training is base.seed.', at_least=0, at_most=2**32 - 1
    ),
    'pruner': field(
        'none', 'What ends a weak point early: a run below the median of others, below a share of '
        'others (successive_halving, hyperband), or replicates below those of the best (wilcoxon).',
        choices=('none', 'median', 'successive_halving', 'hyperband', 'wilcoxon')
    ),
    'replicates': field(
        3, 'Runs of each point, of seeds base.seed, base.seed + 1 and so on.', at_least=1
    ),
    'vary_splits': field(
        True, 'Replicates differ in their validation split or fold too, the same for all points; '
        'where a set has a validation split of its own, that split stays.'
    ),
    'budget.runs': field(
        0, 'Runs after which the sweep ends, in whole points, pruned ones too; 0: no limit.',
        at_least=0
    ),
    'budget.hours': field(
        0.0, 'Hours after which a call ends; the next one goes on. 0: no limit.', at_least=0.0
    ),
    'budget.epochs': field(
        0.0, 'Epochs of all runs together after which the sweep ends; 0: no limit.', at_least=0.0
    ),
    'objective': field(
        'validation_accuracy', 'What the sweep aims at; several, separated by commas, give a '
        f'Pareto front. Of {", ".join(objectives.OBJECTIVES)}.'
    ),
    'limits.parameters': field(
        0, 'Nets of more parameters are not tried; 0: no limit.', at_least=0
    ),
    'limits.flops': field(
        0.0, 'Nets of more FLOPs per example are not tried; 0: no limit.', at_least=0.0
    ),
    'limits.latency_ms': field(
        0.0, 'Nets that take more milliseconds to predict do not count; 0: no limit.',
        at_least=0.0
    ),
    'limits.memory_mb': field(
        0.0, 'Nets that need more megabytes to predict, with their weights, do not count; 0: no '
        'limit.', at_least=0.0
    ),
    'predict_batch': field(
        1, 'Examples predicted at once where latency and memory are measured.', at_least=1
    ),
    'workers': field(0, 'Processes that train; 0: one for each device.', at_least=0),
    'hang_seconds': field(
        300.0, 'A worker that has done no step for so long is replaced; compiling must not take '
        'longer.', at_least=1.0
    ),
    'tracking': field('none', 'Where else runs are logged.', choices=('none', 'mlflow')),
}  # fmt: skip

# Fields that decide which images are the test's.
_TEST_SPLIT = (
    'dataset.split_seed', 'dataset.test_fraction', 'dataset.group_by', 'dataset.splits_file',
)  # fmt: skip
# With fewer pairs no p-value of the signed-rank test is below 0.1, and the last run spares nothing.
_WILCOXON_REPLICATES = 5


def get_config(base: ConfigDict, space: Sequence[Factor], **changes: Any) -> ConfigDict:
    """Returns the locked config of a sweep.

    Args:
      base: a training config; its fields are those of all points, but for the factors.
      space: what is varied; a condition of a factor is on factors before it.
      **changes: fields of `FIELDS` that differ, by dotted name.
    """
    values = {name: f.default for name, f in FIELDS.items()}
    # The splits of a series follow time: there is one way to draw them.
    values['vary_splits'] = not base.dataset.name.startswith('series:')
    config = default.unflatten({'base': base, 'space': tuple(space), **values})
    config.update_from_flattened_dict(changes)
    return config


def small_net(dataset: str) -> ConfigDict:
    """Returns the config of the small plain net that suits a data set, deeper for photos."""
    file = photos_small if dataset.startswith('folder:') else plain_small
    return file.get_config(dataset)


def validate(config: ConfigDict) -> None:
    """Checks a sweep before anything of it is trained.

    Raises:
      UserError: names the first thing that is wrong and what it may be.
    """
    for name, kind in (('base', ConfigDict), ('space', tuple)):
        if not isinstance(config.get(name), kind):
            raise UserError(f'config.{name} is missing: make a sweep as configs/sweeps/ do.')
    own = {name: value for name, value in config.items() if name not in ('base', 'space')}
    default.check_fields(default.flatten(own), FIELDS)
    try:
        default.validate(config.base)
    except UserError as error:
        raise UserError(f'The base of the sweep: {error}') from error
    _check_space(config)
    _check_objectives(config)
    _check_search(config)


def _check_space(config: ConfigDict) -> None:
    if not config.space or not all(isinstance(factor, Factor) for factor in config.space):
        raise UserError(
            'config.space must hold what is varied, such as choice("model.width", 16, 32) of '
            'configs/sweeps/factors.py.'
        )
    before: dict[str, Factor] = {}
    for factor in config.space:
        text = (
            _bad_name(factor, before, config)
            or _bad_conditions(factor, before)
            or _bad_values(factor, before, config.base)
        )
        if text:
            raise UserError(f'The factor {factor.name} {text}')
        before[factor.name] = factor


def _bad_name(factor: Factor, before: Mapping[str, Factor], config: ConfigDict) -> str:
    name, fields = factor.name, default.described(config.base.model.family)
    if name not in fields:
        return f'is no field of the base.{default.hint(name, fields)}'
    if name in before:
        return 'is there twice.'
    if name in ('model.family', 'dataset.name'):
        return 'cannot be varied: make a sweep for each.'
    if name in _TEST_SPLIT:
        return 'cannot be varied: the test images of some points would train the others.'
    if name in ('evaluate_test', 'checkpoint_seconds', 'pictures'):
        return 'cannot be varied: a sweep sets it for all runs.'
    by_replicates = ['seed']
    if config.vary_splits:
        by_replicates += ['dataset.repeat', 'dataset.folds', 'dataset.fold']
    if name in by_replicates:
        remedy = '' if name == 'seed' else ', or set config.vary_splits=false'
        return f'is what replicates differ in: leave it out and set config.replicates{remedy}.'
    return ''


def _bad_conditions(factor: Factor, before: Mapping[str, Factor]) -> str:
    for name, values in factor.when:
        if name not in before:
            return f'depends on {name}, which is no factor before it.{did_you_mean(name, before)}'
        never = [value for value in values if not _takes(before[name], value)]
        if never or not values:
            return f'depends on {name}={never[0] if never else "nothing"!r}, which never occurs.'
    return ''


def _takes(factor: Factor, value: Any) -> bool:
    whole = type(value) is type(factor.low) is int
    return value in factor.choices or (whole and factor.low <= value <= factor.high)


def _bad_values(factor: Factor, before: Mapping[str, Factor], base: ConfigDict) -> str:
    values = factor.choices or (factor.low, factor.high)
    if not factor.choices and factor.low >= factor.high:
        return (
            f'goes from {factor.low:g} to {factor.high:g}: a range must have low < high, and a '
            'choice at least one value.'
        )
    if factor.log and factor.low <= 0:
        return f'cannot begin at {factor.low:g}, since it is logarithmic: begin above 0.'
    conditions = _fulfilled(factor, before)
    for i, value in enumerate(values):
        if value in values[:i]:
            return f'has the value {value!r} twice.'
        if isinstance(value, list):
            return f'has the list {value!r}: write a tuple.'
        try:
            changes = conditions | {factor.name: value}
            default.validate(default.unflatten(default.flatten(base) | changes))
        except UserError as error:
            return f'has the value {value!r}: {error}'
    return ''


def _fulfilled(factor: Factor, before: Mapping[str, Factor]) -> dict[str, Any]:
    """Returns values of other factors with which this one applies."""
    values: dict[str, Any] = {}
    for name, wanted in factor.when:
        values |= _fulfilled(before[name], before) | {name: wanted[0]}
    return values


def _check_objectives(config: ConfigDict) -> None:
    known, names = objectives.OBJECTIVES, objectives.names(config.objective)
    for i, name in enumerate(names):
        if name not in known:
            raise UserError(
                f'config.objective names {name!r}; there are {", ".join(known)}.'
                f'{did_you_mean(name, known)}'
            )
        if name in names[:i]:
            raise UserError(f'config.objective names {name} twice.')
    if config.pruner == 'none':
        return
    if len(names) > 1:
        raise UserError(
            f'config.pruner={config.pruner} compares one figure, and config.objective names '
            f'{len(names)}: name one, or set config.pruner=none.'
        )
    if names[0] not in objectives.MEASURED:
        raise UserError(
            f'config.pruner={config.pruner} needs what training shows: {names[0]} is known '
            'before. Set config.pruner=none.'
        )
    if config.pruner == 'wilcoxon' and config.replicates < _WILCOXON_REPLICATES:
        raise UserError(
            f'config.pruner=wilcoxon needs config.replicates={_WILCOXON_REPLICATES} or more: it '
            f'can tell nothing from fewer than {_WILCOXON_REPLICATES - 1} pairs of runs; there '
            f'are {config.replicates}.'
        )


def _check_search(config: ConfigDict) -> None:
    if config.vary_splits and config.base.dataset.name.startswith('series:'):
        raise UserError(
            'config.vary_splits is not for a series, whose splits follow time: set '
            'config.vary_splits=false.'
        )
    ranges = [factor for factor in config.space if not factor.choices]
    if config.sampler == 'grid' and ranges:
        raise UserError(
            f'config.sampler=grid needs values, and {ranges[0].name} is a range: name them with '
            'choice(), or set config.sampler=quasi_random and config.budget.runs.'
        )
    endless = [factor.name for factor in ranges if isinstance(factor.low, float)]
    if endless and not any(config.budget.values()):
        raise UserError(
            f'The sweep would never end, since {endless[0]} has endlessly many values: set '
            'config.budget.runs, config.budget.hours or config.budget.epochs.'
        )
    if config.sampler == 'gp' and importlib.util.find_spec('torch') is None:
        raise UserError(
            'config.sampler=gp needs PyTorch: pip install torch, or set config.sampler=tpe.'
        )
