"""Leadline itself: the step of `train.py`, driven as its loop drives it."""

import importlib
import os
import pathlib
import tempfile

import jax
import numpy as np

from benchmarks.peers.worker import LEARNING_RATE, WEIGHT_DECAY, Case
from console import Console
from training import results
from training.prepared import Prepared, open_devices


class Contender:
    """Trains a case by `Prepared`, with the images on the device as uint8.

    Unlike the peers, who are given batches, it gathers those of each step on the device.
    """

    def __init__(self, case: Case, option: str):
        images, labels = case.data()
        few = slice(0, case.classes)
        with tempfile.TemporaryDirectory() as folder:
            os.environ['LEADLINE_CACHE'] = folder
            path = pathlib.Path(folder, 'images.npz')
            np.savez(
                path, x_train=images, y_train=labels, x_val=images[few], y_val=labels[few],
                x_test=images[few], y_test=labels[few],
                class_names=[str(i) for i in range(case.classes)],
            )  # fmt: skip
            file, _, net = case.config.partition(':')
            source = f'{net}:npz:{path}' if net else f'npz:{path}'
            self._config = importlib.import_module(f'configs.{file}').get_config(source)
            self._config.update_from_flattened_dict({
                'batch_size': case.batch, 'dtype': case.dtype, 'augment': 'none',
                'optimizer.learning_rate': LEARNING_RATE, 'optimizer.weight_decay': WEIGHT_DECAY,
                # So far away that no dispatch is cut short.
                'epochs': 1e6, 'evaluate_every_epochs': 1e6,
                'dataset.group_by': 'none', **case.fields,
            })  # fmt: skip
            self._devices = open_devices(self._config)
            self._run = Prepared(self._config, self._devices, Console(quiet=True))
            self._run.place_data()
        self._dispatches = self._run.dispatches(self._devices.replicate(self._run.initial_state()))

    def facts(self):
        facts = results.provenance(self._config, self._devices.facts())
        return {
            'parameters': sum(row.parameters for row in self._run.layers),
            # Forward, of one image; a multiply-add counts as two.
            'flops': sum(row.flops for row in self._run.layers),
            'platform': self._devices.platform,
            'device': self._devices.describe(),
            'versions': facts['versions'],
            'git_revision': facts['git_revision'],
        }

    def start(self):
        self.steps(1)

    def steps(self, count):
        done = 0
        while done < count:
            state, values = next(self._dispatches)
            done += self._run.dispatch_length(0)
        jax.block_until_ready(state)
        return done, float(values['loss'][-1])

    def device_peak_bytes(self):
        statistics = jax.devices()[0].memory_stats()
        return statistics and statistics.get('peak_bytes_in_use')
