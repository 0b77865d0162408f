"""Nets that begin as a smaller trained one: arithmetic on parameters and running statistics.

Chen, Goodfellow and Shlens 2016, "Net2Net" (Net2WiderNet and Net2DeeperNet), and Wei et al. 2016,
"Network Morphism". Arrays go by names such as `params/stage1/conv1/kernel`.
"""

import operator
from collections.abc import Collection, Mapping
from typing import NamedTuple

import numpy as np
from flax import linen as nn
from scipy.special import ndtr

from models.fields import options
from models.plain import Plain
from models.residual import Residual

FAMILIES = (Plain, Residual)
# Fields that a grown net takes care of, and those that change nothing in evaluation.
_SIZES = {'stage_sizes', 'width', 'filters', 'stem_width', 'head.dense_units'}
_TRAINING = {
    'dropout', 'head.dropout', 'stochastic_depth', 'remat', 'scan', 'zero_init', 'kernel_init',
    'norm_momentum',
}  # fmt: skip
_IDEMPOTENT = ('relu', 'relu6')  # Twice they are what they are once, so a layer can be an identity.


class Grown(NamedTuple):
    """A larger net's first weights.

    Attributes:
      arrays: by name, those that differ from fresh ones.
      kept: share of its parameters that are of the smaller net, copies counted.
      differences: why it does not compute what the smaller net computes; empty where it does.
    """

    arrays: dict[str, np.ndarray]
    kept: float
    differences: tuple[str, ...]


def grow(
    small: nn.Module,
    large: nn.Module,
    trained: Mapping[str, np.ndarray],
    fresh: Mapping[str, np.ndarray],
    new: Collection[str] = (),
) -> Grown:
    """Returns weights with which the larger net computes what the smaller one does, if it can.

    - *Wider*: channels are repeated, and what reads them divides its weights among the copies.
      Copies that are read alike would be trained alike for ever, so the division is uneven by
      random numbers that add up to 0 over the copies (Wang et al. 2024, "LEMON", breaks symmetry
      so): those of the fresh weights. That changes nothing at the start.
    - *Deeper within a stage*: a residual block begins with a last scale of 0 (Goyal et al. 2017,
      section 5.1), a convolution of the plain family as an identity, whose batch norm undoes
      itself.
    - *Another stage* pools once more, which no weights undo: it is fresh, and so is the head.

    From the plain to the residual family convolutions go by their order in each stage, the first
    one into the stem, and the rest is fresh.

    Args:
      small: a net of `FAMILIES`.
      large: likewise.
      trained: parameters and running statistics of `small`.
      fresh: all those of `large`, as initialised.
      new: modules of `large` that stay fresh, such as `head/logits`.
    """
    differences = _differing_fields(small, large)
    if type(small) is not type(large):
        trained = {_place_in_residual(name): array for name, array in trained.items()}
    if type(small) is not type(large) or len(small.stage_sizes) != len(large.stage_sizes):
        new = (*new, 'head')
    arrays = {
        name: _widened(name, np.asarray(trained[name], np.float64), np.asarray(fresh[name]))
        for name in fresh
        if name in trained and not _is_within(name, new)
        and _fits(name, trained[name].shape, fresh[name].shape)
    }  # fmt: skip
    sizes = {name: array.size for name, array in fresh.items() if name.startswith('params/')}
    kept = sum(size for name, size in sizes.items() if name in arrays) / sum(sizes.values())
    if large.norm in ('group', 'layer') and any(a.shape != trained[n].shape
                                                for n, a in arrays.items()):  # fmt: skip
        differences.append(f'model.norm={large.norm} is taken over other channels')
    if left_out := _parts(trained.keys() - arrays.keys() - fresh.keys()):
        differences.append(f'{left_out} there has no place')
    placed, as_before = _deepened(small, large, arrays, fresh)
    if not_there := _parts(fresh.keys() - arrays.keys() - as_before):
        differences.append(f'new weights in {not_there}')
    return Grown(arrays | placed, kept, tuple(differences))


def _differing_fields(small: nn.Module, large: nn.Module) -> list[str]:
    if type(small) is not type(large):
        return ['the family differs']
    names = [name for name in options(type(small)) if name not in _SIZES | _TRAINING]
    found = [
        f'model.{name} differs'
        for name in names
        if operator.attrgetter(name)(small) != operator.attrgetter(name)(large)
    ]
    if isinstance(small, Residual) and small.shortcut == 'identity':
        stems = [(net.stem_width or net.width) / net.width for net in (small, large)]
        if stems[0] != stems[1]:  # Zeros come to stand beside other channels.
            found.append('model.stem_width has another ratio to model.width')
    return found


def _place_in_residual(name: str) -> str:
    """Returns where an array of a plain net goes in a residual one, its own name if nowhere."""
    collection, *path = name.split('/')
    if not path[0].startswith('stage'):
        return name
    stage, layer, *rest = path
    kind, number = layer[:4], int(layer[4:]) - 1  # `conv2`, `norm2`
    if stage == 'stage1':
        number -= 1
    if number < 0:
        place = 'stem' if kind == 'conv' else 'stem_norm'
    else:
        place = f'{stage}/block{number // 2 + 1}/{kind}{number % 2 + 1}'
    return '/'.join([collection, place, *rest])


