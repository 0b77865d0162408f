"""TensorBoard through CLU, on a thread of its own so that nobody waits for TensorFlow's import."""

import dataclasses
import errno
import os
import pathlib
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from models.summary import Layer

# Of several runs in one process: imports in circles and matplotlib are not made for threads.
_ONE_AT_A_TIME = threading.Lock()


class TensorBoard:
    """Writes the event file of a run folder anew.

    The files of an earlier, killed session are removed: what they hold is in `metrics.jsonl`, and
    written again from there TensorBoard shows each step once.

    Args:
      folder: where the event file goes.
    """

    def __init__(self, folder: pathlib.Path):
        self._writer: Any = None
        self._closed = False
        self._missing = ''
        self._folder = folder
        self._pool = ThreadPoolExecutor(1, thread_name_prefix='tensorboard')
        self._jobs: list[Future] = [self._pool.submit(self._open, folder)]

    def introduce(self, fields: Mapping[str, Any], layers: Iterable[Layer]) -> None:
        """Writes the config, as hyperparameters and as text, and the model table."""
        simple = {
            name: value if isinstance(value, bool | int | float | str) else str(value)
            for name, value in fields.items()
        }
        headings = ('layer', 'output', 'parameters', 'FLOPs', 'receptive field')
        rows = [dataclasses.astuple(layer)[: len(headings)] for layer in layers]
        texts = {
            'config': _markdown(('field', 'value'), fields.items()),
            'model': _markdown(headings, rows),
        }
        self._submit(lambda: self._writer.write_hparams(simple))
        self._submit(lambda: self._writer.write_texts(0, texts))

    def scalars(self, line: Mapping[str, Any]) -> None:
        """Writes one line of `metrics.jsonl`; `train_loss` becomes the tag `train/loss`.

        Figures that do not exist, such as the accuracy of a regression, are left out. Of figures
        by part of the net, `gradient_norms` of the stem becomes `gradient_norms/stem`.
        """
        flat: dict[str, Any] = {}
        for name, value in line.items():
            of_parts = value.items() if isinstance(value, Mapping) else ()
            flat |= {f'{name}/{part}': v for part, v in of_parts} or {_tag(name): value}
        tags = {name: value for name, value in flat.items() if name != 'step' and value is not None}
        self._submit(lambda: self._writer.write_scalars(line['step'], tags))

    def image(self, step: int, tag: str, draw: Callable[[], np.ndarray]) -> None:
        """Writes the picture uint8 [H, W, 3] that `draw` gives; it is called on the thread.

        One that cannot be drawn is left out, and `close` says so: a run must not lose its result
        by a picture.
        """

        def write() -> None:
            try:
                with _ONE_AT_A_TIME:
                    picture = draw()
            except Exception as error:  # Whatever the libraries that draw may raise.
                self._missing = f'the picture {tag} is missing ({error})'
                return
            self._writer.write_images(step, {tag: picture[None]})

        self._submit(write)

    def close(self) -> str:
        """Waits until all is on disk; returns what is missing in the event files and why, or ''.

        May be called again. Raises what went wrong in writing, such as OSError.
        """
        if self._closed:
            return ''
        self._closed = True
        self._submit(lambda: self._writer.close())
        self._pool.shutdown()
        for job in self._jobs:
            try:
                job.result()
            except ImportError as error:
                return f'{error}: no TensorBoard events; metrics.jsonl holds the same figures'
            except Exception as error:  # TensorFlow has an error class of its own for this.
                full = os.strerror(errno.ENOSPC)
                if full in str(error):
                    raise OSError(errno.ENOSPC, full, str(self._folder)) from error
                raise
        return self._missing

    def _submit(self, job: Callable[[], None]) -> None:
        self._jobs.append(self._pool.submit(job))

    def _open(self, folder: pathlib.Path) -> None:
        # TensorFlow prints notices about itself as it is imported; nothing here needs oneDNN.
        os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
        os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')
        with _ONE_AT_A_TIME:
            from clu import metric_writers

        for path in folder.glob('events.out.tfevents.*'):
            path.unlink()
        self._writer = metric_writers.SummaryWriter(str(folder))


def _tag(name: str) -> str:
    group, _, rest = name.partition('_')
    return f'{group}/{rest}' if group in ('train', 'validation', 'stopping') else name


def _markdown(headings: Collection[str], rows: Iterable[Iterable[Any]]) -> str:
    lines = [headings, ['---' for _ in headings], *rows]
    return '\n'.join('| ' + ' | '.join(map(str, line)) + ' |' for line in lines)
