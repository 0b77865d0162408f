"""Width, depth and resolution multipliers over any family: pure arithmetic on config fields."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

_WIDTHS = ('width', 'stem_width', 'head_width', 'filters', 'units', 'hidden_units')


class Multipliers(NamedTuple):
    """What the filters, the blocks of a stage and the height and width of images are times."""

    width: float
    depth: float
    resolution: float


def multipliers(scale: Any) -> Multipliers:
    """Returns what `config.scale` comes to.

    Compound scaling multiplies all three together: depth by alpha^phi, width by beta^phi and
    resolution by gamma^phi (Tan and Le 2019, "EfficientNet", equation 3), where FLOPs grow by
    about (alpha * beta^2 * gamma^2)^phi.
    """
    return Multipliers(
        width=scale.width * scale.beta**scale.phi,
        depth=scale.depth * scale.alpha**scale.phi,
        resolution=scale.resolution * scale.gamma**scale.phi,
    )


def round_filters(filters: float, divisor: int = 8) -> int:
    """Rounds to a multiple of `divisor`, at least one, never below 90 % of the request.

    The rule by which the filters of MobileNet and EfficientNet-B1 to B7 were published (reference
    implementation of Tan and Le 2019).
    """
    rounded = max(divisor, int(filters + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * filters else rounded


def nearest_filters(filters: float) -> int:
    """Rounds to the nearest multiple of 8; of a smaller power of two where that would be coarse.

    The error is at most 1/16, so that FLOPs grow as asked for in narrow nets too, where
    `round_filters` would jump from 16 to 24.
    """
    divisor = 2 ** min(3, int(math.log2(max(filters, 8.0) / 8)))
    return max(1, math.floor(filters / divisor + 0.5)) * divisor


def scale(model: Mapping[str, Any], width: float, depth: float) -> dict[str, Any]:
    """Returns the model's fields with the filters and the stage sizes multiplied.

    A multiplier of 1 changes nothing. Stage sizes round to the nearest whole number (0.5 up) and
    filters by `nearest_filters`; a number of 0, which stands for another field, stays.

    Raises:
      ValueError: the family has no stages whose sizes could be multiplied.
    """
    scaled = dict(model)
    if width != 1.0:
        for name in _WIDTHS:
            if name in model:
                scaled[name] = _each(lambda n: n and nearest_filters(n * width), model[name])
    if depth != 1.0:
        if 'stage_sizes' not in model:
            raise ValueError(f'the family {model["family"]} has no stages to make deeper')
        scaled['stage_sizes'] = tuple(
            n and max(1, math.floor(n * depth + 0.5)) for n in model['stage_sizes']
        )
    return scaled


def _each(function: Callable[[int], int], value: Any) -> Any:
    return tuple(map(function, value)) if isinstance(value, tuple) else function(value)
