"""What choose.py writes and shows: choice.json, the paragraph, the page, the chart."""

import dataclasses
import json
import re
import subprocess
import sys

import pytest
from pages import Page, at_390_pixels, check_whole

from console import Console
from errors import UserError
from selection import chart
from selection import choice as choices
from selection.choice import (
    Answered,
    Budget,
    Candidate,
    Choice,
    Confirmed,
    Gain,
    Goal,
    Opening,
    Spent,
    Trained,
    Warm,
)
from selection.report import page, words
from selection.report.glossary import IDEAS

EVIL = '<script>alert("$x$ $y$")'


def net(depth, mean, half=None, size=32, runs=12, **others):
    """A rung of the ladder."""
    low, high = (None, None) if half is None else (mean - half, mean + half)
    facts = {
        'name': f'plain-{depth}@{size}', 'role': 'ladder', 'fields': {'model.width': 16},
        'label': f'{depth} convolutions, 16 filters at first, {size} pixels',
        'parameters': 4000 * depth**2, 'flops': 10**6 * depth * size // 32, 'image_size': size,
    }  # fmt: skip
    return Candidate(
        depth=depth, mean=mean, low=low, high=high, runs=runs, **(facts | others)
    )  # fmt: skip


def simple(role, label, mean, half=None, **others):
    low, high = (None, None) if half is None else (mean - half, mean + half)
    facts = {'name': role, 'role': role, 'label': label, 'fields': {}, 'depth': 0, 'runs': 12}
    return Candidate(mean=mean, low=low, high=high, **(facts | others))


def said(name, reference, difference, half, answer, **others):
    question = f'Is {name} better than {reference}?'
    facts = {'stage': 'repeats', 'question': question, 'runs': 12}
    return Answered(
        name=name, reference=reference, difference=difference, half_width=half, answer=answer,
        **(facts | others),
    )  # fmt: skip


def seedlings():
    """The answer of METHOD.md on photos of seedlings, in all its parts."""
    return Choice(
        dataset='folder:photos/seedlings5', images=1406, test_images=352,
        classes=('cleavers', 'fat hen', EVIL, 'maize', 'mayweed'), folds=4, delta=0.01,
        measure='accuracy', versions={'jax': '0.10.2'}, git_revision='abc',
        device={'kind': 'CPU', 'count': 1, 'machine': 'x86_64', 'cpu_cores': 2},
        budget=Budget(3600.0), finished=True, stage='test',
        audit=('12 photos are copies of others: --data=folder:clean leaves them out.',),
        goal=Goal('accuracy>=0.96', 'cannot tell', 'About 900 photos more would tell.'),
        candidates=(
            simple('constant', 'constant predictor', 0.284),
            simple('linear', 'linear classifier', 0.41, 0.02, parameters=15365, flops=30720),
            net(1, 0.541, 0.02), net(2, 0.783, 0.018), net(3, 0.896, 0.016),
            net(4, 0.945, 0.011), net(5, 0.946, 0.012), net(4, 0.949, size=64, runs=4),
            net(6, 0.94, runs=1, status='stopped early', reason=EVIL),
            simple('baseline', 'ResNet-20', 0.949, 0.012, name='resnet20', parameters=272474,
                   flops=82 * 10**6),
            net(4, 0.946, 0.012, name='plain-4@32-skip', role='question', label='with skips'),
        ),
        recommended='plain-4@32', confidence='No other net is better for sure.',
        verdicts=(
            said('plain-4@32', 'plain-3@32', 0.049, 0.012, 'better', idea='depth',
                 question='Does a fourth convolution help?'),
            said('plain-5@32', 'plain-4@32', 0.004, 0.012, 'cannot tell', runs=8,
                 question='Does a fifth convolution help?', settle='4 more runs.', idea='depth'),
            said('plain-5@32', 'plain-4@32', 0.001, 0.008, 'no better',
                 question='Does a fifth convolution help?', idea='depth'),
            said('plain-4@32-skip', 'plain-4@32', 0.002, 0.012, 'cannot tell', idea='skip',
                 stage='questions', question='Do skip connections help?',
                 settle='12 more runs of each would settle it.'),
        ),
        resolution=0.008,
        confirmed=(
            Confirmed('plain-4@32', ('final/0', 'final/1'), (0.944, 0.948), 0.946, 0.919, 0.967,
                      0.93, 0.962),
            Confirmed('resnet20', ('final/2',), (0.949,), 0.949, 0.92, 0.97),
        ),
        openings=(Opening('2026-11-21 20:00', 'plain-4@32, resnet20'),),
        learning_curve=(Trained(264, 0.85, 0.82, 0.88), Trained(527, 0.91, 0.89, 0.93),
                        Trained(1054, 0.945, 0.934, 0.956)),
        twice_the_data=Gain(0.012, 0.004, 0.02),
        spent=(Spent('ladder', 8, 1200.0), Spent('repeats', 24, 1800.0)),
        warm=Warm(3, 100.0, 160.0, 0.001, 0.009),
        reproduce=('python choose.py --data=folder:photos/seedlings5 --budget=60m',),
    )  # fmt: skip


