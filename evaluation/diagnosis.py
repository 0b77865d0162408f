"""Diagnosis in words: one table of rules over the curves and the figures of a run.

Each finding names the number it rests on and a field of the config to try next. The thresholds are
ours unless a source is named; they are set so that the reference runs of README.md, which are
trained well, trigger nothing but what a person would say of their curves too.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

_GAP = 0.02  # Of accuracies: what the lower bound of a gap must exceed.
_NEEDED_TO_SEE = 0.02  # Half of the widest interval that still judges.

Numbers = dict[str, Any]


class Facts(NamedTuple):
    """What a diagnosis rests on.

    Attributes:
      config: of the run, nested.
      result: `result.json`.
      lines: of `metrics.jsonl`.
      content: of `evaluation.json`: `figures`, `training`, `data_splits`, and of classes
        `per_class` and `calibration`.
    """

    config: Mapping[str, Any]
    result: Mapping[str, Any]
    lines: Sequence[Mapping[str, Any]]
    content: Mapping[str, Any]

    def curve(self, name: str) -> np.ndarray:
        """Returns a figure of every evaluation, float64; NaN where it does not exist."""
        return np.asarray([line.get(name) for line in self.lines], float)

    def norms(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Returns the norms of gradients and weights of each part that learns, stem first."""
        if not self.lines or 'gradient_norms' not in self.lines[0]:
            return {}  # A run of an earlier version.
        found = {}
        for part in self.lines[0]['gradient_norms']:
            gradients, weights = (
                np.asarray([line[f'{kind}_norms'][part] for line in self.lines], float)
                for kind in ('gradient', 'weight')
            )
            if gradients.any():  # Frozen parts have none.
                found[part] = gradients, weights
        return found

    @property
    def accuracies(self) -> tuple[Mapping[str, Any], Mapping[str, Any]] | None:
        """Accuracy of training and judged examples; None of numbers, or without an interval."""
        if 'accuracy' not in self.content['figures']:
            return None
        both = self.content['training']['accuracy'], self.content['figures']['accuracy']
        return both if all(each['low'] is not None for each in both) else None

    @property
    def gap(self) -> tuple[float, float, float] | None:
        """Accuracy of training minus judged examples, with its interval; None of numbers.

        The examples are others, so the interval is Newcombe's 1998 for independent proportions,
        "Interval estimation for the difference between independent proportions", method 10.
        """
        if not self.accuracies:
            return None
        a, b = self.accuracies
        value = a['value'] - b['value']
        low = value - math.hypot(a['value'] - a['low'], b['high'] - b['value'])
        high = value + math.hypot(a['high'] - a['value'], b['value'] - b['low'])
        return value, low, high

    @property
    def chance_loss(self) -> float:
        """Loss in nats of a net that gives all classes the same probability."""
        return math.log(len(self.result['class_names']))


class Rule(NamedTuple):
    """One row of the table.

    Attributes:
      name: what is wrong.
      condition: returns the numbers of the sentences where it is so, else None.
      sentence: says it with its numbers.
      remedy: what to try next, with a field of the config.
    """

    name: str
    condition: Callable[[Facts], Numbers | None]
    sentence: str
    remedy: str


