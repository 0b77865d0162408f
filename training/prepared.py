"""A run before its first step: data, net, plan, and the programs it compiles. Writes nothing.

The loop trains with it, and `--describe` measures it.
"""

import functools
import itertools
import math
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

import input_pipeline
from auditing import findings
from configs import default
from console import Console
from errors import DataError, DoesNotFitError, UserError
from models import scaling, summary
from training import host_memory, memory, optimizer, recipe, weights
from training import step as training_step
from training.data_parallel import DataParallel
from training.once import Once

# On GPU and TPU a dispatch holds so many steps at most, and so many FLOPs: about a second on a
# large device, since signals wait for it.
_STEPS_PER_DISPATCH = 50
_FLOPS_PER_DISPATCH = 3e13
_BYTES_PER_DISPATCH = 2**28  # Of inputs that stream.
# The fields that no program depends on: runs that differ in them alone share all programs.
FREE = (
    'seed', 'dataset.split_seed', 'dataset.test_fraction', 'dataset.validation_fraction',
    'dataset.folds', 'dataset.fold', 'dataset.repeat', 'dataset.subset', 'dataset.group_by',
    'dataset.splits_file', 'init.grow_from', 'epochs', 'evaluate_every_epochs', 'evaluate_test',
    'optimizer.learning_rate', 'optimizer.schedule', 'optimizer.warmup_epochs',
    'optimizer.weight_decay', 'early_stopping.patience_epochs', 'early_stopping.fraction',
    'checkpoint_seconds', 'pictures',
)  # fmt: skip


def open_devices(config: Any, once: Once | None = None) -> DataParallel:
    """Checks the config and returns the devices it runs on; the same ones for the same `once`.

    Raises:
      UserError: a field is wrong, or JAX is not set up for it.
    """
    default.validate(config)
    if jax.dtypes.canonicalize_dtype(config.dtype) != config.dtype:
        raise UserError('config.dtype=float64 needs JAX_ENABLE_X64=1 in the environment.')
    host_memory.keep()
    make = functools.partial(DataParallel, config.parallel)
    return once(('every device', config.parallel), make) if once else make()


