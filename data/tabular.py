"""Numbers rather than images: tables (`table:PATH.csv`) and series (`series:PATH.csv`)."""

import csv
import math
import pathlib
import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from data.listing import SPLIT_NAMES, Source, content_hash, official_splits
from errors import UserError, did_you_mean

_ROLES = ('label', 'target', 'group', 'split')  # Columns of a table that are no inputs.
_MOST_LEVELS = 1000  # Of a column of words: more are names or free text.
_MISSING = ('', '?', 'na', 'n/a', 'nan', 'null')
_LOSS = 1e-3  # Of the deviation of a column, that float32 may change a number by.


class Forecast(NamedTuple):
    """What is predicted of a series: `window` rows in, the value `horizon` rows after the last."""

    window: int
    horizon: int


class _Table(NamedTuple):
    """A csv file: the cells of each column as text, and the line that each row ends in."""

    path: pathlib.Path
    columns: dict[str, list[str]]
    lines: list[int]

    def fault(self, row: int, column: str, what: str) -> UserError:
        where = f'{self.path}, line {self.lines[row]}, column {column!r}'
        return UserError(f'{where}: {what}: mend the value, or leave the row or column out.')


def load_table(rest: str, forecast: Forecast) -> Source:
    """Reads `table:PATH.csv`: a header, then a row for each example.

    The column `label` makes it a classification, the column `target` a regression. `group` and
    `split` (train, validation or test) are understood where they are there. Every other column is
    an input: as it is where it holds numbers, one-hot encoded where it holds words, whose levels
    are those of the whole file. The names of these four columns may be in capitals.

    Args:
      rest: the path.
      forecast: not used; as for all sources of this file.

    Raises:
      UserError: no such file, no label or target, nothing to learn from, or a value that is
        missing or no finite number, by line and column.
    """
    table = _read(rest, 'table')
    roles = {name.lower(): name for name in table.columns if name.lower() in _ROLES}
    if ('label' in roles) == ('target' in roles):
        both = 'both a column label and a column target: keep one'
        none = (
            'no column label (for classes) or target (for numbers); it has '
            f'{", ".join(table.columns)}. Columns are separated by commas'
        )
        raise UserError(f'{table.path} has {both if "label" in roles else none}.')
    inputs, notes = _inputs(table, [name for name in table.columns if name.lower() not in _ROLES])
    class_names, labels = (
        _classes(table, roles['label']) if 'label' in roles else ([], _numbers(table, 'target'))
    )
    blank = [''] * len(inputs)
    return Source(
        class_names=class_names,
        inputs=inputs,
        labels=labels,
        hashes=np.asarray([content_hash(row) for row in inputs]),
        official=official_splits(_splits(table, roles['split'])) if 'split' in roles else {},
        groups=np.asarray(table.columns[roles['group']] if 'group' in roles else blank),
        names=[f'line {line}' for line in table.lines],
        files={},
        skipped=[],
        notes=notes,
    )


def load_series(rest: str, forecast: Forecast) -> Source:
    """Reads `series:PATH.csv`: a header, then rows in the order of time, at even distances.

    Every column holds numbers and is an input. The column `target`, else the last one, is
    predicted. An example is a window of rows, with the value `horizon` rows after its last row;
    windows start at every row. Which window is in which split follows time: `splits.split`.

    Args:
      rest: the path.
      forecast: length of a window, and how far ahead the value lies.

    Raises:
      UserError: no such file, fewer rows than one window and its target need, or a value that is
        missing or no finite number, by line and column.
    """
    table = _read(rest, 'series')
    columns = list(table.columns)
    target = next((i for i, name in enumerate(columns) if name.lower() == 'target'), -1)
    rows_RF = np.stack([_numbers(table, name) for name in columns], axis=1)
    span = forecast.window + forecast.horizon
    if len(rows_RF) < span:
        raise UserError(
            f'{table.path} has {len(rows_RF)} rows; config.dataset.window={forecast.window} and '
            f'horizon={forecast.horizon} need {span} at least.'
        )
    count = len(rows_RF) - span + 1
    # A view: windows share their rows, which are in memory once.
    windows_NFT = np.lib.stride_tricks.sliding_window_view(rows_RF, forecast.window, axis=0)
    windows_NTF = windows_NFT[:count].swapaxes(1, 2)
    return Source(
        class_names=[],
        inputs=windows_NTF,
        labels=rows_RF[span - 1 :, target],
        hashes=np.asarray([content_hash(window) for window in windows_NTF]),
        official={},
        groups=np.full(count, ''),
        names=[f'from line {line}' for line in table.lines[:count]],
        files={},
        skipped=[],
        notes=(f'{columns[target]!r} is predicted, {forecast.horizon} rows ahead',),
        span=span,
        last_values=rows_RF[forecast.window - 1 :, target][:count],
    )


SOURCES: dict[str, Callable[[str, Forecast], Source]] = {
    'table': load_table,
    'series': load_series,
}


