"""The paragraph at the top of the page, which a learner can quote, and what is uncertain."""

from collections.abc import Sequence

from selection.choice import MEASURES, Answered, Candidate, Choice
from selection.report import figures
from sweeping.reading.words import count


def paragraph(choice: Choice) -> str:
    """Returns the answer in a few sentences, with its uncertainty, from the figures of the run."""
    chosen = choice.candidate(choice.recommended)
    said = [headline(choice)]
    if chosen is not None and chosen.mean is not None:
        said += [*_neighbours(choice, chosen), *_test(choice), *_data(choice, chosen)]
        said += _more(choice, chosen)
    return ' '.join([*said, *_goal(choice), *_end(choice)])


def headline(choice: Choice) -> str:
    """Returns the first sentence: which net, and how good it is."""
    chosen = choice.candidate(choice.recommended)
    return _none(choice) if chosen is None else _answer(choice, chosen)


def net(choice: Choice, candidate: Candidate) -> str:
    """Returns what a candidate is, such as '4 convolution layers at 32 pixels'."""
    if candidate.role != 'ladder':
        return candidate.label
    sizes = {each.image_size for each in choice.candidates if each.role == 'ladder'}
    where = f' at {candidate.image_size} pixels' if len(sizes) > 1 else ''
    return f'{count(candidate.depth, choice.layer)}{where}'


def beats_constant(choice: Choice, candidate: Candidate) -> bool:
    """Tells whether a candidate is better than the constant predictor, as far as is known.

    By the verdict where there is one, else by its interval, else by its mean.
    """
    constant = next((c for c in choice.candidates if c.role == 'constant'), None)
    if constant is None or constant.mean is None or candidate.mean is None:
        return True
    if said := latest(choice, candidate.name, constant.name):
        return said.answer == ('better' if said.name == candidate.name else 'worse')
    if MEASURES[choice.measure].less_is_better:
        return (candidate.mean if candidate.high is None else candidate.high) < constant.mean
    return (candidate.mean if candidate.low is None else candidate.low) > constant.mean


def latest(choice: Choice, one: str, other: str) -> Answered | None:
    """Returns the last verdict on two candidates, in whichever order it was asked."""
    return next((v for v in reversed(choice.verdicts) if {v.name, v.reference} == {one, other}),
                None)  # fmt: skip


def open_verdicts(choice: Choice) -> list[Answered]:
    """Returns the verdicts that cannot tell, of each two candidates the last one."""
    return [
        v for v in choice.verdicts
        if v.answer == 'cannot tell' and latest(choice, v.name, v.reference) is v
    ]  # fmt: skip


def uncertain(choice: Choice) -> list[str]:
    """Returns what is not known, each with what would settle it."""
    measure = choice.measure
    said = [
        f'{v.question} {v.name} against {v.reference}: {figures.gain(measure, v)}, cannot tell. '
        f'{v.settle}'.strip()
        for v in open_verdicts(choice)
    ]
    single = [c for c in choice.candidates if c.mean is not None and c.low is None
              and c.role != 'constant']  # fmt: skip
    if single:
        few = 'have' if len(single) > 1 else 'has'
        said.append(f'{count(len(single), "net")} {few} no interval: too few runs for one.')
    if choice.resolution is not None and _is_coarse(choice, choice.resolution):
        said.append(
            f'Differences below {figures.size(measure, choice.resolution)} cannot be seen with '
            f'these {figures.holds(choice)} and runs, and delta is '
            f'{figures.size(measure, choice.delta)}: more {figures.holds(choice)}, more runs, or a '
            'larger delta.'
        )
    if choice.twice_the_data is None:
        said.append(f'What more {figures.holds(choice)} would bring was not measured.')
    elif choice.twice_the_data.low <= 0:
        said.append(f'Whether twice the {figures.holds(choice)} would bring anything is open.')
    return [
        *said,
        f'All figures are of nets trained on these {figures.holds(choice)}. Another collection of '
        'them would give other figures, and none here says by how much.',
    ]


