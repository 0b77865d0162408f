"""One run from config to run folder: `train_and_evaluate`.

The order within a step is fixed: evaluate, save, fetch the batch, update. Everything a run does
is a function of its config and the step, so a run that was killed goes on exactly.
"""

import dataclasses
import functools
import math
import os
import time
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import jax
import numpy as np

from configs import default
from console import Console, size
from data import augmentation, splits
from errors import UserError
from models import summary
from training import pictures, results
from training.checkpoint import UNRATED, Checkpoints
from training.data_parallel import DataParallel
from training.follower import Follower
from training.interruption import Interruption
from training.once import Once
from training.optimizer import part
from training.prepared import Prepared, open_devices
from training.profile import Profile
from training.run_folder import RunFolder
from training.step import parts
from training.writers import TensorBoard


def train_and_evaluate(
    config: Any,
    workdir: str | os.PathLike,
    quiet: bool = False,
    started: float | None = None,
) -> dict[str, Any]:
    """Trains the net of `config`, or goes on with it, and evaluates it.

    Args:
      config: as from `configs/default.py`.
      workdir: the run folder; created, continued, or only read where the run has ended.
      quiet: print the headline and the result alone.
      started: `time.perf_counter()` at the start of the command; now, where None.

    Returns:
      What `result.json` of the run folder holds.

    Raises:
      UserError: something the user can mend, with the remedy.
    """
    started = time.perf_counter() if started is None else started
    devices = open_devices(config)
    console = Console(quiet)
    console.line(
        f'Leadline  {config.dataset.name} on {devices.describe()}, run folder {workdir}',
        always=True,
    )
    folder = RunFolder(workdir)
    with folder.claim(config) as result:
        if result:
            console.line('This run has ended before; its result was:', always=True)
        else:
            result = train(config, folder, devices, console, started, Interruption(), Once())
        results.show(console, folder, result)
        return result


def train(
    config: Any,
    folder: RunFolder,
    devices: DataParallel,
    console: Console,
    started: float,
    interruption: AbstractContextManager[Interruption],
    once: Once,
    follower: Follower | None = None,
) -> dict[str, Any]:
    """Trains in a folder that is claimed, or goes on there, and returns `result.json`.

    Args:
      config: checked by `open_devices`.
      folder: of a run that has not ended.
      devices: what it runs on.
      console: says what happens.
      started: `time.perf_counter()` when the run began.
      interruption: watches for signals while the steps are done.
      once: shared with other runs of this process.
      follower: hears of steps and evaluations.

    Raises:
      UserError: something the user can mend, with the remedy.
    """
    with ExitStack() as stack:
        if config.debug_nans:
            stack.enter_context(jax.debug_nans(True))
        run = _Run(config, folder, devices, console, started, once, follower or Follower())
        stack.callback(run.close)
        try:
            return run.to_the_end(interruption)
        except FloatingPointError as error:
            place = results.deepest_own_frame(error)
            raise UserError(f'config.debug_nans: a NaN {run.doing}, made at {place}.') from error


@dataclasses.dataclass
class Progress:
    """What the loop knows beside the state; saved with each checkpoint as JSON.

    Attributes:
      sums: of each metric over the steps since the last evaluation.
      steps: how many those are.
      evaluated_step: step of the last evaluation; 0 before.
      best_step: step of the best evaluation so far; of two equal ones the later; 0 before.
      best_score: `Task.score` of the validation split there, or minus the loss on the examples set
        aside for early stopping.
      seconds: spent by all sessions up to the checkpoint, by part.
    """

    sums: dict[str, float] = dataclasses.field(default_factory=dict)
    steps: int = 0
    evaluated_step: int = 0
    best_step: int = 0
    best_score: float = UNRATED
    seconds: dict[str, Any] = dataclasses.field(default_factory=dict)


