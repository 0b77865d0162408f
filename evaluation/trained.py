"""A run that has ended, opened again: its config, its net with the reported weights, its data."""

import dataclasses
import functools
import os
from typing import Any

import jax
import numpy as np

import input_pipeline
from configs import default
from console import Console
from data import cache, normalization, splits
from data.listing import Source
from errors import UserError, did_you_mean
from evaluation.ended import NEW, SPLITS, stored
from input_pipeline import Pipeline
from models import scaling, summary
from training import grown, recipe, restored, step, weights
from training.prepared import open_devices
from training.run_folder import RunFolder, read_run

_ROWS = 60  # Of the model table; above that, those of a block or a stage are one.


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained net.

    Attributes:
      folder: of the run.
      config: of the run, with the batch size of the evaluation.
      result: `result.json`.
      devices: on which the net runs.
      recipe: what a step is made of; `recipe.model` is the net.
      variables: the reported weights, running statistics and normalisation, on the devices.
      targets: mean and standard deviation of the training targets, in float32; None where there
        are classes.
    """

    folder: RunFolder
    config: Any
    result: dict[str, Any]
    devices: Any
    recipe: recipe.Recipe
    variables: dict[str, Any]
    targets: dict[str, Any] | None

    @property
    def class_names(self) -> list[str]:
        """Name of each label; empty where labels are numbers."""
        return self.result['class_names']

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of an example: height, width and channels of an image."""
        return tuple(self.result['input_shape'])

    @functools.cached_property
    def eval_step(self) -> Any:
        """`step.eval_step` of this net, mapped over the devices."""
        return self.devices.map_eval(functools.partial(step.eval_step, self.recipe))

    def initial_state(self) -> step.TrainState:
        """Returns the state of step 0: random, by the seed, or as `config.init` says."""
        fitted = normalization.Normalization(**self.variables['normalization'])
        state = jax.jit(functools.partial(step.init_state, self.recipe, self.input_shape))(
            np.uint32(self.config.seed), fitted
        )
        fresh, quiet = weights.variables(state), Console(quiet=True)
        if self.config.init.grow_from:
            known = grown.load(
                self.config, self.recipe.model, self.class_names, self.input_shape, fresh, quiet
            )
        elif self.config.init.weights:
            known = weights.load(self.config, fresh, quiet)
        else:
            return state
        return weights.place(known, state)

    def layers(self) -> list[summary.Layer]:
        """Returns the rows of the model table."""
        return summary.grouped(summary.summarize(self.recipe.model, self.input_shape), _ROWS)

    def logits(self, pipeline: Pipeline, split: str) -> np.ndarray:
        """Computes the outputs [N, K] for every example of a split, each once, in stored order."""

        def outputs(batch: dict[str, np.ndarray]) -> jax.Array:
            return self.eval_step(self.variables, {}, self.devices.split(batch, axis=0))

        return self.devices.collect(pipeline.eval_batches(split), outputs)

    def mirrored(self, averaged: bool = True) -> 'Trained':
        """Returns the same net that averages the logits of each image and its mirror image.

        Args:
          averaged: whether it does; a run may have been trained to.

        Raises:
          UserError: its inputs are no images.
        """
        if len(self.input_shape) != 3:
            raise UserError(f'--mirrored is for images, and {self.config.dataset.name} holds none.')
        return dataclasses.replace(self, recipe=self.recipe._replace(evaluate_mirrored=averaged))

    def own_data(self, console: Console, moved_to: str = '') -> Pipeline:
        """Loads the data of the run, split as they were by content hash.

        Args:
          console: shows progress.
          moved_to: where the data set is now, such as `folder:PATH`; where it was, if empty.

        Raises:
          UserError: it is not there any more, or has changed.
        """
        name = moved_to or self.config.dataset.name
        changes = {'dataset.name': name}
        if not name.startswith('series:'):  # Whose splits follow time.
            changes['dataset.splits_file'] = os.fspath(self.folder.path / 'splits.json')
        config = _changed(self.config, changes)
        resolution = scaling.multipliers(config.scale).resolution
        try:
            source = input_pipeline.read(config.dataset, console, resolution)
            self._check_classes(name, source.class_names)
            pipeline = input_pipeline.load(config, 0.0, console, resolution, source=source)
        except UserError as error:
            raise UserError(
                f'The data of this run cannot be used: {error} Where they have moved, say so: '
                '--data=folder:PATH --split=validation.'
            ) from error
        self._check_unchanged(name, pipeline)
        return dataclasses.replace(pipeline, streams=True)

    def new_data(self, name: str, console: Console) -> Pipeline:
        """Loads other images, all in one split; those in the splits of the run are left out.

        Raises:
          UserError: there are no such images, they have classes that the run does not know, or all
            of them are in its splits.
        """
        if len(self.input_shape) != 3:
            raise UserError(
                f'--data is for images, and the run was trained on {self.config.dataset.name}, '
                'whose columns depend on all of its rows: evaluate its own splits.'
            )
        height, width, channels = self.input_shape
        size = height if height == width else 0
        changes = {'dataset.name': name, 'dataset.image_size': size, 'dataset.channels': channels}
        dataset = _changed(self.config, changes).dataset
        source = input_pipeline.read(dataset, console, judged=True)
        input_pipeline.check_readable(source, dataset.max_unreadable)
        if source.inputs.shape[1:] != self.input_shape:
            shapes = ('x'.join(map(str, s)) for s in (source.inputs.shape[1:], self.input_shape))
            raise UserError(f'{name} holds inputs of {", and the net takes ".join(shapes)}.')
        source = _relabelled(source, name, self.class_names)
        if source.skipped:
            console.line(
                f'          {len(source.skipped):,} images cannot be read and are left out: '
                f'{cache.listed(source.skipped)}',
                always=True,
            )
        return Pipeline(
            name=name,
            source=source,
            members={NEW: self._unseen(source, name, console)},
            normalization=normalization.Normalization(**self.variables['normalization']),
            targets=None,
            seed=0,
            batch_size=self.config.batch_size,
            streams=True,
        )

    def _unseen(self, source: Source, name: str, console: Console) -> np.ndarray:
        """Returns the indices of the images that are in no split of the run.

        Of validation images too, since the temperature and the threshold are fitted on them, and of
        test images, which new data shall not open.
        """
        known = self.folder.read_json('splits.json')
        used = {digest for part in splits.SPLITS for digest in known.get(part, ())}
        unseen = np.flatnonzero([digest not in used for digest in source.hashes.tolist()])
        left_out = len(source.hashes) - len(unseen)
        if not len(unseen):
            raise UserError(
                f'The run knows all {left_out:,} images of {name} from its splits: nothing is left '
                'to judge it by. Give other images, or leave --data out for its own splits.'
            )
        if left_out:
            console.line(
                f'          {left_out:,} images of {name} are in the splits of this run and are '
                'left out',
                always=True,
            )
        return unseen

    def _check_classes(self, name: str, class_names: list[str]) -> None:
        """Checks that a data set has the classes of the run; raises UserError naming others."""
        if class_names == self.class_names:
            return
        more = [n for n in class_names if n not in self.class_names]
        less = [n for n in self.class_names if n not in class_names]
        differ = ' and '.join(
            f'{word} {", ".join(names)}'
            for word, names in (('has the new', more), ('lacks', less))
            if names
        )
        raise UserError(
            f'the classes of {name} are not those of the run: it {differ or "orders them anew"}.'
        )

    def _check_unchanged(self, name: str, pipeline: Pipeline) -> None:
        """Checks that the held-out examples have the labels they had in training.

        And of numbers that the unit of the outputs, which follows the training targets, is the
        same. Other labels of training examples change no figure.

        Raises:
          UserError: says what differs.
        """
        for split in SPLITS:
            before = stored(self.folder, split)
            if not before:  # The run left the split sealed.
                continue
            same = np.array_equal(pipeline.hashes_of(split), before['hash'])
            changed = (pipeline.labels_of(split) != before['label']).sum() if same else 0
            if not same or changed:
                what = f'{changed:,} labels' if same else 'the examples or their order'
                raise UserError(
                    f'{name} has changed since the run: {what} of the {split} split. Undo that, '
                    'or evaluate it as new data: --data without --split.'
                )
        if pipeline.targets and self.targets:
            offset, scale = pipeline.targets
            known = [float(self.targets[key]) for key in ('offset', 'scale')]
            if not np.allclose([offset, scale], known, rtol=1e-6, atol=1e-6 * scale):
                raise UserError(
                    f'{name} has changed since the run: the targets of its training split. Undo '
                    'that, or train again.'
                )


