"""Simulated data sets: how accurate each net is is known, and nothing is trained."""

import types
import zlib

import numpy as np
from scipy.stats import norm

from selection import clock, confirm, stages
from selection.candidates import Space
from selection.clock import Clock
from selection.facts import Facts
from selection.record import Outcome, Record
from selection.search import Search, Settings

ARRAYS = Facts('images', (32, 32, 1), 10, resizable=False)
PHOTOS = Facts('images', (80, 80, 3), 5, resizable=True)
ROWS = Facts('rows', (10,), 3, resizable=False)
FOLDS = 4


class World:
    """A data set.

    Args:
      accuracy: from a net to the mean accuracy of its runs.
      images: in the folds.
      seed_sd: standard deviation of a run's accuracy, by its seed.
      alike: share of what makes an image hard that all runs have in common.
      seconds: from a net to what one of its runs takes.
      failing: from a net to why it cannot be trained, '' where it can.
      seed: of everything.

    Attributes:
      rounds: stage and runs of each round.
      now: seconds.
    """

    def __init__(self, accuracy, images=1200, seed_sd=0.003, alike=0.8, seconds=lambda net: 1.0,
                 failing=lambda net: '', seed=0):  # fmt: skip
        self.accuracy, self.images, self.seed_sd, self.alike = accuracy, images, seed_sd, alike
        self.seconds, self.failing, self.seed = seconds, failing, seed
        self.rounds, self.now = [], 0.0
        self._difficulty = np.random.default_rng(seed).standard_normal(images)

    def fold(self, number):
        repeat, fold = divmod(number, FOLDS)
        drawn = np.random.default_rng([self.seed, repeat]).permutation(self.images)
        return np.flatnonzero(drawn % FOLDS == fold)

    def outcome(self, run):
        facts = {'flops': run.net.cost, 'parameters': run.net.cost}
        if reason := self.failing(run.net):
            return Outcome(failed=reason, facts=facts, status=reason)
        key = f'{sorted(run.net.fields.items())} {run.number} {self.seed}'
        rng = np.random.default_rng(zlib.crc32(key.encode()))
        images = self.fold(run.number)
        accuracy = np.clip(self.accuracy(run.net) + self.seed_sd * rng.standard_normal(), 0, 1)
        own = rng.standard_normal(len(images))
        hard = self.alike**0.5 * self._difficulty[images] + (1 - self.alike) ** 0.5 * own
        right = (hard < norm.ppf(accuracy)).astype(float)
        return Outcome(images, right, self.seconds(run.net), facts=facts)


def choose(world, budget, facts=ARRAYS, before=(), each=lambda search: None, **settings):
    """Goes through all stages in a world, with the budget of real choices, and returns the search.

    Args:
      world: to choose for.
      budget: `Amount`.
      facts: of the data set.
      before: as of `Search`.
      each: called after each round.
      **settings: of `Settings`.
    """
    record = Record(FOLDS, np.arange(world.images), np.ones(world.images))
    driver = types.SimpleNamespace(
        record=record, request=types.SimpleNamespace(budget=budget),
        data=types.SimpleNamespace(growth=FOLDS / (FOLDS - 1)),
        call=types.SimpleNamespace(processes=[0]),
    )  # fmt: skip
    purse = Clock(budget, 0.0, 0.0, lambda: final_price(driver), 1, lambda: len(record.outcomes))
    space = Space(facts)
    settings = Settings(**{'folds': FOLDS, **settings})
    search = driver.search = Search(space, settings, record, purse, before)
    search.propose(space.ladder(space.sizes[0])[:1], 'ladder')
    real, clock.time = clock.time, types.SimpleNamespace(monotonic=lambda: world.now)
    try:
        for runs in stages.choose(search):
            world.rounds.append((search.stage, runs))
            for run in runs:
                record.add(run, world.outcome(run))
                world.now += world.seconds(run.net)
            each(search)
        world.spent = purse.spent() + final_price(driver)
    finally:
        clock.time = real
    return search


def final_price(driver):
    net = driver.search.recommended() or next(iter(driver.search.alive()), None)
    return confirm.price(driver, net) if net else 0.0
