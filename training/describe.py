"""What `train.py --describe` says of a config: what its net is, costs and needs. Trains nothing.

Figures by arithmetic stand beside those XLA counts in its programs; seconds come from a
few real steps on the real data, whose state is thrown away. Nothing is written but caches.
"""

import contextlib
import dataclasses
import functools
import time
from typing import Any

import psutil

from console import Console, size
from errors import UserError
from models import convolution, summary
from training import memory, results, timing
from training import step as training_step
from training.prepared import Prepared, open_devices

# What a run loads only after its first step: TensorFlow for TensorBoard's events, matplotlib for
# pictures, orbax's threads; measured with the versions of requirements.txt.
_LOADED_LATER_BYTES = 600 * 2**20


def describe(config: Any, quiet: bool = False) -> dict[str, Any]:
    """Describes the net of a config and predicts time and memory of its training.

    Args:
      config: as from `configs/default.py`.
      quiet: print the figures without the table of layers and the data.

    Returns:
      What is printed: `layers` (the fields of `models.summary.Layer`), totals for one example
      (`parameters`, `multiply_adds`, `flops`, `activation_bytes`), `xla` (FLOPs for one example
      of both programs, null where XLA does not say; bytes on each device; seconds of compiling),
      `predicted` (seconds, bytes), `concerns`, and where the figures come from.

    Raises:
      UserError: something the user can mend, such as a net that memory cannot hold.
    """
    started = time.perf_counter()
    devices = open_devices(config)
    if config.debug_nans:
        raise UserError('--describe looks at compiled programs: leave out --config.debug_nans.')
    console = Console(quiet)
    console.line(
        f'Leadline  {config.dataset.name} on {devices.describe()}, described and not trained',
        always=True,
    )
    with contextlib.closing(Prepared(config, devices, console)) as run:
        console.model(run.layers, memory=True)
        figures = _net(run) | results.provenance(config, devices.facts())
        run.load_weights(console)
        run.place_data()
        state = devices.replicate(run.initial_state())
        start_up = time.perf_counter() - started
        count = run.dispatch_length(0)
        program, _ = run.train_program(state, 0, count)
        plan = run.check_program(program)
        seconds, state = timing.step_seconds(run, state, count)
        batch_seconds = timing.batch_seconds(run, state)
        figures['xla'] = {
            **_counted_flops(run, state),
            'bytes': plan,
            'compile_seconds': run.compile_seconds,
        }
        figures['predicted'] = {
            'step_seconds': seconds,
            **_predicted_seconds(run, seconds, batch_seconds, start_up + run.compile_seconds),
            **_predicted_bytes(run, plan),
        }
    _show(console, run, figures)
    return figures


def _net(run: Prepared) -> dict[str, Any]:
    """Returns what arithmetic says; all figures but those of the layers are for one example."""
    rows, remat = run.layers, run.config.model.get('remat', False)
    flops = sum(row.flops for row in rows)
    return {
        'layers': [dataclasses.asdict(row) for row in rows],
        'parameters': sum(row.parameters for row in rows),
        'multiply_adds': flops // 2,
        'flops': flops,
        'activation_bytes': memory.activation_bytes(rows, remat),
        'concerns': summary.concerns(rows),
    }


def _counted_flops(run: Prepared, state: Any) -> dict[str, float | None]:
    """Returns the FLOPs of one example that XLA counts in both programs, not yet optimized."""
    batch, _ = next(run.pipeline.eval_batches('validation'))
    _, training = run.train_program(state, 0, 1)
    _, evaluation = run.eval_program(state.reported(), batch)
    steps = functools.partial(training_step.train_steps, run.recipe)
    step = functools.partial(training_step.eval_step, run.recipe)
    counts = {}
    with convolution.left_to_xla():  # Operations of other libraries have no FLOPs for it.
        for name, mapped, arguments in (
            ('training_flops', run.devices.map_train(steps), training),
            ('evaluation_flops', run.devices.map_eval(step), evaluation),
        ):
            count = (mapped.lower(*arguments).cost_analysis() or {}).get('flops')
            counts[name] = count and count * run.devices.count / run.config.batch_size
    return counts


