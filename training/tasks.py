"""What training does with labels: one object for classes, and one for numbers.

Everything that depends on what the labels are stands here; step, loop and results ask the task.
"""

import abc
import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from console import percent
from errors import UserError
from input_pipeline import Pipeline
from training import metrics

Arrays = dict[str, jax.Array]


class Task(abc.ABC):
    """What depends on the kind of the labels.

    Attributes:
      each_evaluation: figures of a split that each line of `metrics.jsonl` holds.
      without: the figures of a run that has none, such as one that diverged.
      columns: figures of the table at the end: key, heading, and how it is written.
    """

    each_evaluation: tuple[str, ...]
    without: dict[str, Any]
    columns: tuple[tuple[str, str, Callable[[Any], str]], ...]

    @abc.abstractmethod
    def targets(self, labels_B: jax.Array, resident: Arrays, scale: Any, dtype: Any) -> jax.Array:
        """Returns what the outputs should be: [B, K].

        Args:
          labels_B: of the batch.
          resident: `Pipeline.resident()`.
          scale: `TrainState.targets`.
          dtype: of the result.
        """

    @abc.abstractmethod
    def loss(self, outputs_BK: jax.Array, targets_BK: jax.Array, resident: Arrays) -> jax.Array:
        """Returns the mean loss of a batch, a scalar."""

    @abc.abstractmethod
    def step_figures(self, outputs_BK: jax.Array, targets_BK: jax.Array, dtype: Any) -> Arrays:
        """Returns further means over a batch, scalars, for the metrics of a step."""

    @abc.abstractmethod
    def judge(self, outputs_NK: np.ndarray, pipeline: Pipeline, split: str) -> dict[str, Any]:
        """Returns the figures of a split from the outputs for all its examples."""

    @abc.abstractmethod
    def predictions(self, outputs_NK: np.ndarray, pipeline: Pipeline) -> dict[str, np.ndarray]:
        """Returns what `predictions.npz` holds of the outputs of a split."""

    @abc.abstractmethod
    def score(self, figures: dict[str, Any]) -> float:
        """Returns what the best checkpoint has most of, finite where the loss is."""

    @abc.abstractmethod
    def progress(self, line: dict[str, Any]) -> str:
        """Returns what the console shows of the losses of a line of `metrics.jsonl`."""

    @abc.abstractmethod
    def remark(self, result: dict[str, Any]) -> str:
        """Returns a sentence on the test split, below the table at the end; '' for none."""


@dataclasses.dataclass(frozen=True)
class Classification(Task):
    """Labels are classes: softmax and cross-entropy.

    Attributes:
      class_balance: as in the config.
      label_smoothing: share of the label spread over all classes.
    """

    class_balance: str = 'none'
    label_smoothing: float = 0.0

    each_evaluation = ('loss', 'accuracy', 'balanced_accuracy', 'macro_f1')
    without = metrics.NONE
    columns = (
        ('loss', 'loss', '{:.4f}'.format),
        ('accuracy', 'accuracy', percent),
        ('balanced_accuracy', 'balanced accuracy', percent),
        ('macro_f1', 'macro-F1', percent),
    )

    def targets(self, labels_B: jax.Array, resident: Arrays, scale: Any, dtype: Any) -> jax.Array:
        return jax.nn.one_hot(labels_B, len(resident['class_share']), dtype=dtype)

    def loss(self, outputs_BK: jax.Array, targets_BK: jax.Array, resident: Arrays) -> jax.Array:
        """Returns the mean cross-entropy, with what `config.class_balance` asks for."""
        share_K = resident['class_share'].astype(outputs_BK.dtype)
        if self.class_balance == 'logit_adjustment':
            # Menon et al. 2020, "Long-tail learning via logit adjustment", equation 10, tau = 1.
            outputs_BK = outputs_BK + jnp.log(share_K)
        smooth_BK = optax.smooth_labels(targets_BK, self.label_smoothing)
        losses_B = optax.softmax_cross_entropy(outputs_BK, smooth_BK)
        if self.class_balance == 'class_weights':  # Their mean over the training split is 1.
            losses_B *= (targets_BK / (share_K * len(share_K))).sum(axis=-1)
        return losses_B.mean()

    def step_figures(self, outputs_BK: jax.Array, targets_BK: jax.Array, dtype: Any) -> Arrays:
        right_B = outputs_BK.argmax(-1) == targets_BK.argmax(-1)
        return {'accuracy': right_B.mean(dtype=dtype)}

    def judge(self, outputs_NK: np.ndarray, pipeline: Pipeline, split: str) -> dict[str, Any]:
        return metrics.evaluate(outputs_NK, pipeline.labels_of(split))

    def predictions(self, outputs_NK: np.ndarray, pipeline: Pipeline) -> dict[str, np.ndarray]:
        return {'logits': outputs_NK}

    def score(self, figures: dict[str, Any]) -> float:
        return figures['accuracy']

    def progress(self, line: dict[str, Any]) -> str:
        return (
            f'train {line["train_loss"]:.4f} {percent(line["train_accuracy"]):>8}  '
            f'validation {line["validation_loss"]:.4f} '
            f'{percent(line["validation_accuracy"]):>8} '
            f'(balanced {percent(line["validation_balanced_accuracy"])})'
        )

    def remark(self, result: dict[str, Any]) -> str:
        """Says what share of each class of the test split was recognised, worst first."""
        recall = dict(zip(result['class_names'], result['test']['recall'], strict=True))
        known = sorted((r, name) for name, r in recall.items() if r is not None)
        shown = ', '.join(f'{name} {percent(r)}' for r, name in known[:10])
        more = ', ...' if len(known) > 10 else ''
        return f'Recall of the test split, by class: {shown}{more}'


