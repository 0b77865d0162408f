"""Who follows a run from outside, such as a sweep that may prune it."""

from typing import Any


class Follower:
    """Hears how a run gets on, on the run's thread. This one does nothing."""

    def stepped(self, step: int) -> None:
        """Is called after each dispatch, with the steps done so far."""

    def evaluated(self, line: dict[str, Any]) -> bool:
        """Is called after each evaluation, once it is saved; returns whether the run shall stop.

        A run that is stopped ends as one that is interrupted: it can go on.

        Args:
          line: of `metrics.jsonl`. Lines of earlier sessions come first, when the run goes on; what
            is returned of them does not count.
        """
        return False
