"""The one exception that means "the user can mend this"."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake or a condition that the user can mend.

    The commands print its text, which names the thing and the remedy, without a traceback and
    exit with a non-zero status. Anything else that escapes is a bug in Leadline.
    """


class UnusableDataError(UserError):
    """The data set holds nothing that a classifier could be trained on."""


class DoesNotFitError(UserError):
    """The net is too large for the memory, or its windows for the images."""


class BusyError(UserError):
    """Another process trains in the run folder."""


class DataError(UserError):
    """The data set cannot be read or split."""


class SweepError(UserError):
    """What is wrong is the sweep, and no matter of its points."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns ' Did you mean X?' for the nearest known names, or '' where none is near."""
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.6)
    return f' Did you mean {" or ".join(repr(n) for n in near)}?' if near else ''
