"""What a run came to: where its figures come from, and the table at the end."""

import importlib.metadata
import pathlib
import platform
import subprocess
import traceback
from typing import Any

from console import Console
from training import run_folder, tasks

_ROOT = pathlib.Path(__file__).parent.parent
_PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy')


def provenance(config: Any, device: dict[str, Any]) -> dict[str, Any]:
    """Returns what the figures of a run depend on: config, software, device, revision."""
    of_config = {'config_hash': run_folder.config_hash(config), 'dataset': config.dataset.name}
    return of_config | environment(device)


def environment(device: dict[str, Any]) -> dict[str, Any]:
    """Returns what any figure depends on: software, device, revision."""
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {
        'versions': {'python': platform.python_version(), **versions},
        'device': device,
        'git_revision': _git_revision(),
    }


def _git_revision() -> str | None:
    """Returns the commit of this code, '-dirty' where it was changed; None without git."""
    command = ['git', 'describe', '--always', '--abbrev=40', '--dirty', '--exclude=*']
    try:
        done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def deepest_own_frame(error: BaseException) -> str:
    """Returns file, line and source of the innermost frame of our own code in a traceback."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = pathlib.Path(frame.filename)
        if path.is_relative_to(_ROOT) and 'site-packages' not in path.parts:
            return f'{path.relative_to(_ROOT)}:{frame.lineno} ({frame.line})'
    return 'an unknown place'


def in_a_line(result: dict[str, Any]) -> str:
    """Returns how a run ended and its figures on the validation split, in a line."""
    step = result['diverged_step'] or result['last_step']
    ended = f'{result["status"].replace("_", " ")} at step {step}'
    figures = result['validation']
    if figures['examples'] is None:
        return ended
    columns = (
        (heading, written(figures[n])) for n, heading, written in tasks.of_result(result).columns
    )
    return f'{ended}; validation ' + ', '.join(' '.join(each) for each in columns)


def show(console: Console, folder: run_folder.RunFolder, result: dict[str, Any]) -> None:
    """Prints the result of a run and where to look next."""
    status, last = result['status'], result['last_step']
    if status == 'interrupted':
        saved = f'step {last} is saved in {folder.path}' if last else 'nothing was trained yet'
        console.line(f'Interrupted: {saved}. The same command goes on from there.', always=True)
        return
    if status == 'diverged':
        saved = result['saved_step']
        kept = f'the checkpoint of step {saved} is kept' if saved else 'no checkpoint was written'
        console.line(
            f'Diverged: the loss or its gradient was no number at step {result["diverged_step"]}; '
            f'{kept}. Try a smaller --config.optimizer.learning_rate, or '
            '--config.optimizer.clip_norm=1.',
            always=True,
        )
        return
    task = tasks.of_result(result)
    console.table(
        ['split', 'examples', *(heading for _, heading, _ in task.columns)],
        [
            [
                split,
                f'{figures["examples"]:,}',
                *(
                    '-' if figures[name] is None else written(figures[name])
                    for name, _, written in task.columns
                ),
            ]
            for split, figures in ((s, result[s]) for s in ('validation', 'test'))
            if figures['examples'] is not None
        ],
    )
    opened = result['test']['examples'] is not None
    if opened and (remark := task.remark(result)):
        console.line(remark, always=True)
    seconds = result['seconds']
    console.line(
        f'{status.replace("_", " ").capitalize()} at step {last}; the figures are those of step '
        f'{result["reported_step"]} ({result["reported_weights"]} weights). '
        f'{seconds["total"]:.0f} s, of which {seconds["train"]:.0f} s training and '
        f'{seconds["compile"]:.0f} s compiling.',
        always=True,
    )
    console.line(
        f'Everything is in {folder.path}; curves and pictures: '
        f'tensorboard --logdir {folder.path.parent}; what it means: '
        f'python report.py {folder.path}',
        always=True,
    )
