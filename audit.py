"""Looks at a data set before any training: what is in it, and what is wrong with it."""

import hashlib
import json
import pathlib
import re
from typing import Any

import numpy as np
from absl import flags
from PIL import Image

import command_line
from console import Console
from errors import UnusableDataError, UserError

_DATA = flags.DEFINE_string(
    'data', None, 'folder:PATH, npz:PATH, npy:FOLDER, tfds:NAME, or digits.'
)
_DATA_DIR = flags.DEFINE_string('data_dir', '', 'Folder of prepared TFDS sets.')
_WORKDIR = flags.DEFINE_string('workdir', None, 'Where to write; by default runs/audit-<name>.')
_MAX_UNREADABLE = flags.DEFINE_float(
    'max_unreadable', 0.05, 'Share of unreadable images above which the set is unusable.'
)
_PREVIEW = flags.DEFINE_string(
    'preview', None, 'Augmentation to show on the first images, such as photos,rotation=90.'
)

_USAGE = """
Looks at a data set before any training: counts, sizes and colours of each class, unreadable files,
equal and nearly equal images, dark, blurred and empty ones, and shortcuts.

  python audit.py --data=folder:photos
  python audit.py --data=folder:photos --preview=photos      what an augmentation does

Writes audit.json and a picture for each finding. Exit status: 0 clean, 1 warnings, 2 a mistake in
the command, 3 unusable for training, 130 interrupted.
"""
_SHOWN = 64  # Images on a picture.


def main() -> int:
    """Runs the command and returns its exit status."""
    if not _DATA.value:
        raise UserError('--data is missing: try --data=folder:PATH, or --help.')
    console = Console()
    folder = pathlib.Path(_WORKDIR.value or _default_workdir(_DATA.value))
    console.line(f'Leadline  audit of {_DATA.value}, written to {folder}')
    from data import augmentation

    policy = augmentation.parse(_PREVIEW.value) if _PREVIEW.value is not None else None
    try:
        source = _load(_DATA.value, console)
    except UnusableDataError as error:
        return _unusable(str(error), folder, console)
    _make(folder)
    if policy is not None:
        _picture(folder / 'preview.png', _preview(source, policy), columns=9)
        console.line(
            f'Preview   {augmentation.describe(policy)}: {folder / "preview.png"}, each image and '
            'eight draws of it'
        )
        return 0
    return _audit(source, folder, console)


def _load(data: str, console: Console) -> Any:
    """Loads the set as it is where that is small, else at 64 pixels; never cropped."""
    from data import sources, tabular
    from data.decode import Policy

    if data.partition(':')[0] in tabular.SOURCES:
        raise UserError(
            f'The audit looks at images, and {data} holds numbers: train on it as it is.'
        )
    if not data.startswith('folder:'):
        try:
            source = sources.load(data, _DATA_DIR.value, Policy(0, 'squeeze', 0), console)
            if max(source.inputs.shape[1:3]) <= 64:
                return source
        except UserError as error:
            if 'differ in size' not in str(error):
                raise
    return sources.load(data, _DATA_DIR.value, Policy(64, 'squeeze', 0), console)


def _audit(source: Any, folder: pathlib.Path, console: Console) -> int:
    from auditing import findings, suggestions

    found, figures = findings.audit(source, _MAX_UNREADABLE.value)
    suggestion = suggestions.suggest(source, suggestions.moves(source))
    _show(console, source, found, figures, suggestion)
    for old in folder.glob('*.png'):
        old.unlink()
    for finding in found:
        if finding.kind == 'shortcut':
            _picture(folder / 'shortcut.png', _mean_images(source))
        if finding.examples:
            indices = np.asarray(finding.examples).reshape(-1)[:_SHOWN]
            _picture(folder / f'{finding.kind}.png', source.inputs[indices])
    content = {
        'data': _DATA.value,
        'images': len(source.labels),
        'notes': list(source.notes),
        'unreadable': [
            {
                'name': name,
                'class': source.class_names[label] if label >= 0 else None,
                'reason': reason,
            }
            for name, label, reason in source.skipped
        ],
        'findings': [
            {'kind': f.kind, 'level': f.level, 'text': f.text, 'names': f.names} for f in found
        ],
        **figures,
        'suggestion': suggestion,
    }
    (folder / 'audit.json').write_text(json.dumps(content, indent=1) + '\n')
    levels = {finding.level for finding in found}
    verdict, status = (
        ('Unusable for training as it is', 3)
        if findings.OBSTACLE in levels
        else ('Look at the warnings before you train', 1)
        if findings.WARNING in levels
        else ('Clean', 0)
    )
    console.line(f'\n{verdict}. Figures, names and pictures are in {folder}')
    return status


