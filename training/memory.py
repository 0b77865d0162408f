"""Whether a net fits: what a training step holds on a device, against what there is."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax

from console import size
from errors import DoesNotFitError
from models.summary import Layer


def nbytes(tree: Any) -> int:
    """Returns the size of all arrays of a tree, which may be shapes alone."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def activation_bytes(rows: Iterable[Layer], remat: bool = False) -> int:
    """Returns the size of what the backward pass of one example needs: the layers' outputs.

    With `remat` these are the outputs of blocks (`stage1/block1`), and once the inside of the
    largest one, which is computed again.
    """
    blocks: dict[str, list[int]] = {}
    for row in rows:
        blocks.setdefault('/'.join(row.name.split('/')[:2]), []).append(row.activation_bytes)
    if remat:
        return sum(block[-1] for block in blocks.values()) + max(map(sum, blocks.values()))
    return sum(map(sum, blocks.values()))


def planned(executable: Any) -> dict[str, int]:
    """Returns the bytes on each device that XLA plans for a compiled step; {} where it says none.

    `aliased` are those of the output that lie in donated arguments; `total` counts them once.
    """
    analysis = executable.memory_analysis()
    if analysis is None:
        return {}
    parts = {
        'arguments': analysis.argument_size_in_bytes,
        'temporaries': analysis.temp_size_in_bytes,
        'output': analysis.output_size_in_bytes,
        'aliased': analysis.alias_size_in_bytes,
        'code': analysis.generated_code_size_in_bytes,
    }
    return parts | {'total': sum(parts.values()) - 2 * parts['aliased']}


def check(parts: Mapping[str, int], available: int, dtype: str) -> None:
    """Refuses a training step that the memory of a device cannot hold.

    Args:
      parts: what needs memory, in words, to bytes on each device.
      available: bytes.
      dtype: `config.dtype`.

    Raises:
      DoesNotFitError: says what the step needs, what there is, and what needs less.
    """
    if sum(parts.values()) <= available:
        return
    listed = ', '.join(f'{what} {size(count)}' for what, count in parts.items())
    fields = ['scale.width', 'batch_size', 'dataset.image_size']
    lower = ' or bfloat16 as --config.dtype' if dtype != 'bfloat16' else ''
    raise DoesNotFitError(
        f'The net does not fit: a training step needs about {size(sum(parts.values()))} on each '
        f'device ({listed}), and there is {size(available)}. Smaller values of '
        f'{", ".join(f"--config.{name}" for name in fields)},{lower} need less.'
    )
