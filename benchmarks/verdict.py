"""How often verdicts are wrong, and what they can see, in simulation, beside other rules.

  python benchmarks/verdict.py                about 2 minutes on one core
  python benchmarks/verdict.py --pairs=10000   more pairs of candidates in each setting
  python benchmarks/verdict.py --json=FILE    the figures, with versions and hardware

The model is probit. The run of candidate c that leaves out fold k of repeat m is right on image i
of that fold where

  s Phi^-1(accuracy_c) + sqrt(0.7) u_i + sqrt(0.1) w_ci + sqrt(0.2) e_cmi
    + fold_mk + run_cmk + lasting_c  >  0

u is how hard the image is for all, w for the candidate, e is chance; all are standard normal. With
these shares, at an accuracy of 0.95, a second run of a candidate is wrong on half of the images that
the first is wrong on, a run of the other on four in ten. (Plain nets of two convolutions on the
digits, 96 to 99 % right: on 32 to 62 %, and 31 %.) One table has nets that are less alike. Folds
move all candidates by 0.3 points (standard deviation), runs by `seed sd`; `lasting`, 0 but in one
table, is what this training set does to a candidate in all its runs. s keeps the mean accuracy what
it is called.

Leadline's rule looks after 4, 8 and 12 runs and stops at an answer. The others look once, at all 12
runs (McNemar at the first of each), one-sided at 5 %.
"""

import pathlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from absl import app, flags
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri
from scipy.stats import norm
from scipy.stats import t as student

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

from benchmarks import report
from evaluation import intervals
from selection import looks, spread, verdict

_PAIRS = flags.DEFINE_integer('pairs', 1500, 'Pairs of candidates in each setting.', lower_bound=1)

FOLDS = 4
DELTA = 0.01
GAINS = (0.0, 0.005, 0.01, 0.02)
ACCURACIES = (0.90, 0.95, 0.98)
IMAGES = (1000, 1400)
SEED_SDS = (0.003, 0.008, 0.015)
_LESS_ALIKE = (0.4, 0.3, 0.3)
_FOLD_SD = 0.003
_LASTING_SD = 0.003
_PLANS = (3, 6)  # Looks.
_MORE = 4  # Times as many pairs where the goals are.
_BLOCK = 250
_LEVEL = verdict.LEVEL
# Of the variance between runs that share training images, in corrected tests: K folds.
_CORRECTION = 1 / (FOLDS - 1)


class Setting(NamedTuple):
    """What is simulated; shares of 1."""

    accuracy: float = 0.95
    images: int = 1400
    seed_sd: float = 0.008
    lasting_sd: float = 0.0
    alike: tuple[float, float, float] = (0.7, 0.1, 0.2)
    repeats: int = looks.LOOKS


def latent_sd(accuracy: float, sd: float) -> float:
    """Returns the standard deviation of the shift that moves an accuracy by so much."""
    points, weights = np.polynomial.hermite_e.hermegauss(40)
    weights = weights / weights.sum()

    def excess(latent: float) -> float:
        shifted = ndtr(ndtri(accuracy) * np.hypot(1, latent) + latent * points)
        return float(np.sqrt((weights * (shifted - accuracy) ** 2).sum())) - sd

    return brentq(excess, 0, 5) if sd else 0.0


def simulate(
    setting: Setting, gains_GC: np.ndarray, count: int, seed: int
) -> Iterator[tuple[int, np.ndarray, spread.Design]]:
    """Yields the number of a row of gains, right or wrong [S, C, M, N], and the folds.

    Args:
      setting: what is simulated.
      gains_GC: of each candidate over the setting's accuracy; all rows meet the same chances.
      count: how many data sets, S of them at a time.
      seed: of the chances.
    """
    rng = np.random.default_rng(seed)
    C, M, N = gains_GC.shape[1], setting.repeats, setting.images
    common, own, chance = np.sqrt(setting.alike)
    for begun in range(0, count, _BLOCK):
        S = min(_BLOCK, count - begun)
        folds_MN = np.stack([rng.permutation(N) % FOLDS for _ in range(M)])
        design = spread.Design(folds_MN, np.arange(N), np.ones(N))
        normal = rng.standard_normal
        image = common * normal((S, 1, 1, N), np.float32) + own * normal((S, C, 1, N), np.float32)
        image = image + chance * normal((S, C, M, N), np.float32)
        parts = [normal((S, C, M, FOLDS)), normal((S, 1, M, FOLDS)), normal((S, C, 1, 1))]
        sds = (setting.seed_sd, _FOLD_SD, setting.lasting_sd)
        for row, gains_C in enumerate(gains_GC):
            accuracies = setting.accuracy + gains_C
            latent = np.array([[[[latent_sd(a, sd)]] for sd in sds] for a in accuracies])
            shift = sum(latent[:, p] * part for p, part in enumerate(parts))
            total = np.sqrt(1 + (latent**2).sum(axis=1))
            shift = (shift + ndtri(accuracies)[:, None, None] * total).astype(np.float32)
            each = np.stack([shift[:, :, m, folds_MN[m]] for m in range(M)], axis=2)
            yield row, (image > -each).astype(float), design


