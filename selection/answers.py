"""What is said of a difference, and what would have to be done before something can be said."""

import dataclasses
import math
from typing import Literal

import numpy as np

from selection.spread import Estimate

Answer = Literal['better', 'no better', 'cannot tell', 'worse']

_MOST_REPEATS = 10  # More runs than these repeats take nobody is advised to make.
_MOST_IMAGES = 100  # Times as many as there are.


@dataclasses.dataclass(frozen=True)
class Settle:
    """What would settle a comparison, if the difference stays as it is seen.

    Attributes:
      runs: more of each candidate; None where no number within reach would do, or none is needed.
      images: more of them, where runs do not do; None otherwise.
      sentence: for a reader; '' where nothing needs settling.
    """

    runs: int | None = None
    images: int | None = None
    sentence: str = ''


def answers(
    difference: np.ndarray, half_widths: tuple[np.ndarray, np.ndarray], delta: float
) -> np.ndarray:
    """Returns the answer to each comparison, as `Evidence.compare` (selection/verdict.py) has it.

    Args:
      difference: [...].
      half_widths: for `better`, and for `no better` and `worse`; each [...].
      delta: the smallest difference that matters.
    """
    above, below = half_widths
    holds = [difference - above > 0, difference + below < 0, difference + below < delta]
    return np.select(holds, ['better', 'worse', 'no better'], 'cannot tell')


def settle(found: Estimate, delta: float, levels: tuple[float, float], planned: int) -> Settle:
    """Solves for the runs, else for the images, at which the difference as seen has an answer.

    That is h < max(d, delta - d), with V = (lasting + passing / M) / N + run / (K * M) at other M
    and N. If the true difference is the one seen, the answer then comes in about half of the cases.

    Args:
      found: a difference that no answer holds for.
      delta: the smallest difference that matters.
      levels: of `better` and of `no better`.
      planned: looks.
    """

    def told(repeats: int, images: int) -> bool:
        then = found.after(repeats, images)
        looks = max(planned, repeats)
        halves = (then.half_width(levels[0], looks), then.half_width(levels[1], looks))
        return str(answers(found.mean, halves, delta)) != 'cannot tell'

    most = max(_MOST_REPEATS, found.repeats)
    for repeats in range(found.repeats + 1, most + 1):
        if told(repeats, found.images):
            runs = (repeats - found.repeats) * found.folds
            sentence = f'About {runs} more runs of each would settle it'
            if repeats > planned:
                sentence += f', in a study planned for {repeats * found.folds}'
            return Settle(runs=runs, sentence=f'{sentence}.')
    few, many = found.images, _MOST_IMAGES * found.images
    if not told(most, many):
        sentence = 'Neither more runs nor more images within reach would settle it.'
        return Settle(sentence=sentence)
    while many - few > max(1, found.images // 100):
        middle = (few + many) // 2
        few, many = (few, middle) if told(most, middle) else (middle, many)
    step = 10 ** max(0, math.floor(math.log10(many - found.images)) - 1)
    images = math.ceil((many - found.images) / step) * step
    sentence = (
        f'More runs alone would not settle it; {most * found.folds} runs of each with about '
        f'{images:,} more images would.'
    )
    return Settle(images=images, sentence=sentence)
