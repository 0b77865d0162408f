"""Simulated data sets: what a net's runs score is known, and nothing is trained."""

import types
import zlib

import numpy as np
from scipy.stats import norm

from selection import clock, confirm, stages
from selection.candidates import Space
from selection.clock import Amount, Clock
from selection.facts import Facts
from selection.record import Outcome, Record
from selection.search import Search, Settings

DIGITS = Facts('images', (32, 32, 1), 10, resizable=False)
PHOTOS = Facts('images', (80, 80, 3), 5, resizable=True)
FOLDS = 4
_ALIKE = 0.7  # Share of the variance of right and wrong that all nets have in common.
_BASELINES = ('resnet', 'two-block', 'wide-shallow')


class World:
    """A data set of which it is known how accurate each net is.

    Args:
      accuracy: from a net to the mean accuracy of its runs.
      images: of the folds.
      seed_sd: standard deviation of a run's accuracy, by its seed.
      seconds: from a net to what one of its runs takes.
      failing: from a net to why it cannot be trained, '' where it can.
      seed: of everything.
    """

    def __init__(self, accuracy, *, images=1200, seed_sd=0.003, seconds=lambda net: 1.0,
                 failing=lambda net: '', seed=0):  # fmt: skip
        self.accuracy, self.images, self.seed_sd = accuracy, images, seed_sd
        self.seconds, self.failing, self.seed = seconds, failing, seed
        self.now = 0.0
        self.asked = []  # Rounds of runs.
        self._difficulty = np.random.default_rng(seed).standard_normal(images)

    def fold(self, number):
        repeat, fold = divmod(number, FOLDS)
        drawn = np.random.default_rng([self.seed, repeat]).permutation(self.images)
        return np.flatnonzero(drawn % FOLDS == fold)

    def outcome(self, run):
        facts = {'flops': run.net.cost, 'parameters': run.net.cost}
        if reason := self.failing(run.net):
            return Outcome(failed=reason, facts=facts, status=reason.split()[0])
        key = f'{sorted(run.net.fields.items())} {run.number} {self.seed}'
        rng = np.random.default_rng(zlib.crc32(key.encode()))
        images = self.fold(run.number)
        accuracy = np.clip(self.accuracy(run.net) + self.seed_sd * rng.standard_normal(), 0, 1)
        own = rng.standard_normal(len(images))
        latent = _ALIKE**0.5 * self._difficulty[images] + (1 - _ALIKE) ** 0.5 * own
        return Outcome(images, (latent < norm.ppf(accuracy)).astype(float),
                       self.seconds(run.net), facts)  # fmt: skip


def search_of(world, budget, facts, **settings):
    """Returns the search of a world before its first stage, with the budget of real choices."""
    record = Record(FOLDS, np.arange(world.images), np.ones(world.images))
    driver = types.SimpleNamespace(
        record=record, request=types.SimpleNamespace(budget=budget),
        data=types.SimpleNamespace(growth=lambda: 1.0), call=types.SimpleNamespace(processes=[0]),
    )  # fmt: skip

    def final():
        net = driver.search.recommended() or next(iter(driver.search.alive()), None)
        return confirm.price(driver, net) if net else 0.0

    purse = Clock(budget, 0.0, 0.0, final, 1, lambda: len(record.outcomes))
    space = Space(facts)
    search = driver.search = Search(space, Settings(folds=FOLDS, **settings), record, purse)
    search.propose(space.ladder(space.sizes[0])[:1], 'ladder')
    return search


def choose(monkeypatch, world, budget, facts=DIGITS, each=lambda search: None, **settings):
    """Goes through all stages in a world; `each` is called after each round."""
    monkeypatch.setattr(clock, 'time', types.SimpleNamespace(monotonic=lambda: world.now))
    search = search_of(world, budget, facts, **settings)
    for runs in stages.choose(search):
        world.asked.append((search.stage, runs))
        for run in runs:
            outcome = world.outcome(run)
            search.record.add(run, outcome)
            search.spend(1, outcome.seconds)
            world.now += outcome.seconds
        each(search)
    return search


