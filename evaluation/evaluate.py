"""One evaluation from run folder to files: `evaluate_run`."""

import dataclasses
import hashlib
import os
import pathlib
import re
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy.special import softmax

from console import Console
from data import folder as data_folder
from errors import UserError
from evaluation import (
    calibration,
    costs,
    diagnosis,
    ended,
    files,
    latency,
    layers,
    maps,
    metrics,
    mistakes,
    outputs,
    plots,
    shown,
    slices,
    trained,
)
from evaluation.ended import NEW
from evaluation.outputs import Outputs
from evaluation.trained import Trained
from input_pipeline import Pipeline
from training import results, tasks
from training.run_folder import RunFolder

_TRAINING = 2048  # Examples of the training split that are judged too.


def evaluate_run(
    path: str | os.PathLike,
    split: str = '',
    data: str = '',
    costs_file: str = '',
    mirrored: bool = False,
    others: Sequence[str] = (),
    batch_size: int = 0,
    with_layers: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Judges a trained net and writes everything about it into a folder of its run folder.

    Args:
      path: the run folder.
      split: `validation` or `test`; validation where empty and there is no `data`.
      data: other images, such as `folder:PATH`; with `split`, where the data of the run are now.
      costs_file: csv file with a cost matrix.
      mirrored: average the logits of each image and its mirror image.
      others: run folders on the same data that speak of likely label errors too.
      batch_size: examples at once; as in training where 0.
      with_layers: ask of every block of the net whether it is needed.
      quiet: print the headline and the table alone.

    Returns:
      What `evaluation.json` holds.

    Raises:
      UserError: something the user can mend, with the remedy.
    """
    begun = time.perf_counter()
    _check(split, data, others)
    net = trained.open_run(path, batch_size)
    classes = net.class_names
    if not classes and (costs_file or others):
        raise UserError('--costs and --others are for classes, and this run predicts numbers.')
    prices = costs.read(pathlib.Path(costs_file), classes) if costs_file else None
    split = split or (NEW if data else 'validation')
    voices = mistakes.read_others(net, others, split)
    if with_layers:
        layers.check(net, split)
    folder = _folder(net, split, data, mirrored)
    console = Console(quiet)
    what = f'{split} split of {net.config.dataset.name}' if split != NEW else f'new data {data}'
    console.line(f'Leadline  evaluation of {path} on the {what}, {net.devices.describe()}',
                 always=True)  # fmt: skip
    view = net.mirrored() if mirrored else net
    pipeline = net.new_data(data, console) if split == NEW else net.own_data(console, data)
    found = outputs.compute(view, pipeline, split)
    content: dict[str, Any] = {
        'run': os.fspath(path),
        'split': split,
        'data': pipeline.name,
        'mirrored': mirrored or net.recipe.evaluate_mirrored,
        'class_names': classes,
        'unreadable': [{'name': n, 'reason': why} for n, _, why in pipeline.source.skipped],
    }
    console.line(f'Outputs   {len(found.labels_N):,} {pipeline.source.holds} after '
                 f'{time.perf_counter() - begun:.1f} s')  # fmt: skip
    if classes and split != NEW and not mirrored:
        content['beside_training'] = outputs.compare(net, found, console)
    if classes and mirrored:
        content['mirrored_gain'] = _mirrored_gain(net, found)
    with files.replacing(folder) as place:
        if classes:
            content |= _classes(view, found, prices, voices, place)
        else:
            content |= _numbers(net, found, place)
        content['maps'] = maps.write(net, found, place)
        content['net'] = [dataclasses.asdict(row) for row in net.layers()]
        if split != NEW:
            content['data_splits'] = _data_splits(pipeline)
            content['training'] = _training(view, pipeline)
            content['diagnosis'] = diagnosis.diagnose(
                net.config.to_dict(), net.result, net.folder.read_metrics(), content
            )
        content['cost'] = latency.measure(view)
        if with_layers:
            content['layers'] = layers.judge(view, found, place, console)
        content['seconds'] = time.perf_counter() - begun
        content |= results.environment(net.devices.facts())
        RunFolder(place).write_json('evaluation.json', content)
    shown.show(console, content, pipeline.source.holds, folder)
    return content


def _check(split: str, data: str, others: Sequence[str]) -> None:
    if split and split not in ended.SPLITS:
        raise UserError(f'--split={split} is none: give {" or ".join(ended.SPLITS)}.')
    if others and data and not split:
        raise UserError('--others speak of their own held-out images, not of new data.')


def _folder(net: Trained, split: str, data: str, mirrored: bool) -> pathlib.Path:
    name = split
    if split == NEW:  # The end of a path says most, and the hash tells apart what looks the same.
        readable = re.sub(r'[^A-Za-z0-9._=-]+', '_', data).strip('_')[-80:]
        name = f'{readable}-{hashlib.sha256(os.fsencode(data)).hexdigest()[:8]}'
    return net.folder.path / 'evaluation' / f'{name}{"-mirrored" if mirrored else ""}'


def _data_splits(pipeline: Pipeline) -> dict[str, Any]:
    """Returns how many examples each split has, and of each class."""
    classes = pipeline.class_names
    return {
        split: {
            'examples': len(members),
            'per_class': np.bincount(
                pipeline.source.labels[members], minlength=len(classes)
            ).tolist()
            if classes
            else None,
        }
        for split, members in pipeline.members.items()
    }


def _training(view: Trained, pipeline: Pipeline) -> dict[str, Any]:
    """Returns the figures of training examples, judged as those of the split are.

    Those of the curves are of batches with augmentation, by weights on their way.
    """
    members = pipeline.members['train']
    if len(members) > _TRAINING:
        members = np.sort(np.random.default_rng(0).choice(members, _TRAINING, replace=False))
    sample = dataclasses.replace(pipeline, members={'train': members})
    values_NK, labels_N = view.logits(sample, 'train'), sample.labels_of('train')
    apart_N = np.arange(len(labels_N))
    if view.class_names:
        return metrics.classification(values_NK, labels_N, apart_N)
    predicted_N = tasks.Regression().predictions(values_NK, sample)['prediction']
    return metrics.regression(predicted_N, labels_N, apart_N, None)


# Classes.


def _classes(
    view: Trained,
    found: Outputs,
    prices: costs.Costs | None,
    voices: mistakes.Voices,
    folder: pathlib.Path,
) -> dict[str, Any]:
    """Returns the figures of a classifier, and writes its tables, sheets and plots."""
    logits_NK, labels_N, groups_N = found.values_NK, found.labels_N, found.groups_N
    names = view.class_names
    tuning = _validation(view, found)
    calibrated, scaled_NK = _calibrate(found, tuning)
    probabilities_NK = softmax(scaled_NK, axis=1)
    rows = metrics.per_class(logits_NK, labels_N, groups_N)
    counts_KK = metrics.confusion(logits_NK.argmax(1), labels_N, len(names))
    content: dict[str, Any] = {
        'figures': metrics.classification(logits_NK, labels_N, groups_N),
        'groups': len(np.unique(groups_N)),
        'per_class': [{'name': n, **row} for n, row in zip(names, rows, strict=True)],
        'confusion': {
            'counts': counts_KK.tolist(),
            'row_shares': (counts_KK / np.maximum(counts_KK.sum(1, keepdims=True), 1)).tolist(),
        },
        'calibration': calibrated,
        'two_classes': _two_classes(found, tuning) if len(names) == 2 else None,
        'costs': None
        if prices is None
        else costs.compare(probabilities_NK, labels_N, groups_N, prices),
        'slices': _slices(found),
        'mistakes': mistakes.write(found, softmax(logits_NK.astype(float), axis=1), folder),
        'suspects': mistakes.write_suspects(found, voices, folder),
    }
    _write_tables(found, content, probabilities_NK, prices, folder)
    figures = {
        'confusion': plots.confusion(content | {'class_names': names}),
        'reliability': plots.reliability(calibrated),
        'recall': plots.recalls(content),
    }
    if content['two_classes']:
        figures['roc_pr'] = plots.two_classes(content['two_classes'], names[1])
    _save(figures, folder)
    return content


def _validation(view: Trained, found: Outputs) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns logits and labels of the validation split; None where that is the split judged.

    They are computed anew where they are averaged with the mirror image's and the data are there;
    else they are those of the run's end.
    """
    if found.split == 'validation':
        return None
    before = ended.stored(view.folder, 'validation')
    logits_NK = before['logits']
    if found.split != NEW and view.recipe.evaluate_mirrored:
        logits_NK = view.logits(found.pipeline, 'validation')
    return logits_NK, before['label']


def _calibrate(
    found: Outputs, tuning: tuple[np.ndarray, np.ndarray] | None
) -> tuple[dict[str, Any], np.ndarray]:
    """Returns what `evaluation.json` says of calibration, and the scaled logits."""
    logits_NK, labels_N = found.values_NK, found.labels_N
    temperature = calibration.fit_temperature(*(tuning or (logits_NK, labels_N)))
    if tuning:
        scaled_NK = logits_NK.astype(np.float64) / temperature.value
    else:
        scaled_NK = calibration.cross_fitted(logits_NK, labels_N, found.groups_N)
    content = {
        'temperature': temperature.value,
        'temperature_undetermined': temperature.undetermined,
        'fitted_on': 'validation',
        'cross_fitted': tuning is None,
        'bin_count': calibration.BINS,
        'plain': calibration.reliability(logits_NK, labels_N, found.groups_N),
        'scaled': calibration.reliability(scaled_NK, labels_N, found.groups_N),
        'scaled_log_loss': float(metrics.losses(scaled_NK, labels_N).mean()),
    }
    return content, scaled_NK


def _two_classes(
    found: Outputs, tuning: tuple[np.ndarray, np.ndarray] | None
) -> dict[str, Any] | None:
    """Returns ROC, PR and the best threshold, chosen on validation (other folds of it)."""
    figures = metrics.two_classes(found.values_NK, found.labels_N, found.groups_N)
    if figures is None:
        return None
    margins_N = metrics.margins(found.values_NK)
    if tuning:
        threshold = metrics.best_threshold(metrics.margins(tuning[0]), tuning[1])
        threshold_N = np.full(len(margins_N), threshold)
    else:
        threshold = metrics.best_threshold(margins_N, found.labels_N)
        threshold_N = np.empty(len(margins_N))
        fold_N = calibration.folds(found.groups_N)
        for fold in np.unique(fold_N):
            mine = fold_N == fold
            threshold_N[mine] = metrics.best_threshold(margins_N[~mine], found.labels_N[~mine])
    shifted_N2 = np.stack([np.zeros_like(margins_N), margins_N - threshold_N], axis=1)
    judged = metrics.classification(shifted_N2, found.labels_N, found.groups_N)
    return figures | {
        'threshold': {
            'probability': float(1 / (1 + np.exp(-threshold))),
            'chosen_by': 'balanced accuracy',
            'chosen_on': 'validation',
            'cross_fitted': tuning is None,
            'accuracy': judged['accuracy'],
            'balanced_accuracy': judged['balanced_accuracy'],
        }
    }


def _slices(found: Outputs) -> dict[str, Any]:
    source, members = found.source, found.members
    classes = found.pipeline.class_names
    ways = slices.candidates(
        images=(source.inputs[i] for i in members) if source.holds == 'images' else None,
        names=found.names,
        labels=[classes[label] for label in found.labels_N],
        files={name: values[members] for name, values in source.files.items()},
        columns=_columns(found),
    )
    return slices.judge(ways, found.values_NK.argmax(1) == found.labels_N, found.groups_N)


def _columns(found: Outputs) -> dict[str, np.ndarray]:
    """Returns the further columns of a table of images, [N] strings each."""
    path = pathlib.Path(found.pipeline.name.removeprefix('folder:')).expanduser()
    if not found.source.from_files or not path.is_file():
        return {}
    columns = data_folder.table_columns(path)
    return {
        name: np.asarray([values.get(n, '') for n in found.names])
        for name, values in columns.items()
    }


def _mirrored_gain(net: Trained, found: Outputs) -> metrics.Figure:
    """Returns by how much the accuracy is higher than without mirror images, paired."""
    plain_NK = net.mirrored(False).logits(found.pipeline, found.split)
    right_NV = np.stack(
        [v.argmax(axis=1) == found.labels_N for v in (found.values_NK, plain_NK)], axis=1
    ).astype(float)
    return metrics.mean(right_NV[:, 0] - right_NV[:, 1], found.groups_N)


def _write_tables(
    found: Outputs,
    content: dict[str, Any],
    probabilities_NK: np.ndarray,
    prices: costs.Costs | None,
    folder: pathlib.Path,
) -> None:
    """Writes per_class.csv, confusion.csv and predictions.csv."""
    names, rows = found.pipeline.class_names, content['per_class']
    parts = [(f, k) for f in ('precision', 'recall', 'f1') for k in ('value', 'low', 'high')]
    heading = [f if k == 'value' else f'{f}_{k}' for f, k in parts]
    files.table(folder / 'per_class.csv', ['class', 'examples', 'predicted', *heading],
                [[r['name'], r['examples'], r['predicted'], *(r[f][k] for f, k in parts)]
                 for r in rows])  # fmt: skip
    counts = content['confusion']['counts']
    files.table(folder / 'confusion.csv', ['true \\ predicted', *names],
                [[n, *row] for n, row in zip(names, counts, strict=True)])  # fmt: skip
    guesses_N = found.values_NK.argmax(axis=1)
    decisions: list[list[str]] = [[] for _ in guesses_N]
    if prices:
        decisions = [[prices.decisions[d]] for d in costs.decide(probabilities_NK, prices)]
    plain_NK = softmax(found.values_NK.astype(float), axis=1)
    files.table(
        folder / 'predictions.csv',
        ['name', 'hash', 'group', 'label', 'prediction', 'probability', 'calibrated_probability',
         *(['decision'] if prices else []), *(f'p({n})' for n in names)],
        [
            [name, digest, group, names[label], names[guess], f'{plain[guess]:.6g}',
             f'{calibrated[guess]:.6g}', *decision, *(f'{p:.6g}' for p in plain)]
            for name, digest, group, label, guess, plain, calibrated, decision in zip(
                found.names, found.hashes, found.groups_N, found.labels_N, guesses_N, plain_NK,
                probabilities_NK, decisions, strict=True
            )
        ],
    )  # fmt: skip


# Numbers.


def _numbers(net: Trained, found: Outputs, folder: pathlib.Path) -> dict[str, Any]:
    """Returns the figures of a regression, and writes predictions.csv and a plot."""
    predicted_N = tasks.Regression().predictions(found.values_NK, found.pipeline)['prediction']
    last_values_N = found.pipeline.last_values_of(found.split)
    files.table(
        folder / 'predictions.csv',
        ['name', 'hash', 'group', 'target', 'prediction'],
        zip(found.names, found.hashes, found.groups_N, found.labels_N, predicted_N, strict=True),
    )
    _save({'predictions': plots.errors_of_numbers(predicted_N, found.labels_N)}, folder)
    figures = metrics.regression(predicted_N, found.labels_N, found.groups_N, last_values_N)
    return {'figures': figures, 'groups': len(np.unique(found.groups_N))}


def _save(figures: dict[str, Figure], folder: pathlib.Path) -> None:
    for name, figure in figures.items():
        figure.savefig(folder / f'{name}.png', dpi=110)
