"""By how much the nets that choose.py returns are worse than the best, beside other choosers.

  python benchmarks/regret.py --do=make --set=digits --dry_run     what a table holds, and its hours
  python benchmarks/regret.py --do=make --set=digits --hours=8     makes it, or goes on with it
  python benchmarks/regret.py --do=make --set=cifar10 --source=npz:cifar10.npz
  python benchmarks/regret.py --do=make --set=seedlings --source=folder:PATH
  python benchmarks/regret.py --do=make --set=digits --cells=42    a part of it, for a trial
  python benchmarks/regret.py --do=replay --set=digits             regret of all choosers
  python benchmarks/regret.py --do=live --set=digits               regret of choose.py itself
  python benchmarks/regret.py --do=calibrate --set=digits          how often verdicts are wrong
  python benchmarks/regret.py --do=replay --json=FILE              on all tables, with the figures

Making, replaying, and making again: cells that replays return are judged by the next call, and
until then their share is printed. docs/regret.md says what is measured, and how.
"""

import collections
import json
import pathlib
import re
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import app, flags, logging

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

from benchmarks import regret_replay, regret_score, regret_table, report
from benchmarks.regret_cells import as_cell
from benchmarks.regret_table import Table
from errors import UserError

_DO = flags.DEFINE_enum(
    'do', None, ['make', 'replay', 'live', 'calibrate'], 'What to do.', required=True
)
_SETS = flags.DEFINE_list('set', [], 'Data sets; for replays by default all that have tables.')
_SOURCE = flags.DEFINE_string(
    'source', '', 'Where the images of the set are, if not in the usual place.'
)
_TABLES = flags.DEFINE_string('tables', 'benchmarks/tables', 'Folder of the tables.')
_WORKDIR = flags.DEFINE_string('workdir', 'runs/regret', 'Folder of runs that are not yet read.')
_CELLS = flags.DEFINE_integer('cells', 0, 'Make so many of the cells; 0: all.', lower_bound=0)
_HOURS = flags.DEFINE_float('hours', 1e6, 'Begin no more runs after so many hours.')
_DRY_RUN = flags.DEFINE_bool('dry_run', False, 'Say what would be trained, and how long it takes.')
_REPLAYS = flags.DEFINE_integer('replays', 300, 'Of each chooser at each budget.', lower_bound=1)
_RUNS = flags.DEFINE_integer('runs', 5, 'Live runs.', lower_bound=1)
_COMPARED = flags.DEFINE_integer('compared', 400, 'Pairs of nets, for calibration.', lower_bound=1)

SHARES = (0.02, 0.05, 0.1, 0.2, 0.5)
_GOAL_SHARE = 0.1


def _maker(name: str) -> Any:
    from benchmarks.regret_cells import PLANS
    from benchmarks.regret_make import Maker

    if name not in PLANS:
        raise UserError(f'There is no data set {name!r}; there are {", ".join(PLANS)}.')
    # What is kept in the table names no place of this machine.
    given = [re.sub('(--source=[a-z]+:).*', r'\1PATH', word) for word in sys.argv[1:]
             if not word.startswith(('--workdir', '--tables'))]  # fmt: skip
    command = ' '.join(['python', 'benchmarks/regret.py', *given])
    return Maker(name, _SOURCE.value, _path(name), _CELLS.value, command)


def make(name: str) -> None:
    """Makes the table of a data set, as far as the time goes."""
    from training.interruption import Interruption

    maker = _maker(name)
    parts = maker.forecast()
    shapes = len({cell.shape for cell in maker.cells})
    print(f'{name}: {len(maker.cells)} cells in {shapes} shapes; lacking:')
    for part, runs, hours in parts:
        print(f'  {part:16} {runs:6,} runs  {hours:7.2f} h')
    total = sum(hours for *_, hours in parts)
    judged = len(maker.table.about['returned'])
    print(f'  {"together":16} {sum(n for _, n, _ in parts):6,} runs  {total:7.2f} h (predicted); '
          f'replays have returned {judged} cells so far')  # fmt: skip
    if _DRY_RUN.value:
        return
    with Interruption() as signals:
        complete = maker.make(pathlib.Path(_WORKDIR.value, name), _HOURS.value, signals)
    size = _path(name).stat().st_size
    print(f'{_path(name)}: {"complete" if complete else "to be gone on with"}, {size:,} bytes')


