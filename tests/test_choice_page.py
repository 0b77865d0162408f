"""What choose.py writes and shows: choice.json, the paragraph, the page, the chart."""

import dataclasses
import json

import pytest
from matplotlib.figure import Figure
from pages import Page, at_390_pixels, check_whole

from console import Console
from errors import UserError
from selection import chart
from selection import choice as choices
from selection.candidates import Space
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
)
from selection.facts import Facts
from selection.report import page, words
from selection.report.glossary import IDEAS

EVIL = '<script>alert("$x$ $y$")'


def net(depth, mean, half=None, size=32, runs=12, **others):
    """A rung of the ladder."""
    low, high = (None, None) if half is None else (mean - half, mean + half)
    facts = {
        'name': f'plain-{depth}@{size}', 'role': 'ladder', 'fields': {'model.width': 16},
        'label': f'{depth} convolutions, 16 filters at first, {size} pixels',
        'parameters': 4000 * depth**2, 'flops': 31250 * depth * (size or 32),
        'image_size': size,
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
            net(4, 0.946, 0.012, name='plain-4@32-skip', role='question',
                label='4 convolutions with skip connections'),
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
        candidates=early, verdicts=(), resolution=None, confirmed=(), openings=(),
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
        'these nets would not change this. Twice the photos: about +1.2 (+0.4 to +2.0).'
    )


@pytest.mark.parametrize(
    ('fields', 'told', 'not_told'),
    [
        # A net that is better than the recommended one, and one that is not clearly worse.
        ({'verdicts': (said('plain-5@32', 'plain-4@32', 0.02, 0.01, 'better'),
                       said('plain-4@32', 'plain-3@32', 0.006, 0.009, 'cannot tell',
                            question='Is a third enough?', settle='4 more runs would tell.'))},
         ['With 5: 2 points better (sure).', 'With 3: -0.6 (-1.5 to +0.3), cannot tell.',
          'Open: Is a third enough? 4 more runs would tell.'], ['More runs of these']),
        ({'verdicts': (said('plain-4@32', 'plain-3@32', 0.001, 0.003, 'no better'),)},
         ['With 3: -0.1 (-0.4 to +0.2), no measurable loss.',
          'With 5: 0.1 points better (not tested).'],
         ['More runs']),
        # The smallest has the linear classifier below it.
        ({'recommended': 'plain-1@32', 'verdicts': ()},
         ['Use 1 convolution layer at 32 pixels: 54.1 %.',
          'Linear classifier: 13.1 points worse (not tested).',
          'With 2: 24.2 points better (not tested).'], ['More runs']),
        ({'verdicts': (), 'candidates': (net(3, 0.9451), net(4, 0.945))},
         ['With 3: the same (not tested).'], []),
        ({'recommended': 'plain-4@32-skip'},
         ['Use 4 convolutions with skip connections: 94.6 %.',
          '4 convolution layers at 32 pixels: -0.2 (-1.4 to +1.0)'], []),
        ({'recommended': 'plain-1@32', 'candidates': (seedlings().candidates[0],
                                                      net(1, 0.3, 0.03), net(2, 0.31, 0.03))},
         ['Nothing beats always saying the commonest class (28.4 %). The smallest net, '
          '1 convolution layer, has 30.0 % and is named only because one must be'], ['Use']),
        ({'recommended': 'constant'}, ['Nothing beats always saying'], ['Use', 'smallest net']),
        ({'recommended': '', 'candidates': (net(1, None, status='infeasible',
                                                reason='64,000 parameters'),)},
         ['No net keeps within the limits (64,000 parameters): loosen them.'], ['Use', '%']),
        ({'recommended': '', 'candidates': ()}, ['There is no recommendation yet.'], ['Use', '%']),
        ({'goal': Goal('accuracy>=0.9', 'met')}, ['Your goal, accuracy>=0.9, is met.'], []),
        ({'goal': Goal('accuracy>=1', 'not met', 'No net tried comes near.')},
         ['Your goal, accuracy>=1, is not met. No net tried comes near.'], []),
        ({'measure': 'balanced_accuracy'}, ['pixels: 94.5 % balanced accuracy.'], []),
        ({'resolution': 0.021},
         ['can show differences of 2.1 points, which is more than the 1 point that you said'], []),
        ({'resolution': 0.01004}, ['can show differences of 1 point.'], ['which is more']),
        ({'twice_the_data': Gain(0.004, -0.006, 0.014)},
         ['Twice the photos: about +0.4 (-0.6 to +1.4), perhaps nothing.'], []),
        ({'openings': (Opening('a', 'b'), Opening('c', 'd', True))}, ['looked at 2 times'], []),
    ],
)  # fmt: skip
def test_the_paragraph_reads_well_in_every_case(fields, told, not_told):
    text = words.paragraph(change(**fields))
    assert all(part in text for part in told), text
    assert not any(part in text for part in not_told), text


