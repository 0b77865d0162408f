"""The stages of a choice, in their order: each proposes runs and reads scores, nothing else."""

from collections.abc import Callable

from selection.search import Search, Stage
from selection.stages import amount, changes, finalists, joint, ladder, questions, repeats, tuning

STAGES: dict[str, Callable[[Search], Stage]] = {
    'tuning': tuning.stage,
    'ladder': ladder.stage,
    'changes': changes.stage,
    'repeats': repeats.stage,
    'questions': questions.stage,
    'joint': joint.stage,
    'amount of data': amount.stage,
    'finalists': finalists.stage,
}


def choose(search: Search) -> Stage:
    """Goes through all stages; what it found is in `search` at any time."""
    for name, stage in STAGES.items():
        search.stage = name
        yield from stage(search)