def _read(rest: str, kind: str) -> _Table:
    """Reads a csv file.

    Raises:
      UserError: it is absent, no text, or has no rows, odd rows or odd names of columns.
    """
    path = pathlib.Path(rest).expanduser()
    if not rest:
        raise UserError(f'{kind}: needs a path, such as {kind}:measurements.csv.')
    if path.is_dir():
        raise UserError(f'{path} is a folder: {kind}: needs a csv file.')
    if not path.is_file():
        there = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise UserError(f'There is no file {rest!r}.{did_you_mean(path.name, there)}')
    rows, lines = [], []
    try:
        with path.open(newline='', encoding='utf-8-sig') as file:
            reader = csv.reader(file)
            filled = (row for row in reader if any(cell.strip() for cell in row))
            names = [name.strip() for name in next(filled, [])]
            for row in filled:
                if len(row) != len(names):
                    raise UserError(
                        f'{path}, line {reader.line_num}: there are {len(row)} values, and '
                        f'{len(names)} columns in the first line.'
                    )
                rows.append([cell.strip() for cell in row])
                lines.append(reader.line_num)
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            f'{path} cannot be read as a csv file in UTF-8 ({error}): save it as UTF-8.'
        ) from error
    if not rows:
        raise UserError(f'{path} holds no rows: a line that names the columns, then the values.')
    _check_names(path, names)
    columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    return _Table(path, columns, lines)


def _check_names(path: pathlib.Path, names: list[str]) -> None:
    if all(_is_number(name) for name in names):
        raise UserError(f'{path}: the first line must name the columns; it holds numbers.')
    folded = [name.lower() for name in names]
    for i, name in enumerate(names):
        if not name:
            raise UserError(f'{path}: column {i + 1} has no name: name it, or leave it out.')
        if folded.index(name.lower()) < i:
            raise UserError(f'{path} has two columns {name!r}: leave one out, or rename it.')


def _inputs(table: _Table, names: list[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Returns the inputs, float32 [N, F], and what the user should know of how they were made."""
    if not names:
        raise UserError(
            f'{table.path} has no column to learn from, only {", ".join(table.columns)}.'
        )
    parts, encoded = [], []
    for name in names:
        if any(_is_number(text) for text in table.columns[name]):
            parts.append(_numbers(table, name)[:, None])
            continue
        levels, numbers = _levels(table, name)
        if len(levels) > max(2, min(_MOST_LEVELS, len(table.lines) // 2)):
            raise UserError(
                f'{table.path}: the column {name!r} holds {len(levels):,} different words in '
                f'{len(table.lines):,} rows, too many to learn from: leave it out, or group them.'
            )
        parts.append(np.eye(len(levels), dtype=np.float32)[numbers])
        encoded.append(f'{name} ({len(levels)})')
    notes = (f'one-hot encoded: {", ".join(encoded)}',) if encoded else ()
    return np.concatenate(parts, axis=1), notes


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return '_' not in text  # Which Python reads as a mark between thousands.


def _numbers(table: _Table, name: str) -> np.ndarray:
    """Returns a column as float32 [N]."""
    name = next(column for column in table.columns if column.lower() == name.lower())
    exact = np.empty(len(table.lines))
    for row, text in enumerate(table.columns[name]):
        if text.lower() in _MISSING:
            raise table.fault(row, name, 'the value is missing')
        if not _is_number(text):
            raise table.fault(row, name, f'{text!r} is no number')
        exact[row] = float(text)
    with np.errstate(over='ignore'):
        values = exact.astype(np.float32)
    if not np.isfinite(values).all():
        row = int(np.argmin(np.isfinite(values)))
        text = table.columns[name][row]
        raise table.fault(row, name, f'{text!r} is no finite number in float32')
    if np.ptp(exact) and np.abs(values - exact).max() > _LOSS * np.std(exact):
        raise UserError(
            f'{table.path}: the numbers of the column {name!r} differ by too little for float32, '
            f'around {np.mean(exact):g} by {np.std(exact):g}: subtract what they have in common, '
            'or scale them.'
        )
    return values


def _levels(table: _Table, name: str) -> tuple[list[str], np.ndarray]:
    """Returns the different words of a column, numbers among them by size, and which each is."""
    texts = table.columns[name]
    for row, text in enumerate(texts):
        if text.lower() in _MISSING:
            raise table.fault(row, name, 'the value is missing')
        if re.fullmatch(r'[+-]?\d+,\d+', text):
            raise table.fault(row, name, f'{text!r} is no number, whose decimals follow a point')
    levels = sorted(set(texts), key=_by_size)
    if len({_by_size(text)[0] if _is_number(text) else text for text in levels}) < len(levels):
        raise UserError(
            f'{table.path}: the column {name!r} writes one number in two ways, as 1 and 1.0.'
        )
    places = {level: i for i, level in enumerate(levels)}
    return levels, np.asarray([places[text] for text in texts], np.int32)


def _by_size(text: str) -> tuple[float, str]:
    value = float(text) if _is_number(text) else 0.0
    return (value if math.isfinite(value) else 0.0), text


def _classes(table: _Table, name: str) -> tuple[list[str], np.ndarray]:
    levels, numbers = _levels(table, name)
    if len(levels) < 2:
        raise UserError(f'{table.path} holds one class, {levels[0]!r}; a classifier needs two.')
    return levels, numbers


def _splits(table: _Table, name: str) -> np.ndarray:
    """Returns the split of each row, [N] strings; an empty cell means train."""
    splits = [SPLIT_NAMES.get(text.lower() or 'train', '') for text in table.columns[name]]
    if '' in splits:
        row = splits.index('')
        raise table.fault(
            row, name, f'{table.columns[name][row]!r} is not train, validation or test'
        )
    return np.asarray(splits)