def _make(folder: pathlib.Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f'Cannot make {folder} ({error.strerror}): choose another --workdir.'
        ) from error


def _unusable(reason: str, folder: pathlib.Path, console: Console) -> int:
    _make(folder)
    finding = {'kind': 'unusable', 'level': 'obstacle', 'text': reason, 'names': []}
    content = {'data': _DATA.value, 'images': 0, 'findings': [finding]}
    (folder / 'audit.json').write_text(json.dumps(content, indent=1) + '\n')
    console.line(f'obstacle  {reason}\n\nUnusable for training as it is.')
    return 3


def _mean_images(source: Any) -> np.ndarray:
    """Returns the mean image of each class, in which a shortcut shows."""
    present = [k for k in range(len(source.class_names)) if (source.labels == k).any()]
    means = [source.inputs[source.labels == k].mean(axis=0) for k in present]
    return np.round(np.stack(means)).astype(np.uint8)


def _show(console: Console, source: Any, found: list, figures: dict, suggestion: dict) -> None:
    for note in source.notes:
        console.line(f'          {note}')
    console.table(
        ['class', 'images', 'unreadable', 'width', 'height', 'aspect ratio', 'KiB', 'modes'],
        [
            [
                row['name'],
                f'{row["images"]:,}',
                f'{row["unreadable"]:,}',
                *(
                    [_range(row[name]) for name in ('width', 'height', 'aspect_ratio')]
                    + [_range(row['bytes'], 1024), ' '.join(row['modes'])]
                    if row['images']
                    else ['-'] * 5
                ),
            ]
            for row in figures['classes'][:50]
        ],
    )
    if figures['shortcuts']:
        console.line('\nBalanced accuracy of a simple classifier, in 5 folds, that sees only the')
        console.table(
            ['features', 'accuracy', '99 % interval', 'chance'],
            [
                [
                    name.replace('_', ' '),
                    f'{100 * probe["accuracy"]:.1f} %',
                    f'{100 * probe["low"]:.1f} to {100 * min(1, probe["high"]):.1f} %',
                    f'{100 * probe["chance"]:.1f} %',
                ]
                for name, probe in figures['shortcuts'].items()
            ],
        )
    console.line('')
    for finding in found:
        shown = ''
        if finding.names:
            first = finding.names[0]
            shown = f' ({" and ".join(first) if isinstance(first, list) else first}'
            shown += ', ...)' if len(finding.names) > 1 else ')'
        console.line(f'{finding.level:8}  {finding.text}{shown}')
    for line in suggestion['why']:
        console.line(f'moves     {line}')
    console.line(
        f'Start with --config.dataset.image_size={suggestion["image_size"]} '
        f'--config.batch_size={suggestion["batch_size"]} --config.augment={suggestion["augment"]}'
    )


def _range(spread: dict[str, float], unit: float = 1) -> str:
    least, most = (f'{spread[name] / unit:.4g}' for name in ('least', 'most'))
    return least if least == most else f'{least} to {most}'


def _preview(source: Any, policy: Any) -> np.ndarray:
    """Returns the first image of each class in turn, each followed by eight draws."""
    import jax

    from data import augmentation

    order = np.argsort(source.labels, kind='stable')
    starts = np.searchsorted(source.labels[order], np.arange(len(source.class_names)))
    chosen = order[np.minimum(starts[:, None] + np.arange(2), len(order) - 1).T.reshape(-1)[:10]]
    images = np.repeat(source.inputs[chosen], 9, axis=0)
    keys = jax.random.split(jax.random.key(0), len(images))
    levels = augmentation.augment(jax.numpy.asarray(images, np.float32) / 255, keys, policy)
    changed = np.round(np.asarray(levels) * 255).astype(np.uint8)
    changed[::9] = images[::9]
    return changed


def _picture(path: pathlib.Path, images_NHWC: np.ndarray, columns: int = 8) -> None:
    from data.contact_sheet import contact_sheet

    Image.fromarray(contact_sheet(np.asarray(images_NHWC), columns)).save(path)


def _default_workdir(data: str) -> pathlib.Path:
    """Returns runs/audit-<name>, with a hash where the name alone would not tell sets apart."""
    safe = re.sub(r'[^A-Za-z0-9._-]+', '_', pathlib.Path(data.rpartition(':')[2]).name)
    digest = hashlib.sha256(data.encode()).hexdigest()[:8]
    return pathlib.Path('runs') / (f'audit-{safe}' if safe == data else f'audit-{safe}-{digest}')


if __name__ == '__main__':
    command_line.run(main, _USAGE, takes='data')
