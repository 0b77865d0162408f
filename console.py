"""What a command says to a person: lines, tables, progress with ETA, evaluations."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich import progress
from rich.console import Console as RichConsole
from rich.live import Live
from rich.table import Table
from rich.text import Text

_PATIENCE_SECONDS = 2.0
_WIDTH = 100  # Where there is no terminal.
_WIDEST = 1000  # Of a table in characters, where there is no terminal.


class Console:
    """Prints to standard output; `quiet` leaves out all but the headline and the result.

    Where the output is no terminal there is no progress bar, no colour and no wrapping. Every line
    begins with `prefix`.
    """

    def __init__(self, quiet: bool = False, prefix: str = ''):
        self._quiet, self._prefix = quiet, prefix
        self._live: Live | None = None
        self._lines: Sequence[str] = ()
        self._status = ''
        terminal = sys.stdout.isatty()
        self._rich = RichConsole(
            highlight=False, width=None if terminal else _WIDEST, force_terminal=terminal
        )

    def line(self, text: str, always: bool = False) -> None:
        """Prints one line; under `quiet` only where `always`."""
        if always or not self._quiet:
            self._rich.print(self._prefix + text, soft_wrap=True, markup=False)

    def data(self, pipeline: Any, findings: Sequence[str]) -> None:
        """Prints what an `input_pipeline.Pipeline` holds, and what should be known of it."""
        parts = ', '.join(f'{count:,} {split}' for split, count in pipeline.sizes.items())
        where = '; streamed' if pipeline.streams else ''
        self.line(f'Data      {pipeline.in_words()}; {parts}{where}')
        for text in (*pipeline.source.notes, *findings):
            self.line(f'          {text}')

    def model(self, rows: Sequence[Any], memory: bool = False) -> None:
        """Prints the model table; the rows are `models.summary.Layer`.

        With `memory` there is a column for the size of the output of one example.
        """
        if self._quiet:
            return
        table_rows = []
        for row in rows:
            seen = '' if row.receptive_field is None else f'{row.receptive_field} px'
            shape = 'x'.join(map(str, row.output_shape))
            held = [size(row.activation_bytes)] if memory else []
            counts = f'{row.parameters:,}', f'{row.flops:,}'
            table_rows.append([row.name, shape, *counts, *held, seen])
        held = ['memory'] if memory else []
        self.table(['layer', 'output', 'parameters', 'FLOPs', *held, 'receptive field'], table_rows)

    def evaluation(
        self, line: dict[str, Any], figures: str, holds: str, total_steps: int, batch_size: int
    ) -> None:
        """Prints one line of `metrics.jsonl`, and how long the rest will take.

        Args:
          line: of `metrics.jsonl`.
          figures: its losses and what else is shown of it.
          holds: what the examples are, such as 'images'.
          total_steps: of the run.
          batch_size: examples in each step.
        """
        seconds_left = (total_steps - line['step']) * batch_size / line['images_per_second']
        minutes, seconds = divmod(round(seconds_left), 60)
        width = len(str(total_steps))
        self.line(
            f'step {line["step"]:{width}}/{total_steps}  epoch {line["epoch"]:5.2f}  {figures}  '
            f'{line["images_per_second"]:,.0f} {holds}/s  ETA {minutes}:{seconds:02}'
        )

    def table(self, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Prints a small table: the first column to the left, the others to the right."""
        table = Table(box=None, padding=(0, 2, 0, 0), header_style='bold', show_edge=False)
        for i, heading in enumerate(headings):
            # What does not fit goes on below; cut off, it would be lost.
            table.add_column(heading, justify='left' if i == 0 else 'right', overflow='fold')
        for row in rows:
            table.add_row(
                *(Text(cell) for cell in row)
            )  # Names may hold what rich reads as markup.
        self._rich.print(table)

    @contextmanager
    def progress(self, title: str, total: int, done: int = 0) -> Iterator[Callable[[int], None]]:
        """Shows a progress bar with ETA while the block runs, on a terminal.

        Gives the function that moves it to so many done. Without a terminal the title is printed
        where the block takes longer than a few seconds.
        """
        if self._quiet or not self._rich.is_terminal:
            yield self._patient(f'{title} ...', done)
            return
        with progress.Progress(
            progress.TextColumn('{task.description}'),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TextColumn('ETA'),
            progress.TimeRemainingColumn(),
            console=self._rich,
            transient=True,
        ) as bar:
            task = bar.add_task(title, total=total, completed=done)
            yield lambda count: bar.update(task, completed=count)

    @contextmanager
    def status(self) -> Iterator[Callable[[str], None]]:
        """Keeps one line at the bottom of a terminal while the block runs; elsewhere none.

        Below the lines of `live`, where these are there.

        Gives the function that changes it.
        """
        if self._quiet or not self._rich.is_terminal:
            yield lambda text: None
            return
        if self._live:
            yield lambda text: self._redraw(self._lines, text)
            self._redraw(self._lines, '')
            return
        with self._rich.status('') as status:
            yield lambda text: status.update(Text(text, no_wrap=True, overflow='ellipsis'))

    @property
    def width(self) -> int:
        """Characters of a line: of the terminal, or as many as most people see at once."""
        return self._rich.width if self._rich.is_terminal else _WIDTH

    @contextmanager
    def live(self) -> Iterator[Callable[[Sequence[str]], None] | None]:
        """Keeps a few lines at the bottom of a terminal while the block runs, and after it.

        Gives the function that changes them; None where there is no terminal, or under `quiet`.
        """
        if self._quiet or not self._rich.is_terminal:
            yield None
            return
        with Live(console=self._rich, auto_refresh=False) as self._live:
            yield lambda lines: self._redraw(lines, self._status)
        self._live = None

    def _redraw(self, lines: Sequence[str], status: str) -> None:
        """Draws the lines of `live`, and that of `status` below them."""
        self._lines, self._status = lines, status
        if self._live:
            shown = Text('\n'.join([*lines, status]).rstrip(), no_wrap=True, overflow='ellipsis')
            self._live.update(shown, refresh=True)

    def _patient(self, text: str, done: int) -> Callable[[int], None]:
        begun, said = time.monotonic(), False

        def update(count: int) -> None:
            nonlocal said
            if not said and count > done and time.monotonic() - begun > _PATIENCE_SECONDS:
                said = True
                self.line(text)

        return update


