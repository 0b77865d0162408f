"""Regret without the winner's curse, and how often verdicts are wrong, from a reference table."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks.regret_cells import Cell
from benchmarks.regret_replay import DELTA, REPEATS
from benchmarks.regret_table import TWIN, Judged, Table
from evaluation import intervals
from selection.verdict import Evidence

_SPLITS, _DRAWS = 200, 1000
_BOUNDS = (2.5, 97.5)
_COMPANY = 3  # Other candidates that lend a pair their runs' variance, as in a stage.


class Regret(NamedTuple):
    """By how much the nets that were returned are worse than the reference, as a share.

    Attributes:
      mean: over replays that returned a net with judges.
      low, high: bounds of 95 %, over judges and images.
      judged: share of the nets returned that have judges, of which it is the mean.
      nothing: share of the replays that could afford no net.
    """

    mean: float
    low: float
    high: float
    judged: float
    nothing: float


def regrets(
    judged: Judged,
    returned: Mapping[Any, Sequence[Cell | None]],
    draws: int = _DRAWS,
    seed: int = 0,
) -> dict[Any, Regret]:
    """Returns the mean regret of the replays of each chooser.

    Judges and images (in whole groups) are cut into halves at random. The reference is the cell
    that one half prefers; its score and that of what was returned are those of the other half; then
    the halves are swapped, and both are averaged, over many cuts. So the reference is not the one
    that was lucky with those that measure: the highest of many noisy means is too high (Cawley and
    Talbot 2010, "On over-fitting in model selection and subsequent selection bias in performance
    evaluation"). Intervals are percentiles over cuts of which each half's judges and groups are
    then drawn with replacement: drawn before, the same image could be in both halves.

    Args:
      judged: the cells among which the reference is.
      returned: of each replay, by name of the chooser.
      draws: of the interval.
      seed: of the halves.
    """
    place = {cell: i for i, cell in enumerate(judged.cells)}
    known = {name: [place[c] for c in cells if c in place] for name, cells in returned.items()}
    rows = [name for name, places in known.items() if places and len(place) > 1]
    counts = [np.bincount(known[name], minlength=len(place)) for name in rows]
    share_QC = np.array([count / count.sum() for count in counts]).reshape(len(rows), len(place))
    rng = np.random.default_rng(seed)
    once = [_once(judged, share_QC, rng, False) for _ in range(_SPLITS if rows else 0)]
    drawn = [_once(judged, share_QC, rng, True) for _ in range(draws if rows else 0)]
    found = {}
    for name, cells in returned.items():
        mean = low = high = np.nan
        if name in rows:
            mean = np.mean(once, axis=0)[rows.index(name)]
            low, high = np.percentile(drawn, _BOUNDS, axis=0)[:, rows.index(name)]
        nothing = sum(cell is None for cell in cells)
        answered = max(1, len(cells) - nothing)
        found[name] = Regret(float(mean), float(low), float(high), len(known[name]) / answered,
                             nothing / len(cells))  # fmt: skip
    return found


def _once(judged: Judged, share_QC: np.ndarray, rng: np.random.Generator, again: bool) -> Any:
    """Returns the regrets [Q] by one cut; `again` draws within each half with replacement."""
    _, group_N = np.unique(judged.groups_N, return_inverse=True)
    judges = _halves(judged.scores_CSN.shape[1], rng, again)
    groups = _halves(int(group_N.max()) + 1, rng, again)
    means = []
    for judges_S, groups_G in zip(judges, groups, strict=True):
        images_N = groups_G[group_N].astype(np.float32)
        scores_CS = judged.scores_CSN @ (images_N / images_N.sum())
        means.append(scores_CS @ judges_S / judges_S.sum())
    halves = [other_C[own_C.argmax()] - share_QC @ other_C
              for own_C, other_C in (means, means[::-1])]  # fmt: skip
    return np.mean(halves, axis=0)


def _halves(count: int, rng: np.random.Generator, again: bool) -> list[np.ndarray]:
    """Returns how often each of so many is in either half."""
    halves = np.array_split(rng.permutation(count), 2)
    drawn = [rng.choice(half, len(half)) if again else half for half in halves]
    return [np.bincount(half, minlength=count).astype(float) for half in drawn]


class Share(NamedTuple):
    """How often something was said: a share with its interval of 95 %.

    Attributes:
      share: of the verdicts.
      low, high: by Wilson's formula, as if each net was one piece of evidence: pairs of C nets are
        not independent, and C - 1 of their contrasts are.
      verdicts, nets: among which it was counted.
    """

    share: float
    low: float
    high: float
    verdicts: int
    nets: int


def share_of(said: Sequence[str], pairs: Sequence[tuple[Cell, Cell]], *answers: str) -> Share:
    """Returns how often one of the answers was given to pairs; NaN where there are none."""
    nets = len({cell for pair in pairs for cell in pair})
    count = min(len(pairs), max(1, nets - 1)) if any(a != b for a, b in pairs) else nets
    share = float(np.isin(said, answers).mean()) if said else np.nan
    low, high = intervals.wilson(np.array(share), np.array(count))
    return Share(share, float(low), float(high), len(said), nets)


def verdict_of(scores: Mapping[str, np.ndarray], folds_MN: np.ndarray, groups_N: np.ndarray) -> str:
    """Returns the first answer to: is `a` better than `b`? At a look after each repeat.

    Args:
      scores: right or wrong [M, N] of a, b and of others.
      folds_MN: as of `selection.verdict.Evidence`.
      groups_N: of the images.
    """
    for look in range(1, len(folds_MN) + 1):
        seen = {name: each[:look] for name, each in scores.items()}
        evidence = Evidence(seen, folds_MN[:look], groups_N, np.ones(len(groups_N)))
        answer = evidence.compare('a', 'b', DELTA).answer
        if answer != 'cannot tell':
            break
    return answer


def calibration(table: Table, most_pairs: int, seed: int = 0) -> dict[str, Any]:
    """Returns how often verdicts on search runs are wrong, with judges as the truth.

    All pairs of nets with three repeats that were judged, or a random part of them; is the one
    with more FLOPs better? `better` is wrong where judges see no gain; `no better` (and `worse`)
    where they see one of delta or more. Judges err too, so that near these bounds right answers are
    counted as wrong; of twins (the same net, other seeds) the truth is known: no difference.

    Args:
      table: of the data set.
      most_pairs: that are compared.
      seed: of the pairs, and of the others that are in their stage.
    """
    rng, judged = np.random.default_rng(seed), table.judged()
    place = {cell: i for i, cell in enumerate(judged.cells)}
    nets = [cell for cell in judged.cells if table.repeats(cell) >= REPEATS
            and table.score(cell) > table.about['constant']]  # fmt: skip
    nets.sort(key=lambda cell: (table.facts[cell.shape][1], cell))
    means_C = judged.scores_CSN.mean(axis=(1, 2)) if place else np.zeros(0)
    pairs = [(b, a) for a, b in itertools.combinations(nets, 2)]
    chosen = rng.permutation(len(pairs))[:most_pairs]
    pairs = [pairs[i] for i in chosen]
    said = [_compared(table, nets, pair, rng) for pair in pairs]
    gains = np.array([means_C[place[a]] - means_C[place[b]] for a, b in pairs])
    twins = [cell for cell in table.cells if table.repeats(cell, TWIN) >= REPEATS]
    alike = [(cell, cell) for cell in twins for _ in range(2)]
    said_alike = [_twins(table, nets, cell, turned, rng)
                  for cell in twins for turned in (False, True)]  # fmt: skip

    def among(there: np.ndarray, *answers: str) -> dict[str, Any]:
        places = np.flatnonzero(there)
        return share_of([said[i] for i in places], [pairs[i] for i in places], *answers)._asdict()

    every = np.ones(len(pairs), bool)
    return {
        'wrong better': among(gains <= 0, 'better'),
        'wrong no better': among(gains >= DELTA, 'no better', 'worse'),
        'cannot tell': among(every, 'cannot tell'),
        'cannot tell, within half of delta': among(abs(gains) < DELTA / 2, 'cannot tell'),
        'better, where the gain is delta or more': among(gains >= DELTA, 'better'),
        'twins: wrong better': share_of(said_alike, alike, 'better')._asdict(),
        'twins: no better': share_of(said_alike, alike, 'no better', 'worse')._asdict(),
        'twins: cannot tell': share_of(said_alike, alike, 'cannot tell')._asdict(),
    }


def _company(
    table: Table, nets: Sequence[Cell], without: Sequence[Cell], rng: np.random.Generator
) -> dict[str, np.ndarray]:
    others = [cell for cell in nets if cell not in without]
    drawn = rng.permutation(len(others))[:_COMPANY]
    return {f'other {i}': table.by_repeat(others[i], REPEATS) for i in drawn}


def _folds(table: Table) -> np.ndarray:
    return np.stack([table.folds[repeat] for repeat in range(REPEATS)])


def _compared(
    table: Table, nets: Sequence[Cell], pair: tuple[Cell, Cell], rng: np.random.Generator
) -> str:
    scores = {name: table.by_repeat(cell, REPEATS) for name, cell in zip('ab', pair, strict=True)}
    scores |= _company(table, nets, pair, rng)
    return verdict_of(scores, _folds(table), table.groups_N)


def _twins(
    table: Table, nets: Sequence[Cell], cell: Cell, turned: bool, rng: np.random.Generator
) -> str:
    both = [table.by_repeat(cell, REPEATS), table.by_repeat(cell, REPEATS, TWIN)]
    scores = dict(zip('ab', both[::-1] if turned else both, strict=True))
    scores |= _company(table, nets, [cell], rng)
    return verdict_of(scores, _folds(table), table.groups_N)
