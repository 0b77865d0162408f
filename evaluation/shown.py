"""What an evaluation prints: a short table, the sentences behind it, where to look next."""

import pathlib
from typing import Any

from console import Console, interval, percent, size

_HEADINGS = {
    'accuracy': 'accuracy',
    'top_5_accuracy': 'top-5 accuracy',
    'balanced_accuracy': 'balanced accuracy',
    'macro_f1': 'macro-F1',
    'log_loss': 'log loss',
    'rmse': 'RMSE',
    'mae': 'MAE',
    'bias': 'bias',
    'r2': 'R2',
    'last_value_rmse': 'RMSE of the last value',
}
_SHARES = ('accuracy', 'top_5_accuracy', 'balanced_accuracy', 'macro_f1')
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
    for name, heading in _HEADINGS.items():
        if figures.get(name):
            written = percent if name in _SHARES else _number
            f = figures[name]
            bounds = f'{written(f["low"])} to {written(f["high"])}'
            rows.append([heading, written(f['value']), bounds])
    title = f'{content["split"]}, {figures["examples"]:,} {holds}'
    console.table([title, 'value', '95 % interval'], rows)
    for line in _remarks(content, holds) if content['class_names'] else []:
        console.line(line)
    for finding in content.get('diagnosis', ()):
        console.line(f'{finding["sentence"]} {finding["remedy"]}')
    console.line(_cost(content['cost']))
    console.line(
        f'Everything is in {folder} ({content["seconds"]:.0f} s): evaluation.json, tables, plots '
        'and contact sheets',
        always=True,
    )


def _number(value: float | None) -> str:
    return '-' if value is None else f'{value:.4g}'


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
            f'ROC AUC {two["roc_auc"]["value"]:.4f} ({two["roc_auc"]["low"]:.4f} to '
            f'{two["roc_auc"]["high"]:.4f}); the best threshold, {threshold["probability"]:.3f} '
            f'(chosen on validation{", cross-fitted" if threshold["cross_fitted"] else ""}), has a '
            f'balanced accuracy of {interval(threshold["balanced_accuracy"])}'
        )
    if costs := content['costs']:
        difference = costs['difference']
        lines.append(
            f'Expected cost: {costs["argmax"]["value"]:.4g} by the most probable class, '
            f'{costs["cost_optimal"]["value"]:.4g} by the rule of least cost; difference '
            f'{difference["value"]:.4g} ({difference["low"]:.4g} to {difference["high"]:.4g})'
        )
    if gain := content.get('mirrored_gain'):
        lines.append(
            f'Mirror images change the accuracy by {100 * gain["value"]:+.2f} points '
            f'({100 * gain["low"]:+.2f} to {100 * gain["high"]:+.2f})'
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
    doubt = ' (too few errors to tell)' if calibration['temperature_undetermined'] else ''
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
