"""The files of a run that has ended, read without JAX."""

from typing import Any

import numpy as np

from errors import UserError, did_you_mean
from training.run_folder import RunFolder

SPLITS = ('validation', 'test')
NEW = 'new'  # Name of the one split of data that the run does not know.


def read_run(folder: RunFolder) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns config and result of a run that has ended well.

    Raises:
      UserError: there is none.
    """
    path = folder.path
    if not path.is_dir():
        there = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise UserError(f'There is no run folder {path}.{did_you_mean(path.name, there)}')
    config, result = folder.read_json('config.json'), folder.read_json('result.json')
    if config is None:
        inside = sorted(p.parent.name for p in path.glob('*/config.json'))
        hint = f' It holds the runs {", ".join(inside[:5])}: name one.' if inside else ''
        raise UserError(f'{path} is no run folder: it holds no config.json.{hint}')
    if result is None or result['status'] == 'interrupted':
        raise UserError(
            f'The run in {path} has not ended: the train.py command that began it goes on.'
        )
    if result['status'] == 'diverged':
        raise UserError(
            f'The run in {path} diverged at step {result["diverged_step"]}: it has no weights '
            'worth evaluating. Train again with a smaller --config.optimizer.learning_rate.'
        )
    if 'input_shape' not in result:
        raise UserError(f'The run in {path} is of an earlier version of Leadline: train it again.')
    if not folder.has_checkpoints():
        raise UserError(
            f'The run in {path} has no checkpoint ({path / "checkpoints"} is empty or gone): copy '
            'it there, or train again in another --workdir.'
        )
    return config, result


def stored(folder: RunFolder, split: str) -> dict[str, np.ndarray]:
    """Returns what `predictions.npz` holds of a split: hash, label, logits or prediction.

    Raises:
      UserError: there is no such file.
    """
    path = folder.path / 'predictions.npz'
    if not path.is_file():
        raise UserError(f'{path} is gone, which holds what the run predicted: copy it there.')
    with np.load(path) as file:
        of_split = (name for name in file.files if name.startswith(f'{split}_'))
        return {name.removeprefix(f'{split}_'): file[name] for name in of_split}
