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
    heading = words.heading(table.objectives[0])
    shares = importances(table)
    drawn: list[tuple[str, str, list[Plot | None]]] = [
        (
            f'{heading} against each factor',
            'Means with t intervals of 95 % over the runs of a point, which are the faint dots; '
            'one run has no interval, and those of two or three may leave the plot.',
            [plots.factor(table, name) for name in table.factors],
        ),
        (
            f'{heading} against cost',
            'Points on the Pareto front carry their number: no other one is as good in both '
            'figures and better in one.',
            [*plots.costs(table)],
        ),
        (
            'Parallel coordinates',
            'Each line is a complete point; the better it is, the darker.',
            [overviews.parallel(table)],
        ),
        (
            'Learning curves of the best points',
            'Thick the mean of the runs of a point, faint its single runs; each evaluation is with '
            'the weights of the moment.',
            [overviews.curves(table)],
        ),
        (
            'Importance of the factors',
            'Share of the differences between points that a factor alone explains, by a random '
            'forest fitted to these points (fANOVA); the rest is what factors do together. Few '
            'points, or points crowded around the best, make it worth little.',
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
        commands=_commands(table, complete),
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


def _commands(table: Table, complete: Sequence[Point]) -> list[tuple[str, str]]:
    """Returns commands that go on from here, and what each does."""
    folder = shlex.quote(os.fspath(table.folder))
    number = complete[0].number if complete else 0
    return [
        (f'python sweep.py --show {folder}', 'Print this table again, as it is then:'),
        (f'python sweep.py --workdir={folder} --rerun {number}', 'Train a point once more:'),
        *([(f'python sweep.py --workdir={folder} --export_best',
            'Write the config of the best point, to be trained with its test split opened:')]
          if complete else []),
        (f'tensorboard --logdir {shlex.quote(os.fspath(table.folder / "runs"))}',
         'Curves of all runs, and their hyperparameters in the HParams tab:'),
    ]  # fmt: skip