def replay(names: Sequence[str]) -> dict[str, Any]:
    """Returns the regret of every chooser at every budget, by data set, and prints it."""
    tables = {name: regret_table.read(_path(name)) for name in {*names, *_with_tables()}}
    figures = {}
    for name in names:
        table = tables[name]
        others = [other for of, other in tables.items() if of != name]
        figures[name] = replay_one(table, others, _REPLAYS.value)
        if _wish(table, figures[name].pop('returned'), figures[name].pop('asked')):
            regret_table.write(table, _path(name))
        show(name, figures[name])
    if len(names) > 1:
        _show_all(figures)
    return figures


def _wish(table: Table, returned: Sequence[Any], asked: Sequence[Any]) -> bool:
    """Notes what the next `--do=make` shall train; returns whether any of it is new."""
    about = table.about
    known = [as_cell(cell) for cell in about['returned']]
    runs = [(as_cell(cell), repeat) for cell, repeat in about['asked']]
    about['returned'] = [*dict.fromkeys([*known, *returned])]
    about['asked'] = [*dict.fromkeys([*runs, *asked])]
    return len(about['returned']) > len(known) or len(about['asked']) > len(runs)


def replay_one(table: Table, others: Sequence[Table], count: int) -> dict[str, Any]:
    """Returns the figures of a table.

    With `returned`, the cells that any chooser returned at the budget of the goal (Leadline's
    first, then the commonest), and `asked`, the runs that Leadline would have bought, had they been
    there.
    """
    choosers = regret_replay.choosers(table, others)
    replayed = {
        (chooser, share): regret_replay.replays(table, choose, share, count)
        for chooser, choose in choosers.items()
        for share in SHARES
    }
    judged = table.judged()
    found = regret_score.regrets(judged, {name: each.returned for name, each in replayed.items()})
    goal = collections.Counter(
        cell for (_, share), each in replayed.items() if share == _GOAL_SHARE
        for cell in each.returned if cell
    )  # fmt: skip
    ours = {*replayed['Leadline', _GOAL_SHARE].returned}
    returned = sorted(goal, key=lambda cell: (cell not in ours, -goal[cell], cell))
    return {
        'cells': len(table.cells),
        'judged': len(judged.cells),
        'seconds': table.whole(),
        'replays': count,
        'regret': {chooser: {share: found[chooser, share]._asdict() for share in SHARES}
                   for chooser in choosers},
        'returned': returned,
        'asked': sorted(set.union(*(replayed['Leadline', share].asked for share in SHARES))),
    }  # fmt: skip


def show(name: str, figures: dict[str, Any]) -> None:
    """Prints the regrets on a data set, in points."""
    print(f'\n{name}: {figures["cells"]} cells, {figures["judged"]} of them judged; C is '
          f'{figures["seconds"] / 3600:.2f} h; {figures["replays"]} replays. Regret in points '
          '(95 %)\n')  # fmt: skip
    print('| chooser | ' + ' | '.join(f'{share:.0%} of C' for share in SHARES) + ' |')
    print('|---' * (len(SHARES) + 1) + '|')
    for chooser, by_share in figures['regret'].items():
        print(f'| {chooser} | ' + ' | '.join(map(_cell, by_share.values())) + ' |', flush=True)


