"""What `sweep.py --dry_run` says: what a sweep would train, refuse and take. Trains nothing.

Every point is looked at by arithmetic. Steps are timed for three nets at most, those of the least,
the middle and the most FLOPs; what lies between is interpolated.
"""

import collections
import contextlib
import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from configs.sweeps.objectives import names
from console import Console, duration
from errors import UserError
from sweeping import points
from sweeping.jobs import size_of
from sweeping.reading import words
from training import results, timing
from training.data_parallel import DataParallel
from training.once import Once
from training.prepared import Prepared, open_devices

# What a run takes beside steps, evaluated batches and compiling: the data are split and the state
# is made; each evaluation writes a checkpoint and events. And what the first run waits for: the
# imports of parent and worker, and TensorFlow's. Measured with digits on 2 cores.
_RUN_SECONDS, _EVALUATION_SECONDS, _WORKER_SECONDS = 1.0, 0.05, 12.0
_SHOWN = 5  # Reasons of refusal.


@dataclasses.dataclass(frozen=True)
class _Net:
    """What arithmetic says of a point.

    Attributes:
      values: of the factors.
      config: of its first replicate.
      program: the same for points that share their programs.
      parameters, flops: of the net; FLOPs of one example forward.
      layers: number of rows of the model table.
      steps, evaluations, batches: of a run; batches are those evaluated.
    """

    values: Mapping[str, Any]
    config: Any
    program: Any
    parameters: int
    flops: int
    layers: int
    steps: int
    evaluations: int
    batches: int

    @property
    def step_flops(self) -> int:
        """FLOPs of a batch forward, by which steps are compared."""
        return self.flops * self.config.batch_size


@dataclasses.dataclass(frozen=True)
class _Timed:
    """Seconds measured with a net: a step, a batch in evaluation, compiling its programs."""

    net: _Net
    step: float
    batch: float
    compile: float


def dry_run(
    sweep: Any, values: Sequence[Mapping[str, Any]], total: int, console: Console
) -> dict[str, Any]:
    """Says what a sweep would train, refuse and take on this machine.

    What a pruner or early stopping spares is not foreseen, nor are limits of latency and memory,
    which are measured when a point's turn comes.

    Args:
      sweep: its config, validated.
      values: of the points to look at: all of a grid, or a sample.
      total: number of points there will be; 0 where nobody knows, for those looked at.
      console: prints it.

    Returns:
      What is printed and more, as JSON can hold it: `points`, `runs`, `looked_at` (by point:
      `values`, and `refused` or `parameters`, `flops`, `steps`, `run_seconds`), `programs`,
      `timed`, `predicted` (`seconds` of all runs and `compile_seconds` of their programs, both
      over all workers; `workers` that have a device each; `hours` on the clock, `hours_in_budget`)
      and where the figures come from.

    Raises:
      UserError: what is wrong with all points alike, such as data that cannot be read.
    """
    once, nets, refused = Once(), [], {}
    every = open_devices(sweep.base, once)
    devices = DataParallel(sweep.base.parallel, every.devices[:1]) if every.count > 1 else every
    looking = time.perf_counter()
    with console.progress('Looking at the points', len(values)) as advance:
        for i, each in enumerate(values):
            try:
                nets.append(_look(sweep, each, devices, once))
            except UserError as error:
                refused[points.key(each)] = str(error)
            advance(i + 1)
    if not nets and len(set(refused.values())) == 1:
        raise UserError(next(iter(refused.values())))
    looking = time.perf_counter() - looking
    timed, unfit = _time_some(nets, devices)
    refused |= unfit
    nets = [net for net in nets if points.key(net.values) not in refused]
    # Workers beyond the devices share them, as those on CPU share its cores.
    workers = min(sweep.workers or every.count, every.count)
    figures = _figures(sweep, values, total or len(values), workers, nets, timed, refused)
    figures |= {'looking_seconds': looking, **results.environment(every.facts())}
    _show(console, sweep, figures, nets, timed)
    return figures