class Prepared:
    """What is known, loaded and compiled before a config is trained.

    Args:
      config: as from `configs/default.py`.
      devices: from `open_devices`.
      console: says what the data holds.
      once: shared by runs of one process: what they have in common is made once.

    Attributes:
      pipeline: the data.
      recipe: what a step is made of.
      layers: of the net.
      steps_per_epoch: a fraction, since passes follow one another without a gap.
      total_steps: of the run.
      evaluation_steps: from one evaluation to the next.
      rates: learning rate of each step, [total_steps].
      memory_bytes: what a device had room for before anything was put there.
      compile_seconds: spent by `compiled` so far.

    Raises:
      DataError: the data set cannot be read or split.
      UserError: data and config do not go together, or the net cannot fit.
    """

    def __init__(
        self, config: Any, devices: DataParallel, console: Console, once: Once | None = None
    ):
        devices.check_batch(config.batch_size)
        self.config, self.devices, self._once = config, devices, once or Once()
        self.program_key, self._data_key = _groups(config)
        self._once.use(self.program_key)
        self._once.use(self._data_key)
        self.memory_bytes = self._once(('memory', devices), devices.memory_bytes)
        self.pipeline = self._load(console)
        recipe.check_family(config, self.pipeline.source.holds)
        console.data(self.pipeline, findings.brief(self.pipeline))
        self.steps_per_epoch = self.pipeline.sizes['train'] / config.batch_size
        self.total_steps = max(1, round(config.epochs * self.steps_per_epoch))
        self.evaluation_steps = max(1, round(config.evaluate_every_epochs * self.steps_per_epoch))
        self.recipe = recipe.build(config, len(self.pipeline.class_names))
        self.rates = optimizer.learning_rates(
            config.optimizer, self.total_steps, self.steps_per_epoch, self.recipe.dtype
        )
        if self.recipe.augmentation.mixes:
            devices.check_pairs(config.batch_size)
        self.layers = self._once(
            (self.program_key, 'layers'), lambda: _layers(self.recipe, self.pipeline.input_shape)
        )
        self._once(
            (self.program_key, 'fits', devices),
            lambda: memory.check(self.needed_bytes(), self.memory_bytes, config.dtype),
        )
        self.dispatch_steps = _dispatch_steps(
            config,
            devices.platform,
            self.layers,
            self.pipeline,
            min(self.evaluation_steps, self.total_steps),
        )
        self.train_steps = devices.map_train(
            functools.partial(training_step.train_steps, self.recipe), not config.debug_nans
        )
        self.eval_step = devices.map_eval(functools.partial(training_step.eval_step, self.recipe))
        self.compile_seconds = 0.0
        self._weights: dict[str, np.ndarray] = {}
        self._reader = input_pipeline.ReadAhead(self.pipeline)

    def _load(self, console: Console) -> input_pipeline.Pipeline:
        dataset = self.config.dataset
        resolution = scaling.multipliers(self.config.scale).resolution
        try:
            source = self._once(
                (self._data_key, 'source'),
                lambda: input_pipeline.read(dataset, console, resolution),
            )
            # Inputs may take a quarter of a device's memory.
            room = self.memory_bytes / 4
            return input_pipeline.load(self.config, room, console, resolution, source=source)
        except UserError as error:
            raise DataError(str(error)) from error

    def close(self) -> None:
        """Lets go of the thread that reads ahead."""
        self._reader.close()

    def needed_bytes(self) -> dict[str, int]:
        """Returns what a training step needs on each device at least, by arithmetic."""
        config, count = self.config, self.config.batch_size // self.devices.count
        state = jax.eval_shape(self._init, *self._init_arguments())
        weights.check_parts(self.recipe.frozen, state.params)
        # What lies before the first part that trains is not kept for the backward pass.
        rows = list(
            itertools.dropwhile(
                lambda row: optimizer.is_frozen(row.name.split('/')[0], self.recipe.frozen),
                self.layers,
            )
        )
        per_example = memory.activation_bytes(rows, config.model.get('remat', False))
        return {
            'weights with what the optimizer keeps': memory.nbytes(state),
            'gradients': memory.nbytes(state.params),
            f'activations of {count} examples': count * per_example,
            'data': memory.nbytes(self.resident()),
        }

    def resident(self) -> dict[str, Any]:
        """Returns the arrays that stay on the devices: those of the data, and weight_decay [].

        As arguments rather than constants of the step they let one compiled program serve every
        seed, split and weight decay.
        """
        decay = np.asarray(self.config.optimizer.weight_decay, self.recipe.dtype)
        return self.pipeline.resident() | {'weight_decay': decay}

    def place_data(self) -> None:
        """Puts what stays on the devices there."""
        own = self.resident()
        common = {name: own.pop(name) for name in input_pipeline.OF_THE_SET if name in own}
        self.placed = self.devices.replicate(own) | self._once(
            (self._data_key, 'placed', self.devices), lambda: self.devices.replicate(common)
        )

    def load_weights(self, console: Console) -> None:
        """Reads the weights that `config.init` names, with which `initial_state` then begins.

        Raises:
          UserError: they cannot be read, are of another net, or know what this run is judged by.
        """
        if self.config.init.grow_from:
            from training import grown  # Brings SciPy with it, which few runs need.

            grown.check_unseen(self.config, self.pipeline)
            self._weights = grown.load(
                self.config,
                self.recipe.model,
                self.pipeline.class_names,
                self.pipeline.input_shape,
                weights.variables(self.initial_state()),
                console,
            )
        if self.config.init.weights:
            state = jax.eval_shape(self._init, *self._init_arguments())
            self._weights = weights.load(self.config, weights.variables(state), console)

    def initial_state(self) -> training_step.TrainState:
        """Makes the state of step 0, on one device."""
        arguments = self._init_arguments()
        # Random numbers in many shapes compile slowly and run once: level 0 compiles several
        # times faster on CPU.
        quick: dict[str, Any] = {'xla_backend_optimization_level': 0}
        options = quick if self.devices.platform == 'cpu' else {}
        program = self._once(
            (self.program_key, 'init'),
            lambda: jax.jit(self._init).lower(*arguments).compile(compiler_options=options),
        )
        state = program(*arguments)
        return weights.place(self._weights, state) if self._weights else state

    def _init_arguments(self) -> tuple[Any, ...]:
        return np.uint32(self.config.seed), self.pipeline.normalization, self.pipeline.targets

    def _init(self, *arguments: Any) -> training_step.TrainState:
        return training_step.init_state(self.recipe, self.pipeline.input_shape, *arguments)

    def dispatch_length(self, step: int) -> int:
        """Returns the steps of the dispatch that begins at `step`, which follow from it alone.

        Single steps fill up what is left before an evaluation, so that there are two programs to
        compile and no more.
        """
        room = self.evaluation_steps - step % self.evaluation_steps
        room = min(room, self.total_steps - step)
        return self.dispatch_steps if self.dispatch_steps <= room else 1

    def train_program(self, state: Any, step: int, count: int) -> tuple[Any, tuple[Any, ...]]:
        """Returns the compiled program of `count` steps from `step` on, and its arguments.

        It gives the next state and the metrics, and reuses the memory of `state`.
        """
        plans = [self._reader.train_batch(step + i) for i in range(count)]
        stacked = {name: np.stack([plan[name] for plan in plans]) for name in plans[0]}
        # Who measures may go on beyond the end.
        steps = np.minimum(np.arange(step, step + count), self.total_steps - 1)
        rates = self.devices.replicate(self.rates[steps])
        arguments = state, self.placed, rates, self.devices.split(stacked, axis=1)
        return self._compiled('train', count, self.train_steps, *arguments), arguments

    def dispatches(self, state: Any) -> Iterator[tuple[Any, dict[str, Any]]]:
        """Trains from step 0 on without end, for who measures: dispatches as long as the first.

        As in the loop, one is waited for when the next is on its way.

        Args:
          state: of step 0, on the devices; its memory is reused.

        Yields:
          The state, valid until the next dispatch, and the metrics.
        """
        count, before = self.dispatch_length(0), None
        for step in itertools.count(0, count):
            program, arguments = self.train_program(state, step, count)
            state, values = program(*arguments)
            jax.block_until_ready(before)
            before = values
            yield state, values

    def check_program(self, program: Any) -> dict[str, int]:
        """Returns what XLA plans for a compiled training step, in bytes on each device.

        Raises:
          UserError: it is more than there was room for.
        """
        plan = memory.planned(program)
        if plan:
            needed = {'as XLA plans it': plan['total']}
            memory.check(needed, self.memory_bytes, self.config.dtype)
        return plan

    def logits(self, variables: dict[str, Any], split: str) -> np.ndarray:
        """Computes the logits [N, K] of every example of a split, in stored order."""

        def step(plan: dict[str, np.ndarray]) -> jax.Array:
            program, arguments = self.eval_program(variables, plan)
            return program(*arguments)

        return self.devices.collect(self.pipeline.eval_batches(split), step)

    def eval_program(
        self, variables: dict[str, Any], plan: dict[str, np.ndarray]
    ) -> tuple[Any, tuple[Any, ...]]:
        """Returns the compiled evaluation of one of `Pipeline.eval_batches`, and its arguments."""
        arguments = variables, self.placed, self.devices.split(plan, axis=0)
        return self._compiled('eval', 1, self.eval_step, *arguments), arguments

    def _compiled(self, name: str, count: int, mapped: Any, *arguments: Any) -> Any:
        """Compiles once per length, so that memory is known and compilation has its own clock."""
        if self.config.debug_nans:
            return mapped  # JAX looks for the operation in functions it may run piece by piece.

        def compiled() -> Any:
            begun = time.perf_counter()
            program = mapped.lower(*arguments).compile()
            self.compile_seconds += time.perf_counter() - begun
            return program

        return self._once((self.program_key, name, count, self.devices), compiled)


