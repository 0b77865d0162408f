"""Who follows a run from outside, such as a sweep that may prune it."""

from typing import Any


class Follower:
    """Hears how a run gets on, on the run's thread. This one does nothing."""

    def stepped(self, step: int) -> bool:
        """Is called after each dispatch, with the steps done so far.

        Returns:
          Whether the run shall stop. It ends as one that is interrupted, and can go on.
        """
        return False

    def evaluated(self, line: dict[str, Any]) -> None:
        """Is called after each evaluation, once it is saved.

        Args:
          line: of `metrics.jsonl`. Lines of earlier sessions come first, when the run goes on.
        """
