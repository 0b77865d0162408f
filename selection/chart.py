"""The growth chart on the console: what each net reaches, from the smallest upwards."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from console import Console
from selection.choice import MEASURES, Candidate, Choice
from selection.report import figures, plots, words
from sweeping.reading.heights import Heights

_MOST = 20  # Rows; the best.
_LONGEST_NAME = 24
_NARROWEST, _WIDEST = 16, 60  # Of the bars, in characters.


def show(choice: Choice, console: Console) -> None:
    """Prints the chart."""
    for line in lines(choice, console.width):
        console.line(line)


@contextmanager
def live(console: Console) -> Iterator[Callable[..., None]]:
    """Gives `draw(choice, round_ended=False)`, to be called with each run that ends.

    A terminal has one chart, which is drawn anew in its place; elsewhere a chart is printed where a
    round has ended. On a terminal no progress bar may be shown meanwhile.
    """
    with console.live() as redraw:

        def draw(choice: Choice, round_ended: bool = False) -> None:
            if redraw:
                redraw(lines(choice, console.width))
            elif round_ended:
                show(choice, console)

        yield draw


def lines(choice: Choice, width: int) -> list[str]:
    """Returns the chart: a row for each net, smallest first, and the answer so far.

    A row has name, parameters, runs and the measure, then the interval as a bar with the mean in
    it: `|--o--|`, with `*` for the recommended net; a mean alone has no interval yet.

    Args:
      choice: what was found so far.
      width: of the chart in characters.
    """
    nets = plots.judged(choice)
    if not nets:
        return [words.headline(choice)]
    sign = -1 if MEASURES[choice.measure].less_is_better else 1
    best = sorted(nets, key=lambda c: -sign * (c.mean or 0.0))[:_MOST]
    rows = sorted(best, key=lambda c: (c.flops or 0, c.parameters or 0))
    cells = [_cells(choice, c) for c in rows]
    heading = ('net', 'parameters', 'runs', MEASURES[choice.measure].heading)
    sizes = [max(map(len, column)) for column in zip(heading, *cells, strict=True)]
    room = width - sum(sizes) - 2 * len(sizes)
    axis = plots.heights(choice, rows)
    bars = [_bar(choice, c, axis, max(_NARROWEST, min(_WIDEST, room))) for c in rows]
    table = [(heading, _scale(choice, axis, len(bars[0]))), *zip(cells, bars, strict=True)]
    drawn = [f'{_row(texts, sizes)}  {bar}'.rstrip() for texts, bar in table]
    more = [f'and {len(nets) - _MOST} more'] if len(nets) > _MOST else []
    return [*drawn, *more, words.headline(choice)]


def _row(texts: tuple[str, ...], sizes: list[int]) -> str:
    first, *others = (
        text.rjust(size) if i else text.ljust(size)
        for i, (text, size) in enumerate(zip(texts, sizes, strict=True))
    )
    return '  '.join([first, *others])


def _cells(choice: Choice, c: Candidate) -> tuple[str, ...]:
    parameters = '-' if c.parameters is None else f'{c.parameters:,}'
    mean = figures.value(choice.measure, c.mean)
    return c.name[:_LONGEST_NAME], parameters, str(c.runs), mean


def _bar(choice: Choice, c: Candidate, axis: Heights, width: int) -> str:
    """Returns the interval of a net at its place between the ends of the axis."""
    bar = [' '] * width
    if c.low is not None and c.high is not None:
        first, last = _column(axis, c.low, width), _column(axis, c.high, width)
        bar[first : last + 1] = '-' * (last + 1 - first)
        bar[first] = bar[last] = '|'
    bar[_column(axis, c.mean or 0.0, width)] = '*' if c.name == choice.recommended else 'o'
    return ''.join(bar)


def _column(axis: Heights, value: float, width: int) -> int:
    low, high, at = (float(axis.place(x)) for x in (axis.low, axis.high, value))
    return min(width - 1, max(0, round((width - 1) * (at - low) / (high - low))))


def _scale(choice: Choice, axis: Heights, width: int) -> str:
    """Returns the values at the ends and in the middle of the axis."""
    low, high = float(axis.place(axis.low)), float(axis.place(axis.high))
    first, middle, last = (
        figures.value(choice.measure, float(axis.value(low + share * (high - low))))
        for share in (0.0, 0.5, 1.0)
    )
    text = first.ljust(width // 2 - len(middle) // 2) + middle
    return text.ljust(width - len(last)) + last
