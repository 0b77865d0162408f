"""Tables and series: the dense and recurrent families, regression, and what users get wrong."""

import csv
import functools
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import audit, load
from scipy.special import expit, softmax
from sklearn import metrics as reference
from sklearn.datasets import load_breast_cancer, load_diabetes
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import models
from configs import default, dense_small, plain_small, recurrent_small
from data import splits
from errors import UserError
from evaluation.evaluate import evaluate_run
from models import recurrent, summary
from training.loop import train_and_evaluate

SPLITS = ('train', 'stopping', 'validation', 'test')


def write(path, header, rows):
    with path.open('w', newline='') as file:
        csv.writer(file).writerows([header, *rows])
    return path


@pytest.fixture(scope='module')
def tables(tmp_path_factory):
    """A table of two classes, one of numbers to predict, and a series of two columns."""
    folder = tmp_path_factory.mktemp('tables')
    cancer, diabetes = load_breast_cancer(), load_diabetes(scaled=False)
    labels = cancer.target_names[cancer.target]
    rows = np.column_stack([cancer.data[:, :10].astype(str), labels])
    write(folder / 'classes.csv', [*cancer.feature_names[:10], 'label'], rows)
    rows = np.column_stack([diabetes.data, diabetes.target])
    write(folder / 'numbers.csv', [*diabetes.feature_names, 'target'], rows)
    times = np.arange(300)
    rows = np.column_stack([np.cos(times / 7), np.sin(times / 5) * 3 + 20])
    write(folder / 'series.csv', ['Target', 'other'], rows)
    return folder


def table_config(path, **changes):
    return changed(dense_small.get_config(f'table:{path}'), changes)


def series_config(path, **changes):
    return changed(recurrent_small.get_config(f'series:{path}'), changes)


def changed(config, changes):
    config.update_from_flattened_dict(
        {name.replace('__', '.'): value for name, value in changes.items()}
    )
    return config


def run(config, folder):
    """Trains; returns the result, metrics.jsonl and predictions.npz."""
    result = train_and_evaluate(config, folder)
    lines = [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]
    return result, lines, np.load(folder / 'predictions.npz')


# Nets.


def net(family, outputs, shape, **fields):
    """Returns a net and the shapes of its parameters."""
    config = default.get_config('digits', family)
    config.model.update_from_flattened_dict(fields)
    model = models.build(config.model.to_dict(), outputs)
    example = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    init = functools.partial(model.init, jax.random.key(3), train=False)
    return model, jax.eval_shape(init, example)['params']


@pytest.mark.parametrize(
    ('family', 'outputs', 'shape', 'fields', 'expected'),
    [
        ('dense', 2, (10,), {'hidden_units': (16,), 'head.outputs': 'sigmoid'}, 193),
        ('dense', 2, (10,), {'hidden_units': ()}, 22),
        ('dense', 10, (8, 8, 1), {'hidden_units': (32, 16)}, 65 * 32 + 33 * 16 + 17 * 10),
        ('recurrent', 1, (24, 1), {}, 29_345),
        ('recurrent', 1, (24, 1), {'cell': 'gru'}, 3 * (64 * 66 + 32 * 97) + 33),
    ],
)
def test_parameter_counts_are_exact(family, outputs, shape, fields, expected):
    model, params = net(family, outputs, shape, **fields)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == expected
    rows = summary.summarize(model, shape)
    assert sum(row.parameters for row in rows) == expected
    if family == 'recurrent':
        gates = len(recurrent.CELLS[fields.get('cell', 'lstm')].biases)
        assert rows[0].flops == 2 * 24 * 65 * gates * 64
        assert rows[1].output_shape == (24, 32)


def lstm(x_TF, kernel, recurrent_kernel, bias):
    h, c, outputs = np.zeros(len(recurrent_kernel)), np.zeros(len(recurrent_kernel)), []
    for x in x_TF:
        i, f, g, o = np.split(x @ kernel + h @ recurrent_kernel + bias, 4)
        c = expit(f) * c + expit(i) * np.tanh(g)
        h = expit(o) * np.tanh(c)
        outputs.append(h)
    return np.stack(outputs)