def _look(sweep: Any, values: Mapping[str, Any], devices: DataParallel, once: Once) -> _Net:
    """Returns what arithmetic says of a point.

    Raises:
      UserError: the point would be refused.
    """
    (config,) = points.configs(sweep, values, [0])
    open_devices(config, once)  # Checks the fields.
    with contextlib.closing(Prepared(config, devices, Console(quiet=True), once)) as run:
        limits = {name: most for name, most in sweep.limits.items() if most}
        size = size_of(run, names(sweep.objective), limits)
        evaluations = timing.evaluations(run)
        each, last = timing.evaluated_batches(run)
        return _Net(
            values, config, run.program_key, **size, layers=len(run.layers),
            steps=run.total_steps, evaluations=evaluations, batches=evaluations * each + last,
        )  # fmt: skip


def _time_some(nets: Sequence[_Net], devices: DataParallel) -> tuple[list[_Timed], dict[str, str]]:
    """Times steps of the nets of least, middle and most FLOPs.

    Returns:
      What was measured, and by point why nets do not fit that do by arithmetic.
    """
    left = {net.program: net for net in nets}  # One for each program.
    unfit: dict[str, str] = {}
    done: dict[Any, _Timed] = {}
    while left:
        ordered = sorted(left.values(), key=lambda net: net.step_flops)
        chosen = (ordered[-1], ordered[0], ordered[len(ordered) // 2])  # What may not fit first.
        net = next((net for net in chosen if net.program not in done), None)
        if net is None:
            break
        try:
            done[net.program] = _time(net, devices)
        except UserError as error:
            del left[net.program]
            same = (n for n in nets if n.program == net.program)
            unfit |= {points.key(n.values): str(error) for n in same}
    return sorted(done.values(), key=lambda each: each.net.step_flops), unfit


def _time(net: _Net, devices: DataParallel) -> _Timed:
    """Compiles the programs of a net and times some steps.

    Raises:
      UserError: memory cannot hold what XLA plans.
    """
    with contextlib.closing(Prepared(net.config, devices, Console(quiet=True))) as run:
        run.load_weights(Console(quiet=True))
        run.place_data()
        begun = time.perf_counter()
        state = devices.replicate(run.initial_state())
        jax.block_until_ready(state)
        making = time.perf_counter() - begun
        count = run.dispatch_length(0)
        run.check_program(run.train_program(state, 0, count)[0])
        step, state = timing.step_seconds(run, state, count)
        batch = timing.batch_seconds(run, state)
        return _Timed(net, step, batch, making + run.compile_seconds)


def _interpolated(known: Sequence[tuple[float, float]]) -> Callable[[float], float]:
    """Returns the function that is linear between known points, and constant beyond them."""
    by_place = collections.defaultdict(list)
    for place, value in known:
        by_place[place].append(value)
    places = sorted(by_place)
    values = [float(np.mean(by_place[place])) for place in places]
    return lambda place: float(np.interp(place, places, values))


def _figures(
    sweep: Any,
    values: Sequence[Mapping[str, Any]],
    total: int,
    workers: int,
    nets: Sequence[_Net],
    timed: Sequence[_Timed],
    refused: Mapping[str, str],
) -> dict[str, Any]:
    """Returns what `dry_run` does, but for where the figures come from."""
    step = _interpolated([(each.net.step_flops, each.step) for each in timed] or [(0, 0)])
    batch = _interpolated([(each.net.step_flops, each.batch) for each in timed] or [(0, 0)])
    # Compiling takes its time by operations, not by their size.
    compiling = _interpolated([(each.net.layers, each.compile) for each in timed] or [(0, 0)])
    rows: dict[str, dict[str, Any]] = {}
    for net in nets:
        seconds = net.steps * step(net.step_flops) + net.batches * batch(net.step_flops)
        seconds += _RUN_SECONDS + net.evaluations * _EVALUATION_SECONDS
        facts = {'parameters': net.parameters, 'flops': net.flops, 'steps': net.steps}
        rows[points.key(net.values)] = {**facts, 'run_seconds': seconds}
    # A sample stands for all.
    scale = total / max(1, len(values))
    runs = scale * sweep.replicates
    programs = {net.program: net for net in nets}
    trained = runs * sum(row['run_seconds'] for row in rows.values())
    compiled = scale * sum(compiling(net.layers) for net in programs.values())
    epochs = runs * sum(net.config.epochs for net in nets)
    seconds = (trained + compiled) / workers + _WORKER_SECONDS if nets else 0.0
    most, budget = 3600 * sweep.budget.hours, sweep.budget.epochs
    within = seconds * min(1.0, budget / epochs) if budget and epochs else seconds
    return {
        'points': total,
        'runs': round(runs * len(nets)),
        'looked_at': [
            {'values': dict(each)}
            | (rows.get(points.key(each)) or {'refused': refused[points.key(each)]})
            for each in values
        ],
        'programs': len(programs),
        'timed': [
            {
                'values': dict(each.net.values),
                'step_seconds': each.step,
                'batch_seconds': each.batch,
                'compile_seconds': each.compile,
            }
            for each in timed
        ],
        'predicted': {
            'seconds': trained,
            'compile_seconds': compiled,
            'workers': workers,
            'hours': seconds / 3600,
            'hours_in_budget': min(within, most or within) / 3600,
        },
    }


def _show(
    console: Console,
    sweep: Any,
    figures: Mapping[str, Any],
    nets: Sequence[_Net],
    timed: Sequence[_Timed],
) -> None:
    looked, predicted = figures['looked_at'], figures['predicted']
    reasons = collections.Counter(row['refused'] for row in looked if 'refused' in row)
    sample = '' if len(looked) == figures['points'] else f' ({len(looked)} were looked at)'
    console.line(
        f'Sweep     {figures["points"]} points{sample}, {figures["runs"]} runs; nothing is trained',
        always=True,
    )
    if nets:
        spans = [
            f'{min(counts):,} to {max(counts):,} {what}'
            for what, counts in (
                ('parameters', [net.parameters for net in nets]),
                ('FLOPs per example', [net.flops for net in nets]),
            )
        ]
        console.line(f'Nets      {", ".join(spans)}', always=True)
        console.table(
            ['timed', 'parameters', 'FLOPs', 'a step', 'compiling', 'a run'],
            [
                [
                    words.chosen([f.name for f in sweep.space], each.net.values),
                    f'{each.net.parameters:,}',
                    f'{each.net.flops:,}',
                    f'{1000 * each.step:.3g} ms',
                    f'{each.compile:.1f} s',
                    f'{_run_seconds(looked, each.net):.3g} s',
                ]
                for each in timed
            ],
        )
        limit = (
            f'; {duration(3600 * predicted["hours_in_budget"])} within the budget'
            if predicted['hours_in_budget'] < predicted['hours']
            else ''
        )
        workers = predicted['workers']
        console.line(
            f'Predicted {duration(3600 * predicted["hours"])} with '
            f'{words.count(workers, "worker")}{limit}, of which '
            f'{duration(predicted["compile_seconds"] / workers)} compiling '
            f'{figures["programs"]} nets; what a pruner spares is not foreseen',
            always=True,
        )
    for reason, count in reasons.most_common(_SHOWN):
        console.line(f'Refused   {count} of {len(looked)} points: {reason}', always=True)
    if len(reasons) > _SHOWN:
        console.line(f'          and for {len(reasons) - _SHOWN} more reasons', always=True)


def _run_seconds(looked: Sequence[Mapping[str, Any]], net: _Net) -> float:
    return next(row['run_seconds'] for row in looked if row['values'] == net.values)
