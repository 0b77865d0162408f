"""What a net says of every example of a split, beside what is known of these examples."""

import dataclasses
from typing import Any

import numpy as np

from console import Console
from data import splits
from data.listing import Source
from errors import UserError
from evaluation.ended import NEW, stored
from evaluation.trained import Trained
from input_pipeline import Pipeline

_SAME = 1e-3  # Of the largest logit, by which another machine's rounding may move one.


@dataclasses.dataclass(frozen=True)
class Outputs:
    """Outputs for a split, with every example once, in stored order.

    Attributes:
      split: `validation`, `test` or `new`.
      values_NK: logits, or of numbers [N, 1] in units of the deviation of the target.
      labels_N: int, or float where they are numbers.
      groups_N: number of each example's group: what is nearly the same, or belongs together.
      pipeline: the data.
    """

    split: str
    values_NK: np.ndarray
    labels_N: np.ndarray
    groups_N: np.ndarray
    pipeline: Pipeline

    @property
    def source(self) -> Source:
        """The data set, all splits."""
        return self.pipeline.source

    @property
    def members(self) -> np.ndarray:
        """Places of the examples in the source."""
        return self.pipeline.members[self.split]

    @property
    def hashes(self) -> np.ndarray:
        """Content hashes."""
        return self.pipeline.hashes_of(self.split)

    @property
    def names(self) -> list[str]:
        """Names of the examples, for people."""
        return [self.source.names[i] for i in self.members]


def compute(trained: Trained, pipeline: Pipeline, split: str) -> Outputs:
    """Lets the net judge a split.

    Raises:
      UserError: the split is empty.
    """
    if not len(pipeline.members[split]):
        raise UserError(
            f'The {split} split of {pipeline.name} is empty: there is nothing to judge.'
        )
    by = 'auto' if split == NEW else trained.config.dataset.group_by
    groups = splits.group(pipeline.source, by)
    return Outputs(
        split=split,
        values_NK=trained.logits(pipeline, split),
        labels_N=pipeline.labels_of(split),
        groups_N=groups[pipeline.members[split]],
        pipeline=pipeline,
    )


def compare(trained: Trained, outputs: Outputs, console: Console) -> dict[str, Any] | None:
    """Compares logits with those that the run stored, and says where they differ.

    Returns:
      `largest_difference`, as a share of the largest stored logit; `changed_predictions`. None
      where the run left the split sealed.
    """
    before_NK = stored(trained.folder, outputs.split).get('logits')
    if before_NK is None:
        return None
    largest = float(np.abs(outputs.values_NK - before_NK).max() / np.abs(before_NK).max())
    changed = int((outputs.values_NK.argmax(1) != before_NK.argmax(1)).sum())
    if largest > _SAME:
        console.line(
            f'Note: logits differ from those in predictions.npz by up to {100 * largest:.2g} % of '
            f'the largest; {changed:,} predictions changed. Figures below are computed anew.',
            always=True,
        )
    return {'largest_difference': largest, 'changed_predictions': changed}
