"""Each rule of the diagnosis on curves made by hand, and a healthy run that triggers none."""

import copy

import numpy as np
import pytest

from evaluation import diagnosis


def figure(value, half=0.005):
    return {'value': value, 'low': max(0.0, value - half), 'high': min(1.0, value + half)}


def healthy():
    """Config, result, curves and figures of a run with nothing to complain of."""
    config = {
        'augment': 'photos', 'class_balance': 'none', 'epochs': 30.0, 'label_smoothing': 0.1,
        'optimizer': {'name': 'sgd', 'learning_rate': 0.1, 'weight_decay': 5e-4},
        'scale': {'width': 1.0},
    }  # fmt: skip
    result = {'status': 'finished', 'class_names': ['ant', 'bee', 'cat', 'dog']}
    fall = np.maximum(np.exp(-np.arange(30) / 3), 0.01)
    lines = [
        {
            'epoch': i + 1.0, 'train_loss': 1.3 * f + 0.1, 'validation_loss': 1.3 * f + 0.15,
            'learning_rate': 0.1, 'gradient_norm': f,
            'gradient_norms': {'stem': f, 'stage1': f, 'head': f},
            'weight_norms': {'stem': 4.0, 'stage1': 9.0, 'head': 3.0},
        }
        for i, f in enumerate(fall.tolist())
    ]  # fmt: skip
    content = {
        'figures': {'examples': 5000, 'accuracy': figure(0.97)},
        'training': {'accuracy': figure(0.98)},
        'data_splits': {'train': {'per_class': [5000] * 4}},
        'per_class': [{'name': n, 'recall': figure(0.97, 0.01)} for n in result['class_names']],
        'calibration': {
            'temperature': 1.0,
            'plain': {'expected_calibration_error': 0.01, 'if_calibrated': {'high': 0.012},
                      'mean_confidence': 0.97},
        },
    }  # fmt: skip
    return config, result, lines, content


def set_curve(lines, name, values):
    for line, value in zip(lines, values, strict=True):
        line[name] = float(value)


def accuracies(content, training, judged):
    content['training']['accuracy'] = figure(training)
    content['figures']['accuracy'] = figure(judged)


def learns_nothing(config, result, lines, content):
    accuracies(content, 0.25, 0.25)


def overfits(config, result, lines, content):
    accuracies(content, 0.999, 0.9)


def too_little_data(config, result, lines, content):
    overfits(config, result, lines, content)
    content['data_splits']['train']['per_class'] = [200, 90, 200, 200]


def underfits(config, result, lines, content):
    accuracies(content, 0.72, 0.71)


def still_improves(config, result, lines, content):
    set_curve(lines, 'validation_loss', np.linspace(1.4, 0.4, 30))


def trains_too_long(config, result, lines, content):
    set_curve(lines, 'validation_loss', 0.3 + np.abs(np.arange(30) - 10) / 20)


def unstable(config, result, lines, content):
    lines[20]['train_loss'] = 0.9


def rate_too_high(config, result, lines, content):
    lines[0]['train_loss'] = lines[1]['train_loss'] = 3.0


def rate_too_low(config, result, lines, content):
    accuracies(content, 0.6, 0.6)
    set_curve(lines, 'learning_rate', [1e-6] * 30)


def vanishing(config, result, lines, content):
    for line in lines:
        line['gradient_norms']['stem'] *= 1e-4


def exploding(config, result, lines, content):
    lines[12]['gradient_norm'] = 400.0


def imbalance(config, result, lines, content):
    content['data_splits']['train']['per_class'] = [9000, 900, 9000, 9000]
    content['per_class'][1]['recall'] = figure(0.6, 0.05)


def overconfident(config, result, lines, content):
    content['calibration']['temperature'] = 1.8
    content['calibration']['plain'] |= {
        'expected_calibration_error': 0.04, 'mean_confidence': 0.995
    }  # fmt: skip


def underconfident(config, result, lines, content):
    content['calibration']['plain'] |= {
        'expected_calibration_error': 0.06, 'mean_confidence': 0.91
    }  # fmt: skip


def too_few(config, result, lines, content):
    content['figures'] |= {'examples': 200, 'accuracy': figure(0.97, 0.04)}


CASES = {
    learns_nothing: ('learns nothing', 'learning_rate=0.01', '25.0 %'),
    overfits: ('overfitting', 'augment=photos,erasing=0.25', 'a gap of 9.9 points'),
    too_little_data: ('too little data', 'subset=0.5', '90 of the class bee'),
    underfits: ('underfitting', 'scale.width=2', '72.0 %'),
    still_improves: ('still improving', 'epochs=60', 'fell from 0.693'),
    trains_too_long: ('trained too long', 'epochs=13', 'epoch 11 (0.300)'),
    unstable: ('unstable', 'learning_rate=0.0333333', 'epoch 21'),
    rate_too_high: ('learning rate too high', 'learning_rate=0.01', 'above the 1.39'),
    rate_too_low: ('learning rate too low', 'learning_rate=1', '60.0 %'),
    vanishing: ('vanishing gradients', 'model.norm=batch', 'in stem'),
    exploding: ('exploding gradients', 'clip_norm=', 'reached 400 at epoch 13'),
    imbalance: ('imbalance', 'class_weights', 'The class bee'),
    overconfident: ('overconfident', 'label_smoothing=0.1', '99.5 %'),
    underconfident: ('underconfident', 'label_smoothing=0.05', '91.0 %'),
    too_few: ('too few to judge', 'folds=5', '±3.5 points'),
}


def test_a_healthy_run_triggers_nothing():
    assert diagnosis.diagnose(*healthy()) == []


@pytest.mark.parametrize('change', CASES, ids=lambda change: change.__name__)
def test_each_rule_says_its_number_and_its_remedy(change):
    facts = copy.deepcopy(healthy())
    change(*facts)
    name, remedy, number = CASES[change]
    found = {finding['name']: finding for finding in diagnosis.diagnose(*facts)}
    assert name in found
    assert remedy in found[name]['remedy']
    assert number in found[name]['sentence']
    # What is planted brings no others but those that follow from it.
    follows = {
        'too little data': {'overfitting'},
        'learning rate too low': {'underfitting'},
        'learning rate too high': {'unstable'},
    }
    assert found.keys() - {name} <= follows.get(name, set())


def test_every_rule_is_tested():
    assert {rule.name for rule in diagnosis.RULES} == {name for name, *_ in CASES.values()}


def test_numbers_overfit_too():
    config, result, lines, content = healthy()
    result['class_names'] = []
    content['figures'] = {'examples': 100, 'rmse': figure(3.0, 0.2)}
    content['training'] = {'rmse': figure(1.0, 0.1)}
    content['data_splits'] = {'train': {'per_class': None}}
    del content['calibration'], content['per_class']
    (finding,) = diagnosis.diagnose(config, result, lines, content)
    assert finding['name'] == 'overfitting'
    assert '3 on others' in finding['sentence']
    # Windows that share all rows are one group, which leaves the bounds unknown.
    content['training']['rmse'] |= {'low': None, 'high': None}
    assert diagnosis.diagnose(config, result, lines, content) == []


def test_a_run_without_norms_or_lines_is_judged_by_the_rest():
    config, result, lines, content = healthy()
    for line in lines:
        del line['gradient_norms'], line['weight_norms']
    assert diagnosis.diagnose(config, result, lines, content) == []
    assert diagnosis.diagnose(config, result, [], content) == []
