"""What does a net gain when depth, width and resolution grow together?

Compound scaling (Tan and Le 2019, "EfficientNet", section 3.3) of a residual net of 14 layers: phi
from 0 to 4, where each step about doubles the FLOPs. Images begin at 32 pixels, so that photos end
at 61; the digits begin at their 8, and enlarging them adds no detail. Stage sizes and filters are
whole numbers, so that the FLOPs grow in uneven steps. The learning rate is that of the base for all
nets.
"""

from ml_collections import ConfigDict

from configs import resnet_small
from configs.sweeps import default
from configs.sweeps.factors import choice


def get_config(dataset: str = 'digits') -> ConfigDict:
    """Returns the sweep; `--config=configs/sweeps/compound.py:folder:PATH` names photos."""
    base = resnet_small.get_config(dataset)
    base.model.stage_sizes = (2, 2, 2)
    base.dataset.image_size = 8 if dataset == 'digits' else 32
    return default.get_config(base, [choice('scale.phi', 0.0, 1.0, 2.0, 3.0, 4.0)])
