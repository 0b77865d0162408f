"""Pages from templates: one look, whole without a network, names shown as they are."""

import pathlib
import re
from collections.abc import Mapping
from typing import Any

import jinja2

from console import interval, percent, size

_FLAG = re.compile(r'(--[\w.]+(?:=[^\s]*[^\s.,])?)')  # Splits a text; every second part is a flag.


def render(template: pathlib.Path, **values: Any) -> str:
    """Returns a page.

    Args:
      template: may extend `base.html.jinja` and use `macros.html.jinja`, which stand here.
      values: what it shows.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([template.parent, pathlib.Path(__file__).parent]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        'percent': percent, 'interval': interval, 'bytes': size, 'points': _points,
        'number': number, 'bounds': _bounds, 'flags': _FLAG.split,
    }  # fmt: skip
    return environment.get_template(template.name).render(**values)


def number(value: float | None) -> str:
    """Returns a number with four digits, '-' for None."""
    return '-' if value is None else f'{value:.4g}'


def _points(figure: Mapping[str, Any] | None) -> str:
    """Returns a difference of shares in points of a hundred, with its bounds."""
    if figure is None or figure['value'] is None:
        return '-'
    value, low, high = (100 * (figure[k] or 0.0) for k in ('value', 'low', 'high'))
    return f'{value:+.2f} points ({low:+.2f} to {high:+.2f})'


def _bounds(figure: Mapping[str, Any] | None) -> str:
    """Returns a number with its bounds."""
    if figure is None:
        return '-'
    return f'{number(figure["value"])} ({number(figure["low"])} to {number(figure["high"])})'