def gru(x_TF, kernel, recurrent_kernel, bias):
    h, outputs = np.zeros(len(recurrent_kernel)), []
    for x in x_TF:
        (xz, xr, xn), (hz, hr, hn) = (
            np.split(v, 3) for v in (x @ kernel + bias, h @ recurrent_kernel)
        )
        z = expit(xz + hz)
        h = z * h + (1 - z) * np.tanh(xn + expit(xr + hr) * hn)
        outputs.append(h)
    return np.stack(outputs)


@pytest.mark.parametrize('cell', [lstm, gru])
def test_a_recurrent_net_is_the_textbook_recurrence(cell):
    model, shapes = net('recurrent', 3, (9, 2), cell=cell.__name__, units=(5, 4))
    generator = np.random.default_rng(0)
    params = jax.tree.map(lambda p: generator.normal(size=p.shape), shapes)
    inputs = generator.normal(size=(6, 9, 2))
    got = jax.jit(functools.partial(model.apply, train=False))({'params': params}, inputs)
    for x_TF, logits in zip(inputs, got, strict=True):
        for i in (1, 2):
            x_TF = cell(x_TF, **params[f'{cell.__name__}{i}'])
        expected = x_TF[-1] @ params['head']['logits']['kernel'] + params['head']['logits']['bias']
        np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


def test_the_first_weights_of_an_lstm_are_those_of_keras():
    layer = recurrent.RecurrentLayer(16, 'lstm')
    layer = jax.jit(layer.init)(jax.random.key(0), jnp.zeros((1, 9, 8)))['params']
    np.testing.assert_array_equal(layer['bias'], np.repeat([0, 1, 0, 0], 16))
    np.testing.assert_allclose(
        layer['recurrent_kernel'] @ layer['recurrent_kernel'].T, np.eye(16), atol=1e-5
    )
    bound = np.sqrt(6 / (8 + 64))
    assert 0.9 * bound < np.abs(layer['kernel']).max() <= bound


# Runs.


def test_two_classes_of_a_table(tables, tmp_path):
    config = table_config(tables / 'classes.csv', model__head__outputs='sigmoid', epochs=8.0)
    result, lines, predictions = run(config, tmp_path)
    assert result['parameters'] == 193
    assert result['class_names'] == ['benign', 'malignant']
    label, logits = predictions['test_label'], predictions['test_logits']
    probability, test = softmax(logits.astype(np.float64), axis=-1), result['test']
    expected = {
        'examples': 114,
        'loss': reference.log_loss(label, probability),
        'accuracy': reference.accuracy_score(label, logits.argmax(-1)),
        'balanced_accuracy': reference.balanced_accuracy_score(label, logits.argmax(-1)),
        'macro_f1': reference.f1_score(label, logits.argmax(-1), average='macro'),
        'roc_auc': reference.roc_auc_score(label, probability[:, 1]),
    }
    assert {name: test[name] for name in expected} == pytest.approx(expected)
    assert test['accuracy'] > 0.85
    assert lines[-1]['train_loss'] < lines[0]['train_loss']


def test_numbers_of_a_table(tables, tmp_path, capsys):
    config = table_config(
        tables / 'numbers.csv', epochs=60.0, early_stopping__patience_epochs=5.0,
        optimizer__schedule='constant',
    )  # fmt: skip
    result, lines, predictions = run(config, tmp_path)
    label, prediction = predictions['test_label'], predictions['test_prediction']
    expected = {
        'examples': 88,
        'rmse': reference.root_mean_squared_error(label, prediction),
        'mae': reference.mean_absolute_error(label, prediction),
        'r2': reference.r2_score(label, prediction),
    }
    test = result['test']
    assert {name: test[name] for name in expected} == pytest.approx(expected)
    deviation = load(config).source.labels[load(config).members['train']].std()
    assert test['loss'] == pytest.approx((test['rmse'] / deviation) ** 2, rel=1e-5)
    assert test['r2'] > 0.3
    assert [test[name] for name in ('accuracy', 'balanced_accuracy', 'recall')] == [None] * 3
    best = min(lines, key=lambda line: (line['stopping_loss'], -line['step']))
    assert result['status'] == 'early_stopped'
    assert result['best_step'] == result['reported_step'] == best['step']
    assert best['train_accuracy'] is best['validation_accuracy'] is None
    out = capsys.readouterr().out
    assert f'{test["rmse"]:.4g}' in out
    assert 'Recall' not in out
    events = EventAccumulator(str(tmp_path), size_guidance={'tensors': 0}).Reload()
    tags = set(events.Tags()['tensors'])
    assert {'train/loss', 'validation/rmse', 'validation/r2'} <= tags
    assert not {'train/accuracy', 'confusion_matrix/validation', 'training_images'} & tags
    assert train_and_evaluate(config, tmp_path) == result
    assert f'{test["rmse"]:.4g}' in capsys.readouterr().out


