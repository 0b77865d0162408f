"""The weights of a smaller run as a start (`config.init.grow_from`)."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict

from configs import default
from console import Console
from errors import UserError
from input_pipeline import Pipeline
from models import growth
from training import recipe, restored
from training.run_folder import RunFolder, read_run


def load(
    config: Any,
    model: nn.Module,
    class_names: Sequence[str],
    input_shape: tuple[int, ...],
    fresh: Mapping[str, Any],
    console: Console,
) -> dict[str, np.ndarray]:
    """Returns the weights of the run `config.init.grow_from`, grown to this net.

    Args:
      config: as from `configs/default.py`.
      model: the net that is to begin with them.
      class_names: of its outputs.
      input_shape: of an example.
      fresh: its parameters and running statistics as initialised, by names such as
        `params/stem/kernel`.
      console: says what was kept.

    Raises:
      UserError: that run has not ended well, or its net cannot grow to this one.
    """
    folder, values, result = _read(config)
    there = default.unflatten(default.flatten(values))
    parts = recipe.build(there, len(result['class_names']))
    for net in (parts.model, model):
        if not isinstance(net, growth.FAMILIES):
            known = ' and '.join(family.__name__.lower() for family in growth.FAMILIES)
            raise UserError(
                f'config.init.grow_from knows the families {known}, and one of the two nets is of '
                f'the family {type(net).__name__.lower()}: leave it out.'
            )
    shape = tuple(result['input_shape'])
    if shape[-1] != input_shape[-1]:
        raise UserError(
            f'config.init.grow_from: the images of {folder.path} have {shape[-1]} channels, and '
            f'those of this run {input_shape[-1]}: set --config.dataset.channels={shape[-1]}.'
        )
    new: list[str] = []
    differences: list[str] = []
    if list(class_names) != result['class_names']:
        new.append('head/logits')
        differences.append('the classes differ')
    if shape != input_shape:
        differences.append('images have another size')
        if config.model.head.pooling == 'flatten':
            new.append('head')
    if config.dataset.normalization != there.dataset.normalization:
        differences.append('dataset.normalization differs')
    reported = restored.reported(folder, parts, result).reported()
    trained = {name: reported[name] for name in ('params', 'batch_stats')}
    grown = growth.grow(parts.model, model, flatten_dict(trained, sep='/'), fresh, new)
    differences += grown.differences
    computes = f'not the same net: {"; ".join(differences)}' if differences else 'the same function'
    console.line(
        f'Weights   grown from {folder.path}: {grown.kept:.0%} of the parameters are copies of '
        f'its own; at first {computes}'
    )
    return grown.arrays


def check_unseen(config: Any, pipeline: Pipeline) -> None:
    """Checks that the run `config.init.grow_from` was not trained on what judges this one.

    Raises:
      UserError: it was; says how many examples, and the remedy.
    """
    folder, *_ = _read(config)
    there = folder.read_json('splits.json') or {}
    learned = {digest for name in ('train', 'stopping') for digest in there.get(name, ())}
    # What a set itself has twice is not the fault of that run.
    for name in ('train', 'stopping'):
        if name in pipeline.members:
            learned.difference_update(pipeline.hashes_of(name).tolist())
    for name in ('validation', 'test'):
        if seen := sum(digest in learned for digest in pipeline.hashes_of(name).tolist()):
            raise UserError(
                f'config.init.grow_from: the run in {folder.path} was trained on {seen:,} '
                f'{pipeline.source.holds} of the {name} split of this one, whose figures would be '
                'too good: give both the same config.dataset.split_seed, folds, fold, repeat and '
                'subset, or its splits.json as config.dataset.splits_file.'
            )


def _read(config: Any) -> tuple[RunFolder, dict[str, Any], dict[str, Any]]:
    """Returns folder, config and result of the run to grow from."""
    folder = RunFolder(pathlib.Path(config.init.grow_from).expanduser())
    try:
        return folder, *read_run(folder)
    except UserError as error:
        raise UserError(f'config.init.grow_from: {error}') from error
