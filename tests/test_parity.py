"""The same numbers on any number of devices, however the step is mapped and dispatched."""

import json

import numpy as np
import pytest
from conftest import train
from test_resume import parameters

# Dropout, augmentation, label smoothing and the moving average all draw on randomness or state.
# A stage of one convolution keeps a float64 step cheap.
FIELDS = (
    '--config=configs/plain_small.py',
    '--config.model.width=4',
    '--config.model.stage_sizes=(1,1)',
    '--config.model.head.dropout=0.2',
    '--config.model.head.dense_units=(16,)',
    '--config.augment=digits,padded_crop=1,horizontal_flip=0.5,noise=0.05,mixup=0.2',
    '--config.label_smoothing=0.1',
    '--config.ema_decay=0.95',
    '--config.optimizer.clip_norm=1',
    '--config.batch_size=64',
)
DOUBLE = ('--config.dtype=float64', '--config.epochs=1', '--config.evaluate_every_epochs=0.5')


def double(folder, *extra, devices=1):
    train(
        *FIELDS,
        *DOUBLE,
        *extra,
        f'--workdir={folder}',
        devices=devices,
        quick=True,
        JAX_ENABLE_X64='1',
    )
    return folder


@pytest.fixture(scope='module')
def one_device(tmp_path_factory):
    return double(tmp_path_factory.mktemp('one'))


@pytest.mark.parametrize(
    ('devices', 'extra'),
    [
        (8, ()),
        (2, ('--config.steps_per_dispatch=5', '--config.parallel=pmap')),
    ],
)
def test_float64_agrees_to_the_end(tmp_path, one_device, devices, extra):
    double(tmp_path, *extra, devices=devices)
    for ours, theirs in zip(parameters(tmp_path), parameters(one_device), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-9)
    logits = [np.load(f / 'predictions.npz')['test_logits'] for f in (tmp_path, one_device)]
    np.testing.assert_allclose(logits[0], logits[1], rtol=0, atol=1e-8)
    for ours, theirs in zip(metrics(tmp_path), metrics(one_device), strict=True):
        for name in ('train_loss', 'validation_loss', 'gradient_norm'):
            assert ours[name] == pytest.approx(theirs[name], abs=1e-9)


def metrics(folder):
    return [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]


def test_float32_agrees_over_the_first_steps(tmp_path):
    losses = {}
    for devices in (1, 4):
        folder = tmp_path / str(devices)
        extra = ('--config.epochs=0.3', '--config.evaluate_every_epochs=0.01')
        train(*FIELDS, *extra, f'--workdir={folder}', devices=devices, quick=True)
        losses[devices] = [line['train_loss'] for line in metrics(folder)]
    assert len(losses[1]) == 5
    np.testing.assert_allclose(losses[1], losses[4], rtol=0, atol=1e-5)


def test_a_checkpoint_goes_on_with_another_number_of_devices(tmp_path, one_device):
    import shutil

    folder = tmp_path / 'run'
    shutil.copytree(one_device, folder)
    (folder / 'result.json').unlink()
    last = max(int(p.name) for p in (folder / 'checkpoints').iterdir())
    shutil.rmtree(folder / 'checkpoints' / str(last))
    double(folder, devices=2)
    for ours, theirs in zip(parameters(folder), parameters(one_device), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-9)