def _cell(found: dict[str, float]) -> str:
    if found['nothing'] == 1:
        return 'affords nothing'
    text = f'{100 * found["mean"]:.2f} ({100 * found["low"]:.2f} to {100 * found["high"]:.2f})'
    if np.isnan(found['mean']):
        text = 'not judged'
    elif found['judged'] < 1:
        text += f', {found["judged"]:.0%} judged'
    return text + (f', {found["nothing"]:.0%} nothing' if found['nothing'] else '')


def _show_all(figures: dict[str, Any]) -> None:
    """Prints mean and worst over the data sets, at the budget of the goal."""
    common = set.intersection(*({*each['regret']} for each in figures.values()))
    print(f'\nAll {len(figures)} data sets, {_GOAL_SHARE:.0%} of C; points\n')
    print('| chooser | mean | worst |\n|---|---|---|')
    for chooser in next(iter(figures.values()))['regret']:
        if chooser in common:
            means = [100 * each['regret'][chooser][_GOAL_SHARE]['mean']
                     for each in figures.values()]  # fmt: skip
            said = [f'{value:.2f}' for value in (np.mean(means), max(means))]
            if np.isnan(means).any():
                said = ['not on all', 'not on all']
            print(f'| {chooser} | {said[0]} | {said[1]} |')


def live(names: Sequence[str]) -> dict[str, Any]:
    """Returns the regret of choose.py on each data set, with the budget of the goal; prints it."""
    from benchmarks import regret_live
    from training.interruption import Interruption

    figures = {}
    for name in names:
        folder = pathlib.Path(_WORKDIR.value, name)
        maker = _maker(name)
        maker.path = folder / 'live.npz'
        budget = _GOAL_SHARE * maker.table.whole()
        with Interruption() as signals:
            cells = regret_live.live(maker, budget, _RUNS.value, folder, signals)
        returned = {str(number): [cell] for number, cell in enumerate(cells)} | {'all': cells}
        found = regret_score.regrets(maker.table.judged(), returned)
        figures[name] = {'seconds': budget} | {run: f._asdict() for run, f in found.items()}
        print(f'{name}: choose.py in {budget:.0f} s; regret in points (95 %): '
              + ', '.join(f'{run}: {_cell(f._asdict())}' for run, f in found.items()))  # fmt: skip
    return figures


def calibrate(names: Sequence[str]) -> dict[str, Any]:
    """Returns how often verdicts are wrong, by data set, and prints it."""
    figures = {}
    for name in names:
        table = regret_table.read(_path(name))
        figures[name] = regret_score.calibration(table, _COMPARED.value)
        print(f'\n{name}\n\n| what | share, % (95 %) | verdicts | nets |\n|---|---|---|---|')
        for what, found in figures[name].items():
            share, low, high = (100 * found[key] for key in ('share', 'low', 'high'))
            print(f'| {what} | {share:.1f} ({low:.1f} to {high:.1f}) | {found["verdicts"]} | '
                  f'{found["nets"]} |', flush=True)  # fmt: skip
    return figures


def _path(name: str) -> pathlib.Path:
    return pathlib.Path(_TABLES.value, f'{name}.npz')


def _with_tables() -> list[str]:
    return sorted(path.stem for path in pathlib.Path(_TABLES.value).glob('*.npz')
                  if not path.stem.endswith('.partial'))  # fmt: skip


def main(argv: list[str]) -> None:
    """Does what is asked for."""
    del argv
    logging.set_verbosity(logging.FATAL)
    try:
        names = _SETS.value or (_with_tables() if _DO.value != 'make' else [])
        if not names:
            raise UserError(f'Say which data set: --do={_DO.value} --set=digits.')
        if _DO.value == 'make':
            for name in names:
                make(name)
            return
        figures = {'replay': replay, 'live': live, 'calibrate': calibrate}[_DO.value](names)
        report.write(json.loads(json.dumps(figures)))
    except UserError as error:
        sys.exit(str(error))


if __name__ == '__main__':
    app.run(main)