def test_the_step_and_the_evaluation_agree_on_the_loss(tmp_path):
    generator = np.random.default_rng(0)
    inputs, targets = generator.normal(size=(40, 2)), generator.normal(300, 5, 40)
    rows = [
        [*x, y, split] for split in ('train', 'validation', 'test')
        for x, y in zip(inputs, targets, strict=True)
    ]  # fmt: skip
    path = write(tmp_path / 'table.csv', ['a', 'b', 'target', 'split'], rows)
    config = table_config(path, batch_size=20, epochs=1.0, optimizer__learning_rate=1e-30)
    result, lines, _ = run(config, tmp_path / 'run')
    assert lines[0]['train_loss'] == pytest.approx(lines[0]['validation_loss'], rel=1e-5)
    assert result['test']['loss'] == result['validation']['loss']


def test_a_series_in_memory_streamed_and_evaluated(tables, tmp_path, capsys, short_latency):
    config = series_config(
        tables / 'series.csv', dataset__window=12, dataset__horizon=3, model__units=(6, 4),
        model__dropout=0.1, epochs=3.0,
    )  # fmt: skip
    result, _, predictions = run(config, tmp_path / 'memory')
    series = np.loadtxt(tables / 'series.csv', delimiter=',', skiprows=1, dtype=np.float32)[:, 0]
    np.testing.assert_array_equal(predictions['test_label'], series[240 + 14 :])
    last_value = np.sqrt(np.mean((series[240 + 14 :] - series[240 + 11 : -3]) ** 2.0))
    assert result['test']['last_value_rmse'] == pytest.approx(last_value, rel=1e-5)
    factor = last_value / result['test']['rmse']
    assert f"{factor:.2f} times the net's" in capsys.readouterr().out
    config.dataset.storage = 'stream'
    assert run(config, tmp_path / 'stream')[0]['test'] == result['test']
    content = evaluate_run(tmp_path / 'memory', split='test', quiet=True)
    for name in ('rmse', 'mae', 'r2', 'last_value_rmse'):
        assert content['figures'][name]['value'] == pytest.approx(result['test'][name], rel=1e-5)


# Splits and statistics.


@pytest.mark.parametrize('kind', ['numbers', 'classes'])
def test_a_run_does_not_go_on_where_its_labels_have_changed(tmp_path, kind):
    header = ['a', 'b', 'split', 'target' if kind == 'numbers' else 'label']
    rows = [[i, i * i, ('train', 'validation', 'test')[i % 3], i % 7 + 1] for i in range(90)]
    config = table_config(write(tmp_path / 'table.csv', header, rows), epochs=1.0)
    train_and_evaluate(config, tmp_path / 'run', quiet=True)
    (tmp_path / 'run' / 'result.json').unlink()
    write(tmp_path / 'table.csv', header, [[*row[:3], 8 - row[3]] for row in rows])
    with pytest.raises(UserError, match='or their labels have changed'):
        train_and_evaluate(config, tmp_path / 'run', quiet=True)


def test_equal_rows_stay_on_one_side_of_every_split(tmp_path):
    rows = [[i % 50, (i % 50) ** 2, 'xy'[i % 2]] for i in range(300)]
    pipeline = load(table_config(write(tmp_path / 'table.csv', ['a', 'b', 'label'], rows)))
    first = {name: set(pipeline.source.inputs[m, 0]) for name, m in pipeline.members.items()}
    assert not first['train'] & (first['validation'] | first['test'])
    assert not first['validation'] & first['test']


