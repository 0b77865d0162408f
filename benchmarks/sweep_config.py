"""The spaces that benchmarks/sweep.py searches: a sweep config, as of `sweep.py --config`.

KerasTuner's side reads the same factors from here; it needs no JAX, so nothing of ours that does is
imported at the top.
"""

from typing import Any

from configs.sweeps.factors import Factor, choice, log_uniform

_OPTIMIZER = (
    log_uniform('optimizer.learning_rate', 0.003, 1.0),
    log_uniform('optimizer.weight_decay', 1e-5, 1e-2),
)
SPACES: dict[str, tuple[Factor, ...]] = {
    'optimizer': _OPTIMIZER,
    'architecture': (
        *_OPTIMIZER,
        choice('model.stage_sizes', (1,), (1, 1), (1, 1, 1), (1, 1, 1, 1)),
        choice('model.width', 8, 16, 32),
    ),
}
_LENGTHS = {'digits': 27.0, 'fashion_mnist': 9.0}
_OTHER_LENGTH = 9.0


def base(dataset: str) -> Any:
    """Returns the training config that every trial begins with.

    Epochs are powers of three, as Hyperband divides them.
    """
    from configs import plain_small

    config = plain_small.get_config(dataset)
    config.update_from_flattened_dict({
        'model.width': 16,
        'epochs': _LENGTHS.get(dataset, _OTHER_LENGTH),
        'optimizer.warmup_epochs': 1.0,
        'augment': 'none',
        'dataset.group_by': 'none',
        'dataset.validation_fraction': 0.2,
    })  # fmt: skip
    if dataset != 'digits':
        config.dataset.subset = 5000.0
    return config


def get_config(words: str = 'digits,optimizer') -> Any:
    """Returns the sweep; `--config=benchmarks/sweep_config.py:DATASET,SPACE` names the others."""
    from configs.sweeps import default

    dataset, _, space = words.rpartition(',')
    return default.get_config(
        base(dataset), SPACES[space], sampler='random', replicates=1, vary_splits=False
    )
