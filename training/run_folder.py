"""The run folder: the contract between commands. A kill never leaves half a file in it.

It holds config.json, metrics.jsonl, splits.json, predictions.npz, result.json, checkpoints/ and
TensorBoard's event files; README.md says what is in each.
"""

import contextlib
import hashlib
import io
import json
import math
import os
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import filelock
import numpy as np

from errors import BusyError, UserError, did_you_mean

FINAL = ('finished', 'early_stopped', 'diverged')
HOW = '.how.json'  # How `train_many` trains the run, where not as a command of its own would.


def default_workdir(
    config_argument: str, overrides: Mapping[str, Any], within: str = 'runs'
) -> pathlib.Path:
    """Returns `runs/<config>-<dataset>[-<overrides>]`, safe as a path.

    Args:
      config_argument: value of `--config`, such as `configs/resnet_small.py:fashion_mnist`.
      overrides: dotted fields given on the command line.
      within: folder in place of `runs`.
    """
    file, _, dataset = config_argument.partition(':')
    changed = [f'{name}={value}' for name, value in sorted(overrides.items())]
    # A pure function of the names, so that the same command finds its folder again.
    name = '-'.join([pathlib.Path(file).stem, dataset or 'digits', *changed])
    safe = re.sub(r'[^A-Za-z0-9._=-]+', '_', name)
    if safe != name or len(safe) > 120:
        safe = f'{safe[:110]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}'
    return pathlib.Path(within) / safe


class RunFolder:
    """The files of one run.

    Args:
      path: created by `claim` where it does not exist.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = pathlib.Path(path)

    @contextlib.contextmanager
    def claim(self, config: Any) -> Iterator[dict[str, Any] | None]:
        """Holds the folder for this process; gives the result of a run that has ended, or None.

        Raises:
          UserError: another process holds it, or it belongs to a run of another config.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f'Cannot make the run folder {self.path} ({error.strerror}): choose another '
                '--workdir.'
            ) from error
        lock = filelock.FileLock(self.path / '.lock')
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            raise BusyError(
                f'Another process is training in {self.path}: wait for it, or choose another '
                '--workdir.'
            ) from None
        try:
            self._check_config(config)
            result = self.read_json('result.json')
            if result and result['status'] not in FINAL:
                (self.path / 'result.json').unlink()  # Of a session that was interrupted.
                result = None
            yield result
        finally:
            lock.release()
            if not (self.path / 'config.json').exists():
                self._remove_if_empty()

    def _check_config(self, config: Any) -> None:
        there = self.read_json('config.json')
        if there is None:
            if any(not p.name.startswith('.') for p in self.path.iterdir()):
                raise UserError(
                    f'{self.path} holds files that are not of a run of Leadline: choose another '
                    '--workdir.'
                )
            return
        from configs import default  # Brings Flax with it, which who only reads does without.

        old, new = default.flatten(there), default.flatten(config)
        differing = [n for n in sorted(old.keys() | new.keys()) if old.get(n) != new.get(n)]
        if differing:
            changes = ', '.join(f'{n} ({old.get(n)!r} there)' for n in differing[:6])
            more = f' and {len(differing) - 6} more' if len(differing) > 6 else ''
            raise UserError(
                f'{self.path} holds a run of another config; it differs in {changes}{more}. '
                'Choose another --workdir, or delete that folder.'
            )

    def _remove_if_empty(self) -> None:
        """Leaves nothing behind of a run that a mistake in the config kept from starting."""
        with contextlib.suppress(OSError):
            for name in ('.lock', HOW):
                (self.path / name).unlink(missing_ok=True)
            self.path.rmdir()

    def has_checkpoints(self) -> bool:
        """Tells whether a run in this folder could go on."""
        return any((self.path / 'checkpoints').glob('[0-9]*'))

    def read_json(self, name: str) -> Any:
        """Returns the content of a JSON file of the folder, or None where there is none."""
        try:
            return json.loads((self.path / name).read_text())
        except FileNotFoundError:
            return None
        except json.JSONDecodeError as error:
            raise UserError(
                f'{self.path / name} is damaged ({error}): delete {self.path}, or choose another '
                '--workdir.'
            ) from error

    def write_json(self, name: str, value: Any) -> None:
        """Writes a JSON file, replacing it at once; figures that are not finite become null."""
        self._replace(name, (json.dumps(_finite(value), indent=1) + '\n').encode())

    def write_text(self, name: str, text: str) -> None:
        """Writes a text file, replacing it at once."""
        self._replace(name, text.encode())

    def write_arrays(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Writes an npz file, replacing it at once."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
        self._replace(name, buffer.getvalue())

    def append_metrics(self, line: Mapping[str, Any]) -> None:
        """Adds one evaluation to `metrics.jsonl`."""
        with (self.path / 'metrics.jsonl').open('a') as file:
            file.write(json.dumps(_finite(dict(line))) + '\n')

    def cut_metrics(self, step: int) -> None:
        """Removes the lines behind `step`, and one that a kill left half written."""
        kept = [line for line in self.read_metrics() if line['step'] <= step]
        self._replace('metrics.jsonl', ''.join(json.dumps(ln) + '\n' for ln in kept).encode())

    def read_metrics(self) -> list[dict[str, Any]]:
        """Returns the complete lines of `metrics.jsonl`."""
        try:
            text = (self.path / 'metrics.jsonl').read_text()
        except FileNotFoundError:
            return []
        lines: list[dict[str, Any]] = []
        with contextlib.suppress(json.JSONDecodeError):  # The last one, half written.
            for line in text.splitlines():
                lines.append(json.loads(line))
        return lines

    def _replace(self, name: str, content: bytes) -> None:
        temporary = self.path / f'.{name}.tmp'
        with temporary.open('wb') as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.path / name)


def read_run(folder: RunFolder) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns config and result of a run that has ended well.

    Raises:
      UserError: there is none.
    """
    path = folder.path
    if not path.is_dir():
        there = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise UserError(f'There is no run folder {path}.{did_you_mean(path.name, there)}')
    config, result = folder.read_json('config.json'), folder.read_json('result.json')
    if config is None:
        inside = sorted(p.parent.name for p in path.glob('*/config.json'))
        hint = f' It holds the runs {", ".join(inside[:5])}: name one.' if inside else ''
        raise UserError(f'{path} is no run folder: it holds no config.json.{hint}')
    if result is None or result['status'] == 'interrupted':
        raise UserError(
            f'The run in {path} has not ended: the train.py command that began it goes on.'
        )
    if result['status'] == 'diverged':
        raise UserError(
            f'The run in {path} diverged at step {result["diverged_step"]}: it has no weights '
            'worth going on with. Train again with a smaller --config.optimizer.learning_rate.'
        )
    if 'input_shape' not in result:
        raise UserError(f'The run in {path} is of an earlier version of Leadline: train it again.')
    if not folder.has_checkpoints():
        raise UserError(
            f'The run in {path} has no checkpoint ({path / "checkpoints"} is empty or gone): copy '
            'it there, or train again in another --workdir.'
        )
    return config, result


def config_hash(config: Any) -> str:
    """Returns 16 hexadecimal digits that follow every field of the config."""
    text = json.dumps(config.to_dict(), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(v) for name, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