@pytest.mark.parametrize('stopping', [False, True])
def test_no_row_of_a_series_is_in_two_splits_and_time_is_kept(tables, stopping):
    config = series_config(
        tables / 'series.csv', dataset__window=7, dataset__horizon=4,
        early_stopping__patience_epochs=float(stopping),
    )  # fmt: skip
    pipeline = load(config)
    series = np.loadtxt(tables / 'series.csv', delimiter=',', skiprows=1, dtype=np.float32)
    end = -1
    for split in SPLITS:
        if split not in pipeline.members:
            continue
        members = pipeline.members[split]
        assert members.min() > end  # A window's first row comes after all rows of earlier splits.
        end = members.max() + 7 + 4 - 1
        for i in members[[0, -1]]:
            np.testing.assert_array_equal(pipeline.source.inputs[i], series[i : i + 7])
            assert pipeline.source.labels[i] == series[i + 7 + 3, 0]
        if split == 'train':
            assert abs(pipeline.source.labels[members].mean() - pipeline.targets.offset) < 1e-4
    assert end == 299
    assert pipeline.sizes['test'] == pipeline.sizes['validation'] == 50
    assert ('stopping' in pipeline.members) == stopping


def test_folds_of_a_series_share_no_row_and_judge_every_window_once_in_each_repeat(tmp_path):
    write(tmp_path / 'series.csv', ['x'], np.sin(np.arange(1500) / 7)[:, None])
    span, before = 3 + 2, 1200 - 4
    dealt = []
    for repeat in range(2):
        judged = []
        for fold in range(4):
            pipeline = load(series_config(
                tmp_path / 'series.csv', dataset__window=3, dataset__horizon=2, dataset__folds=4,
                dataset__fold=fold, dataset__repeat=repeat,
            ))  # fmt: skip
            train, held_out = pipeline.members['train'], pipeline.members['validation']
            assert abs(train[:, None] - held_out).min() >= span
            # Lost are the windows at the borders of stretches alone.
            borders = 2 * (np.diff(held_out) > 1).sum() + 2
            assert before - len(train) - len(held_out) <= borders * (span - 1)
            assert pipeline.members['test'].tolist() == [*range(1200, 1496)]
            judged.append(held_out)
        assert sorted(np.concatenate(judged)) == [*range(before)]
        assert np.ptp([len(held_out) for held_out in judged]) <= 40
        dealt.append(judged[0].tolist())
        groups = splits.group(pipeline.source, 'auto')
        assert not any({*groups[a]} & {*groups[b]} for a, b in itertools.combinations(judged, 2))
    assert dealt[0] != dealt[1]


@pytest.mark.parametrize('kind', ['zscore', 'mean', 'min_max', 'min_max_signed'])
def test_statistics_are_those_of_the_training_split(tmp_path, kind):
    generator = np.random.default_rng(0)
    numbers = generator.normal(5, 3, (60, 3)).round(3)
    splits = np.array(['train', 'val', 'test'])[np.arange(60) % 3]
    words = np.array(['red', 'blue', 'green'])[generator.integers(0, 3, 60)]
    words[1] = 'violet'  # Not in training, and an input none the less.
    numbers[:, 1] = 4.0

    def pipeline(rows):
        table = np.column_stack([rows.astype(str), words, splits])
        path = write(tmp_path / 'table.csv', ['a', 'constant', 'target', 'colour', 'split'], table)
        return load(table_config(path, dataset__normalization=kind))

    first = pipeline(numbers)
    later = numbers.copy()
    later[splits != 'train'] *= 100
    second = pipeline(later)
    for got, expected in zip(second.normalization, first.normalization, strict=True):
        np.testing.assert_array_equal(got, expected)
    assert second.targets == first.targets
    target = numbers[splits == 'train', 2].astype(np.float32)
    assert first.targets.offset == pytest.approx(target.mean(dtype=np.float64))
    assert first.targets.scale == pytest.approx(target.std(dtype=np.float64))
    assert first.input_shape == (6,)
    assert 'one-hot encoded: colour (4)' in first.source.notes
    a = numbers[splits == 'train', 0]
    offset, scale = (statistic[0] for statistic in first.normalization)
    expected = {
        'zscore': (a.mean(), a.std()),
        'mean': (a.mean(), np.ptp(a)),
        'min_max': (a.min(), np.ptp(a)),
        'min_max_signed': ((a.min() + a.max()) / 2, np.ptp(a) / 2),
    }[kind]
    assert (offset, scale) == pytest.approx(expected, rel=1e-6)
    assert first.normalization.scale[1] == 1.0


