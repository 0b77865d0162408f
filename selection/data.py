"""The data set of a choice: who judges in which run, and what is sealed."""

import functools
import math
from typing import Any

import numpy as np

import input_pipeline
from auditing import findings
from console import Console
from data import splits
from data.listing import Source
from selection.facts import Facts

# Of larger sets a part is searched; the final fit takes all of it.
LARGE, SUBSET = 10_000, 6_000
_SUBSET_EPOCHS = 30.0
# The final fit holds out a little, so that one sees whether it went well; the choice is made.
_FINAL = {'dataset.folds': 0, 'dataset.fold': 0, 'dataset.repeat': 0,
          'dataset.validation_fraction': 0.05}  # fmt: skip


class Data:
    """A data set without its test split, in folds.

    Images are numbered from 0 on among those that are not the test's, in the order of the source.

    Args:
      base: training config, of any family; `dataset.folds` is K.
      console: says what was found, and shows the progress of decoding.

    Attributes:
      source: as it is read for the base config.
      members: places in the source of the images that are searched with.
      final_fields: fields with which all of the data are trained on.
      test: places of the test's.

    Raises:
      UserError: the set cannot be read or split.
    """

    def __init__(self, base: Any, console: Console):
        self._base, self._console = base, console
        self.source = self._read(base)
        input_pipeline.check_readable(self.source, base.dataset.max_unreadable)
        self.final_fields = {
            **_FINAL, 'dataset.subset': base.dataset.subset, 'epochs': base.epochs
        }  # fmt: skip
        self._shorten(base)
        self._folds: dict[tuple[int, float], np.ndarray] = {}
        self.test = splits.split(self.source, base.dataset)['test']
        folds = (self._held_out(fold) for fold in range(base.dataset.folds))
        self.members = np.sort(np.concatenate([*folds]))

    def _read(self, base: Any) -> Source:
        return input_pipeline.read(base.dataset, self._console)

    def _shorten(self, base: Any) -> None:
        """Sets a subset, and more epochs for it, where the set is large."""
        official = self.source.official.get('train')
        count = len(self.source.labels if official is None else official)
        if count > LARGE and base.dataset.subset == 1.0:
            base.dataset.subset = float(SUBSET)
            base.epochs = max(base.epochs, _SUBSET_EPOCHS)

    def audit(self) -> list[str]:
        """Returns what one should know of the data, as a training run says it."""
        pipeline = input_pipeline.load(self._base, math.inf, self._console, source=self.source)
        return findings.brief(pipeline)

    @property
    def name(self) -> str:
        """Full name of the data set."""
        return self._base.dataset.name

    @property
    def labels(self) -> np.ndarray:
        """Labels of the images."""
        return self.source.labels[self.members]

    def groups(self) -> np.ndarray:
        """Returns the number of each image's group."""
        return splits.group(self.source, self._base.dataset.group_by)[self.members]

    def facts(self) -> Facts:
        """Returns what the space of nets must know."""
        source = self.source
        sides = source.files
        shape = source.inputs.shape[1:]
        if source.from_files:
            side = int(min(np.quantile(sides['width'], 0.1), np.quantile(sides['height'], 0.1)))
            shape = (side, side, shape[-1])
        return Facts(
            holds=source.holds,
            shape=tuple(shape),
            outputs=len(source.class_names) or 1,
            resizable=source.from_files,
            augment=self._base.augment,
        )

    def fold(self, number: int, subset: float | None = None) -> np.ndarray:
        """Returns which images a run is judged by.

        Args:
          number: of the run.
          subset: `dataset.subset` of its net where that is not the base's.
        """
        key = (number, subset or self._base.dataset.subset)
        if key not in self._folds:
            self._folds[key] = np.searchsorted(self.members, self._held_out(*key))
        return self._folds[key]

    def _held_out(self, number: int, subset: float | None = None) -> np.ndarray:
        """Returns the places in the source of the images that a run is judged by."""
        dataset = self._base.dataset.copy_and_resolve_references()
        dataset.repeat, dataset.fold = divmod(number, dataset.folds)
        dataset.subset = subset or dataset.subset
        return splits.split(self.source, dataset)['validation']

    def fields(self, number: int) -> dict[str, Any]:
        """Returns the fields of run `number` of any net."""
        repeat, fold = divmod(number, self._base.dataset.folds)
        return {
            'seed': self._base.seed + number,
            'dataset.fold': fold,
            'dataset.repeat': repeat,
        }

    @functools.cached_property
    def growth(self) -> float:
        """How many times as many images pass in the final fit as in a run over folds."""
        final = self._base.copy_and_resolve_references()
        final.update_from_flattened_dict(self.final_fields)
        images = len(splits.split(self.source, final.dataset)['train'])
        in_folds = len(self.members) * (1 - 1 / self._base.dataset.folds)
        return images * final.epochs / (in_folds * self._base.epochs)

    def constant_score(self, measure: str) -> float | None:
        """Returns the score of who learns nothing; None for measures that have no such figure.

        Who always says the largest class; of numbers always their mean; of a series always the
        last value.
        """
        if not self.source.class_names:
            last = self.source.last_values
            guesses = self.labels.mean() if last is None else last[self.members]
            return -float((((guesses - self.labels) / self.labels.std()) ** 2).mean())
        classes = len(np.unique(self.labels))
        if measure == 'balanced_accuracy':
            return 1 / classes
        if measure != 'accuracy':
            return None
        return float(np.bincount(self.labels).max() / len(self.labels))
