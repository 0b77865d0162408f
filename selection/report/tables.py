"""The tables of the page of a choice: headings and rows of text."""

from collections.abc import Sequence
from typing import NamedTuple

from console import duration
from selection.choice import MEASURES, Candidate, Choice
from selection.report import figures, plots, words
from selection.report.glossary import IDEAS


class Table(NamedTuple):
    """A table.

    Attributes:
      label: what it shows, for those who cannot see it.
      headings: of its columns.
      rows: a text for each column.
      wordy: numbers of the columns that hold sentences, which may wrap.
    """

    label: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    wordy: Sequence[int] = ()


def nets(choice: Choice) -> Table:
    """Returns all candidates, in the order in which they were proposed."""
    rows = [
        [
            f'{c.name}{" (recommended)" if c.name == choice.recommended else ""}',
            c.label,
            _mean(choice, c),
            f'{c.runs:,}',
            _count(c.parameters),
            _count(c.flops),
            '-' if c.latency_ms is None else f'{c.latency_ms:.3g}',
            c.status + (f': {c.reason}' if c.reason else ''),
        ]
        for c in choice.candidates
    ]
    headings = ['net', 'what it is', f'{MEASURES[choice.measure].heading} and its interval', 'runs',
                'parameters', 'FLOPs', figures.latency(choice), 'what became of it']  # fmt: skip
    return _without_empty(Table('Nets that were tried', headings, rows, (1, 7)))


def questions(choice: Choice) -> Table:
    """Returns all verdicts; their numbers are those of the plot."""
    rows = [
        [
            str(i),
            one.question,
            f'{one.name} {_verb(one.answer)} {one.reference}',
            figures.gain(choice.measure, one),
            f'{one.runs} each',
            one.settle or 'settled',
        ]
        for i, one in enumerate(choice.verdicts, 1)
    ]
    unit = ' in points' if MEASURES[choice.measure].is_share else ''
    headings = ['no.', 'question', 'verdict', f'gain{unit} and its interval', 'runs',
                'what would settle it']  # fmt: skip
    return Table('Questions and verdicts', headings, rows, (1, 2, 5))


def ideas(choice: Choice) -> Table:
    """Returns where the ideas come from that were asked about; they are of nets for images."""
    asked = dict.fromkeys(one.idea for one in choice.verdicts if one.idea in IDEAS)
    if choice.holds != 'images':
        asked = {}
    rows = [[IDEAS[key].idea, IDEAS[key].net, IDEAS[key].paper] for key in asked]
    return Table('Where the ideas come from', ['idea', 'known from', 'paper'], rows, (0, 2))


def baselines(choice: Choice) -> Table:
    """Returns the recommended net beside the simple nets and those taken without a search."""
    chosen = choice.candidate(choice.recommended)
    shown = [c for c in choice.candidates if c.role in ('constant', 'linear', 'baseline')]
    if not shown:
        return Table('Baselines', [], [])
    if chosen is not None and chosen not in shown:
        shown = [chosen, *shown]
    confirmed = {c.name: c for c in choice.confirmed if c.mean is not None}
    rows = []
    for c in shown:
        said = words.latest(choice, c.name, choice.recommended) if c is not chosen else None
        test = confirmed.get(c.name)
        rows.append([
            c.label,
            _mean(choice, c),
            _tested(choice, test.mean, test.low, test.high) if test else '-',
            _count(c.parameters),
            _count(c.flops),
            'recommended' if c is chosen else '-' if said is None else
            f'{said.name} {_verb(said.answer)} {said.reference}',
        ])  # fmt: skip
    headings = ['net', 'on the folds', 'on the test split', 'parameters', 'FLOPs', 'verdict']
    return _without_empty(Table('Baselines', headings, rows, (0, 5)))


def confirmed(choice: Choice) -> Table:
    """Returns what the test split said."""
    rows = []
    for c in choice.confirmed:
        if c.mean is None:
            continue
        candidate = choice.candidate(c.name)
        low, high = c.prediction_low, c.prediction_high
        rows.append([
            candidate.label if candidate else c.name,
            _tested(choice, c.mean, c.low, c.high),
            ', '.join(figures.value(choice.measure, x).removesuffix(' %') for x in c.test),
            '-' if low is None or high is None else figures.span(choice.measure, low, high),
        ])  # fmt: skip
    headings = ['net', 'mean and its interval', 'each run', 'one new run, expected between']
    return Table('Test split', headings, rows, (0, 2))


def openings(choice: Choice) -> Table:
    """Returns the ledger of the test split."""
    rows = [[o.when, o.what, 'forced: opened before' if o.forced else '-']
            for o in choice.openings]  # fmt: skip
    return Table('Openings of the test split', ['when', 'what was judged', 'remark'], rows, (1,))


def front(choice: Choice) -> Table:
    """Returns the nets of which no other one is better and needs fewer FLOPs."""
    nets = [c for c in plots.judged(choice) if c.flops]
    rows = [
        [c.name, c.label, _mean(choice, c), _count(c.flops), _count(c.parameters)]
        for c in plots.on_front(choice, nets, 'flops')
    ]
    headings = ['net', 'what it is', MEASURES[choice.measure].heading, 'FLOPs', 'parameters']
    return Table('Pareto front', headings, rows, (1,))


def spent(choice: Choice) -> Table:
    """Returns what each stage took."""
    total = sum(s.seconds for s in choice.spent)
    rows = [
        [s.stage, f'{s.runs:,}', duration(s.seconds), f'{100 * s.seconds / (total or 1):.0f} %']
        for s in choice.spent
    ]
    runs = sum(s.runs for s in choice.spent)
    rows.append(['all', f'{runs:,}', duration(total), ''])
    return Table('What was spent', ['stage', 'runs', 'time', 'share'], rows)


def _mean(choice: Choice, c: Candidate) -> str:
    return figures.with_interval(choice.measure, c.mean, c.low, c.high)


def _tested(choice: Choice, mean: float | None, low: float | None, high: float | None) -> str:
    return figures.with_interval(choice.measure, mean, low, high)


def _count(number: float | None) -> str:
    return '-' if number is None else f'{number:,.0f}'


def _verb(answer: str) -> str:
    return {'cannot tell': 'cannot be told from'}.get(answer, f'is {answer} than')


def _without_empty(table: Table) -> Table:
    """Leaves out the columns that hold nothing, such as latencies that were not measured."""
    kept = [i for i in range(len(table.headings)) if any(row[i] != '-' for row in table.rows)]
    wordy = [kept.index(i) for i in table.wordy if i in kept]
    rows = [[row[i] for i in kept] for row in table.rows]
    return Table(table.label, [table.headings[i] for i in kept], rows, wordy)
