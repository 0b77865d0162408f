"""The ledger of the test split: every opening is written down before it happens."""

import dataclasses
import datetime
import pathlib
from collections.abc import Sequence

from errors import UserError
from selection.choice import Opening
from training.run_folder import RunFolder

FILE = 'test_openings.json'


def openings(folder: pathlib.Path) -> tuple[Opening, ...]:
    """Returns the openings so far."""
    there = RunFolder(folder).read_json(FILE) or {'openings': []}
    return tuple(Opening(**entry) for entry in there['openings'])


def open_test(folder: pathlib.Path, names: Sequence[str], forced: bool) -> tuple[Opening, ...]:
    """Writes an opening down and returns all of them.

    Who has seen the test split and goes on choosing, chooses by it: so it opens once.

    Args:
      folder: workdir of the choice.
      names: of the nets that will be judged.
      forced: whether the user insists.

    Raises:
      UserError: it was opened before, and nobody insists.
    """
    before, what = openings(folder), ', '.join(names)
    if any(each.what == what for each in before):
        return before  # It was interrupted: the same weights are judged again.
    if before and not forced:
        raise UserError(
            f'The test split was opened for {folder} on {before[0].when} ({before[0].what}). A '
            'second look makes its accuracy too good: keep the first one, or insist with '
            '--force_test, which the report will say.'
        )
    when = datetime.datetime.now().isoformat(' ', 'seconds')
    all_of_them = (*before, Opening(when, what, forced=bool(before)))
    RunFolder(folder).write_json(
        FILE, {'openings': [dataclasses.asdict(each) for each in all_of_them]}
    )
    return all_of_them