def _is_within(name: str, modules: Collection[str]) -> bool:
    path = name.partition('/')[2]
    return any(path.startswith(f'{module}/') for module in modules)


def _parts(names: Collection[str]) -> str:
    """Returns the topmost parts of the net that arrays belong to."""
    return ', '.join(sorted({name.split('/')[1] for name in names}))


def _fits(name: str, old: tuple[int, ...], new: tuple[int, ...]) -> bool:
    if len(old) != len(new) or ('/logits/' in name and old[-1] != new[-1]):
        return False
    channels = 2 if name.endswith('/kernel') else 1
    alike = old[:-channels] == new[:-channels]
    return alike and all(a <= b for a, b in zip(old, new, strict=True))


# Wider.


def _sources(old: int, new: int) -> np.ndarray:
    """Returns which old channel each new one copies, [new], in order.

    In order, so that flattened maps and channels padded with zeros follow the same rule.
    """
    return np.arange(new) * old // new


def _widened(name: str, array: np.ndarray, fresh: np.ndarray) -> np.ndarray:
    """Repeats the channels of an array; of a kernel [..., in, out] it divides those it reads."""
    array = array[..., _sources(array.shape[-1], fresh.shape[-1])]
    if not name.endswith('/kernel') or array.shape == fresh.shape:
        return array
    sources = _sources(array.shape[-2], fresh.shape[-2])
    copies = np.bincount(sources)[:, None]
    firsts = np.flatnonzero(np.diff(sources, prepend=-1))
    mean = np.add.reduceat(fresh.astype(np.float64), firsts, axis=-2) / copies
    return (array / copies - mean)[..., sources, :] + fresh


# Deeper.


def _deepened(
    small: nn.Module,
    large: nn.Module,
    arrays: Mapping[str, np.ndarray],
    fresh: Mapping[str, np.ndarray],
) -> tuple[dict[str, np.ndarray], set[str]]:
    """Makes identities of the layers that stages have more of.

    Returns:
      Their arrays that are not fresh, and the names of all their arrays.
    """
    placed: dict[str, np.ndarray] = {}
    modules: list[str] = []
    if type(small) is type(large):
        sizes = zip(small.stage_sizes, large.stage_sizes, strict=False)
        for stage, (few, many) in enumerate(sizes, 1):
            for number in range(few + 1, many + 1):
                if isinstance(large, Residual):
                    names = [f'stage{stage}/block{number}']
                    made = _silent_block(large, names[0], fresh)
                elif isinstance(large, Plain):
                    names = [f'stage{stage}/conv{number}', f'stage{stage}/norm{number}']
                    made = _identity(large, f'stage{stage}', few, number, arrays, fresh)
                placed |= made
                modules += names if made else []
    return placed, {name for name in fresh if _is_within(name, modules)}


def _silent_block(
    net: Residual, block: str, fresh: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Returns what makes a block add nothing to its input; nothing where it cannot."""
    if not net.skip or (net.activation not in _IDEMPOTENT and not net.preactivation):
        return {}
    last = 3 if net.block == 'bottleneck' else 2
    by_norm = not net.preactivation and net.norm != 'none'
    leaf = f'norm{last}/{net.norm}/scale' if by_norm else f'conv{last}/kernel'
    name = f'params/{block}/{leaf}'
    return {name: np.zeros(fresh[name].shape)}


def _identity(
    net: Plain,
    stage: str,
    before: int,
    number: int,
    arrays: Mapping[str, np.ndarray],
    fresh: Mapping[str, np.ndarray],
) -> dict[str, np.ndarray]:
    """Returns what makes a convolution and its norm an identity; nothing where they cannot be.

    Evaluation is the same for any running statistics that the norm undoes. For training to begin
    as the same function they have to be those of its input: the moments of a rectified normal
    variable, whose mean and deviation are bias and scale of the norm before.
    """
    name = f'params/{stage}/conv{number}/kernel'
    if (
        net.activation not in _IDEMPOTENT
        or net.padding != 'same'
        or net.norm not in ('batch', 'none')
        or f'params/{stage}/conv{before}/kernel' not in arrays
    ):
        return {}
    kernel: np.ndarray = np.zeros(fresh[name].shape)
    middle = (net.kernel_size - 1) // 2
    kernel[middle, middle] = np.eye(kernel.shape[-1])
    if net.norm == 'none':
        return {name: kernel}
    source, norm = f'{stage}/norm{before}/batch', f'{stage}/norm{number}/batch'
    mean, variance = _rectified(
        arrays[f'params/{source}/bias'], abs(arrays[f'params/{source}/scale'])
    )
    return {
        name: kernel,
        f'params/{norm}/scale': np.sqrt(variance + net.norm_epsilon),
        f'params/{norm}/bias': mean,
        f'batch_stats/{norm}/mean': mean,
        f'batch_stats/{norm}/var': variance,
    }


def _rectified(mean: np.ndarray, deviation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean and variance of max(0, x), x normal."""
    deviation = np.maximum(deviation, 1e-12)
    above = ndtr(mean / deviation)
    density = deviation * np.exp(-0.5 * (mean / deviation) ** 2) / np.sqrt(2 * np.pi)
    first = mean * above + density
    second = (mean**2 + deviation**2) * above + mean * density
    return first, np.maximum(second - first**2, 0.0)