def test_the_paragraph_before_the_first_verdict_claims_none():
    assert words.paragraph(without_verdicts()) == (
        'So far: use 4 convolution layers at 32 pixels: 94.5 %. With 3: 4.9 points worse (not '
        'tested). With 5: 0.1 points better (not tested). Each figure is of 1 run, so a few points '
        'may be luck. The method has not ended (stage: ladder), so this may change.'
    )


def series():
    """A data set of numbers, whose nets are compared by loss."""
    return change(
        dataset='series:sun.csv', holds='examples', classes=(), measure='loss', delta=0.01,
        layer='recurrent layer', goal=None, openings=(), confirmed=(), learning_curve=(),
        candidates=(
            simple('constant', 'always the last value', 1.0),
            net(1, 0.31, 0.02, None), net(2, 0.246, 0.02, None), net(3, 0.249, 0.021, None),
        ),
        recommended='plain-2@None', resolution=0.006, twice_the_data=Gain(0.02, 0.01, 0.03),
        verdicts=(said('plain-2@None', 'plain-1@None', 0.064, 0.02, 'better'),
                  said('plain-3@None', 'plain-2@None', -0.003, 0.009, 'no better')),
    )  # fmt: skip


def test_losses_are_less_where_they_are_better():
    assert words.paragraph(series()) == (
        'Use 2 recurrent layers: a loss of 0.246. With 1: 0.064 worse (sure). With 3: 0.003 worse '
        '(0.012 worse to 0.006 better), no measurable gain. Your 1,406 examples can show '
        'differences of 0.006. More runs of these nets would not change this. Twice the examples: '
        'about 0.02 better (0.01 better to 0.03 better).'
    )
    worse = net(1, 1.1, 0.05, None)
    at_chance = dataclasses.replace(
        series(), candidates=(series().candidates[0], worse), recommended=worse.name, verdicts=()
    )
    assert words.paragraph(at_chance).startswith('Nothing beats always saying the last value (a ')


def parsed(choice, folder):
    page.write(choice, folder)
    found = Page((folder / 'choice.html').read_text())
    check_whole(found)
    anchors = {a['href'][1:] for a in found.all('a')}
    assert anchors <= {a['id'] for _, a in found.tags if a.get('id')}
    return found, ' '.join(found.text.split())


def test_the_page_has_the_answer_first_and_the_evidence_behind_it(tmp_path):
    found, text = parsed(seedlings(), tmp_path)
    assert text.index(words.paragraph(seedlings())) < text.index('Recommendation')
    assert f'python train.py --config={tmp_path}/recommended_config.py' in text
    assert 'within 0.5 points, half of delta, of the highest' in text
    for part in (
        '12 photos are copies of others',
        'Do skip connections help?',
        IDEAS['skip'].paper,
        'plain-4@32-skip cannot be told from plain-4@32',
        'plain-4@32-skip against plain-4@32: +0.2 (-1.0 to +1.4), cannot tell.',
        '+0.1 (-0.7 to +0.9)',
        '94.4, 94.8',
        '93.0 to 96.2 %',
        'The budget was 60 minutes',
        EVIL,
        'stopped early: ' + EVIL,
        'python choose.py --data=folder:photos/seedlings5',
    ):
        assert part in text  # fmt: skip
    assert IDEAS['norm'].paper not in text  # Nobody asked.
    assert 'forced' not in text
    alts = [image['alt'] for image in found.all('img')]
    assert [alt.split(':')[0] for alt in alts] == [
        'Accuracy against depth', 'Gain in each question with its interval',
        'Accuracy against FLOPs for one example; Pareto front',
        'Accuracy against parameters; Pareto front',
        'Accuracy of the recommended net against training data',
    ]  # fmt: skip
    assert '4 convolution layers at 32 pixels 94.5 % (93.4 to 95.6 %)' in alts[0]
    assert [path.name for path in tmp_path.iterdir()] == ['choice.html']


def test_every_question_has_the_source_of_its_idea():
    space = Space(Facts('images', (64, 64, 3), 5, resizable=True))
    asked = {q.key for rung in space.ladder(32) for q in space.questions(rung)}
    assert {'skip', 'width', 'norm'} <= asked <= IDEAS.keys()


def test_a_second_opening_of_the_test_split_is_said_twice(tmp_path):
    openings = (*seedlings().openings, Opening('2026-11-22 09:00', 'plain-5@32', True))
    _, text = parsed(change(openings=openings), tmp_path)
    assert text.index('The test split was opened 2 times.') < text.index('Recommendation')
    assert 'Opened 2 times, of which 1 forced.' in text
    assert '2026-11-22 09:00' in text
    assert 'forced: opened before' in text