@dataclasses.dataclass(frozen=True)
class Regression(Task):
    """Labels are numbers: squared error of the standardised target."""

    each_evaluation = ('loss', 'accuracy', 'rmse', 'mae', 'r2')
    without = metrics.NO_REGRESSION
    columns = (
        ('loss', 'loss', '{:.4f}'.format),
        ('rmse', 'RMSE', '{:.4g}'.format),
        ('mae', 'MAE', '{:.4g}'.format),
        ('r2', 'R2', '{:.4f}'.format),
    )

    def targets(self, labels_B: jax.Array, resident: Arrays, scale: Any, dtype: Any) -> jax.Array:
        offset, spread = (jnp.asarray(scale[name], dtype) for name in ('offset', 'scale'))
        return ((labels_B.astype(dtype) - offset) / spread)[:, None]

    def loss(self, outputs_BK: jax.Array, targets_BK: jax.Array, resident: Arrays) -> jax.Array:
        """Returns the mean squared error."""
        return optax.squared_error(outputs_BK, targets_BK).mean()

    def step_figures(self, outputs_BK: jax.Array, targets_BK: jax.Array, dtype: Any) -> Arrays:
        return {}

    def judge(self, outputs_NK: np.ndarray, pipeline: Pipeline, split: str) -> dict[str, Any]:
        assert pipeline.targets
        return metrics.evaluate_regression(
            _in_units(outputs_NK, pipeline),
            pipeline.labels_of(split),
            float(pipeline.targets.scale),
            pipeline.last_values_of(split),
        )

    def predictions(self, outputs_NK: np.ndarray, pipeline: Pipeline) -> dict[str, np.ndarray]:
        return {'prediction': _in_units(outputs_NK, pipeline)}

    def score(self, figures: dict[str, Any]) -> float:
        return -figures['loss']

    def progress(self, line: dict[str, Any]) -> str:
        return (
            f'train {line["train_loss"]:.4f}  validation {line["validation_loss"]:.4f}  '
            f'RMSE {line["validation_rmse"]:.4g}  MAE {line["validation_mae"]:.4g}'
        )

    def remark(self, result: dict[str, Any]) -> str:
        """Compares the error of a series with that of the last value as forecast."""
        rmse, last_value = (result['test'].get(name) for name in ('rmse', 'last_value_rmse'))
        if not rmse or last_value is None:
            return ''
        return (
            f'The last value as forecast has an RMSE of {last_value:.4g} on the test split, '
            f'{last_value / rmse:.2f} times the net\'s.'
        )  # fmt: skip


def _in_units(outputs_N1: np.ndarray, pipeline: Pipeline) -> np.ndarray:
    """Returns predictions in the units of the target, float64 [N]."""
    assert pipeline.targets
    offset, scale = pipeline.targets
    return outputs_N1[:, 0].astype(np.float64) * scale + offset


def of_result(result: dict[str, Any]) -> Task:
    """Returns the task of a run that has ended, to show what `result.json` holds."""
    return Classification() if result['class_names'] else Regression()


def build(config: Any, num_classes: int) -> Task:
    """Makes the task: classification where there are classes, else regression.

    Raises:
      UserError: a field asks for what the task has not, such as class weights for numbers.
    """
    if config.model.head.outputs == 'sigmoid' and num_classes != 2:
        there = f'there are {num_classes}' if num_classes else 'the labels are numbers'
        raise UserError(f'config.model.head.outputs=sigmoid is for two classes; {there}.')
    if num_classes:
        return Classification(config.class_balance, config.label_smoothing)
    for name, value, usual in (
        ('class_balance', config.class_balance, 'none'),
        ('label_smoothing', config.label_smoothing, 0.0),
    ):
        if value != usual:
            raise UserError(
                f'config.{name}={value} is for classes, and the labels are numbers: set it to '
                f'{usual}.'
            )
    return Regression()
