"""Live runs: choose.py itself on the data of a reference table, judged as the table's cells are."""

import json
import pathlib
import subprocess
import sys
from typing import Any

from benchmarks.regret_cells import Cell
from benchmarks.regret_make import Maker
from benchmarks.regret_table import Key
from errors import UserError
from selection import choice
from sweeping import export
from training.interruption import Interruption

_SEEDS = 10_000  # From one live run to the next; beyond the number of any run of a table.


def live(
    maker: Maker, budget: float, count: int, folder: pathlib.Path, signals: Interruption
) -> list[Cell]:
    """Lets choose.py choose so many times, and has judges judge what it recommends.

    It is not bound to the table's cells: the ladder is its own, and so are its questions.

    Args:
      maker: of the table, whose copy in memory gets the judges of the nets that are returned.
      budget: seconds of each.
      count: of the choices.
      folder: for everything.
      signals: of who waits.

    Returns:
      A cell for each, of the family `live`.
    """
    cells = []
    for number in range(count):
        cell = Cell('live', (number,))
        maker.fields[cell] = _chosen(maker.base, budget, number, folder / f'live-{number}')
        numbers = [n for judge in range(maker.table.about['judges'])
                   for n in maker.table.judge_numbers(judge)]  # fmt: skip
        maker.train([Key(cell, n) for n in numbers], folder, signals)
        cells.append(cell)
    return cells


def _chosen(base: Any, budget: float, number: int, folder: pathlib.Path) -> dict[str, Any]:
    """Returns the config fields of the net that choose.py recommends."""
    config = base.copy_and_resolve_references()
    config.seed = _SEEDS * (1 + number)
    folder.mkdir(parents=True, exist_ok=True)
    recipe = folder / 'recipe.py'
    recipe.write_text(export.config_file(config, 'The recipe of a reference table.'))
    command = [sys.executable, 'choose.py', f'--config={recipe}', f'--budget={budget:.0f}s',
               f'--workdir={folder / "choice"}', '--quiet']  # fmt: skip
    ended = subprocess.run(command, cwd=pathlib.Path(__file__).parent.parent, text=True,
                           capture_output=True)  # fmt: skip
    if ended.returncode:
        raise UserError(f'choose.py failed: {ended.stderr.strip()}')
    found = choice.read(folder / 'choice')
    recommended = found.candidate(found.recommended)
    assert recommended
    test = [each.mean for each in found.confirmed[:1]]
    print(json.dumps({'live': number, 'recommended': recommended.name, 'test': test}), flush=True)
    return {name: tuple(value) if isinstance(value, list) else value
            for name, value in recommended.fields.items()}  # fmt: skip
