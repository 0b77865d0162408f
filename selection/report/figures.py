"""Figures of a choice in words: shares in per cent and points, losses as they are."""

from selection.choice import MEASURES, Answered, Choice


def value(measure: str, figure: float | None) -> str:
    """Returns a figure such as '94.5 %' or '0.312'; '-' where it is not known."""
    if figure is None:
        return '-'
    return f'{100 * figure:.1f} %' if MEASURES[measure].is_share else f'{figure:.3g}'


def with_interval(measure: str, mean: float | None, low: float | None, high: float | None) -> str:
    """Returns a figure with its interval where that is known, '94.5 % (93.1 to 95.8 %)'."""
    if mean is None or low is None or high is None:
        return value(measure, mean)
    return f'{value(measure, mean)} ({span(measure, low, high)})'


def span(measure: str, low: float, high: float) -> str:
    """Returns an interval such as '93.1 to 95.8 %'."""
    return f'{value(measure, low).removesuffix(" %")} to {value(measure, high)}'


def size(measure: str, difference: float) -> str:
    """Returns how large a difference is, whatever its sign: '0.8 points' or '0.02'."""
    if not MEASURES[measure].is_share:
        return f'{abs(difference):.2g}'
    points = round(100 * abs(difference), 1)
    return f'{points:g} {"point" if points == 1 else "points"}'


def change(measure: str, difference: float) -> str:
    """Returns a gain such as '+0.1'; of losses, whose sign would mislead, '0.02 better'."""
    if MEASURES[measure].is_share:
        return f'{round(100 * difference, 1) + 0.0:+.1f}'  # No '-0.0'.
    return f'{size(measure, difference)} {"worse" if difference < 0 else "better"}'


def change_with_interval(measure: str, difference: float, low: float, high: float) -> str:
    """Returns a gain such as '+0.1 (-0.7 to +0.9)'."""
    return f'{change(measure, difference)} ({change(measure, low)} to {change(measure, high)})'


def gain(measure: str, one: Answered) -> str:
    """Returns the difference of a verdict with its interval."""
    ends = one.difference - one.half_width, one.difference + one.half_width
    return change_with_interval(measure, one.difference, *ends)


def latency(choice: Choice) -> str:
    """Returns the heading of latencies: 'latency, ms', or 'latency of 64 at once, ms'."""
    batch = choice.predict_batch
    return f'latency{f" of {batch:,} at once" if batch > 1 else ""}, ms'


def holds(choice: Choice) -> str:
    """Returns what the examples are called: 'photos' where they are files of the user."""
    return 'photos' if choice.dataset.startswith('folder:') else choice.holds


def count(many: int, what: str) -> str:
    """Returns '1 run', '2 runs'."""
    return f'{many:,} {what}{"" if many == 1 else "s"}'