def open_run(path: str | os.PathLike, batch_size: int = 0) -> Trained:
    """Opens a run folder and restores the weights that its figures are of.

    Args:
      path: of the run folder.
      batch_size: examples evaluated at once; that of the run where 0, rounded up to what divides
        over the devices.

    Raises:
      UserError: it is no run folder, its run has not ended or diverged, or it has no checkpoint.
    """
    folder = RunFolder(path)
    values, result = read_run(folder)
    count = jax.device_count()
    wanted = batch_size or values['batch_size']
    config = _changed(values, {'batch_size': -(-wanted // count) * count})
    devices = open_devices(config)
    parts = recipe.build(config, len(result['class_names']))
    state = restored.reported(folder, parts, result)
    variables = devices.replicate(state.reported())
    return Trained(folder, config, result, devices, parts, variables, state.targets)


def _changed(config: Any, changes: dict[str, Any]) -> Any:
    return default.unflatten(default.flatten(config) | changes)


def _relabelled(source: Source, name: str, class_names: list[str]) -> Source:
    """Returns new data with the labels of the run.

    Raises:
      UserError: names the classes that the run does not know.
    """
    if unknown := [n for n in source.class_names if n not in class_names]:
        hints = ''.join(did_you_mean(n, class_names) for n in unknown[:3])
        raise UserError(
            f'The classes of {name} are not those of the run: it has {", ".join(unknown)}, and '
            f'the net knows {", ".join(class_names)}.{hints}'
        )
    places = np.asarray([class_names.index(n) for n in source.class_names], np.int32)
    return dataclasses.replace(source, labels=places[source.labels], class_names=class_names)