def _none(choice: Choice) -> str:
    if choice.candidates and all(c.status == 'infeasible' for c in choice.candidates):
        reasons = list(dict.fromkeys(c.reason for c in choice.candidates if c.reason))
        return f'No net keeps within the limits ({"; ".join(reasons[:3])}): loosen them.'
    if choice.candidates and all(c.status in ('infeasible', 'failed') for c in choice.candidates):
        reasons = list(dict.fromkeys(c.reason for c in choice.candidates if c.reason))
        return f'No net could be trained ({"; ".join(reasons[:3])}).'
    return 'There is no recommendation yet.'


def _answer(choice: Choice, chosen: Candidate) -> str:
    so_far = '' if choice.finished else 'So far: '
    if not beats_constant(choice, chosen):
        return f'{so_far}{_nothing(choice, chosen)}'
    use = f'{"use" if so_far else "Use"} {net(choice, chosen)}'
    if chosen.mean is None:
        return f'{so_far}{use}; it was not judged yet.'
    return f'{so_far}{use}: {_named(choice, chosen.mean)}.'


def _nothing(choice: Choice, chosen: Candidate) -> str:
    """Says that no net has learned anything."""
    constant = next(c for c in choice.candidates if c.role == 'constant')
    same = 'the commonest class' if choice.classes else constant.label.removeprefix('always ')
    said = f'nothing beats always saying {same} ({_named(choice, constant.mean)})'
    if chosen.name != constant.name:
        said += (
            f'. The smallest net, {net(choice, chosen)}, has {_named(choice, chosen.mean)} and is '
            'named only because one must be'
        )
    said += ': these data may hold nothing that tells the labels'
    return f'{said if not choice.finished else said[0].upper() + said[1:]}.'


def _named(choice: Choice, figure: float | None) -> str:
    """Returns a figure with the name of the measure, where it is not the accuracy."""
    measure, shown = MEASURES[choice.measure], figures.value(choice.measure, figure)
    if choice.measure == 'accuracy':
        return shown
    return f'{shown} {measure.heading}' if measure.is_share else f'a {measure.heading} of {shown}'


def _neighbours(choice: Choice, chosen: Candidate) -> list[str]:
    """Says what the next smaller and the next larger net are worth, or what was compared last."""
    return [
        f'{_with(choice, chosen, other)}: {_against(choice, chosen, other)}.'
        for other in _beside(choice, chosen)
    ]


def _beside(choice: Choice, chosen: Candidate) -> Sequence[Candidate]:
    """Returns the rungs below and above; of other nets the two that were compared last."""
    judged = [c for c in choice.candidates if c.mean is not None and c.name != chosen.name]
    if chosen.role == 'ladder':
        rungs = [c for c in judged if c.role == 'ladder' and c.image_size == chosen.image_size]
        rungs = [*(c for c in judged if c.role == 'linear'), *rungs]
        below = [c for c in rungs if c.role == 'linear' or c.depth < chosen.depth]
        above = [c for c in rungs if c.role == 'ladder' and c.depth > chosen.depth]
        return [*sorted(below, key=_rung)[-1:], *sorted(above, key=_rung)[:1]]
    others = [v.reference if v.name == chosen.name else v.name for v in reversed(choice.verdicts)
              if chosen.name in (v.name, v.reference)]  # fmt: skip
    names = list(dict.fromkeys(others))[:2]
    return [c for c in judged if c.name in names]


def _rung(candidate: Candidate) -> tuple[bool, int]:
    return candidate.role == 'ladder', candidate.depth


def _with(choice: Choice, chosen: Candidate, other: Candidate) -> str:
    if chosen.role == other.role == 'ladder':
        return f'With {other.depth}'
    name = net(choice, other)
    return name[0].upper() + name[1:]