def test_groups_of_a_table_stay_together_and_numbers_need_no_classes(tmp_path):
    rows = [[i, i**2, f'patient {i // 5}'] for i in range(200)]
    path = write(tmp_path / 'table.csv', ['x', 'target', 'Group'], rows)
    pipeline = load(table_config(path, dataset__folds=4, dataset__fold=1))
    assert pipeline.sizes == {'train': 120, 'validation': 40, 'test': 40}
    groups = [set(pipeline.source.groups[m]) for m in pipeline.members.values()]
    assert len(set.union(*groups)) == sum(map(len, groups)) == 40


# Mistakes.

LABELS = 'a,label\n1,x\n2,y\n'
TABLES = [
    ('', 'holds no rows'),
    ('a,label\n', 'holds no rows'),
    ('a,b\n1,2\n', 'has no column label (for classes) or target (for numbers); it has a, b'),
    ('a;label\n1;x\n', 'it has a;label. Columns are separated by commas'),
    ('a,label,target\n1,x,2\n', 'both a column label and a column target'),
    ('label\nx\ny\n', 'has no column to learn from, only label'),
    ('a,label\n1,x\n,y\n', "line 3, column 'a': the value is missing"),
    ('a,label\n1,x\n2,y\n?,y\n', "line 4, column 'a': the value is missing"),
    ('a,label\n1,x\n2,y\n1_2,y\n', "line 4, column 'a': '1_2' is no number"),
    ('a,label\n"1,5",x\n"2,5",y\n', "'1,5' is no number, whose decimals follow a point"),
    ('a,label\n1,1\n2,1.0\n3,2\n', "the column 'label' writes one number in two ways"),
    ('a,label\nu,x\nv,y\nw,x\n', "the column 'a' holds 3 different words in 3 rows"),
    ('a,target\n1,1000000001\n2,1000000002\n', "column 'target' differ by too little"),
    ('a,target\n1,7\n2,7\n3,7\n4,7\n5,7\n6,7\n', 'The target is 7 in all of the training'),
    ('a,label\n1,x\nnan,y\n', "line 3, column 'a': the value is missing"),
    ('a,label\n1,x\n1e300,y\n', "line 3, column 'a': '1e300' is no finite number"),
    ('a,label\n1,x\n2,\n', "line 3, column 'label': the value is missing"),
    ('a,target\n1,x\n2,3\n', "line 2, column 'target': 'x' is no number"),
    ('a,b,label\nu,,x\nv,1,y\n', "line 2, column 'b': the value is missing"),
    ('a,label\n1,x\n2,y,3\n', 'line 3: there are 3 values, and 2 columns'),
    ('a,A,label\n1,2,x\n', "two columns 'A'"),
    (',label\n1,x\n', 'column 1 has no name'),
    ('1,2\n3,4\n', 'the first line must name the columns'),
    ('a,label\n1,x\n2,x\n', "holds one class, 'x'"),
    ('a,label,split\n1,x,train\n2,y,tset\n', "'tset' is not train, validation or test"),
    (LABELS, "class 'x' has 1 examples, too few for every split"),
    ('a,target\n1,2\n', 'The data set has 1 examples, too few for every split'),
    ('name,label\n' + ''.join(f'n{i},{i % 2}\n' for i in range(1001)), '1,001 different words'),
]  # fmt: skip
LONG = 'x\n' + '1\n2\n' * 60
SERIES = [
    ('x\n1\n2\n', {}, '2 rows; config.dataset.window=24 and horizon=1 need 25 at least'),
    ('day,x\nmonday,1\n', {}, "line 2, column 'day': 'monday' is no number"),
    (LONG, {'dataset__folds': 4, 'dataset__window': 4}, 'before the test split are too few'),
    (LONG, {'dataset__split_seed': 1}, 'config.dataset.split_seed=1 is not for a series'),
    (LONG, {'dataset__group_by': 'column'}, 'config.dataset.group_by=column is not for a series'),
    (LONG, {'dataset__window': 40}, 'The validation split gets 24 of the 120 rows, fewer than'),
]


