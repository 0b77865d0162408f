"""The ledger of the test split: every opening is written down before it happens."""

import dataclasses
import datetime
import pathlib
from collections.abc import Mapping, Sequence

from errors import UserError
from selection.choice import Opening
from training.run_folder import RunFolder

FILE = 'test_openings.json'


def openings(folder: pathlib.Path) -> tuple[Opening, ...]:
    """Returns the openings so far."""
    there = RunFolder(folder).read_json(FILE) or {'openings': []}
    return tuple(Opening(**{**e, 'runs': tuple(e['runs'])}) for e in there['openings'])


def check(folder: pathlib.Path, forced: bool) -> None:
    """Checks that the test split may be opened.

    Who has seen it and goes on choosing, chooses by it: so it opens once.

    Args:
      folder: workdir of the choice.
      forced: whether the user insists.

    Raises:
      UserError: it was opened before, and nobody insists.
    """
    before = openings(folder)
    if before and not forced:
        raise UserError(
            f'The test split was opened for {folder} on {before[0].when} ({before[0].what}). A '
            'second look makes its accuracy too good: keep the first one (the command as it was '
            'then shows it), or insist with --force_test, which the report will say.'
        )


def open_test(
    folder: pathlib.Path, runs: Mapping[str, Sequence[str]], forced: bool
) -> tuple[Opening, ...]:
    """Writes an opening down and returns all of them.

    Args:
      folder: workdir of the choice.
      runs: folders of the runs of each net that will be judged.
      forced: whether the user insists.

    Raises:
      UserError: it was opened before, for other weights, and nobody insists.
    """
    before, first = openings(folder), tuple(of_net[0] for of_net in runs.values())
    if any(each.runs == first for each in before):
        return before  # It was interrupted: the same weights are judged again.
    check(folder, forced)
    when = datetime.datetime.now().isoformat(' ', 'seconds')
    all_of_them = (*before, Opening(when, ', '.join(runs), forced=bool(before), runs=first))
    RunFolder(folder).write_json(
        FILE, {'openings': [dataclasses.asdict(each) for each in all_of_them]}
    )
    return all_of_them
