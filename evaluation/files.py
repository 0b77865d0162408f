"""Files of an evaluation: whole folders, and tables for people and spreadsheets."""

import contextlib
import csv
import pathlib
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from typing import Any


@contextlib.contextmanager
def replacing(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Gives a folder to fill, which takes the place of `folder` once that went well.

    What an earlier evaluation left stays whole until then, whatever goes wrong.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix='.unfinished-', dir=folder.parent) as beside:
        new = pathlib.Path(beside, 'new')
        new.mkdir()
        yield new
        if folder.exists():
            folder.rename(pathlib.Path(beside, 'old'))
        new.rename(folder)


@contextlib.contextmanager
def replacing_file(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Gives a file to write, which takes the place of `path` once that went well."""
    with tempfile.TemporaryDirectory(prefix='.unfinished-', dir=path.parent) as beside:
        new = pathlib.Path(beside, path.name)
        yield new
        new.replace(path)


def table(path: pathlib.Path, heading: Sequence[str], rows: Iterable[Iterable[Any]]) -> None:
    """Writes a csv file in UTF-8; names of files that are no text are escaped."""
    with path.open('w', newline='', encoding='utf-8', errors='backslashreplace') as file:
        writer = csv.writer(file)
        writer.writerow(heading)
        writer.writerows(rows)
