"""What a study leaves for its readers: `study.csv`, `plots/` and the page `study.html`."""

import os
import pathlib
import shlex
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import filelock

from evaluation import files
from reporting import pictures, template
from reporting.pictures import Picture
from sweeping.reading import overviews, plots, show, summary, words
from sweeping.reading.importance import importances
from sweeping.reading.plots import Plot
from sweeping.table import Point, Replicate, Table

_MOST_ROWS = 200  # On the page; all are in study.csv.


class _Section(NamedTuple):
    """Plots that stand together.

    Attributes:
      title: of the section.
      text: how to read them.
      pictures: the plots.
    """

    title: str
    text: str
    pictures: list[Picture]


def write(table: Table) -> None:
    """Writes `study.csv`, `plots/` and `study.html` into the folder of a study.

    Each takes the place of an earlier one at once. Several processes may do this together.
    """
    with filelock.FileLock(table.folder / '.page.lock'):
        with files.replacing_file(table.folder / 'study.csv') as file:
            write_csv(table, file)
        with files.replacing(table.folder / 'plots') as folder:
            sections = _sections(table, folder)
        with files.replacing_file(table.folder / 'study.html') as file:
            file.write_text(_html(table, sections), encoding='utf-8', errors='backslashreplace')


def write_csv(table: Table, path: pathlib.Path) -> None:
    """Writes one line for each point, in the order of the study.

    The columns are `number`, `outcome`, `reason`; the factors by dotted name, empty where a factor
    is not varied; of each objective that differs from run to run `<objective>_mean`, `_sd` (with
    n - 1, empty for one run) and `_n`, and its value in each run as `<objective>_run0` and so on,
    of others the value alone; the facts of the net; `seconds` of all runs; `host`, `attempts`; and
    of each run `seed_run0`, `status_run0`, `seconds_run0`, `folder_run0` and so on. So
    `pandas.wide_to_long(table, [f'{objective}', 'seed', ...], i='number', j='run', sep='_run')`
    gives a line for each run. Numbers have all their digits, accuracies are fractions of 1.
    """
    most = max((len(point.replicates) for point in table.points), default=0)
    over_runs = [o for o in table.objectives if o.startswith(summary.OF_RUNS)]
    once = [o for o in table.objectives if o not in over_runs]
    facts = show.facts(table)
    heading = [
        'number', 'outcome', 'reason', *table.factors,
        *(f'{o}_{what}' for o in over_runs for what in ('mean', 'sd', 'n')),
        *once, *facts, 'seconds', 'host', 'attempts',
        *(f'{what}_run{i}' for i in range(most)
          for what in (*over_runs, 'seed', 'status', 'seconds', 'folder')),
    ]  # fmt: skip
    files.table(path, heading, (_csv_row(table, p, over_runs, once, facts) for p in table.points))


def _csv_row(
    table: Table,
    point: Point,
    over_runs: Sequence[str],
    once: Sequence[str],
    facts: Sequence[str],
) -> list[Any]:
    row: list[Any] = [point.number, point.outcome, point.reason]
    row += [_cell(point.values[f]) if f in point.values else None for f in table.factors]
    for objective in over_runs:
        found = summary.estimate(table, point, objective)
        row += [found.mean, found.deviation, len(found.runs)]
    row += [summary.estimate(table, point, objective).mean for objective in once]
    row += [point.facts.get(fact) for fact in facts]
    row += [summary.seconds(point), point.session.get('host'), point.session.get('attempts')]
    for run in point.replicates:
        row += [*(_of_run(run, o) for o in over_runs), run.seed, run.status,
                run.seconds.get('total'), run.folder]  # fmt: skip
    return row


def _cell(value: Any) -> Any:
    """Returns a value of a factor with all its digits."""
    return words.label(value) if isinstance(value, list | tuple) else str(value)


def _of_run(run: Replicate, objective: str) -> Any:
    return run.validation.get(objective.removeprefix(summary.OF_RUNS))