class _Run:
    """One run in this process: prepare, train, finish."""

    def __init__(
        self,
        config: Any,
        folder: RunFolder,
        devices: DataParallel,
        console: Console,
        started: float,
        once: Once,
        follower: Follower,
    ):
        self.config, self.folder, self.devices, self.console = config, folder, devices, console
        self.follower, self.unwanted = follower, False
        self.started = self.clock = started
        self.seconds = dict.fromkeys(('start_up', 'compile', 'train', 'evaluate'), 0.0)
        self.prepared = Prepared(config, devices, console, once)
        self.pipeline, self.recipe = self.prepared.pipeline, self.prepared.recipe
        self.steps_per_epoch = self.prepared.steps_per_epoch
        self.total_steps = self.prepared.total_steps
        self.evaluation_steps = self.prepared.evaluation_steps
        self.layers = self.prepared.layers
        console.model(summary.grouped(self.layers, at_most=24))
        if not folder.has_checkpoints():
            self.prepared.load_weights(console)

        self.progress = Progress()
        self.doing = ''  # For the message of debug_nans.
        self.first_step: float | None = None
        self.step = 0
        self.settled_step = 0  # Up to here everything is evaluated.
        self.saved_step, self.saved_at = 0, time.perf_counter()  # Of the last checkpoint.
        self.diverged_step: int | None = None
        self.learning_rate = 0.0
        self.pending: tuple[int, dict[str, jax.Array]] | None = None
        self.compile_booked = 0.0
        self.tensorboard: TensorBoard | None = None
        # Not before data and net are known to exist: a mistake leaves no run folder behind.
        folder.write_json('config.json', config.to_dict())
        self.checkpoints = Checkpoints(folder.path / 'checkpoints')
        self.profile = Profile(config.profile_steps, folder.path)

    def close(self) -> None:
        """Waits for what is being written."""
        self.profile.close()
        self.prepared.close()
        if self.tensorboard:
            self.tensorboard.close()
        self.checkpoints.close()

    def to_the_end(self, interruption: AbstractContextManager[Interruption]) -> dict[str, Any]:
        """Trains until the end or an interruption, writes the result and returns it."""
        self._write_splits()
        self.prepared.place_data()
        self._spend('start_up')
        self._prepare_state()
        status = self._ending()
        if not status:
            self._announce()
            bar = self.console.progress('Training', self.total_steps, self.step)
            with bar as self.advance, interruption as signals:
                status = self._train(signals)
        return self._interrupt() if status == 'interrupted' else self._finish(status)

    # Preparing.

    def _write_splits(self) -> None:
        dataset = self.config.dataset
        facts = {'dataset': dataset.name, 'split_seed': dataset.split_seed}
        described = splits.describe(self.pipeline.source, self.pipeline.members)
        before = self.folder.read_json('splits.json')
        compared = (*self.pipeline.members, 'labels')
        if before and any(before.get(name) != described[name] for name in compared):
            raise UserError(
                f'The {self.pipeline.source.holds} of {dataset.name} or their labels have changed '
                f'since the run in {self.folder.path} began: choose another --workdir.'
            )
        self.folder.write_json('splits.json', facts | described)

    def _prepare_state(self) -> None:
        state = self.prepared.initial_state()
        if latest := self.checkpoints.latest_step:
            state, saved = self.checkpoints.restore(state, latest)
            self.progress = Progress(**saved)
            self.step = self.settled_step = self.saved_step = latest
            self.console.line(f'Going on from step {self.step} of {self.total_steps}.', always=True)
        self.folder.cut_metrics(self.step)
        for line in self.folder.read_metrics():
            self.follower.evaluated(line)
        self.state = self.devices.replicate(state)
        self._spend('compile')

    def _announce(self) -> None:
        count = self.prepared.dispatch_length(self.step)
        program, _ = self.prepared.train_program(self.state, self.step, count)
        used = ''
        if not self.config.debug_nans and (plan := self.prepared.check_program(program)):
            used = f'; a step takes {size(plan["arguments"] + plan["temporaries"])} of memory'
        config, weights = self.config, 'ema' if self.config.ema_decay else 'raw'
        holds = self.pipeline.source.holds
        self.console.line(
            f'Model     {config.model.family}: {sum(r.parameters for r in self.layers):,} '
            f'parameters, {sum(r.flops for r in self.layers):,} FLOPs per example{used}\n'
            f'Plan      {config.epochs:g} epochs: {self.total_steps:,} steps of '
            f'{config.batch_size} {holds}, evaluated every {self.evaluation_steps:,} with the '
            f'{weights} weights\n'
            f'Augment   {augmentation.describe(self.recipe.augmentation)}'
        )
        self._spend('compile')

    # Training.

    def _train(self, signals: Interruption) -> str:
        """Runs to the end and returns why it ended: a status of `result.json`."""
        self.clock = time.perf_counter()
        while True:
            # Once: a signal may come at any moment.
            interrupted = signals.received or self.unwanted
            if interrupted or self._evaluation_is_due():
                self._read_metrics()
            if self._evaluation_is_due() and not self.diverged_step:
                self._evaluate_and_save()
            if ending := self._ending() or ('interrupted' if interrupted else ''):
                self._spend('train')
                return ending
            self._dispatch()
            self.profile.after_dispatch(self.step, self.state)
            self.advance(self.step)
            self.unwanted = self.follower.stepped(self.step)

    def _ending(self) -> str:
        """Returns the status of `result.json` if the run is at its end, else ''."""
        if self.diverged_step:
            return 'diverged'
        patience = self.config.early_stopping.patience_epochs * self.steps_per_epoch
        waited = self.progress.evaluated_step - self.progress.best_step
        if patience and self.step == self.progress.evaluated_step and waited >= patience:
            return 'early_stopped'
        return 'finished' if self.step == self.total_steps else ''

    def _evaluation_is_due(self) -> bool:
        at_boundary = self.step % self.evaluation_steps == 0 or self.step == self.total_steps
        return at_boundary and self.step > self.settled_step

    def _dispatch(self) -> None:
        count = self.prepared.dispatch_length(self.step)
        self.doing = f'in step {self.step + 1}'
        program, arguments = self.prepared.train_program(self.state, self.step, count)
        self.state, values = program(*arguments)
        self._read_metrics()  # Those of the dispatch before, while this one runs.
        self.pending = (self.step, values)
        self.step += count
        if self.tensorboard is None:
            jax.block_until_ready(values)
            self.first_step = time.perf_counter() - self.started
            self._tensorboard()

    def _read_metrics(self) -> None:
        """Adds up the metrics of the dispatch before and looks for divergence."""
        if self.pending is None:
            return
        first, arrays = self.pending
        self.pending = None
        values = {name: np.asarray(array, np.float64) for name, array in arrays.items()}
        norms = zip(parts(self.state.params), values.pop('gradient_norms').T, strict=True)
        values |= {f'gradient_norm/{part}': per_step for part, per_step in norms}
        finite = np.isfinite(values['loss']) & np.isfinite(values['gradient_norm'])
        if not finite.all():
            self.diverged_step = first + int(np.argmin(finite)) + 1
            return
        for name, per_step in values.items():
            for value in per_step.tolist():
                self.progress.sums[name] = self.progress.sums.get(name, 0.0) + value
        self.progress.steps += len(finite)
        self.learning_rate = float(values['learning_rate'][-1])

    def _spend(self, part: str) -> float:
        """Books the seconds since the last call on a part, and returns them.

        Compiling programs has a part of its own.
        """
        now = time.perf_counter()
        compiling = self.prepared.compile_seconds - self.compile_booked
        seconds, self.clock = now - self.clock - compiling, now
        self.compile_booked += compiling
        self.seconds['compile'] += compiling
        self.seconds[part] += seconds
        return seconds

    def _all_seconds(self) -> dict[str, Any]:
        """Returns the seconds of all sessions; `first_step` is of the last one that trained."""
        session = self.seconds | {'total': time.perf_counter() - self.started}
        earlier = self.progress.seconds
        first_step = self.first_step or earlier.get('first_step')
        return {k: v + earlier.get(k, 0.0) for k, v in session.items()} | {'first_step': first_step}

    # Evaluation.

    def _logits(self, split: str) -> np.ndarray:
        """Computes the logits [N, K] of every example of a split, in stored order."""
        self.doing = f'in the evaluation after step {self.step}'
        return self.prepared.logits(self.state.reported(), split)

    def _evaluate_and_save(self) -> None:
        task = self.recipe.task
        images = (self.step - self.settled_step) * self.config.batch_size
        images_per_second = images / self._spend('train')
        judges = [split for split in ('stopping', 'validation') if split in self.pipeline.members]
        logits = {split: self._logits(split) for split in judges}
        judged = {split: task.judge(logits[split], self.pipeline, split) for split in judges}
        if not all(math.isfinite(figures['loss']) for figures in judged.values()):
            self.diverged_step = self.step  # The last update broke the weights: not worth keeping.
            return
        means = {name: total / self.progress.steps for name, total in self.progress.sums.items()}
        line: dict[str, Any] = {
            'step': self.step,
            'epoch': self.step / self.steps_per_epoch,
            'train_loss': means['loss'],
            'train_accuracy': means.get('accuracy'),
        }
        for split, figures in judged.items():
            for name in task.each_evaluation:
                line[f'{split}_{name}'] = figures[name]
        line |= {
            'learning_rate': self.learning_rate,
            'gradient_norm': means['gradient_norm'],
            'images_per_second': images_per_second,
            **self._norms(means),
        }
        self.folder.append_metrics(line)
        if self.tensorboard:
            self.tensorboard.scalars(line)
        stopping = judged.get('stopping')
        score = -stopping['loss'] if stopping else task.score(judged['validation'])
        if score >= self.progress.best_score:
            self.progress.best_step, self.progress.best_score = self.step, score
        self.progress.evaluated_step = self.step
        if not self._ending() and _is_power_of_two(round(self.step / self.evaluation_steps)):
            self._draw_predictions(logits['validation'])
        self.progress.sums, self.progress.steps = {}, 0
        self.settled_step = self.step
        if self._checkpoint_is_due():
            self._save(score)
        self.follower.evaluated(line)
        self.console.evaluation(
            line,
            task.progress(line),
            self.pipeline.source.holds,
            self.total_steps,
            self.config.batch_size,
        )
        self._spend('evaluate')

    def _norms(self, means: dict[str, float]) -> dict[str, dict[str, float]]:
        """Returns the norms of gradients (mean of the steps) and weights, by part of the net.

        The weights' are computed here, on the host, so that no step pays for them.
        """
        by_name = parts(self.state.params)
        layers = [part(row.name.split('/')[0]) for row in self.layers]  # In the order of depth.
        ordered = sorted(by_name, key=layers.index)
        return {
            'gradient_norms': {name: means[f'gradient_norm/{name}'] for name in ordered},
            'weight_norms': {name: _norm(by_name[name]) for name in ordered},
        }

    def _draw_predictions(self, logits: np.ndarray) -> None:
        """Shows in TensorBoard which classes of the validation split are confused."""
        pipeline, labels = self.pipeline, self.pipeline.labels_of('validation')
        if not pipeline.class_names or not self.config.pictures:
            return
        draw = functools.partial(pictures.confusion_matrix, logits, labels, pipeline.class_names)
        self._tensorboard().image(self.step, 'confusion_matrix/validation', draw)
        if pipeline.source.holds == 'images' and (logits.argmax(-1) != labels).any():
            draw = functools.partial(pictures.mistakes, logits, pipeline, 'validation')
            self._tensorboard().image(self.step, 'mistakes/validation', draw)

    def _save(self, score: float) -> None:
        progress = dataclasses.replace(self.progress, seconds=self._all_seconds())
        self.checkpoints.save(self.step, self.state, dataclasses.asdict(progress), score)
        self.saved_step, self.saved_at = self.step, time.perf_counter()

    def _checkpoint_is_due(self) -> bool:
        # Early stopping may report the weights of any evaluation.
        by_time = time.perf_counter() - self.saved_at >= self.config.checkpoint_seconds
        return by_time or bool(self._ending()) or self.config.early_stopping.patience_epochs > 0

    def _tensorboard(self) -> TensorBoard:
        """Returns the writer; the first call writes what the run folder holds so far."""
        if self.tensorboard is None:
            self.tensorboard = TensorBoard(self.folder.path)
            self.tensorboard.introduce(default.flatten(self.config), self.layers)
            if self.pipeline.source.holds == 'images' and self.config.pictures:
                sheet = functools.partial(pictures.training_sheet, self.recipe, self.pipeline)
                self.tensorboard.image(0, 'training_images', sheet)
            for line in self.folder.read_metrics():
                self.tensorboard.scalars(line)
        return self.tensorboard

    # The end.

    def _interrupt(self) -> dict[str, Any]:
        if self.step > self.saved_step:
            self._save(UNRATED)
        self.checkpoints.wait()
        return self._write_result('interrupted', {})

    def _finish(self, status: str) -> dict[str, Any]:
        """Judges the reported weights, reads the test split, and writes the result."""
        self.checkpoints.wait()
        if status == 'diverged':
            return self._write_result(status, {})
        if self.config.early_stopping.patience_epochs:
            best, _ = self.checkpoints.restore(self.state, self.progress.best_step)
            self.state = self.devices.replicate(best)
        judged, arrays = {}, {}
        task, pipeline = self.recipe.task, self.pipeline
        for split in ('validation', 'test') if self.config.evaluate_test else ('validation',):
            logits = self._logits(split)
            judged[split] = task.judge(logits, pipeline, split)
            arrays[f'{split}_hash'] = pipeline.hashes_of(split)
            arrays[f'{split}_label'] = pipeline.labels_of(split)
            arrays |= {f'{split}_{k}': v for k, v in task.predictions(logits, pipeline).items()}
            if split == 'validation':
                self._draw_predictions(logits)
        self.folder.write_arrays('predictions.npz', arrays)
        self._spend('evaluate')
        return self._write_result(status, judged)

    def _write_result(self, status: str, judged: dict[str, dict[str, Any]]) -> dict[str, Any]:
        if self.tensorboard and (missing := self.tensorboard.close()):
            self.console.line(f'Note: {missing}.', always=True)
        best = bool(self.config.early_stopping.patience_epochs)
        outcome = {
            'status': status,
            'class_names': self.pipeline.class_names,
            'input_shape': self.pipeline.input_shape,
            'test': judged.get('test', self.recipe.task.without),
            'validation': judged.get('validation', self.recipe.task.without),
            'best_step': self.progress.best_step or None,
            'last_step': self.step,
            'reported_step': self.progress.best_step if best else self.step,
            'reported_weights': 'ema' if self.config.ema_decay else 'raw',
            'diverged_step': self.diverged_step,
            'saved_step': self.checkpoints.latest_step,
            'parameters': sum(layer.parameters for layer in self.layers),
            'flops_per_example': sum(layer.flops for layer in self.layers),
            'seconds': self._all_seconds(),
            **results.provenance(self.config, self.devices.facts()),
        }
        self.folder.write_json('result.json', outcome)
        return self.folder.read_json('result.json')


def _norm(tree: Any) -> float:
    squares = (np.square(np.asarray(leaf, np.float64)).sum() for leaf in jax.tree.leaves(tree))
    return float(np.sqrt(sum(squares)))


def _is_power_of_two(number: int) -> bool:
    # Pictures of the 1st, 2nd, 4th ... evaluation show how it goes, and cost next to nothing.
    return number > 0 and number & (number - 1) == 0
