"""The files of a run that has ended, read without JAX."""

import numpy as np

from errors import UserError
from training.run_folder import RunFolder

SPLITS = ('validation', 'test')
NEW = 'new'  # Name of the one split of data that the run does not know.


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
