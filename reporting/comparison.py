"""Runs side by side: differences on the same examples, and seeds of one config together."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import t

from evaluation import intervals, metrics
from reporting.runs import Judged, Run, by_config

_SHOWN = 6  # Fields in which a config differs.


def compare(runs: Sequence[Run]) -> dict[str, Any]:
    """Returns what `report.json` says of several runs.

    Returns:
      `measure`: what differs, accuracy or mean absolute error; `runs`: of each its name, seed and
      difference to the first; `configs`: of each what it changes against the first, its runs, the
      mean and standard deviation of their measure, and the difference of its mean to the first's.
      Differences are on the examples that both judged (`examples`); None where there are none.
    """
    classes = bool(runs[0].class_names)
    measure = 'accuracy' if classes else 'mae'
    judged = {run.path: run.judged() for run in runs}
    first = judged[runs[0].path]
    rows = [
        {
            'name': run.name,
            'seed': run.config['seed'],
            'value': run.content['figures'][measure],
            'log_loss': run.content['figures'].get('log_loss'),
            'parameters': run.result['parameters'],
            'flops': run.result['flops_per_example'],
            'seconds': run.result['seconds']['total'],
            'difference': _of_runs(judged[run.path], first, classes)
            if run is not runs[0]
            else None,
        }
        for run in runs
    ]
    groups = by_config(runs)
    configs = []
    for group in groups:
        values = [run.content['figures'][measure]['value'] for run in group]
        configs.append({
            'changes': _changes(group[0], groups[0][0]),
            'runs': [run.name for run in group],
            'mean': float(np.mean(values)),
            'deviation': float(np.std(values, ddof=1)) if len(values) > 1 else None,
            'difference': _of_groups([judged[run.path] for run in group],
                                     [judged[run.path] for run in groups[0]], classes)
            if group is not groups[0] else None,
        })  # fmt: skip
    return {'measure': measure, 'runs': rows, 'configs': configs}


def _of_runs(one: Judged, other: Judged, classes: bool) -> dict[str, Any] | None:
    """Returns the score of one minus that of the other, on the examples of both.

    Of classes by the score interval for paired proportions, of numbers by the bootstrap.
    """
    scores, groups = _shared([one, other])
    if not len(groups):
        return None
    a, b = scores
    if classes:
        bounds = intervals.paired_difference(a > 0, b > 0, groups)
        figure = metrics.figure(float(a.mean() - b.mean()), *bounds)
    else:
        figure = metrics.mean(a - b, groups)
    return {'examples': len(groups), **figure}


def _of_groups(
    ones: Sequence[Judged], others: Sequence[Judged], classes: bool
) -> dict[str, Any] | None:
    """Returns the difference of the means over seeds, on the examples of all of them.

    Its variance is that of the mean difference of an example (whole groups are drawn) and that of
    the seeds, var(D) / N + v / J + v' / J'; degrees of freedom are those of Satterthwaite 1946.
    Where a config has one run, the seeds of the other stand for its own.
    """
    if len(ones) == len(others) == 1:
        return _of_runs(ones[0], others[0], classes)
    scores, groups = _shared([*ones, *others])
    if len(groups) < 2:
        return None
    mine, theirs = scores[: len(ones)], scores[len(ones) :]
    apart_N = mine.mean(axis=0) - theirs.mean(axis=0)
    number, group_N = np.unique(groups, return_inverse=True)
    sums_G = intervals.group_sums((apart_N - apart_N.mean())[:, None], group_N)[:, 0]
    count = len(number)
    parts = [(float((sums_G**2).sum()) / len(groups) ** 2 * count / max(1, count - 1), count - 1)]
    spreads = [each.mean(axis=1) for each in (mine, theirs) if len(each) > 1]
    for each in (mine, theirs):
        known = [each.mean(axis=1)] if len(each) > 1 else spreads
        parts.append((float(np.var(known[0], ddof=1)) / len(each), len(known[0]) - 1))
    variance = sum(part for part, _ in parts)
    freedom = variance**2 / max(1e-30, sum(part**2 / of for part, of in parts))
    half = float(t.ppf((1 + intervals.LEVEL) / 2, max(1.0, freedom)) * np.sqrt(variance))
    value = float(apart_N.mean())
    return {'examples': len(groups), **metrics.figure(value, value - half, value + half)}


def _shared(judged: Sequence[Judged]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the scores [runs, N] and groups [N] of the examples that all have judged."""
    places = [{key: i for i, key in enumerate(each.keys)} for each in judged]
    keys = [key for key in judged[0].keys if all(key in place for place in places)]
    scores = [
        each.scores[[place[key] for key in keys]]
        for each, place in zip(judged, places, strict=True)
    ]
    return np.asarray(scores), judged[0].groups[[places[0][key] for key in keys]]


def _changes(run: Run, first: Run) -> list[str]:
    """Returns the fields that differ from the first config, as flags."""
    differing = [
        f'--config.{name}={run.config.get(name)}'
        for name in sorted(run.config.keys() | first.config.keys())
        if name != 'seed' and run.config.get(name) != first.config.get(name)
    ]
    more = [f'and {len(differing) - _SHOWN} more'] if len(differing) > _SHOWN else []
    return differing[:_SHOWN] + more
