"""How many convolutions does a plain net need?

Plain nets of 1 to 4 stages on the digits and of 1 to 5 on larger images, with one and with two
convolutions in each stage: pooling halves the map between stages, so that on the digits the
fourth sees one pixel. The learning rate and the width of the first stage are those of the base
for all nets, and filters double with each stage, so that a deeper net is a wider one too.

On the digits, 24 runs: 78 s on 2 cores.
"""

from ml_collections import ConfigDict

from configs.sweeps import default
from configs.sweeps.factors import choice


def get_config(dataset: str = 'digits') -> ConfigDict:
    """Returns the sweep; `--config=configs/sweeps/depth.py:folder:PATH` names the data set."""
    most = 4 if dataset == 'digits' else 5
    sizes = [(convolutions,) * stages for convolutions in (1, 2) for stages in range(1, most + 1)]
    return default.get_config(default.small_net(dataset), [choice('model.stage_sizes', *sizes)])
