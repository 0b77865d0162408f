"""What an evaluation prints: a short table, the sentences behind it, where to look next."""

import pathlib
from typing import Any

from console import Console, bounds, interval, percent, size
from evaluation import layers
from evaluation.metrics import HEADINGS, SHARES

_WORST = 5  # Classes that are shown.


def show(console: Console, content: dict[str, Any], holds: str, folder: pathlib.Path) -> None:
    """Prints an evaluation.

    Args:
      console: to print on.
      content: of `evaluation.json`.
      holds: what the examples are, such as 'images'.
      folder: of the evaluation.
    """
    figures = content['figures']
    rows = []
    for name, heading in HEADINGS.items():
        if figures.get(name):
            written = percent if name in SHARES else _number
            f = figures[name]
            rows.append([heading, written(f['value']), bounds(f, written)])
    title = f'{content["split"]}, {figures["examples"]:,} {holds}'
    console.table([title, 'value', '95 % interval'], rows)
    for line in _remarks(content, holds) if content['class_names'] else []:
        console.line(line)
    for finding in content.get('diagnosis', ()):
        console.line(f'{finding["sentence"]} {finding["remedy"]}')
    console.line(_cost(content['cost']))
    if found := content.get('layers'):
        layers.show(console, found)
    console.line(
        f'Everything is in {folder} ({content["seconds"]:.0f} s): evaluation.json, tables, plots '
        'and contact sheets',
        always=True,
    )


def _number(value: float | None) -> str:
    return '-' if value is None else f'{value:.4g}'


def _points(share: float | None) -> str:
    return '-' if share is None else f'{100 * share:+.2f}'


def _remarks(content: dict[str, Any], holds: str) -> list[str]:
    """Returns sentences on what is behind the figures."""
    known = [row for row in content['per_class'] if row['recall']['value'] is not None]
    known.sort(key=lambda row: (row['recall']['value'], -row['examples']))
    lowest = ', '.join(f'{r["name"]} {interval(r["recall"])}' for r in known[:_WORST])
    lines = [f'Lowest recall: {lowest}']
    pairs = [
        f'{p["label"]} as {p["prediction"]} {p["count"]}' for p in content['mistakes']['pairs']
    ]
    count = content['mistakes']['count']
    lines.append(f'Mistakes: {count:,}{", mostly " if pairs else ""}{", ".join(pairs[:3])}')
    lines.append(_calibration(content['calibration']))
    if two := content['two_classes']:
        threshold = two['threshold']
        lines.append(
            f'ROC AUC {interval(two["roc_auc"], _number)}; the best threshold, '
            f'{threshold["probability"]:.3f} '
            f'(chosen on validation{", cross-fitted" if threshold["cross_fitted"] else ""}), has a '
            f'balanced accuracy of {interval(threshold["balanced_accuracy"])}'
        )
    if costs := content['costs']:
        lines.append(
            f'Expected cost: {_number(costs["argmax"]["value"])} by the most probable class, '
            f'{_number(costs["cost_optimal"]["value"])} by the rule of least cost; difference '
            f'{interval(costs["difference"], _number)}'
        )
    if gain := content.get('mirrored_gain'):
        points = _points(gain['value'])
        lines.append(
            f'Mirror images change the accuracy by {points} points ({bounds(gain, _points)})'
        )
    if worst := content['slices']['worst']:
        lines.append(
            f'Worst slice: {worst["by"]} {worst["value"]}, {interval(worst["accuracy"])} of '
            f'{worst["examples"]:,} {holds}. {content["slices"]["note"]}'
        )
    if content['suspects']['flagged']:
        lines.append(
            f'Look at {content["suspects"]["flagged"]:,} of {content["suspects"]["examined"]:,} '
            'labels: suspects.csv names them, most suspicious first'
        )
    return lines


def _calibration(calibration: dict[str, Any]) -> str:
    plain, scaled = calibration['plain'], calibration['scaled']
    doubt = (
        ' (a guess: these examples tell none)' if calibration['temperature_undetermined'] else ''
    )
    usual = plain['if_calibrated']
    return (
        f'Calibration error: {percent(plain["expected_calibration_error"])} (exact probabilities '
        f'would show {percent(usual["low"]).removesuffix(" %")} to {percent(usual["high"])}); with '
        f'the temperature {calibration["temperature"]:.2f}{doubt} '
        f'{percent(scaled["expected_calibration_error"])}'
    )


def _cost(cost: dict[str, Any]) -> str:
    parts = [
        f'{1000 * b["p50_seconds"]:.2f} ms at batch {b["batch"]}' for b in cost['batches']
    ]  # fmt: skip
    fastest = max(b['examples_per_second'] for b in cost['batches'])
    return (
        f'Cost: {", ".join(parts)} (median), {fastest:,.0f} examples/s; {cost["parameters"]:,} '
        f'parameters, {size(cost["weight_bytes"])}'
    )