def _sections(table: Table, folder: pathlib.Path) -> list[_Section]:
    """Draws all plots of a study into a folder; returns those of the page."""
    objective = table.objectives[0]
    heading = words.heading(objective)
    shares = importances(table)
    stretched = (
        'Where errors differ more than fivefold, the axis of the accuracy is logarithmic in the '
        'error: 90 to 95 % is as far as 98 to 99 %.'
        if summary.is_share(objective)
        else 'Where figures differ more than fivefold, their axis is logarithmic.'
    )
    drawn: list[tuple[str, str, list[Plot | None]]] = [
        (
            f'{heading} against each factor',
            'Large dots are the means of points, faint dots single runs. Bars are t intervals of '
            '95 % of the mean, each for one point alone: points share seeds and splits, so bars '
            'that overlap are no verdict. A triangle at the border marks a bar that goes on beyond '
            f'it; one run has no bar. {stretched}',
            [plots.factor(table, name) for name in table.factors],
        ),
        (
            f'{heading} against cost',
            'A point is on the Pareto front where no other one is as good in both figures and '
            'better in one. These points carry their number where there is room.',
            [*plots.costs(table)],
        ),
        (
            'Parallel coordinates',
            'Each line is a complete point; the better it is, the darker.',
            [overviews.parallel(table)],
        ),
        (
            'Learning curves of the best points',
            'The thick line is the mean of the runs of a point, the faint ones are its runs. Each '
            'evaluation is with the weights of the moment.',
            [overviews.curves(table)],
        ),
        (
            'Importance of the factors',
            f'How much of the differences in {heading} between the complete points a factor alone '
            'explains, by a random forest that is fitted to them (fANOVA); the rest is what '
            'factors do together. Points that crowd around the best make it worth little.',
            [overviews.importance(table, shares) if shares else None],
        ),
    ]
    return [
        _Section(
            title[0].upper() + title[1:],
            text,
            [pictures.saved(plot.figure, folder / plot.name, plot.alt) for plot in there if plot],
        )
        for title, text, there in drawn
        if any(there)
    ]


def _html(table: Table, sections: Sequence[_Section]) -> str:
    complete = summary.complete(table)
    others = [p for p in table.points if p.outcome not in ('complete', 'waiting', 'running')]
    pruned = Counter(point.outcome for point in table.points)['pruned']
    objective, one = table.objectives[0], len(table.objectives) == 1
    best = complete[0] if complete and one else None
    return template.render(
        pathlib.Path(__file__).with_name('study.html.jinja'),
        name=table.folder.resolve().name,
        dataset=table.dataset,
        heading=words.heading(objective),
        best=best and words.figure(objective, summary.estimate(table, best, objective)),
        sentences=words.sentences(table),
        counts=words.counts(table),
        pruned=pruned and words.count(pruned, 'point'),
        headings=show.headings(table),
        rows=show.rows(table, complete[:_MOST_ROWS]),
        left_out=max(len(complete) - _MOST_ROWS, 0),
        sections=sections,
        others=[_unfinished(table, point) for point in others[:_MOST_ROWS]],
        others_left_out=max(len(others) - _MOST_ROWS, 0),
        commands=_commands(table),
    )


def _unfinished(table: Table, point: Point) -> list[str]:
    objective = table.objectives[0]
    return [
        str(point.number),
        point.outcome,
        point.reason or '-',
        words.values(table, point),
        words.figure(objective, summary.estimate(table, point, objective)),
        str(len(point.replicates)),
        str(point.session.get('host', '-')),
        str(point.session.get('attempts', '-')),
    ]


def _commands(table: Table) -> list[tuple[str, str]]:
    """Returns what can be done from here, each with its command."""
    folder, runs = (shlex.quote(os.fspath(path)) for path in (table.folder, table.folder / 'runs'))
    number = next((point.number for point in summary.recommended(table)), 0)
    told = words.export(table)
    return [
        ('Show the current table, and write this page anew:', f'python sweep.py --show={folder}'),
        *([told] if told else []),
        (
            f'Train point {number} once more, and compare every figure:',
            f'python sweep.py --workdir={folder} --rerun={number}',
        ),
        (
            'See the curves of all runs; the HParams tab has their hyperparameters:',
            f'tensorboard --logdir={runs}',
        ),
    ]
