"""What to start with: image size, batch size, and augmentations that keep images as they are."""

from typing import Any

import numpy as np

from auditing import shortcuts
from data.listing import Source

_TOLD_APART = 0.4  # Skill at telling moved images apart, above which a move is not natural.
_MOVES = {
    'horizontal_flip': ('mirrored left to right', lambda x: x[:, :, ::-1]),
    'vertical_flip': ('mirrored top to bottom', lambda x: x[:, ::-1]),
    'rotation': ('turned by a right angle', lambda x: x.swapaxes(1, 2)[:, ::-1]),
}


def moves(source: Source) -> dict[str, shortcuts.Probe]:
    """Returns, for each move, how well moved images can be told from the others.

    Half of the images, at random, are moved; a simple classifier is cross-validated on which. Near
    one half, moved images look like any other of the set.
    """
    generator = np.random.default_rng(0)
    chosen = np.sort(generator.permutation(len(source.labels))[: shortcuts.MOST_IMAGES])
    images_NHWC = source.inputs[chosen]
    if len(images_NHWC) < 20 or images_NHWC.shape[1] != images_NHWC.shape[2]:
        return {}
    moved = generator.permutation(len(images_NHWC)) % 2
    found = {}
    for name, (_, move) in _MOVES.items():
        shown = np.where(moved[:, None, None, None] == 1, move(images_NHWC), images_NHWC)
        found[name] = shortcuts.cross_validated(name, shortcuts.thumbnails(shown), moved)
    return found


def suggest(source: Source, moved: dict[str, shortcuts.Probe]) -> dict[str, Any]:
    """Returns what to start with: image_size, batch_size and augment, and why (lines of text)."""
    side = int(np.median(np.minimum(source.files['width'], source.files['height'])))
    size = 0 if side <= 64 and _one_size(source) else min(64, 8 * max(1, round(side / 8)))
    # About 20 steps for an epoch of 60 % of the images, as a power of 2.
    batch = int(2 ** np.clip(round(np.log2(max(1, 0.6 * len(source.labels) / 20))), 4, 7))
    natural = {
        name
        for name, probe in moved.items()
        if probe.high < probe.chance + _TOLD_APART * (1 - probe.chance)
    }
    policy = []
    if 'horizontal_flip' in natural:
        policy.append('horizontal_flip=0.5')
    if 'vertical_flip' in natural:
        policy.append('vertical_flip=0.5')
    policy.append('rotation=180' if {'rotation', 'vertical_flip'} <= natural else 'rotation=10')
    policy.append('resized_crop=0.5' if size else 'translation=0.08,fill=black')
    if source.inputs.shape[-1] == 3:
        policy.append('brightness=0.2,contrast=0.2,saturation=0.2')
    lines = []
    for name, probe in moved.items():
        verdict = 'hardly differ' if name in natural else 'differ'
        if name not in natural and not probe.skill_exceeds(0):
            verdict = 'are too few to see whether they differ'
        hint = '' if name in natural else f': use {name} only where the class stays the same'
        lines.append(
            f'images {_MOVES[name][0]} {verdict} from the others (told apart in '
            f'{100 * probe.accuracy:.0f} %; chance 50 %){hint}'
        )
    return {'image_size': size, 'batch_size': batch, 'augment': ','.join(policy), 'why': lines}


def _one_size(source: Source) -> bool:
    return all(np.ptp(source.files[side]) == 0 for side in ('width', 'height'))
