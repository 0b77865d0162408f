"""What decisions cost: a matrix of costs, and the rule that expects to pay least."""

import csv
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from errors import UserError, did_you_mean
from evaluation import intervals, metrics


class Costs(NamedTuple):
    """A cost matrix.

    Attributes:
      decisions: names; those of the classes first, in their order, then others such as `reject`.
      matrix_KD: cost of each decision (column) where a class (row) is the truth; benefits are
        negative.
    """

    decisions: list[str]
    matrix_KD: np.ndarray


def read(path: pathlib.Path, class_names: Sequence[str]) -> Costs:
    """Reads a csv file: decisions in the first line, true classes in the first column.

    Raises:
      UserError: names the file, the line, and what is missing, unknown or no number.
    """
    try:
        with path.open(newline='', encoding='utf-8-sig') as file:
            rows = [[cell.strip() for cell in row] for row in csv.reader(file) if any(row)]
    except FileNotFoundError:
        raise UserError(f'There is no file {path}.') from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f'{path} cannot be read as a csv file in UTF-8: {error}.') from error
    if len(rows) < 2:
        raise UserError(f'{path} holds no cost matrix: its first line names the decisions, and '
                        'each further one a class with its costs.')  # fmt: skip
    decisions, truths = rows[0][1:], [row[0] for row in rows[1:]]
    _check_names(path, 'column', decisions, class_names, more=True)
    _check_names(path, 'row', truths, class_names, more=False)
    ordered = [*class_names, *(name for name in decisions if name not in class_names)]
    table = dict(zip(truths, rows[1:], strict=True))
    matrix = [
        [_number(path, table[truth], decisions, decision) for decision in ordered]
        for truth in class_names
    ]
    return Costs(ordered, np.asarray(matrix))


def _check_names(
    path: pathlib.Path, kind: str, names: Sequence[str], class_names: Sequence[str], more: bool
) -> None:
    for name in names:
        if not name or names.count(name) > 1:
            problem = 'without a name' if not name else f'{name!r} more than once'
            raise UserError(f'{path} has a {kind} {problem}.')
        if name not in class_names and not more:
            known = ', '.join(class_names)
            raise UserError(
                f'{path} has a {kind} {name!r}, which is no class of this run ({known}).'
                f'{did_you_mean(name, class_names)}'
            )
    if missing := [name for name in class_names if name not in names]:
        raise UserError(
            f'{path} has no {kind} for {", ".join(missing)}: it needs one for each class.'
        )


def _number(
    path: pathlib.Path, row: Sequence[str], decisions: Sequence[str], decision: str
) -> float:
    cells = dict(zip(decisions, row[1:], strict=False))
    text = cells.get(decision, '')
    try:
        value = float(text)
    except ValueError:
        value = np.nan
    if not np.isfinite(value) or len(row) > len(decisions) + 1:
        problem = f'{text!r} where a number must stand' if len(row) <= len(decisions) + 1 else (
            f'{len(row) - 1} costs for {len(decisions)} decisions')  # fmt: skip
        raise UserError(f'{path}, truth {row[0]}, decision {decision}: {problem}.')
    return value


def decide(probabilities_NK: np.ndarray, costs: Costs) -> np.ndarray:
    """Returns the decision of least expected cost, int [N] (Elkan 2001, equation 1)."""
    return (probabilities_NK @ costs.matrix_KD).argmin(axis=1)


def compare(
    probabilities_NK: np.ndarray, labels_N: np.ndarray, groups_N: np.ndarray, costs: Costs
) -> dict[str, Any]:
    """Returns the mean cost of the most probable class, of the rule, and of their difference.

    Args:
      probabilities_NK: calibrated.
      labels_N: the truth.
      groups_N: number of each image's group.
      costs: what decisions cost.

    Returns:
      `decisions`, `matrix`; `argmax`, `cost_optimal` and `difference` (paired over the images;
      below 0 the rule saves), each a figure; `changed`, how many decisions differ; `taken`, how
      often the rule takes each decision.
    """
    plain_N, chosen_N = probabilities_NK.argmax(axis=1), decide(probabilities_NK, costs)
    paid = [costs.matrix_KD[labels_N, decision] for decision in (plain_N, chosen_N)]
    values_NC = np.stack([*paid, paid[1] - paid[0], np.ones(len(labels_N))], axis=1)

    def statistic(sums: np.ndarray) -> np.ndarray:
        return sums[..., :3] / sums[..., 3:]

    means = statistic(values_NC.sum(axis=0))
    bounds = intervals.bootstrap(statistic, values_NC, groups_N)
    names = ('argmax', 'cost_optimal', 'difference')
    found = {name: metrics.figure(means[i], *bounds[:, i]) for i, name in enumerate(names)}
    taken = np.bincount(chosen_N, minlength=len(costs.decisions)).tolist()
    return {
        'decisions': costs.decisions,
        'matrix': costs.matrix_KD.tolist(),
        **found,
        'changed': int((plain_N != chosen_N).sum()),
        'taken': dict(zip(costs.decisions, taken, strict=True)),
    }