def refused(config, tmp_path, expected):
    """Checks the one line that a mistake ends in, and that it leaves nothing behind."""
    with pytest.raises(UserError) as caught:
        train_and_evaluate(config, tmp_path / 'run', quiet=True)
    assert expected in str(caught.value)
    assert '\n' not in str(caught.value)
    assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize(('text', 'expected'), TABLES)
def test_a_table_that_is_none_is_named(tmp_path, text, expected):
    (tmp_path / 'table.csv').write_text(text)
    refused(table_config(tmp_path / 'table.csv'), tmp_path, expected)


@pytest.mark.parametrize(('text', 'changes', 'expected'), SERIES)
def test_a_series_that_is_none_is_named(tmp_path, text, changes, expected):
    (tmp_path / 'series.csv').write_text(text)
    refused(series_config(tmp_path / 'series.csv', **changes), tmp_path, expected)


def test_files_that_are_none_are_named(tmp_path, tables):
    refused(table_config(tables / 'clases.csv'), tmp_path, "Did you mean 'classes.csv'")
    refused(table_config(''), tmp_path, 'needs a path, such as table:measurements.csv')
    (tmp_path / 'latin.csv').write_bytes('größe,label\n1,x\n'.encode('latin-1'))
    refused(table_config(tmp_path / 'latin.csv'), tmp_path, 'cannot be read as a csv file in UTF-8')


@pytest.mark.parametrize(
    ('make', 'file', 'changes', 'expected'),
    [
        (plain_small, 'table:classes.csv', {}, 'The family plain takes images, and table:'),
        (recurrent_small, 'table:classes.csv', {}, 'takes windows, and table:'),
        (recurrent_small, 'digits', {}, 'takes windows, and digits holds images: take a config'),
        (plain_small, 'series:series.csv', {}, 'holds windows: take a config of the family dense '
         'or recurrent'),
        (dense_small, 'table:classes.csv', {'augment': 'photos'}, 'is for images, and table:'),
        (dense_small, 'table:numbers.csv', {'augment': 'mixup=0.2'}, 'config.augment=mixup=0.2'),
        (dense_small, 'table:classes.csv', {'dataset__image_size': 8}, 'config.dataset.image_size'),
        (dense_small, 'table:classes.csv', {'dataset__normalization': 'image'}, 'is for images'),
        (dense_small, 'table:classes.csv', {'dataset__group_by': 'near_duplicates'}, 'for images'),
        (dense_small, 'table:numbers.csv', {'class_balance': 'class_weights'},
         'config.class_balance=class_weights is for classes, and the labels are numbers'),
        (dense_small, 'table:numbers.csv', {'label_smoothing': 0.1}, 'config.label_smoothing=0.1'),
        (dense_small, 'table:numbers.csv', {'model__head__outputs': 'sigmoid'},
         'sigmoid is for two classes; the labels are numbers'),
        (dense_small, 'table:classes.csv', {'scale__depth': 2.0},
         'the family dense has no stages to make deeper'),
        (recurrent_small, 'series:series.csv', {'model__units': ()}, 'config.model.units must'),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_named(tables, tmp_path, make, file, changes, expected):
    name = file.replace(':', f':{tables}/')
    refused(changed(make.get_config(name), changes), tmp_path, expected)


def test_the_audit_refuses_numbers(tables):
    _, err = audit(f'--data=table:{tables / "classes.csv"}', status=2)
    assert 'The audit looks at images' in err
    assert err.count('\n') == 1