# Rules: from scores [S, C, M, N] of which the first candidate is in question and the second its
# reference, to an answer for each data set.


def ours(scores: np.ndarray, design: spread.Design, questions: int = 1) -> np.ndarray:
    """Leadline's rule, at as many looks as there are repeats; `questions` are allowed for."""
    return ours_by_look(scores, design, questions)[-1]


def ours_by_look(scores: np.ndarray, design: spread.Design, questions: int = 1) -> list[np.ndarray]:
    """Returns the answers after each look."""
    contrasts, found = verdict.differences(scores), []
    for repeats in range(1, scores.shape[2] + 1):
        seen = spread.estimate(contrasts[..., :repeats, :], design, 2 * spread.FLOOR**2, 1.0)
        half = seen.half_width(_LEVEL / questions, scores.shape[2])
        said = verdict.answers(seen.mean, (half, half), DELTA)
        found.append(np.where(found[-1] == 'cannot tell', said, found[-1]) if found else said)
    return found


def _fold_differences(scores: np.ndarray, design: spread.Design) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean and standard error of fold differences, corrected for common training images."""
    means = design.fold_means(scores[:, 0] - scores[:, 1]).reshape(len(scores), -1)
    factor = np.sqrt(1 / means.shape[1] + _CORRECTION)
    return means.mean(axis=1), factor * means.std(axis=1, ddof=1)


def _runs(scores: np.ndarray) -> int:
    return scores.shape[2] * FOLDS


def corrected_t(scores: np.ndarray, design: spread.Design) -> np.ndarray:
    """Corrected resampled t-test (Nadeau and Bengio 2003; of folds: Bouckaert and Frank 2004)."""
    difference, error = _fold_differences(scores, design)
    half = student.isf(_LEVEL, _runs(scores) - 1) * error
    return verdict.answers(difference, (half, half), DELTA)


def bayesian(scores: np.ndarray, design: spread.Design) -> np.ndarray:
    """The correlated Bayesian t-test: Corani and Benavoli 2015, with a region of +-delta.

    `better` where the difference exceeds delta, `no better` where it does not, with 95 %.
    """
    difference, error = _fold_differences(scores, design)
    exceeds = student.cdf((difference - DELTA) / np.maximum(error, 1e-12), _runs(scores) - 1)
    holds = [exceeds > 1 - _LEVEL, exceeds < _LEVEL]
    return np.select(holds, ['better', 'no better'], 'cannot tell')


def mcnemar(scores: np.ndarray, design: spread.Design) -> np.ndarray:
    """McNemar 1947 on one run of each, judged on the one fold that both left out."""
    scored = scores[:, :, 0, design.folds_MN[0] == 0]
    won = (scored[:, 0] > scored[:, 1]).sum(axis=1)
    lost = (scored[:, 0] < scored[:, 1]).sum(axis=1)
    half = norm.isf(_LEVEL) * np.sqrt(np.maximum(won + lost, 1)) / scored.shape[-1]
    return verdict.answers((won - lost) / scored.shape[-1], (half, half), DELTA)


RULES: dict[str, Callable[[np.ndarray, spread.Design], np.ndarray]] = {
    'Leadline': ours,
    'corrected t-test': corrected_t,
    'McNemar, one run': mcnemar,
    'Bayesian, region': bayesian,
}


def counted(answers: np.ndarray) -> dict[str, int]:
    """Returns how often each answer was given."""
    names, counts = np.unique(answers, return_counts=True)
    return dict(zip(names.tolist(), counts.tolist(), strict=True))


def shares(setting: Setting, count: int, seed: int) -> dict[str, dict[str, Any]]:
    """Returns what each rule says of two candidates, at each gain."""
    gains_GC = np.outer(GAINS, (0.5, -0.5))
    said: dict[str, list[list[np.ndarray]]] = {name: [[] for _ in GAINS] for name in RULES}
    for row, scores, design in simulate(setting, gains_GC, count, seed):
        for name, rule in RULES.items():
            said[name][row].append(rule(scores, design))
    return {name: _figures([np.concatenate(a) for a in said[name]]) for name in RULES}


def _figures(answers: list[np.ndarray]) -> dict[str, Any]:
    """Returns the errors and the power of a rule, from its answers at each of the gains."""

    def of(gain: float, *kinds: str) -> float:
        return float(np.isin(answers[GAINS.index(gain)], kinds).mean())

    wrong, count = of(0.0, 'better'), len(answers[0])
    low, high = intervals.wilson(np.array(wrong), np.array(count))
    return {
        'pairs': count,
        'wrong_better': wrong,
        'wrong_better_interval': [float(low), float(high)],
        'wrong_no_better_at_delta': of(DELTA, 'no better', 'worse'),
        'wrong_no_better_at_2_delta': of(2 * DELTA, 'no better', 'worse'),
        'better_at_half_delta': of(DELTA / 2, 'better'),
        'better_at_delta': of(DELTA, 'better'),
        'better_at_2_delta': of(2 * DELTA, 'better'),
        'cannot_tell_at_0': of(0.0, 'cannot tell'),
    }


def by_look(looked: int, count: int, seed: int) -> list[dict[str, Any]]:
    """Returns what Leadline's rule has said after each of the looks, as many as planned.

    The share of answers at no gain, among them `better`, and of `better` at a gain of 2 delta.
    """
    gains_GC = np.array([[0, 0], [DELTA, -DELTA]])
    said: list[list[list[np.ndarray]]] = [[], []]
    for row, scores, design in simulate(Setting(repeats=looked), gains_GC, count, seed):
        said[row].append(ours_by_look(scores, design))
    none_LS, gain_LS = (np.concatenate(rows, axis=1) for rows in said)
    return [
        {
            'runs': look * FOLDS,
            'answered_at_0': float((none_S != 'cannot tell').mean()),
            'wrong_better': float((none_S == 'better').mean()),
            'better_at_2_delta': float((gain_S == 'better').mean()),
        }
        for look, (none_S, gain_S) in enumerate(zip(none_LS, gain_LS, strict=True), 1)
    ]


def selected(count: int, seed: int) -> dict[str, float]:
    """Returns how often the best-looking of five equal candidates is called better than the first.

    Alone, as if nobody had looked at the others, and as one of the four that were (Holm's first).
    """
    said: dict[int, list[np.ndarray]] = {1: [], 4: []}
    for _, scores, design in simulate(Setting(), np.zeros((1, 5)), count, seed):
        best = scores.mean(axis=(2, 3))[:, 1:].argmax(axis=1) + 1
        rest = [np.delete(np.arange(1, 5), b - 1) for b in best]
        order = np.stack([[b, 0, *others] for b, others in zip(best, rest, strict=True)])
        ordered = scores[np.arange(len(scores))[:, None], order]
        for questions in said:
            said[questions].append(ours(ordered, design, questions) == 'better')
    alone, holm = (float(np.concatenate(said[questions]).mean()) for questions in (1, 4))
    return {'candidates': 5, 'data_sets': count, 'wrong_better_alone': alone, 'holm': holm}


_COLUMNS = {
    'wrong_better': 'wrong "better"',
    'wrong_no_better_at_delta': 'wrong "no better", gain 1',
    'wrong_no_better_at_2_delta': 'gain 2',
    'better_at_half_delta': '"better", gain 0.5',
    'better_at_delta': 'gain 1',
    'better_at_2_delta': 'gain 2',
    'cannot_tell_at_0': '"cannot tell", gain 0',
}


def show(title: str, rules: dict[str, dict[str, Any]]) -> None:
    """Prints a table, in per cent."""
    print(f'\n{title}\n\n| rule | ' + ' | '.join(_COLUMNS.values()) + ' |')
    print('|---' * (len(_COLUMNS) + 1) + '|')
    for name, figures in rules.items():
        cells = [f'{100 * figures[key]:.1f}' for key in _COLUMNS]
        low, high = figures['wrong_better_interval']
        cells[0] += f' ({100 * low:.1f} to {100 * high:.1f})'
        print(f'| {name} | ' + ' | '.join(cells) + ' |', flush=True)


def main(argv: list[str]) -> None:
    """Simulates all settings, prints tables and writes the figures."""
    del argv
    begun, pairs = time.perf_counter(), _PAIRS.value
    goal = shares(Setting(), _MORE * pairs, seed=0)
    show('1,400 images, accuracy 0.95, seed sd 0.8 points; per cent', goal)
    plans = [by_look(looked, pairs, seed=1) for looked in _PLANS]
    for plan in plans:
        print(
            '\n| runs | answered, gain 0 | wrong "better" | "better", gain 2 |\n|---|---|---|---|'
        )
        for at in plan:
            runs, *others = at.values()
            print(f'| {runs} | ' + ' | '.join(f'{100 * share:.1f}' for share in others) + ' |')
    grid = []
    for number, (accuracy, images, seed_sd) in enumerate(
        (a, n, s) for a in ACCURACIES for n in IMAGES for s in SEED_SDS
    ):
        setting = Setting(accuracy, images, seed_sd)
        rules = shares(setting, pairs, seed=10 + number)
        grid.append({**setting._asdict(), 'rules': rules})
        title = f'{images:,} images, accuracy {accuracy}, seed sd {100 * seed_sd:.1f} points'
        show(title, rules)
    lasting = shares(Setting(lasting_sd=_LASTING_SD), 2 * pairs, seed=2)
    show('As the first, with a lasting effect of the training set of 0.3 points', lasting)
    unlike = shares(Setting(alike=_LESS_ALIKE), 2 * pairs, seed=4)
    show('As the first, with nets that are less alike', unlike)
    selection = selected(2 * pairs, seed=3)
    print('\nbest-looking of five equal candidates called better than the first: alone '
          f'{selection["wrong_better_alone"]:.1%}, by Holm {selection["holm"]:.1%}')  # fmt: skip
    print(f'{time.perf_counter() - begun:.0f} s')
    report.write({
        'goal': goal, 'plans': plans, 'grid': grid, 'lasting': lasting,
        'less_alike': unlike, 'selection': selection,
    })  # fmt: skip


if __name__ == '__main__':
    app.run(main)