def _groups(config: Any) -> tuple[str, str]:
    """Returns what the programs of a config, and its data, depend on, as keys of `Once`."""
    fields = {name: v for name, v in default.flatten(config).items() if name not in FREE}
    of_data = {
        name: value
        for name, value in fields.items()
        if name.startswith('dataset.') and name != 'dataset.normalization'
    }
    return repr(fields), repr((of_data, scaling.multipliers(config.scale).resolution))


def _layers(parts: recipe.Recipe, input_shape: tuple[int, ...]) -> list[summary.Layer]:
    try:
        return summary.summarize(parts.model, input_shape)
    except summary.EmptyMapError as error:
        shape = 'x'.join(map(str, input_shape))
        raise DoesNotFitError(
            f'The images of {shape} are too small for this net: {error}. Set a larger '
            '--config.dataset.image_size, or fewer layers or smaller kernels.'
        ) from error


def _dispatch_steps(
    config: Any,
    platform: str,
    rows: list[summary.Layer],
    pipeline: input_pipeline.Pipeline,
    evaluation_steps: int,
) -> int:
    if config.steps_per_dispatch or config.debug_nans:
        return 1 if config.debug_nans else config.steps_per_dispatch
    if platform == 'cpu':
        return 1  # Nothing to gain, and XLA's own gradients are many times slower inside a loop.
    flops = 3 * sum(row.flops for row in rows) * config.batch_size  # Backward costs twice forward.
    steps = min(_STEPS_PER_DISPATCH, int(_FLOPS_PER_DISPATCH / max(1, flops)))
    if pipeline.streams:
        steps = min(
            steps, _BYTES_PER_DISPATCH // (pipeline.source.inputs[0].nbytes * config.batch_size)
        )
    # Of somewhat shorter dispatches, those that leave the fewest single steps to an evaluation.
    least = math.ceil(evaluation_steps / max(1, steps))
    count = min(range(least, 2 * least + 1), key=lambda count: evaluation_steps % count)
    return evaluation_steps // count
