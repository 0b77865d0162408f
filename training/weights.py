"""Published weights in the place of random ones (`config.init`), and what of them is frozen."""

import dataclasses
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from console import Console
from errors import UserError, did_you_mean
from models import published
from training import torch_file
from training.optimizer import part
from training.step import TrainState

_HUB = 'hub:'
_HUB_FILE = 'model.safetensors'


def check_parts(frozen: tuple[str, ...], params: Mapping[str, Any]) -> None:
    """Checks that the parts to freeze exist, and that something is left to train.

    Raises:
      UserError: names the part and those there are.
    """
    parts = dict.fromkeys(part(name) for name in params)
    for name in frozen:
        if name not in parts and name != 'body':
            raise UserError(
                f'config.init.freeze names {name!r}; the parts of this net are '
                f'{", ".join(parts)}, and body.{did_you_mean(name, parts)}'
            )
    if set(parts) <= set(frozen) or {'body', 'head'} <= set(frozen):
        raise UserError('config.init.freeze leaves nothing to train: leave out the head.')


def variables(state: TrainState) -> dict[str, Any]:
    """Returns parameters and running statistics by names such as `params/stem/kernel`."""
    return flatten_dict({'params': state.params, 'batch_stats': state.batch_stats}, sep='/')


def place(arrays: Mapping[str, np.ndarray], state: TrainState) -> TrainState:
    """Returns the state with these arrays, by the names of `variables`, in place of its own."""
    own = variables(state)
    typed = {name: array.astype(own[name].dtype) for name, array in arrays.items()}
    placed = unflatten_dict(own | typed, sep='/')
    placed.setdefault('batch_stats', state.batch_stats)
    # Copies: the step reuses the memory of each array of the state once.
    ema = jax.tree.map(np.array, placed) if state.ema else None
    return dataclasses.replace(state, **placed, ema=ema)


def load(config: Any, targets: Mapping[str, Any], console: Console) -> dict[str, np.ndarray]:
    """Returns the weights of `config.init.weights` by the names of `variables`.

    Args:
      config: as from `configs/default.py`.
      targets: what `variables` gives for the first state, or its shapes.
      console: says what was loaded.

    Raises:
      UserError: there is no such file, it cannot be read, or it is of another net.
    """
    name = config.init.weights
    if re.search(r'(^|/)tf_', name):
        raise UserError(
            f"The weights of {name} were made for TensorFlow's padding, with which this net "
            'would compute something else: take those of torchvision, or of timm without tf_.'
        )
    path = _downloaded(name.removeprefix(_HUB)) if name.startswith(_HUB) else pathlib.Path(name)
    arrays = _read(path.expanduser())
    try:
        placed = published.convert(config.model.to_dict(), arrays, targets)
    except ValueError as error:
        raise UserError(
            f'The weights of {name} do not fit: {error}. config.model must be the published net, '
            f'as in --config=configs/nets.py:NET (it is of the family {config.model.family}), '
            'config.scale may change nothing but the resolution, and images have the colours it '
            'was made for (--config.dataset.channels=3).'
        ) from error
    new = len(placed) < len(targets)
    head = 'but for the last layer, which is new' if new else 'the last layer too'
    console.line(
        f'Weights   {name}: {len(placed)} arrays, {head}; batch norm adds '
        f'{config.model.norm_epsilon:g} to the variance (--config.model.norm_epsilon)'
    )
    return placed


def _read(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Returns the arrays of a state dict by their names."""
    if not path.is_file():
        raise UserError(f'config.init.weights: there is no file {path}.')
    try:
        if path.suffix == '.safetensors':
            from safetensors.numpy import load_file

            content: Any = load_file(path)
        else:
            content = torch_file.load(path)
    except Exception as error:
        if isinstance(error, OSError | MemoryError):
            raise
        raise UserError(
            f'{path} is no file of weights that can be read ({error}); known are .safetensors, '
            'and files in which PyTorch saved a state dict alone.'
        ) from error
    for key in ('state_dict', 'model'):  # What trainers wrap it in.
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not content:
        raise UserError(f'{path} holds no state dict, which is arrays by name.')
    arrays = {str(name).removeprefix('module.'): value for name, value in content.items()}
    if strange := [name for name, value in arrays.items() if not isinstance(value, np.ndarray)]:
        raise UserError(f'{path} holds no state dict: {strange[0]} is no array.')
    return arrays


def _downloaded(name: str) -> pathlib.Path:
    """Returns the local copy of `OWNER/NAME[/FILE]` of the Hugging Face hub."""
    owner, _, rest = name.partition('/')
    repository, _, file = rest.partition('/')
    if not repository:
        raise UserError(
            f'config.init.weights=hub:{name}: write hub:OWNER/NAME or hub:OWNER/NAME/FILE.'
        )
    try:
        import huggingface_hub
    except ImportError:
        raise UserError(
            'config.init.weights=hub:... needs a package: pip install huggingface_hub.'
        ) from None
    try:
        return pathlib.Path(
            huggingface_hub.hf_hub_download(f'{owner}/{repository}', file or _HUB_FILE)
        )
    except Exception as error:
        reason = str(error).strip().splitlines()[0][:300] if str(error).strip() else error
        raise UserError(f'The hub gave no {file or _HUB_FILE} of {name}: {reason}') from error