def _predicted_seconds(run: Prepared, step: float, batch: float, before: float) -> dict[str, float]:
    """Returns the seconds of an evaluation, an epoch with its evaluations, and the whole run.

    Writing is in none of them: checkpoints are written while training goes on; pictures and
    TensorBoard's events keep a short run waiting some seconds at its end.

    Args:
      run: gives the plan.
      step: seconds of a training step.
      batch: seconds of a batch in evaluation.
      before: seconds until the first step.
    """
    each, last = timing.evaluated_batches(run)
    evaluation = batch * each
    training = run.total_steps * step + timing.evaluations(run) * evaluation
    return {
        'evaluation_seconds': evaluation,
        'epoch_seconds': run.steps_per_epoch * (step + evaluation / run.evaluation_steps),
        'total_seconds': before + training + batch * last,
    }


def _predicted_bytes(run: Prepared, plan: dict[str, int]) -> dict[str, int | None]:
    """Returns the peak of the process on the host, and of a device with memory of its own.

    On the host that is what this process holds by now, which has done all that training does but
    for what a run loads later; on CPU the temporaries of a step come on top.
    """
    own = run.devices.platform != 'cpu'
    host = psutil.Process().memory_info().rss + _LOADED_LATER_BYTES
    if not own:
        host += plan.get('temporaries', 0) * run.devices.count
    return {'host_peak_bytes': host, 'device_peak_bytes': plan.get('total') if own else None}


def _show(console: Console, run: Prepared, figures: dict[str, Any]) -> None:
    config, xla, predicted = run.config, figures['xla'], figures['predicted']
    flops, examples = figures['flops'], config.batch_size // run.devices.count
    console.line(
        f'Model     {config.model.family}: {figures["parameters"]:,} parameters, '
        f'{figures["multiply_adds"]:,} multiply-adds ({flops:,} FLOPs) per example forward',
        always=True,
    )
    counted = (
        ('evaluation', flops * (1 + config.evaluate_mirrored), xla['evaluation_flops']),
        ('training', 3 * flops, xla['training_flops']),  # Backward costs twice forward.
    )
    console.table(
        ['FLOPs per example', 'by arithmetic', 'by XLA', 'ratio'],
        [
            [name, f'{ours:,}', f'{theirs:,.0f}', f'{theirs / max(1, ours):.2f}']
            if theirs
            else [name, f'{ours:,}', '-', '-']
            for name, ours, theirs in counted
        ],
    )
    plan = {what: size(count) for what, count in xla['bytes'].items()}
    planned = (
        '; XLA plans {total}: arguments {arguments}, temporaries {temporaries}, output {output} '
        '({aliased} of it in the arguments), code {code}'.format(**plan)
        if plan
        else ''
    )
    console.line(
        f'Memory    outputs of the layers in a training step of {examples} examples on a device '
        f'{size(examples * figures["activation_bytes"])}{planned}\n'
        f'Time      a step {predicted["step_seconds"]:.3g} s, an evaluation '
        f'{predicted["evaluation_seconds"]:.3g} s, compiling {xla["compile_seconds"]:.1f} s\n'
        f'Predicted {predicted["epoch_seconds"]:.3g} s an epoch with its evaluations, '
        f'{_duration(predicted["total_seconds"])} for {config.epochs:g} epochs; peak memory '
        f'{size(predicted["host_peak_bytes"])} of the process'
        + (f', {size(predicted["device_peak_bytes"])} of a device'
           if predicted['device_peak_bytes'] else ''),
        always=True,
    )  # fmt: skip
    for text in figures['concerns']:
        console.line(f'Warning   {text}', always=True)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f'{hours}:{minutes:02}:{seconds:02} hours' if hours else f'{minutes}:{seconds:02} min'
