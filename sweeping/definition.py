"""What a study is of: a sweep's config as JSON holds it, and back."""

import dataclasses
from typing import Any

from configs import default
from configs.sweeps import default as sweep_default
from configs.sweeps.factors import Factor

# What a study keeps from its first call on; the other fields may change from call to call.
DEFINING = (
    'sampler', 'seed', 'pruner', 'replicates', 'vary_splits', 'objective', 'limits',
    'predict_batch',
)  # fmt: skip


def definition(config: Any) -> dict[str, Any]:
    """Returns what may not change while a study lasts, as JSON holds it."""
    fields = {name: config[name] for name in DEFINING if name != 'limits'}
    return {
        'base': config.base.to_dict(),
        'space': [dataclasses.asdict(f) for f in config.space],
        'limits': config.limits.to_dict(),
        **fields,
    }


def config_of(there: dict[str, Any]) -> Any:
    """Returns the config of a sweep with this definition; all else is at its default."""
    base = default.unflatten(default.flatten(there['base']))
    config = sweep_default.get_config(base, tuple(map(_factor, there['space'])))
    config.update({name: there[name] for name in DEFINING if name in there})
    return config


def _factor(fields: dict[str, Any]) -> Factor:
    choices = tuple(tuple(c) if isinstance(c, list) else c for c in fields['choices'])
    when = tuple(
        (name, tuple(tuple(v) if isinstance(v, list) else v for v in values))
        for name, values in fields['when']
    )
    return Factor(**(fields | {'choices': choices, 'when': when}))
