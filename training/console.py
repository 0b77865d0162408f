"""What a run says to a person: headline, tables, progress with ETA, evaluations, result."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich import progress
from rich.console import Console as RichConsole
from rich.table import Table

from models.summary import Layer


class Console:
    """Prints to standard output; `quiet` leaves out all but the headline and the result.

    Where the output is no terminal there is no progress bar, no colour and no wrapping.
    """

    def __init__(self, quiet: bool = False):
        self._quiet = quiet
        terminal = sys.stdout.isatty()
        self._rich = RichConsole(
            highlight=False, width=None if terminal else 100, force_terminal=terminal
        )
        self._bar: progress.Progress | None = None
        self._task: Any = None

    def line(self, text: str, always: bool = False) -> None:
        """Prints one line; under `quiet` only where `always`."""
        if always or not self._quiet:
            self._rich.print(text, soft_wrap=True, markup=False)

    def data(self, class_names: Sequence[str], shape: Sequence[int], sizes: dict[str, int]) -> None:
        """Prints what the data set holds."""
        names = ', '.join(class_names[:10]) + (', ...' if len(class_names) > 10 else '')
        parts = ', '.join(f'{count:,} {split}' for split, count in sizes.items())
        self.line(
            f'Data      {sum(sizes.values()):,} images of {"x".join(map(str, shape))} pixels in '
            f'{len(class_names)} classes ({names}); {parts}'
        )

    def model(self, rows: Sequence[Layer]) -> None:
        """Prints the model table."""
        if self._quiet:
            return
        table_rows = []
        for row in rows:
            seen = '' if row.receptive_field is None else f'{row.receptive_field} px'
            shape = 'x'.join(map(str, row.output_shape))
            table_rows.append([row.name, shape, f'{row.parameters:,}', f'{row.flops:,}', seen])
        self.table(['layer', 'output', 'parameters', 'FLOPs', 'receptive field'], table_rows)

    def evaluation(self, line: dict[str, Any], total_steps: int, batch_size: int) -> None:
        """Prints one line of `metrics.jsonl`, and how long the rest will take."""
        seconds_left = (total_steps - line['step']) * batch_size / line['images_per_second']
        minutes, seconds = divmod(round(seconds_left), 60)
        width = len(str(total_steps))
        self.line(
            f'step {line["step"]:{width}}/{total_steps}  epoch {line["epoch"]:5.2f}  '
            f'train {line["train_loss"]:.4f} {percent(line["train_accuracy"]):>8}  '
            f'validation {line["validation_loss"]:.4f} '
            f'{percent(line["validation_accuracy"]):>8}  '
            f'{line["images_per_second"]:,.0f} images/s  ETA {minutes}:{seconds:02}'
        )

    def table(self, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Prints a small table: the first column to the left, the others to the right."""
        table = Table(box=None, padding=(0, 2, 0, 0), header_style='bold', show_edge=False)
        for i, heading in enumerate(headings):
            table.add_column(heading, justify='left' if i == 0 else 'right')
        for row in rows:
            table.add_row(*row)
        self._rich.print(table)

    @contextmanager
    def training(self, done: int, total: int) -> Iterator[None]:
        """Shows a progress bar over the steps while the block runs, on a terminal."""
        if self._quiet or not self._rich.is_terminal:
            yield
            return
        with progress.Progress(
            progress.TextColumn('{task.description}'),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TextColumn('steps, ETA'),
            progress.TimeRemainingColumn(),
            console=self._rich,
            transient=True,
        ) as self._bar:
            self._task = self._bar.add_task('Training', total=total, completed=done)
            yield
        self._bar = None

    def advance(self, step: int) -> None:
        """Moves the progress bar to `step`."""
        if self._bar:
            self._bar.update(self._task, completed=step)


def percent(fraction: float | None) -> str:
    """Returns a fraction of 1 as per cent with two decimals, '-' for None."""
    return '-' if fraction is None else f'{100 * fraction:.2f} %'
