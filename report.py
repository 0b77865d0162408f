"""Shows runs: run folders in, one HTML page out that needs nothing else."""

import pathlib

from absl import flags

import command_line
from errors import UserError

_OUTPUT = flags.DEFINE_string(
    'output', '', 'The page; empty: report.html in the run folder, or beside several.'
)

_USAGE = """
Writes what is known of a run into one HTML page, and the same figures as JSON beside it.

  python report.py runs/resnet_small-digits
  python report.py runs/seed0 runs/seed1 runs/wider                 side by side
  python report.py runs/leaves --output=leaves.html

Runs that were not evaluated yet, or before they ended, are evaluated first, as evaluate.py does.
Exit status: 0 done, 2 a mistake in the command or a run folder, 130 interrupted.
"""


def main(*paths: str) -> int:
    """Runs the command and returns its exit status."""
    if not paths:
        raise UserError('Name a run folder, or several: python report.py runs/NAME, or --help.')
    if len({pathlib.Path(path).resolve() for path in paths}) < len(paths):
        raise UserError('A run is named twice: name each once.')
    from console import Console
    from reporting import page, runs

    console = Console()
    for path, why in [(path, runs.to_be_judged(path)) for path in paths]:
        if why:
            console.line(f'{path} {why}: python evaluate.py {path}', always=True)
            _evaluate(path)
    folder = pathlib.Path(paths[0])
    output = pathlib.Path(
        _OUTPUT.value or (folder if len(paths) == 1 else folder.parent) / 'report.html'
    )
    page.write([runs.read(path) for path in paths], output)
    console.line(f'The report is {output}; its figures are in {output.with_suffix(".json")}')
    return 0


def _evaluate(path: str) -> None:
    from training import compilation_cache

    compilation_cache.enable()
    from evaluation.evaluate import evaluate_run

    evaluate_run(path, quiet=True)


if __name__ == '__main__':
    command_line.run(main, _USAGE, takes='runs')