def diagnose(
    config: Mapping[str, Any],
    result: Mapping[str, Any],
    lines: Sequence[Mapping[str, Any]],
    content: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Returns what the rules find: `name`, `sentence`, `remedy` and `numbers` of each.

    The arguments are those of `Facts`.
    """
    facts = Facts(config, result, lines, content)
    found = []
    for rule in RULES:
        numbers = rule.condition(facts)
        if numbers is not None:
            found.append({
                'name': rule.name,
                'sentence': rule.sentence.format(**numbers).replace('%', ' %'),
                'remedy': rule.remedy.format(**numbers),
                'numbers': numbers,
            })  # fmt: skip
    return found


# Fit.


def _overfitting(facts: Facts) -> Numbers | None:
    gap = facts.gap
    if not gap or not facts.accuracies or gap[1] <= _GAP:
        return None
    optimizer = facts.config['optimizer']
    training, judged = facts.accuracies
    return {
        'gap': 100 * gap[0], 'low': 100 * gap[1], 'high': 100 * gap[2],
        'training': training['value'], 'judged': judged['value'],
        'weight_decay': 4 * optimizer['weight_decay'] or 5e-4,
        'augment': 'photos' if facts.config['augment'] == 'none'
        else facts.config['augment'] + ',erasing=0.25',
    }  # fmt: skip


def _too_little_data(facts: Facts) -> Numbers | None:
    counts = facts.content['data_splits']['train']['per_class']
    if _overfitting(facts) is None or not facts.accuracies:
        return None
    training = facts.accuracies[0]['value']
    fewest = int(np.argmin(counts))
    if training < 0.95 or counts[fewest] >= 1000:
        return None
    return {
        'training': training, 'count': sum(counts), 'fewest': counts[fewest],
        'name': facts.result['class_names'][fewest],
    }  # fmt: skip


def _overfitting_numbers(facts: Facts) -> Numbers | None:
    if 'rmse' not in facts.content['figures']:
        return None
    training, judged = facts.content['training']['rmse'], facts.content['figures']['rmse']
    unknown = judged['low'] is None or training['high'] is None  # Of one group alone.
    if unknown or judged['low'] <= 1.25 * training['high']:
        return None
    return {
        'training': training['value'], 'judged': judged['value'], 'low': judged['low'],
        'weight_decay': 4 * facts.config['optimizer']['weight_decay'] or 5e-4,
    }  # fmt: skip


def _underfitting(facts: Facts) -> Numbers | None:
    if not facts.accuracies or not facts.gap:
        return None
    training, judged = facts.accuracies
    wrong, judged_wrong = 1 - training['value'], 1 - judged['value']
    # Most of what is wrong is so on the images that the net has learned from.
    if training['high'] >= 0.95 or wrong < 0.7 * judged_wrong or _learns_nothing(facts):
        return None
    width = facts.config['scale']['width']
    return {'training': training['value'], 'judged': judged['value'], 'width': 2 * width,
            'epochs': 2 * facts.config['epochs']}  # fmt: skip


def _learns_nothing(facts: Facts) -> Numbers | None:
    if not facts.accuracies:
        return None
    counts = facts.content['data_splits']['train']['per_class']
    largest, training = max(counts) / sum(counts), facts.accuracies[0]
    if training['low'] > largest:
        return None
    return {'training': training['value'], 'largest': largest,
            'rate': facts.config['optimizer']['learning_rate'] / 10}  # fmt: skip


# Length.


def _still_improving(facts: Facts) -> Numbers | None:
    losses = facts.curve('validation_loss')
    count = len(losses) // 5
    if facts.result['status'] != 'finished' or count < 1:
        return None
    before, last = losses[-2 * count : -count].mean(), losses[-count:].mean()
    early_enough = losses.argmin() < len(losses) - max(1, len(losses) // 10)
    # Below a hundredth of a nat nobody sees a difference in the predictions.
    if early_enough or last > 0.9 * before or before - last < 0.01:
        return None
    return {'before': before, 'last': last, 'fall': 1 - last / before,
            'epochs': 2 * facts.config['epochs']}  # fmt: skip


def _too_long(facts: Facts) -> Numbers | None:
    losses = facts.curve('validation_loss')
    if len(losses) < 4:
        return None
    best = int(losses.argmin())
    rise = losses[-1] - losses[best]
    if best >= 0.7 * len(losses) or losses[-1] < 1.2 * losses[best] or rise < 0.02:
        return None
    if facts.result['status'] == 'early_stopped':
        return None
    epoch = facts.lines[best]['epoch']
    return {'best': losses[best], 'last': losses[-1], 'epoch': epoch,
            'epochs': max(1, round(1.2 * epoch))}  # fmt: skip


# Steps and gradients.


def _unstable(facts: Facts) -> Numbers | None:
    losses = facts.curve('train_loss')
    if len(losses) < 3:
        return None
    rises = losses[1:] - np.minimum.accumulate(losses)[:-1]
    spikes = rises > 0.2 * losses[0]
    if not spikes.any():
        return None
    worst = int(rises.argmax())
    return {
        'spikes': int(spikes.sum()), 'low': float(losses[: worst + 1].min()),
        'high': losses[worst + 1], 'epoch': facts.lines[worst + 1]['epoch'],
        'rate': facts.config['optimizer']['learning_rate'] / 3,
    }  # fmt: skip


def _rate_too_high(facts: Facts) -> Numbers | None:
    losses = facts.curve('train_loss')
    if not facts.result['class_names'] or not len(losses):
        return None
    early = losses[: max(1, len(losses) // 3)]
    if early.max() < 1.5 * facts.chance_loss:
        return None
    return {'loss': early.max(), 'chance': facts.chance_loss,
            'rate': facts.config['optimizer']['learning_rate'] / 10}  # fmt: skip


def _rate_too_low(facts: Facts) -> Numbers | None:
    norms, optimizer = facts.norms(), facts.config['optimizer']
    if optimizer['name'] != 'sgd' or not norms or not facts.accuracies:
        return None
    rates = facts.curve('learning_rate')
    # Nesterov's momentum of 0.9 adds up ten gradients that point the same way.
    moves = [10 * np.median(rates * g / np.maximum(w, 1e-12)) for g, w in norms.values()]
    most = max(moves)
    if most > 1e-4 or facts.accuracies[0]['value'] > 0.95:
        return None
    return {'move': most, 'training': facts.accuracies[0]['value'],
            'rate': 10 * optimizer['learning_rate']}  # fmt: skip


def _vanishing(facts: Facts) -> Numbers | None:
    middles = {part: float(np.median(g)) for part, (g, _) in facts.norms().items()}
    if len(middles) < 2:
        return None
    first, last = next(iter(middles)), max(middles, key=lambda part: middles[part])
    if middles[first] > 1e-2 * middles[last]:
        return None
    return {'first': first, 'norm': middles[first], 'largest': last, 'most': middles[last]}


def _exploding(facts: Facts) -> Numbers | None:
    norms = facts.curve('gradient_norm')
    if len(norms) < 2:
        return None
    worst = int(norms.argmax())
    usual = float(np.median(norms[: worst + 1]))
    if worst == 0 or norms[worst] < 10 * max(usual, float(norms[0])):
        return None
    return {'norm': norms[worst], 'usual': usual, 'epoch': facts.lines[worst]['epoch'],
            'clip': float(f'{2 * usual:.1g}')}  # fmt: skip


# Data and probabilities.


def _imbalance(facts: Facts) -> Numbers | None:
    if not facts.accuracies or facts.config['class_balance'] != 'none':
        return None
    counts = np.asarray(facts.content['data_splits']['train']['per_class'])
    accuracy = facts.accuracies[1]
    hurt = [
        (row['recall']['value'], row, count)
        for row, count in zip(facts.content['per_class'], counts.tolist(), strict=True)
        if count < counts.mean() / 2
        and row['recall']['value'] is not None
        and row['recall']['high'] < accuracy['low']
    ]
    if not hurt:
        return None
    recall, row, count = min(hurt, key=lambda each: each[0])
    return {'name': row['name'], 'recall': recall, 'high': row['recall']['high'],
            'accuracy': accuracy['value'], 'count': count,
            'mean': float(counts.mean())}  # fmt: skip


def _calibration(facts: Facts, overconfident: bool) -> Numbers | None:
    calibration = facts.content.get('calibration')
    if not calibration or not facts.accuracies:
        return None
    plain = calibration['plain']
    error, usual = plain['expected_calibration_error'], plain['if_calibrated']['high']
    smoothing = facts.config['label_smoothing']
    above = plain['mean_confidence'] > facts.accuracies[1]['value']
    if error <= max(usual, 0.02) or above != overconfident:
        return None
    return {'error': error, 'usual': usual, 'confidence': plain['mean_confidence'],
            'accuracy': facts.accuracies[1]['value'], 'temperature': calibration['temperature'],
            'surer': f'--config.label_smoothing={smoothing / 2:g}' if smoothing
            else f'--config.epochs={2 * facts.config["epochs"]:g}'}  # fmt: skip


def _overconfident(facts: Facts) -> Numbers | None:
    return _calibration(facts, True)


def _underconfident(facts: Facts) -> Numbers | None:
    return _calibration(facts, False)


def _too_few_to_judge(facts: Facts) -> Numbers | None:
    if not facts.accuracies:
        return None
    accuracy = facts.accuracies[1]
    half = (accuracy['high'] - accuracy['low']) / 2
    if half <= _NEEDED_TO_SEE:
        return None
    examples = facts.content['figures']['examples']
    return {'half': 100 * half, 'examples': examples,
            'needed': math.ceil(examples * (half / _NEEDED_TO_SEE) ** 2)}  # fmt: skip


RULES = (
    Rule(
        'learns nothing', _learns_nothing,
        'The net has learned nothing: {training:.1%} of the training images are right, and always '
        'saying the largest class would be right for {largest:.1%}.',
        'Try --config.optimizer.learning_rate={rate:g}, and look at the labels with audit.py.',
    ),
    Rule(
        'overfitting', _overfitting,
        'The net overfits: {training:.1%} of the training images are right against {judged:.1%} '
        'of those it has not seen, a gap of {gap:.1f} points ({low:.1f} to {high:.1f}).',
        'Try more augmentation, --config.augment={augment}, or '
        '--config.optimizer.weight_decay={weight_decay:g}.',
    ),
    Rule(
        'overfitting', _overfitting_numbers,
        'The net overfits: its error (RMSE) is {training:.4g} on the rows it learned from and '
        '{judged:.4g} on others (at least {low:.4g}).',
        'Try --config.optimizer.weight_decay={weight_decay:g}, or a smaller net.',
    ),
    Rule(
        'too little data', _too_little_data,
        'There are few images: {count:,} to train on, {fewest:,} of the class {name}, and '
        '{training:.1%} of them are learned by heart.',
        'See what more would bring: train with --config.dataset.subset=0.5. If the accuracy '
        'falls by more than its interval, more photos will raise it.',
    ),
    Rule(
        'underfitting', _underfitting,
        'The net underfits: only {training:.1%} of the images it was trained on are right, hardly '
        'more than of others ({judged:.1%}).',
        'Try a larger net, --config.scale.width={width:g}, or longer training, '
        '--config.epochs={epochs:g}.',
    ),
    Rule(
        'still improving', _still_improving,
        'The net was still improving when training ended: the validation loss fell from '
        '{before:.3f} to {last:.3f} ({fall:.0%}) between the last two fifths of the run.',
        'Try --config.epochs={epochs:g}.',
    ),
    Rule(
        'trained too long', _too_long,
        'The validation loss was lowest at epoch {epoch:.0f} ({best:.3f}) and rose to {last:.3f} '
        'by the end.',
        'Try --config.epochs={epochs:g}, or --config.early_stopping.patience_epochs=5.',
    ),
    Rule(
        'unstable', _unstable,
        'Training was unstable: the training loss jumped back in {spikes} of the evaluations, '
        'most at epoch {epoch:.0f}, from {low:.3f} to {high:.3f}.',
        'Try --config.optimizer.learning_rate={rate:g}, or --config.optimizer.clip_norm=1.',
    ),
    Rule(
        'learning rate too high', _rate_too_high,
        'The learning rate is too high: early in training the loss was {loss:.3g}, above the '
        '{chance:.3g} of guessing.',
        'Try --config.optimizer.learning_rate={rate:g}, or a longer '
        '--config.optimizer.warmup_epochs.',
    ),
    Rule(
        'learning rate too low', _rate_too_low,
        'The learning rate is too low: a step moves no part of the net by more than {move:.1e} of '
        'its weights (a thousandth is usual), and {training:.1%} of the training images are right.',
        'Try --config.optimizer.learning_rate={rate:g}.',
    ),
    Rule(
        'vanishing gradients', _vanishing,
        'Gradients vanish on their way back: their norm is {norm:.1e} in {first}, the first part '
        'of the net, and {most:.1e} in {largest}.',
        'Use skip connections (configs/resnet_small.py), --config.model.norm=batch or '
        '--config.model.activation=relu.',
    ),
    Rule(
        'exploding gradients', _exploding,
        'Gradients exploded: their norm reached {norm:.3g} at epoch {epoch:.0f}, where {usual:.3g} '
        'was usual.',
        'Try --config.optimizer.clip_norm={clip:g}.',
    ),
    Rule(
        'imbalance', _imbalance,
        'The class {name} suffers from being rare: {recall:.1%} of it is recognised (at most '
        '{high:.1%}) against {accuracy:.1%} of all; it has {count:,} training images, a class has '
        '{mean:,.0f} on average.',
        'Try --config.class_balance=class_weights or logit_adjustment.',
    ),
    Rule(
        'overconfident', _overconfident,
        'Probabilities are too high: {confidence:.1%} on average, and {accuracy:.1%} are right; '
        'the calibration error is {error:.1%} (exact ones would show at most {usual:.1%}).',
        'Divide the logits by the temperature {temperature:.2f}, or try '
        '--config.label_smoothing=0.1.',
    ),
    Rule(
        'underconfident', _underconfident,
        'Probabilities are too low: {confidence:.1%} on average, and {accuracy:.1%} are right; '
        'the calibration error is {error:.1%} (exact ones would show at most {usual:.1%}).',
        'Divide the logits by the temperature {temperature:.2f}, or try {surer}.',
    ),
    Rule(
        'too few to judge', _too_few_to_judge,
        'The accuracy is known to ±{half:.1f} points only: {examples:,} images judge it.',
        'About {needed:,} would make it ±2 points. Until then judge each image once in folds: '
        '--config.dataset.folds=5 with --config.dataset.fold=0 to 4.',
    ),
)  # fmt: skip
