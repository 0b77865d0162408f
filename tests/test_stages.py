"""The stages of a choice in simulated worlds, where the right answer is known."""

import collections
import itertools
import math

import pytest
import worlds
from worlds import ARRAYS, PHOTOS, ROWS, World, choose

from selection.clock import Amount, Clock
from selection.record import TUNING

DELTA = 0.01
PLENTY = Amount(runs=250)
RATE = 'optimizer.learning_rate'


def until(depth, gain=0.04, base=0.7):
    """Accuracy grows with each layer up to so many."""
    return lambda net: base + gain * min(net.depth, depth)


def by_rung(gain, base=0.7):
    """Accuracy grows up to the last rung."""
    return lambda net: base + gain * (net.rung or 0)


def trained(world, stage):
    """Names of the nets that a stage trained, in their order."""
    return [*dict.fromkeys(run.net.name for of, runs in world.rounds for run in runs
                           if of == stage)]  # fmt: skip


def sharp(accuracy, **options):
    """A world without chance."""
    return World(accuracy, seed_sd=0.0, alike=1.0, images=4000, **options)


# The ladder.


@pytest.mark.parametrize('depth', [1, 2, 3])
def test_the_ladder_ends_after_two_rungs_in_vain(depth):
    world = sharp(until(depth))
    search = choose(world, PLENTY)
    rungs = [net.name for net in ARRAYS_LADDER]
    climbed = [name for name in trained(world, 'ladder') if search.nets[name].rung is not None
               and search.roles[name] == 'ladder']  # fmt: skip
    # Two are trained at a time, so one more may be.
    assert climbed == rungs[: depth + 2 + depth % 2 * 0] or climbed == rungs[: depth + 3]