@pytest.mark.parametrize(
    'choice',
    [
        without_verdicts(),
        series(),
        change(recommended='', candidates=(), verdicts=(), confirmed=(), resolution=None, spent=()),
        change(recommended='constant'),
        change(final_run='not/there/yet', device={}, budget=Budget(None, 40)),
    ],
)
def test_the_page_of_any_state_is_whole(tmp_path, choice):
    parsed(choice, tmp_path)


def test_what_evaluate_found_of_the_final_run_is_shown(tmp_path):
    folder = tmp_path / 'final'
    (folder / 'checkpoints' / '9').mkdir(parents=True)
    there = folder / 'evaluation' / 'test'
    there.mkdir(parents=True)
    names = ['cleavers', EVIL]
    figure = {'value': 0.9, 'low': 0.8, 'high': 0.95}
    evaluation = {
        'class_names': names, 'figures': {'examples': 20, 'accuracy': figure},
        'confusion': {'counts': [[9, 1], [1, 9]]},
        'per_class': [{'name': name, 'recall': figure} for name in names],
        'mistakes': {'count': 2, 'pairs': [], 'most_confident': 'mistakes.png', 'least_sure': ''},
        'suspects': {'flagged': 0, 'examined': 20, 'sheet': ''},
        'diagnosis': [{'name': 'too little data', 'sentence': 'More photos would help.',
                       'remedy': 'Take more, or try --config.dataset.flip=True.'}],
    }  # fmt: skip
    for path, content in (
        (there / 'evaluation.json', evaluation), (folder / 'config.json', {'seed': 0}),
        (folder / 'splits.json', {}),
        (folder / 'result.json', {'status': 'finished', 'input_shape': [8, 8, 3],
                                  'class_names': names}),
    ):  # fmt: skip
        path.write_text(json.dumps(content))
    Figure(figsize=(1, 1)).savefig(there / 'mistakes.png')
    Figure(figsize=(1, 1)).savefig(there / 'layers.png')
    found, text = parsed(change(final_run='final'), tmp_path)
    assert 'judged on the test split (20 photos)' in text
    assert 'More photos would help. Take more, or try --config.dataset.flip=True.' in text
    alts = ' '.join(image['alt'] for image in found.all('img'))
    for part in ('Confusion matrix', 'Recall of each class', 'Most confident mistakes', 'layers'):
        assert part in alts


def test_a_browser_shows_the_page_at_390_pixels(tmp_path):
    page.write(seedlings(), tmp_path)
    width, shown, broken = at_390_pixels(tmp_path / 'choice.html', tmp_path)
    assert width <= 390
    assert (shown, broken) == (5, 0)


def test_the_chart_has_a_row_for_each_net_with_its_interval(capsys):
    chart.show(seedlings(), Console())
    heading, *rows, answer = capsys.readouterr().out.splitlines()
    assert heading.split()[:4] == ['net', 'parameters', 'runs', 'accuracy']
    assert [row.split()[0] for row in rows[:4]] == [
        'constant', 'linear', 'plain-1@32', 'plain-2@32'
    ]  # fmt: skip
    at = {row.split()[0]: row for row in rows}
    assert ['|--*--|' in row for row in rows].count(True) == 1
    assert at['plain-4@32'].split()[1:6] == ['64,000', '12', '94.5', '%', '|--*--|']
    assert '|' not in at['plain-6@32']
    assert at['plain-3@32'].index('o') < at['plain-4@32'].index('*')
    assert answer == 'Use 4 convolution layers at 32 pixels: 94.5 %.'
    assert max(len(line) for line in (heading, *rows)) <= 100


def test_charts_of_few_many_and_losing_nets():
    none = change(candidates=(), recommended='', finished=False)
    assert chart.lines(none, 80) == ['There is no recommendation yet.']
    one = change(candidates=(net(4, 0.5),), verdicts=())
    assert '*' in chart.lines(one, 80)[1]
    many = change(candidates=tuple(net(i, i / 100) for i in range(1, 60)))
    assert 'and 39 more' in chart.lines(many, 80)
    losses = chart.lines(series(), 80)
    assert [line.count('*') for line in losses] == [0, 0, 0, 1, 0, 0]
    assert 'loss' in losses[0]


def test_elsewhere_than_on_a_terminal_a_chart_is_printed_for_each_round(capsys):
    with chart.live(Console()) as draw:
        draw(without_verdicts())
        assert not capsys.readouterr().out
        draw(without_verdicts(), round_ended=True)
        assert 'plain-4@32' in capsys.readouterr().out
