"""Which learning rate and weight decay suit the net?

Pairs from a thirtieth to ten times the values of the base, evenly spread over their logarithms, one
run each: where the answer is smooth, another point says more than a second run of the same one. A
best point at the edge asks for a wider range.
"""

from ml_collections import ConfigDict

from configs.sweeps import default
from configs.sweeps.factors import log_uniform


def get_config(dataset: str = 'digits') -> ConfigDict:
    """Returns the sweep; `--config=configs/sweeps/learning_rate.py:mnist` picks the data set."""
    base = default.small_net(dataset)
    space = [
        log_uniform(f'optimizer.{name}', base.optimizer[name] / 30, base.optimizer[name] * 10)
        for name in ('learning_rate', 'weight_decay')
    ]
    changes = {'sampler': 'quasi_random', 'replicates': 1, 'budget.runs': 24}
    return default.get_config(base, space, **changes)
