"""Published nets and weights: what they compute, how files are read, what trains."""

import json
import os
import pathlib
import pickle
import sys
import types
import zipfile

import jax
import numpy as np
import pytest
from published_nets import STORE, TINY_LAYOUT, TINY_NET, outputs, random_weights
from safetensors.numpy import save_file
from test_step import checkpoint, one_step

from errors import UserError
from training import weights
from training.loop import train_and_evaluate

HERE = pathlib.Path(__file__).parent
STORED = json.loads(STORE.read_text())['nets']


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """Returns files of weights by what they are."""
    folder = tmp_path_factory.mktemp('weights')
    arrays = {name: a.astype(np.float32) for name, a in random_weights(TINY_LAYOUT).items()}
    few = {name: array for name, array in arrays.items() if 'layer2' not in name}
    contents = {
        'whole': arrays,
        'three classes': arrays | {'fc.weight': arrays['fc.weight'][:3], 'fc.bias': np.zeros(3)},
        'no second stage': few,
        'another stage': arrays | {'layer3.0.conv1.weight': np.zeros((16, 8, 3, 3))},
        'colour': arrays | {'conv1.weight': np.zeros((4, 3, 3, 3))},
    }
    paths = {name: folder / f'{name}.safetensors' for name in contents}
    for name, content in contents.items():
        save_file(content, paths[name])
    paths |= {'zip': HERE / 'tiny_resnet.pth', 'legacy': HERE / 'tiny_resnet_legacy.pth'}
    for name in ('zip', 'legacy'):
        paths[f'half of {name}'] = folder / f'half_{name}.pth'
        content = paths[name].read_bytes()
        paths[f'half of {name}'].write_bytes(content[: len(content) // 2])
    paths['text'] = folder / 'notes.pth'
    paths['text'].write_text('not weights')
    paths['folder'] = folder
    return paths


@pytest.mark.parametrize('stored', STORED, ids=lambda row: f'{row["net"]}-{row["library"]}')
def test_nets_compute_what_pytorch_computes(stored):
    """The logits were computed by PyTorch: benchmarks/torch_outputs.py, which also does float64."""
    logits = outputs(stored['net'], random_weights(stored['layout']), 'float32')
    expected = np.asarray(stored['logits'])
    assert logits.shape == (2, 1000)
    np.testing.assert_allclose(
        logits[:, :: 1000 // 10], expected, atol=1e-5 * abs(expected).max(), rtol=0
    )


def tiny(tiny_config, **changes):
    net = {f'model__{name}': value for name, value in TINY_NET.items()}
    return tiny_config(**{**net, **changes})


def flat(tree):
    return {'/'.join(k.key for k in p): v for p, v in jax.tree_util.tree_leaves_with_path(tree)}


@pytest.mark.parametrize('name', ['whole', 'zip', 'legacy'])
def test_every_format_holds_the_same_weights(files, name):
    arrays = weights._read(files[name])
    for key, value in random_weights(TINY_LAYOUT).items():
        tolerance = 1e-2 if key == 'fc.bias' and name != 'whole' else 1e-6  # bfloat16
        np.testing.assert_allclose(arrays[key].astype(np.float64), value, rtol=tolerance)


def trained(folder, config):
    train_and_evaluate(config, folder, quiet=True)
    return flat(checkpoint(folder, 8))


def test_what_is_frozen_stays_and_the_rest_trains(files, tiny_config, tmp_path):
    config = tiny(
        tiny_config, init__weights=str(files['zip']), init__freeze='body', epochs=1.0,
        ema_decay=0.9, optimizer__weight_decay=0.1,
    )  # fmt: skip
    state = trained(tmp_path / 'body', config)
    expected = random_weights(TINY_LAYOUT)
    kernel = expected['layer2.0.conv2.weight'].transpose(2, 3, 1, 0).astype(np.float32)
    np.testing.assert_array_equal(state['params/stage2/block1/conv2/kernel'], kernel)
    np.testing.assert_allclose(state['ema/params/stage2/block1/conv2/kernel'], kernel, rtol=1e-6)
    for name, part in (('mean', 'running_mean'), ('var', 'running_var')):
        np.testing.assert_array_equal(
            state[f'batch_stats/stage1/block1/norm1/batch/{name}'],
            expected[f'layer1.0.bn1.{part}'].astype(np.float32),
        )
    assert not np.allclose(state['params/head/logits/kernel'], expected['fc.weight'].T)

    config.init.freeze = 'stem,stage1'
    state = trained(tmp_path / 'stages', config)
    np.testing.assert_array_equal(
        state['params/stem/kernel'],
        expected['conv1.weight'].transpose(2, 3, 1, 0).astype(np.float32),
    )
    np.testing.assert_array_equal(
        state['batch_stats/stem_norm/batch/mean'], expected['bn1.running_mean'].astype(np.float32)
    )
    assert not np.allclose(state['params/stage2/block1/conv2/kernel'], kernel)


def test_the_last_layer_is_new_where_the_classes_differ(files, tiny_config, tmp_path, capsys):
    config = tiny(
        tiny_config, init__weights=str(files['three classes']), epochs=1e-6, ema_decay=0.9
    )
    config.optimizer.learning_rate = 1e-9
    train_and_evaluate(config, tmp_path, quiet=False)
    assert 'but for the last layer, which is new' in capsys.readouterr().out
    state = flat(checkpoint(tmp_path, 1))
    assert state['params/head/logits/kernel'].shape == (8, 10)
    np.testing.assert_allclose(
        state['params/stem/kernel'],
        random_weights(TINY_LAYOUT)['conv1.weight'].transpose(2, 3, 1, 0),
        rtol=1e-5,
    )


@pytest.mark.parametrize('optimizer', ['sgd', 'adamw'])
def test_the_body_learns_at_its_own_rate(tiny_config, optimizer):
    before, usual, _ = one_step(tiny_config(optimizer__name=optimizer))
    _, slow, _ = one_step(tiny_config(optimizer__name=optimizer, init__body_learning_rate=0.1))
    for name, start in flat(before.params).items():
        usual_step, slow_step = (flat(s.params)[name] - start for s in (usual, slow))
        share = 1.0 if name.startswith('head') else 0.1
        np.testing.assert_allclose(slow_step, share * usual_step, atol=2e-7)


def test_a_frozen_body_is_not_differentiated(tiny_config):
    *_, values = one_step(tiny_config(init__freeze='body'))
    *_, whole = one_step(tiny_config())
    assert 0 < values['gradient_norm'] < whole['gradient_norm']


def test_a_run_goes_on_without_the_file_it_began_with(files, tiny_config, tmp_path):
    path = tmp_path / 'weights.safetensors'
    path.write_bytes(files['whole'].read_bytes())
    config = tiny(tiny_config, init__weights=str(path), epochs=1.0)
    train_and_evaluate(config, tmp_path / 'run', quiet=True)
    path.unlink()
    (tmp_path / 'run' / 'result.json').unlink()
    assert train_and_evaluate(config, tmp_path / 'run', quiet=True)['status'] == 'finished'


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        ('no second stage', 'they have nothing for .*stage2'),
        ('another stage', 'no place for layer3.0.conv1.weight'),
        ('colour', r'params/stem/kernel has the shape \(3, 3, 3, 4\) there, and \(3, 3, 1, 4\)'),
        ('half of zip', 'no file of weights that can be read'),
        ('half of legacy', 'no file of weights that can be read'),
        ('text', 'no file of weights that can be read'),
        ('folder', 'there is no file'),
    ],
)
def test_what_is_wrong_with_a_file_is_named(files, tiny_config, tmp_path, name, expected):
    config = tiny(tiny_config, init__weights=str(files[name]))
    with pytest.raises(UserError, match=expected):
        train_and_evaluate(config, tmp_path / 'run', quiet=True)
    assert not (tmp_path / 'run' / 'config.json').exists()


def test_the_hub_is_asked_for_the_file(files, monkeypatch):
    asked = []
    hub = types.SimpleNamespace(hf_hub_download=lambda *a: asked.append(a) or str(files['whole']))
    monkeypatch.setitem(sys.modules, 'huggingface_hub', hub)
    assert weights._downloaded('timm/resnet18.a1_in1k') == files['whole']
    weights._downloaded('me/mine/net.pth')
    assert asked == [('timm/resnet18.a1_in1k', 'model.safetensors'), ('me/mine', 'net.pth')]
    monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
    with pytest.raises(UserError, match='pip install huggingface_hub'):
        weights._downloaded('me/mine')


class Spiteful:
    """Runs a command where it is unpickled."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.system, (f'touch {self.target}',)


@pytest.mark.parametrize('zipped', [True, False])
def test_code_in_a_file_is_not_run(tiny_config, tmp_path, zipped):
    target, path = tmp_path / 'was_run', tmp_path / 'weights.pth'
    content = pickle.dumps({'conv1.weight': Spiteful(target)})
    path.write_bytes(content)
    if zipped:
        path.unlink()
        with zipfile.ZipFile(path, 'w') as archive:
            archive.writestr('archive/data.pkl', content)
    config = tiny(tiny_config, init__weights=str(path))
    with pytest.raises(UserError, match=r'it holds more than tensors: posix\.system'):
        train_and_evaluate(config, tmp_path / 'run', quiet=True)
    assert not target.exists()


def text(value):
    return b'X' + len(value).to_bytes(4, 'little') + value.encode()


def number(value):
    return b'\x8a\x08' + value.to_bytes(8, 'little', signed=True)


def named(module, name):
    return f'c{module}\n{name}\n'.encode()


def tensor(storage, size, stride):
    """Returns a pickle of a tensor, written by hand: PyTorch would not write such ones."""
    shape = number(size) + b'\x85' + number(stride) + b'\x85'
    dictionary = named('collections', 'OrderedDict') + b')R'
    rest = number(0) + shape + b'\x89' + dictionary + b'tR'
    return named('torch._utils', '_rebuild_tensor_v2') + b'(' + storage + rest


FLOATS = b'(' + text('storage') + named('torch', 'FloatStorage') + text('0') + text('cpu')
FLOATS += number(4) + b'tQ'
STATE = b'}' + text('values') + tensor(FLOATS, 4, 1) + b'sb'  # Sets an attribute.
HOSTILE = {
    'a tensor beyond its storage': (tensor(FLOATS, 9, 1), 'reaches beyond its memory'),
    'four numbers a billion times': (tensor(FLOATS, 10**9, 0), 'reaches beyond its memory'),
    'negative strides': (tensor(FLOATS, 4, -1), 'a tensor that is not known'),
    'a dictionary as storage': (
        tensor(named('collections', 'OrderedDict') + b')R' + STATE, 4, 1),
        'a tensor that is not known',
    ),
    'a changed type': (named('torch', 'FloatStorage') + STATE, 'no business with'),
    'a changed function': (named('torch._utils', '_rebuild_tensor_v2') + STATE, 'no business'),
    'a changed tensor': (tensor(FLOATS, 4, 1) + STATE, 'no business with'),
}


@pytest.mark.parametrize('name', HOSTILE)
def test_hostile_files_are_refused(tmp_path, name):
    program, expected = HOSTILE[name]
    path = tmp_path / 'weights.pth'
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('archive/data.pkl', b'\x80\x02' + program + b'.')
        archive.writestr('archive/data/0', np.zeros(4, np.float32).tobytes())
    with pytest.raises(UserError, match=expected):
        weights._read(path)


def test_a_small_file_does_not_unpack_to_a_large_one(tmp_path):
    path = tmp_path / 'weights.pth'
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('archive/data.pkl', b'\x80\x02' + tensor(FLOATS, 4, 1) + b'.')
        archive.writestr('archive/data/0', np.zeros(4, np.float32).tobytes())
    with pytest.raises(UserError, match='another size than it says'):
        weights._read(path)