def change(**fields):
    return dataclasses.replace(seedlings(), **fields)


def without_verdicts():
    """After one run of each rung."""
    early = tuple(
        dataclasses.replace(c, runs=1, low=None, high=None) for c in seedlings().candidates
    )
    return change(
        candidates=early, verdicts=(), resolution=None, confirmed=(), openings=(), warm=None,
        learning_curve=(), twice_the_data=None, finished=False, stage='ladder', goal=None,
    )  # fmt: skip


def test_choice_json_round_trip(tmp_path):
    choices.write(seedlings(), tmp_path)
    assert choices.read(tmp_path) == seedlings()
    choices.write(without_verdicts(), tmp_path)
    assert choices.read(tmp_path) == without_verdicts()
    assert [path.name for path in tmp_path.iterdir()] == ['choice.json']


@pytest.mark.parametrize(
    ('changed', 'told'),
    [
        ({'resolutoin': 1}, "unknown key 'resolutoin' of Choice. Did you mean 'resolution'"),
        ({'goal': {'asked': 'x', 'reached': 1}}, "unknown key 'reached' of Goal"),
        ({'candidates': [{'name': 'x'}]}, 'missing 5 required|missing 4 required'),
        ({'candidates': ['x']}, "Candidate is 'x'"),
        ({'candidates': 3}, 'not iterable'),
        ({'measure': 'f1'}, "measure 'f1'"),
    ],
)
def test_another_version_of_choice_json_is_an_error(tmp_path, changed, told):
    choices.write(seedlings(), tmp_path)
    file = tmp_path / 'choice.json'
    file.write_text(json.dumps(json.loads(file.read_text()) | changed))
    with pytest.raises(UserError, match=told):
        choices.read(tmp_path)


def test_no_or_half_a_choice_json_is_an_error(tmp_path):
    with pytest.raises(UserError, match='There is no'):
        choices.read(tmp_path / 'none')
    (tmp_path / 'choice.json').write_text('{')
    with pytest.raises(UserError, match='damaged'):
        choices.read(tmp_path)


def test_the_paragraph_is_one_a_learner_can_quote():
    assert words.paragraph(change(verdicts=seedlings().verdicts[:3], goal=None)) == (
        'Use 4 convolution layers at 32 pixels: 94.5 %. With 3: 4.9 points worse (sure). With 5: '
        '+0.1 (-0.7 to +0.9), no measurable gain. On 352 test photos that took no part: 94.6 % '
        '(91.9 to 96.7 %). Your 1,406 photos can show differences of 0.8 points. More runs of '
        'these nets would not change this. Twice the photos: about +1.2 (+0.4 to +2).'
    )
