"""Whether a net that grows from a smaller trained one (`config.init.grow_from`) saves training.

  python benchmarks/growth.py                        all of PAIRS on the digits: minutes on 2 cores
  python benchmarks/growth.py --only='plain deeper'  one of them
  python benchmarks/growth.py --data=npz:FILE.npz --subset=2000 --rate=0.3

For each seed, which also draws the validation split, the small net is trained, then the large one
from scratch and grown from it, for the whole schedule and for half of it. The figures are
validation accuracies: mean and standard deviation over seeds, and the paired difference to the
whole schedule from scratch with its t interval of 95 %. The schedule of the small net is not
counted: on a ladder of sizes it is trained anyway.
"""

import contextlib
import io
import pathlib
import sys
import tempfile

import numpy as np
import scipy.stats
from absl import app, flags, logging

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

from configs import default
from training import compilation_cache
from training.many import SEQUENTIAL, train_many

_Net = tuple[str, tuple[int, ...], int]  # Family, stage_sizes, width.
PAIRS: dict[str, tuple[_Net, _Net]] = {
    'plain deeper': (('plain', (1, 1), 16), ('plain', (2, 2), 16)),
    'plain last stage deeper': (('plain', (1, 1), 16), ('plain', (1, 2), 16)),
    'plain wider': (('plain', (1, 1), 16), ('plain', (1, 1), 32)),
    'plain another stage': (('plain', (1, 1), 16), ('plain', (1, 1, 1), 16)),
    'plain to residual': (('plain', (1, 1, 1), 16), ('residual', (1, 1, 1), 16)),
    'residual deeper': (('residual', (1, 1, 1), 16), ('residual', (2, 2, 2), 16)),
}
_ONLY = flags.DEFINE_string('only', None, 'One of the pairs.')
_DATA = flags.DEFINE_string('data', 'digits', 'Data set.')
_SUBSET = flags.DEFINE_float('subset', 1.0, 'As config.dataset.subset.')
_EPOCHS = flags.DEFINE_float('epochs', 30.0, 'The whole schedule.')
_RATE = flags.DEFINE_float('rate', 1.0, 'Learning rate of grown nets, times that of the others.')
_SEEDS = flags.DEFINE_integer('seeds', 5, 'How many seeds.')


def main(_: list[str]) -> None:
    """Measures and prints."""
    compilation_cache.enable()
    logging.set_verbosity(logging.WARNING)
    for name in [_ONLY.value] if _ONLY.value else PAIRS:
        with tempfile.TemporaryDirectory() as folder:
            _measure(name, pathlib.Path(folder))


def _measure(name: str, folder: pathlib.Path) -> None:
    small, large = PAIRS[name]
    whole = _EPOCHS.value
    rows = {'the small net': _accuracies(folder / 'small', small, whole)}
    for epochs in (whole, whole / 2):
        for begins in ('from scratch', 'grown'):
            source = folder / 'small' if begins == 'grown' else None
            rows[f'{begins}, {epochs:g} epochs'] = _accuracies(
                folder / f'{begins} {epochs}', large, epochs, source
            )
    print(f'{name}: {small} to {large}, {_DATA.value}, {_SEEDS.value} seeds')
    reference = rows[f'from scratch, {whole:g} epochs']
    for row, values in rows.items():
        paired = values - reference
        error = scipy.stats.sem(paired) * scipy.stats.t.ppf(0.975, len(paired) - 1)
        print(
            f'  {row:26} {values.mean():7.2%} +- {100 * values.std(ddof=1):.2f}   difference '
            f'{100 * paired.mean():+.2f} +- {100 * error:.2f}'
        )


def _accuracies(
    folder: pathlib.Path, net: _Net, epochs: float, source: pathlib.Path | None = None
) -> np.ndarray:
    """Trains a net with each seed, and returns the validation accuracies."""
    configs, workdirs = [], []
    family, stage_sizes, width = net
    for seed in range(_SEEDS.value):
        config = default.get_config(_DATA.value, family)
        config.update_from_flattened_dict({
            'model.stage_sizes': stage_sizes, 'model.width': width,
            'seed': seed, 'dataset.repeat': seed, 'dataset.subset': _SUBSET.value,
            'epochs': epochs, 'evaluate_every_epochs': epochs, 'evaluate_test': False,
            'pictures': False,
        })  # fmt: skip
        if source:
            config.init.grow_from = str(source / str(seed))
            config.optimizer.learning_rate *= _RATE.value
        configs.append(config)
        workdirs.append(folder / str(seed))
    with contextlib.redirect_stdout(io.StringIO()):
        runs = train_many(configs, workdirs, quiet=True, how=SEQUENTIAL)
    return np.asarray([result['validation']['accuracy'] for result in runs.results if result])


if __name__ == '__main__':
    app.run(main)
