"""The examples worth looking at: confident mistakes, doubts, confused pairs, suspicious labels."""

import pathlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image
from scipy.special import softmax

from data.contact_sheet import captioned_sheet
from errors import UserError
from evaluation import files, metrics, suspects
from evaluation.ended import stored
from evaluation.outputs import Outputs
from evaluation.trained import Trained
from training.run_folder import RunFolder, read_run

_SHOWN = 32  # Images on a sheet.
_PAIRS = 5  # Confused pairs that get a sheet.

# By path of a run folder, what `trained.stored` holds of the split it held out.
Voices = dict[str, dict[str, np.ndarray]]


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
    files.table(
        folder / 'mistakes.csv',
        ['name', 'label', 'prediction', 'confidence', 'probability_of_label'],
        [[names[i], classes[labels_N[i]], classes[guesses_N[i]], f'{confidence_N[i]:.6f}',
          f'{probabilities_NK[i, labels_N[i]]:.6f}'] for i in wrong],
    )  # fmt: skip

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


def read_others(trained: Trained, paths: Sequence[str], split: str) -> Voices:
    """Reads what other runs said of the examples that they held out.

    Args:
      trained: the run that is judged.
      paths: of the run folders.
      split: of which name.

    Raises:
      UserError: one is named twice, has other classes, or has not ended.
    """
    seen, voices = {trained.folder.path.resolve()}, {}
    for path in paths:
        folder = RunFolder(path)
        _, result = read_run(folder)
        if folder.path.resolve() in seen:
            raise UserError(f'--others names {path} twice, or the run itself: each speaks once.')
        seen.add(folder.path.resolve())
        if result['class_names'] != trained.class_names:
            raise UserError(
                f'The run in {path} has other classes ({", ".join(result["class_names"])}): '
                '--others takes runs on the same data.'
            )
        voices[path] = stored(folder, split)
    return voices


def write_suspects(outputs: Outputs, voices: Voices, folder: pathlib.Path) -> dict[str, Any]:
    """Writes suspects.csv, all examples that a net has not trained on, most suspicious first.

    Args:
      outputs: of the split.
      voices: of further runs, best of other folds: each speaks of its own split of that name, so
        of images that it did not train on.
      folder: of the evaluation.

    Raises:
      UserError: another run held out none of these images.
    """
    source, classes = outputs.source, outputs.pipeline.class_names
    places, probabilities_NK, counts_N = _gathered(outputs, voices)
    labels_N = source.labels[places]
    found = suspects.find(probabilities_NK, labels_N)
    suggestion_N = found.suggestion_N
    files.table(
        folder / 'suspects.csv',
        ['name', 'label', 'suggestion', 'margin', 'flagged', 'nets'],
        [[source.names[places[i]], classes[labels_N[i]], classes[suggestion_N[i]],
          f'{found.margin_N[i]:.6f}', int(found.flagged_N[i]), counts_N[i]]
         for i in found.order_N],
    )  # fmt: skip
    shown = found.order_N[found.flagged_N[found.order_N]]
    captions = [
        (source.names[places[i]], f'is {classes[labels_N[i]]}', f'or {classes[suggestion_N[i]]}?')
        for i in shown
    ]
    return {
        'examined': len(places),
        'runs': 1 + len(voices),
        'flagged': int(found.flagged_N.sum()),
        'sheet': Album(outputs, folder).sheet('suspects.png', places[shown], captions),
    }


def _gathered(outputs: Outputs, voices: Voices) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns places in the source, mean probabilities of all nets, and how many nets spoke."""
    source, values_NK = outputs.source, outputs.values_NK
    sealed: set[str] = set()
    if outputs.split == 'validation':  # The test split stays sealed, whatever others did with it.
        sealed = set(outputs.pipeline.hashes_of('test').tolist())
    places_of: dict[tuple[str, int], list[int]] = {}
    for i, key in enumerate(zip(source.hashes.tolist(), source.labels.tolist(), strict=True)):
        if key[0] not in sealed:
            places_of.setdefault(key, []).append(i)
    sums = np.zeros((len(source.labels), values_NK.shape[1]))
    counts = np.zeros(len(source.labels), int)
    sums[outputs.members] = softmax(values_NK.astype(np.float64), axis=1)
    counts[outputs.members] = 1
    for path, said in voices.items():
        places = _places(said, places_of, counts)
        known = places >= 0
        if not known.any():
            raise UserError(
                f'--others={path}: none of the {len(known):,} images that this run held out is '
                'among those that may be looked at: it takes runs on the same data.'
            )
        sums[places[known]] += softmax(said['logits'][known].astype(np.float64), axis=1)
        counts[places[known]] += 1
    places = np.flatnonzero(counts)
    return places, sums[places] / counts[places, None], counts[places]


def _places(
    said: dict[str, np.ndarray], places_of: dict[tuple[str, int], list[int]], counts: np.ndarray
) -> np.ndarray:
    """Returns where in the source the examples of another run lie, each at most once; -1: nowhere.

    Of equal examples with equal labels the one is taken that the fewest nets have spoken of: runs
    on other folds hold out the other ones.
    """
    free = {key: sorted(places, key=lambda i: counts[i]) for key, places in places_of.items()}
    found = []
    for key in zip(said['hash'].tolist(), said['label'].tolist(), strict=True):
        found.append(free[key].pop(0) if free.get(key) else -1)
    return np.asarray(found, int)
