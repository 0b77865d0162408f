"""How a config field states its default, its meaning and its possible values."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any


def field(
    default: Any,
    meaning: str,
    *,
    choices: Sequence[str] | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
    above: float | None = None,
    below: float | None = None,
    longest: int | None = None,
) -> Any:
    """Describes one config field.

    The return value serves as a dataclass default (the model families) and as an entry of the
    table in `configs/default.py`.

    Args:
      default: value used where nobody says otherwise; its type is the type of the field.
      meaning: one line for people, with the unit.
      choices: the possible values of a string field.
      at_least: smallest allowed number; of a tuple, of each element.
      at_most: largest allowed number, likewise.
      above: allowed numbers are larger than this.
      below: allowed numbers are smaller than this.
      longest: a tuple holds between 1 and this many numbers (0 and this many if its default is
        empty).
    """
    limits = {
        'choices': choices,
        'at_least': at_least,
        'at_most': at_most,
        'above': above,
        'below': below,
        'longest': longest,
    }
    return dataclasses.field(default=default, metadata={'meaning': meaning, **limits})


def options(module_class: type) -> dict[str, dataclasses.Field]:
    """Returns the config fields of a model family, by dotted name: those declared with `field`.

    A field whose default is a dataclass is a group of fields, such as `head.dropout`.
    """
    found = {}
    for f in dataclasses.fields(module_class):
        if 'meaning' in f.metadata:
            found[f.name] = f
        elif dataclasses.is_dataclass(f.default):
            found |= {f'{f.name}.{name}': g for name, g in options(type(f.default)).items()}
    return found


def problem(value: Any, described: dataclasses.Field) -> str:
    """Returns what is wrong with `value` for this field ('must be ...'), or '' if nothing is."""
    default: Any = described.default
    limits, kind = described.metadata, type(default)
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        return f'must be of type {kind.__name__}'
    if limits['choices'] and value not in limits['choices']:
        return f'must be one of {", ".join(limits["choices"])}'
    if kind is tuple:
        shortest = 1 if default else 0
        if not shortest <= len(value) <= limits['longest']:
            return f'must hold {shortest} to {limits["longest"]} whole numbers, such as "(1, 2)"'
        if not all(type(v) is int for v in value):
            return 'must hold whole numbers, such as "(1, 2)"'
    for number in value if kind is tuple else [value]:
        if text := _outside(number, limits):
            return text
    return ''


def _outside(number: Any, limits: Any) -> str:
    if isinstance(number, float) and not math.isfinite(number):
        return 'must be a finite number'
    if limits['at_least'] is not None and number < limits['at_least']:
        return f'must be at least {limits["at_least"]}'
    if limits['at_most'] is not None and number > limits['at_most']:
        return f'must be at most {limits["at_most"]}'
    if limits['above'] is not None and number <= limits['above']:
        return f'must be above {limits["above"]}'
    if limits['below'] is not None and number >= limits['below']:
        return f'must be below {limits["below"]}'
    return ''