def percent(fraction: float | None) -> str:
    """Returns a fraction of 1 as per cent with two decimals, '-' for None."""
    return '-' if fraction is None else f'{100 * fraction:.2f} %'


def bounds(figure: Mapping[str, Any], written: Callable[[float | None], str]) -> str:
    """Returns the interval, such as '86.18 to 99.52 %'; one group alone leaves it unknown."""
    if figure['low'] is None or figure['high'] is None:
        return 'unknown'
    return f'{written(figure["low"]).removesuffix(" %")} to {written(figure["high"])}'


def interval(figure: Mapping[str, Any], written: Callable[[float | None], str] = percent) -> str:
    """Returns a figure with its interval, such as '97.30 % (86.18 to 99.52 %)'."""
    return f'{written(figure["value"])} ({bounds(figure, written)})'


def duration(seconds: float) -> str:
    """Returns a time in the unit that suits it, such as '2.5 hours'."""
    if seconds < 120:
        return f'{seconds:.0f} seconds'
    return f'{seconds / 60:.0f} minutes' if seconds < 7200 else f'{seconds / 3600:.1f} hours'


def size(count: float) -> str:
    """Returns a number of bytes in words, such as '1.5 GiB'."""
    for unit in ('bytes', 'KiB', 'MiB', 'GiB', 'TiB'):
        if count < 1024 or unit == 'TiB':
            break
        count /= 1024
    digits = 1 if count < 10 and unit != 'bytes' else 0
    return f'{count:,.{digits}f} {unit}'
