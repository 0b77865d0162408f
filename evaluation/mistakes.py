"""The examples worth looking at: confident mistakes, doubts, confused pairs, suspicious labels."""

import csv
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image
from scipy.special import softmax

from data.contact_sheet import captioned_sheet
from errors import UserError
from evaluation import metrics, suspects
from evaluation.ended import read_run, stored
from evaluation.outputs import Outputs
from evaluation.trained import Trained
from training.run_folder import RunFolder

_SHOWN = 32  # Images on a sheet.
_PAIRS = 5  # Confused pairs that get a sheet.


class Album:
    """Writes contact sheets of a data set into a folder; nothing of what is no image.

    Args:
      outputs: gives the images.
      folder: for the sheets.
    """

    def __init__(self, outputs: Outputs, folder: pathlib.Path):
        self._source, self._folder = outputs.source, folder

    def sheet(
        self, name: str, members: np.ndarray, captions: Sequence[Sequence[str]]
    ) -> str | None:
        """Draws the images at these places of the source; returns the file name, None for none."""
        if self._source.holds != 'images' or not len(members):
            return None
        images = np.stack([self._source.inputs[i] for i in members[:_SHOWN]])
        Image.fromarray(captioned_sheet(images, captions[:_SHOWN])).save(self._folder / name)
        return name


def write(outputs: Outputs, probabilities_NK: np.ndarray, folder: pathlib.Path) -> dict[str, Any]:
    """Writes mistakes.csv and the sheets; returns what `evaluation.json` says of mistakes.

    Args:
      outputs: of the split.
      probabilities_NK: of its examples.
      folder: of the evaluation.
    """
    classes, labels_N = outputs.pipeline.class_names, outputs.labels_N
    rows, guesses_N = np.arange(len(labels_N)), probabilities_NK.argmax(axis=1)
    confidence_N = probabilities_NK[rows, guesses_N]
    wrong = np.flatnonzero(guesses_N != labels_N)
    wrong = wrong[np.argsort(-confidence_N[wrong], kind='stable')]
    best_two_N2 = np.sort(probabilities_NK, axis=1)[:, -2:]
    doubts = np.argsort(best_two_N2[:, 1] - best_two_N2[:, 0], kind='stable')[:_SHOWN]
    names = outputs.names
    with (folder / 'mistakes.csv').open('w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(['name', 'label', 'prediction', 'confidence', 'probability_of_label'])
        for i in wrong:
            writer.writerow([names[i], classes[labels_N[i]], classes[guesses_N[i]],
                             f'{confidence_N[i]:.6f}',
                             f'{probabilities_NK[i, labels_N[i]]:.6f}'])  # fmt: skip

    def captions(indices: np.ndarray) -> list[tuple[str, ...]]:
        return [
            (
                names[i],
                f'is {classes[labels_N[i]]}',
                f'said {classes[guesses_N[i]]}: {100 * confidence_N[i]:.0f} %',
            )
            for i in indices
        ]

    album, members = Album(outputs, folder), outputs.members
    counts = metrics.confusion(guesses_N, labels_N, len(classes))
    pairs = []
    for number, (true, predicted, count) in enumerate(metrics.confused_pairs(counts, _PAIRS)):
        mine = wrong[(labels_N[wrong] == true) & (guesses_N[wrong] == predicted)]
        file_name = f'pair{number + 1}-{_safe(classes[true])}-as-{_safe(classes[predicted])}.png'
        sheet = album.sheet(file_name, members[mine], captions(mine))
        pairs.append({'label': classes[true], 'prediction': classes[predicted], 'count': count,
                      'sheet': sheet})  # fmt: skip
    return {
        'count': len(wrong),
        'most_confident': album.sheet('mistakes.png', members[wrong], captions(wrong)),
        'least_sure': album.sheet('least_sure.png', members[doubts], captions(doubts)),
        'pairs': pairs,
    }


def _safe(name: str) -> str:
    return re.sub(r'[^A-Za-z0-9_-]+', '_', name)[:40]


# Likely label errors.


def write_suspects(
    trained: Trained, outputs: Outputs, others: Sequence[str], folder: pathlib.Path
) -> dict[str, Any]:
    """Writes suspects.csv, all examples that a net has not trained on, most suspicious first.

    Args:
      trained: the run.
      outputs: of the split.
      others: further run folders, best of other folds: each speaks of its own split of that name,
        so of images that it did not train on.
      folder: of the evaluation.

    Raises:
      UserError: another run has other classes, or has not ended.
    """
    source, classes = outputs.source, outputs.pipeline.class_names
    places, probabilities_NK, voices_N = _gathered(trained, outputs, others)
    labels_N = source.labels[places]
    found = suspects.find(probabilities_NK, labels_N)
    guesses_N = probabilities_NK.argmax(axis=1)
    with (folder / 'suspects.csv').open('w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(['name', 'label', 'suggestion', 'margin', 'flagged', 'nets'])
        for i in found.order_N:
            writer.writerow([source.names[places[i]], classes[labels_N[i]], classes[guesses_N[i]],
                             f'{found.margin_N[i]:.6f}', int(found.flagged_N[i]),
                             voices_N[i]])  # fmt: skip
    shown = found.order_N[found.flagged_N[found.order_N]]
    captions = [
        (source.names[places[i]], f'is {classes[labels_N[i]]}', f'or {classes[guesses_N[i]]}?')
        for i in shown
    ]
    return {
        'examined': len(places),
        'runs': 1 + len(others),
        'flagged': int(found.flagged_N.sum()),
        'sheet': Album(outputs, folder).sheet('suspects.png', places[shown], captions),
    }


def _gathered(
    trained: Trained, outputs: Outputs, others: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns places in the source, mean probabilities of all nets, and how many nets spoke."""
    source = outputs.source
    place_of = {digest: i for i, digest in enumerate(source.hashes.tolist())}
    if outputs.split == 'validation':  # The test split stays sealed, whatever others did with it.
        sealed = set(outputs.pipeline.hashes_of('test').tolist())
        place_of = {digest: i for digest, i in place_of.items() if digest not in sealed}
    sums = np.zeros((len(source.labels), len(trained.class_names)))
    voices = np.zeros(len(source.labels), int)
    np.add.at(sums, outputs.members, softmax(outputs.values_NK.astype(np.float64), axis=1))
    np.add.at(voices, outputs.members, 1)
    for path in others:
        folder = RunFolder(path)
        _, result = read_run(folder)
        if result['class_names'] != trained.class_names:
            raise UserError(
                f'The run in {path} has other classes ({", ".join(result["class_names"])}): '
                '--others takes runs on the same data.'
            )
        said = stored(folder, outputs.split)
        known = np.asarray([place_of.get(digest, -1) for digest in said['hash'].tolist()])
        chances = softmax(said['logits'][known >= 0].astype(np.float64), axis=1)
        np.add.at(sums, known[known >= 0], chances)
        np.add.at(voices, known[known >= 0], 1)
    places = np.flatnonzero(voices)
    return places, sums[places] / voices[places, None], voices[places]
