"""Judges a trained net: a run folder in, figures, tables and pictures out."""

from absl import flags

import command_line
from errors import UserError

_SPLIT = flags.DEFINE_enum('split', None, ['validation', 'test'], "Split of the run's own data.")
_DATA = flags.DEFINE_string(
    'data', None, "New images, such as folder:PATH; with --split, where the run's data are now."
)
_COSTS = flags.DEFINE_string(
    'costs', None, 'csv file: costs of each decision (columns) for each true class (rows).'
)
_MIRRORED = flags.DEFINE_bool(
    'mirrored', False, 'Average the logits of each image and its mirror image.'
)
_OTHERS = flags.DEFINE_list(
    'others', [], 'Run folders, best of other folds, to look for wrong labels with.'
)
_BATCH_SIZE = flags.DEFINE_integer(
    'batch_size', 0, 'Examples at once; 0: as in training.', lower_bound=0
)
_LAYERS = flags.DEFINE_bool(
    'layers', False, 'Ask of every block of the net whether it is needed; minutes.'
)
_QUIET = flags.DEFINE_bool('quiet', False, 'Print the headline and the table alone.')

_USAGE = """
Judges a trained net and writes everything about it into RUN/evaluation/.

  python evaluate.py runs/resnet_small-digits                        its validation split
  python evaluate.py runs/resnet_small-digits --split=test           its test split
  python evaluate.py runs/leaves --data=folder:new_leaves            new photos of the same classes
  python evaluate.py runs/leaves --costs=costs.csv --mirrored
  python evaluate.py runs/leaves --layers                            which blocks it needs; minutes

Decide on the validation split: the test split is for the last look, which train.py took.
Exit status: 0 done, 2 a mistake in the command or the run folder, 130 interrupted.
"""


def main(*runs: str) -> int:
    """Runs the command and returns its exit status."""
    if len(runs) != 1:
        given = f'{len(runs)} were given' if runs else 'none was given'
        raise UserError(f'Name one run folder ({given}): python evaluate.py runs/NAME, or --help.')
    from training import compilation_cache

    compilation_cache.enable()
    from evaluation.evaluate import evaluate_run

    evaluate_run(
        runs[0],
        _SPLIT.value or '',
        _DATA.value or '',
        _COSTS.value or '',
        _MIRRORED.value,
        _OTHERS.value,
        _BATCH_SIZE.value,
        _LAYERS.value,
        _QUIET.value,
    )
    return 0


if __name__ == '__main__':
    command_line.run(main, _USAGE, takes='runs')
