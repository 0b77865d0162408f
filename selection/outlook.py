"""What more data, more runs or the goal would take: sentences and figures beside the answer."""

import operator
import re

import numpy as np

from errors import UserError, did_you_mean
from selection.candidates import Net
from selection.choice import MEASURES, Gain, Goal, Trained
from selection.record import Record
from selection.search import Search
from selection.stages import amount
from selection.verdict import Evidence

_DRAWS = 4000
_BOUNDS = (2.5, 97.5)


def learning_curve(search: Search, net: Net, images: int) -> tuple[Trained, ...]:
    """Returns what the net comes to when it is trained on parts of the images.

    Args:
      search: after the stage that trains on parts.
      net: the recommended one.
      images: that the whole of the data has, of which each run trains on all folds but one.
    """
    found = []
    for part, share in _parts(search, net):
        if search.record.repeats(part.name):
            mean, error = _mean_and_error(search.record, part.name)
            count = round(share * images * (1 - 1 / search.settings.folds))
            found.append(Trained(count, mean, mean - 1.96 * error, mean + 1.96 * error))
    return tuple(sorted(found, key=operator.attrgetter('images')))


def _parts(search: Search, net: Net) -> list[tuple[Net, float]]:
    parts = zip(amount.parts(search, net), amount.SHARES.values(), strict=True)
    return [(net, 1.0), *parts]


def twice_the_data(search: Search, net: Net, perfect: float) -> Gain | None:
    """Returns the expected gain of twice the data; None where the parts were not trained.

    What is missing to the perfect score falls with the number of images like a power of it
    (Hestness et al. 2017, "Deep learning scaling is predictable, empirically", section 2), of which
    the mean exponent from a quarter to a half and from there to all is taken. Bounds are
    percentiles over draws of the three means from their errors.

    Args:
      search: after the stage that trains on parts.
      net: the recommended one.
      perfect: the score that nothing is better than.
    """
    names = [part.name for part, _ in _parts(search, net)]
    if not all(search.record.repeats(name) for name in names):
        return None
    means, errors = np.transpose([_mean_and_error(search.record, name) for name in names])
    drawn = means + errors * np.random.default_rng(0).standard_normal((_DRAWS, len(means)))
    missing = np.maximum(perfect - np.vstack([means, drawn]), 1e-6)  # All, half, quarter.
    exponent = np.clip(np.log2(missing[:, 2] / missing[:, 0]) / 2, 0.0, 2.0)
    gains = missing[:, 0] * (1 - 2.0**-exponent)
    low, high = np.percentile(gains[1:], _BOUNDS)
    return Gain(float(gains[0]), float(low), float(high))


def _mean_and_error(record: Record, name: str) -> tuple[float, float]:
    """Returns the mean of the first repeat and its standard error, over images and runs."""
    numbers = range(record.folds)
    outcomes = [record.outcomes[name, number] for number in numbers]
    scores = np.concatenate([outcome.scores for outcome in outcomes])
    runs = [float(outcome.scores.mean()) for outcome in outcomes]
    variance = scores.var(ddof=1) / len(scores) + np.var(runs, ddof=1) / len(runs)
    return record.score(name, numbers), float(np.sqrt(variance))


def parse_goal(text: str) -> tuple[str, float] | None:
    """Reads a goal such as `balanced_accuracy>=0.95`: measure and bound; None for ''.

    Raises:
      UserError: it is none.
    """
    if not text:
        return None
    match = re.fullmatch(r'\s*(\w+)\s*(>=|<=)\s*(\d*\.?\d+)\s*(%?)\s*', text)
    if match is None:
        raise UserError(
            f'--goal={text} is no goal: write a measure and a bound, such as '
            '"balanced_accuracy>=0.95" or "log_loss<=0.2".'
        )
    measure, sign, number, per_cent = match.groups()
    if measure not in MEASURES:
        raise UserError(
            f'--goal names {measure!r}; there are {", ".join(MEASURES)}.'
            f'{did_you_mean(measure, MEASURES)}'
        )
    if (sign == '<=') != MEASURES[measure].less_is_better:
        raise UserError(f'--goal={text}: {measure} is to be {"<=" if sign == ">=" else ">="}.')
    return measure, float(number) / (100 if per_cent else 1)


def goal(text: str, evidence: Evidence | None, name: str, gain: Gain | None) -> Goal | None:
    """Returns whether the recommended net reaches what was asked for, by its runs over folds."""
    asked = parse_goal(text)
    if asked is None:
        return None
    measure, bound = asked
    if evidence is None or name not in evidence.scores:
        return Goal(text, 'cannot tell', 'No repeat is complete yet.')
    sign = -1 if MEASURES[measure].less_is_better else 1
    low, high = evidence.interval(name)
    if low >= sign * bound:
        return Goal(text, 'met')
    answer = 'not met' if high < sign * bound else 'cannot tell'
    lacking = sign * bound - evidence.mean(name)
    if answer == 'cannot tell':
        return Goal(text, answer, 'More images to judge by would tell.')
    if gain is None or gain.gain <= 0:
        return Goal(text, answer, 'More data, better photos or pretrained weights may reach it.')
    doublings = lacking / gain.gain
    return Goal(
        text, answer,
        f'Twice the data would bring about {100 * gain.gain:.1f} points of the '
        f'{100 * lacking:.1f} that are missing: it would take about {2**np.ceil(doublings):.0f} '
        'times the data, or pretrained weights.'
        if doublings <= 4
        else 'More data alone will hardly reach it: try pretrained weights (config.init.weights).',
    )  # fmt: skip


def confidence(search: Search, net: Net) -> str:
    """Returns how sure the recommendation is."""
    others = [a for a in search.answers if net.name in (a.name, a.reference)]
    if not others:
        runs = len(search.record.numbers(net.name))
        return f'Preliminary: it stands on {runs} run{"" if runs == 1 else "s"} of each net.'
    open_ = [a for a in others if a.answer == 'cannot tell']
    sure = len(others) - len(open_)
    said = f'{sure} of {len(others)} comparisons with other nets are settled'
    return f'{said}.' if not open_ else (
        f'{said}; {len(open_)} cannot be told apart with what was run, so a net that is a little '
        'better may be among them.'
    )  # fmt: skip
