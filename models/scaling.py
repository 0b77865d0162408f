"""Width and depth multipliers over any family: pure arithmetic on config fields."""

import math
from collections.abc import Mapping
from typing import Any


def round_filters(filters: float, divisor: int = 8) -> int:
    """Rounds to a multiple of `divisor`, at least one, never below 90 % of the request.

    The rule of MobileNet and EfficientNet (Tan and Le 2019, reference implementation).
    """
    rounded = max(divisor, int(filters + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * filters else rounded


def scale(model: Mapping[str, Any], width: float, depth: float) -> dict[str, Any]:
    """Returns the model's fields with the width and the stage sizes multiplied.

    A multiplier of 1 changes nothing. Stage sizes round up (EfficientNet's rule), the width
    rounds by `round_filters`.
    """
    scaled = dict(model)
    if width != 1.0:
        scaled['width'] = round_filters(model['width'] * width)
    if depth != 1.0:
        # The 1e-9 keeps 1.1 * 10 from becoming 12 through floating point.
        scaled['stage_sizes'] = tuple(math.ceil(n * depth - 1e-9) for n in model['stage_sizes'])
    return scaled
