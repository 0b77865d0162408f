"""Planted truths: images of which it is known how deep a net must be, and what choose.py says.

  python benchmarks/planted.py                     the three sets: some 20 minutes on 2 cores
  python benchmarks/planted.py --only=near         one of them: near, far or noise
  python benchmarks/planted.py --json=FILE         the figures, with versions and hardware

Each image is 28 x 28, grey but for noise and two small dots, both black or both white. Its label
says whether the second dot lies beside the first or below it, for nine images of ten; the tenth
label is drawn by lot. All else is alike in both classes, so that a net learns nothing until it sees
both dots at once, and a linear classifier nothing at all, since black and white cancel. The nets of
the ladder see 3, 8, 18 and 38 pixels (height and width) with 1, 2, 3 and 4 convolutions:

  near   dots 4 pixels apart: two convolutions are needed, and more do not help
  far    dots 10 pixels apart: three are needed
  noise  labels by lot: nothing beats the smallest net

Nets of more than 6.5 million FLOPs are left out, to keep it short. The dots stay so far from the
border that no net sees it together with a dot sooner than both dots.
"""

import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from absl import app, flags

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

from benchmarks import report
from selection import choice
from selection.report import words

_ONLY = flags.DEFINE_string('only', '', 'The one set to try: near, far or noise.')
_BUDGET = flags.DEFINE_string('budget', '80runs', 'Of each, as of choose.py.')
_IMAGES, _SIDE = 1200, 28
_NOISE = 0.07  # Standard deviation; black is 0 and white 1.
_BY_LOT = 0.1  # Share of the labels.
_FLOPS = 6.5e6
_FIELDS = {'epochs': 20, 'batch_size': 64, 'augment': 'none', 'evaluate_every_epochs': 20,
           'dataset.group_by': 'none', 'pictures': False}  # fmt: skip


class Images(NamedTuple):
    """A set: float [N, side, side] from 0 to 1, and int [N]."""

    images: np.ndarray
    labels: np.ndarray


def pairs(apart: int, seed: int, count: int = _IMAGES) -> Images:
    """Returns images of two dots, `apart` pixels from each other; beside (0) or below (1)."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, count)
    images = 0.5 + _NOISE * rng.standard_normal((count, _SIDE, _SIDE))
    dots = rng.choice([-0.4, 0.4], count)
    across = np.array([apart - apart // 2, apart // 2])
    for image, below, dot in zip(images, truth, dots, strict=True):
        middle = _SIDE // 2 - 1 + rng.integers(-1, 2, 2)
        for step in (-across[0], across[1]):
            row, column = middle + np.array([step * below, step * (1 - below)])
            image[row : row + 2, column : column + 2] += dot
    lot = rng.random(count) < _BY_LOT
    labels = np.where(lot, rng.integers(0, 2, count), truth)
    return Images(images.clip(0, 1), labels)


def noise(seed: int) -> Images:
    """Returns such images with labels that have nothing to do with them."""
    labels = np.random.default_rng([seed, 1]).integers(0, 2, _IMAGES)
    return Images(pairs(4, seed).images, labels)


def _depth_is(depth: int) -> Callable[[choice.Choice], bool]:
    """Returns whether so many layers are found to be needed, and no more to be better.

    A deeper net may be recommended where it is cheaper than the rung of that depth: with half of
    the filters it often is.
    """

    def found(said: choice.Choice) -> bool:
        nets = {net.name: net for net in said.candidates}
        verdicts = [v for v in said.verdicts if v.idea == 'depth']
        beyond = [v.answer for v in verdicts if nets[v.reference].depth >= depth]
        up_to = [v.answer for v in verdicts
                 if nets[v.reference].depth < depth <= nets[v.name].depth]  # fmt: skip
        # A rung that is 3 points worse in its first run gets no verdict.
        chosen, rung = nets[said.recommended], nets[f'plain-{depth}']
        cheap = (chosen.flops or 0) <= (rung.flops or 0) or chosen.depth == depth
        right = chosen.depth >= depth and cheap and {*up_to} <= {'better'}
        return right and bool(beyond) and 'better' not in beyond

    return found


def _nothing(said: choice.Choice) -> bool:
    """Tells whether it is said that no net has learned anything."""
    chosen = said.candidate(said.recommended)
    smallest = min((net for net in said.candidates if net.flops), key=lambda net: net.flops or 0)
    return chosen == smallest and not words.beats_constant(said, smallest)


class Truth(NamedTuple):
    """A set, what is true of it, and whether that was said."""

    images: Callable[[], Images]
    truth: str
    found: Callable[[choice.Choice], bool]


TRUTHS = {
    'near': Truth(lambda: pairs(4, 0), '2 convolutions are needed, more do not help', _depth_is(2)),
    'far': Truth(lambda: pairs(10, 0), '3 convolutions are needed', _depth_is(3)),
    'noise': Truth(lambda: noise(0), 'nothing beats the smallest', _nothing),
}


def say(images: Images, folder: pathlib.Path, budget: str) -> choice.Choice:
    """Has choose.py choose a net for images and returns what it came to."""
    path = folder / 'images.npz'
    np.savez(path, images=np.uint8(255 * images.images), labels=images.labels)
    fields = [f'--config.{name}={value}' for name, value in _FIELDS.items()]
    subprocess.run(
        [sys.executable, 'choose.py', f'--config=configs/plain_small.py:npz:{path}', *fields,
         f'--budget={budget}', f'--max_flops={_FLOPS}', f'--workdir={folder / "choice"}',
         '--quiet'],
        cwd=pathlib.Path(__file__).parent.parent, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    return choice.read(folder / 'choice')


def main(argv: list[str]) -> None:
    """Tries the sets and prints what is said of each."""
    del argv
    figures = {}
    for name, (images, truth, found) in TRUTHS.items():
        if _ONLY.value not in ('', name):
            continue
        with tempfile.TemporaryDirectory() as folder:
            begun = time.perf_counter()
            said = say(images(), pathlib.Path(folder), _BUDGET.value)
            seconds = time.perf_counter() - begun
        print(f'\n{name}: {truth}: {"found" if found(said) else "NOT FOUND"}, {seconds:.0f} s')
        for net in said.candidates:
            if net.mean is not None:
                print(f'  {net.name:24} {100 * net.mean:5.1f} % in {net.runs} runs')
        for v in said.verdicts:
            print(f'  {v.name} against {v.reference}: {100 * v.difference:+.1f} '
                  f'± {100 * v.half_width:.1f} points in {v.runs} runs: {v.answer}')  # fmt: skip
        print(f'  {words.paragraph(said)}', flush=True)
        figures[name] = {
            'truth': truth, 'found': found(said), 'seconds': seconds,
            'recommended': said.recommended,
            'means': {net.name: net.mean for net in said.candidates},
            'verdicts': [[v.name, v.reference, v.difference, v.half_width, v.answer]
                         for v in said.verdicts],
        }  # fmt: skip
    report.write(figures)


if __name__ == '__main__':
    app.run(main)