def _against(choice: Choice, chosen: Candidate, other: Candidate) -> str:
    """Says how much better or worse another candidate is than the chosen one."""
    measure = choice.measure
    said = latest(choice, chosen.name, other.name)
    if said is None:
        difference = (other.mean or 0.0) - (chosen.mean or 0.0)
        shown = figures.size(measure, difference)
        if shown == figures.size(measure, 0.0):
            return 'the same (not tested)'
        better = (difference > 0) != MEASURES[measure].less_is_better
        return f'{shown} {"better" if better else "worse"} (not tested)'
    forward = said.name == other.name
    difference = said.difference if forward else -said.difference
    if said.answer in ('better', 'worse'):
        better = (said.answer == 'better') == forward
        return f'{figures.size(measure, difference)} {"better" if better else "worse"} (sure)'
    ends = difference - said.half_width, difference + said.half_width
    shown = figures.change_with_interval(measure, difference, *ends)
    if said.answer == 'cannot tell':
        return f'{shown}, cannot tell'
    return f'{shown}, no measurable {"gain" if forward else "loss"}'


def _test(choice: Choice) -> list[str]:
    found = next((c for c in choice.confirmed if c.name == choice.recommended), None)
    if found is None or found.mean is None:
        return []
    shown = figures.with_interval(choice.measure, found.mean, found.low, found.high)
    often = len(choice.openings)
    said = f'On {choice.test_images:,} test {figures.holds(choice)} that took no part: {shown}'
    if often > 1:
        said += f', which may flatter it, since these were looked at {often} times'
    return [f'{said}.']


def _data(choice: Choice, chosen: Candidate) -> list[str]:
    """Says how small a difference the data can show."""
    what = f'Your {choice.images:,} {figures.holds(choice)}'
    if choice.resolution is None:
        if chosen.low is None and chosen.runs:
            return [f'Each figure is of {count(chosen.runs, "run")}, so a few '
                    f'{"points" if MEASURES[choice.measure].is_share else "per cent"} may be '
                    'luck.']  # fmt: skip
        return []
    said = f'{what} can show differences of {figures.size(choice.measure, choice.resolution)}'
    if _is_coarse(choice, choice.resolution):
        delta = figures.size(choice.measure, choice.delta)
        said += f', which is more than the {delta} that you said matter: ask for a larger delta'
    return [f'{said}.']


def _is_coarse(choice: Choice, resolution: float) -> bool:
    """Tells whether the data show less than delta: by more than what is printed of the two."""
    shown = [figures.size(choice.measure, each) for each in (resolution, choice.delta)]
    return resolution > choice.delta and shown[0] != shown[1]


def _more(choice: Choice, chosen: Candidate) -> list[str]:
    """Says what more runs and more data would do."""
    beside = [latest(choice, chosen.name, other.name) for other in _beside(choice, chosen)]
    own = [v for v in choice.verdicts if choice.recommended in (v.name, v.reference)]
    open_ones = [v for v in open_verdicts(choice) if v in own]
    said = []
    if open_ones:
        said.append(f'Open: {open_ones[-1].question} {open_ones[-1].settle}'.strip())
    elif all(beside) and own and choice.finished:
        said.append('More runs of these nets would not change this.')
    if choice.twice_the_data:
        gain = choice.twice_the_data
        shown = figures.change_with_interval(choice.measure, gain.gain, gain.low, gain.high)
        nothing = ', perhaps nothing' if gain.low <= 0 else ''
        said.append(f'Twice the {figures.holds(choice)}: about {shown}{nothing}.')
    return said


def _goal(choice: Choice) -> list[str]:
    if choice.goal is None:
        return []
    answer = {
        'met': 'is met',
        'not met': 'is not met',
        'cannot tell': 'may or may not be met: these data cannot tell yet',
    }[choice.goal.answer]
    return [f'Your goal, {choice.goal.asked}, {answer}. {choice.goal.take}'.strip()]


def _end(choice: Choice) -> list[str]:
    if choice.finished:
        return []
    return [f'The method has not ended (stage: {choice.stage}), so this may change.']
