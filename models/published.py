"""From published state dicts (torchvision's and timm's layouts) to our parameters: names and axes.

To add a layout: one list of (pattern, replacement) in `LAYOUTS`.
"""

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

_Rules = Sequence[tuple[str, str | Callable[[re.Match], str]]]


def _from_0(stage: str, shift: int = 1) -> Callable[[re.Match], str]:
    """Counts blocks (and, shifted, stages) from 1; groups 1 and 2 are stage and block."""
    return lambda m: f'{stage}{int(m[1]) + shift}.block{int(m[2]) + 1}.'


_INVERTED = [
    (r'^(stage1\..*)conv_dw\.', r'\1depthwise.'), (r'^(stage1\..*)bn1\.', r'\1depthwise_norm.'),
    (r'^(stage1\..*)conv_pw\.', r'\1project.'), (r'^(stage1\..*)bn2\.', r'\1project_norm.'),
    (r'^(stage.*)conv_pw\.', r'\1expand.'), (r'^(stage.*)bn1\.', r'\1expand_norm.'),
    (r'^(stage.*)conv_dw\.', r'\1depthwise.'), (r'^(stage.*)bn2\.', r'\1depthwise_norm.'),
    (r'^(stage.*)conv_pwl\.', r'\1project.'), (r'^(stage.*)bn3\.', r'\1project_norm.'),
    (r'se\.conv_', 'squeeze.'),
    (r'^conv_stem\.', 'stem.'), (r'^bn1\.', 'stem_norm.'),
    (r'^conv_head\.', 'final.'), (r'^bn2\.', 'final_norm.'), (r'^classifier\.', 'head.logits.'),
]  # fmt: skip
_FIRST_STAGE = [
    (r'^(stage1\..*)block\.0\.0\.', r'\1depthwise.'),
    (r'^(stage1\..*)block\.0\.1\.', r'\1depthwise_norm.'),
    (r'^(stage1\..*)block\.2\.0\.', r'\1project.'),
    (r'^(stage1\..*)block\.2\.1\.', r'\1project_norm.'),
]
LAYOUTS: dict[str, list[_Rules]] = {
    'residual': [[  # torchvision and timm.
        (r'^conv1\.', 'stem.'), (r'^bn1\.', 'stem_norm.'),
        (r'^layer(\d+)\.(\d+)\.', _from_0('stage', 0)), (r'\.bn(\d)\.', r'.norm\1.'),
        (r'downsample\.0\.', 'shortcut.'), (r'downsample\.1\.', 'shortcut_norm.'),
        (r'^fc\.', 'head.logits.'),
    ]],
    'mobile': [
        [(r'^blocks\.(\d+)\.(\d+)\.', _from_0('stage')), *_INVERTED],  # timm.
        [  # torchvision's EfficientNet.
            (r'^features\.0\.0\.', 'stem.'), (r'^features\.0\.1\.', 'stem_norm.'),
            (r'^features\.8\.0\.', 'final.'), (r'^features\.8\.1\.', 'final_norm.'),
            (r'^features\.(\d+)\.(\d+)\.', _from_0('stage', 0)), *_FIRST_STAGE,
            (r'block\.\d\.fc1\.', 'squeeze.reduce.'), (r'block\.\d\.fc2\.', 'squeeze.expand.'),
            (r'block\.0\.0\.', 'expand.'), (r'block\.0\.1\.', 'expand_norm.'),
            (r'block\.1\.0\.', 'depthwise.'), (r'block\.1\.1\.', 'depthwise_norm.'),
            (r'block\.3\.0\.', 'project.'), (r'block\.3\.1\.', 'project_norm.'),
            (r'^classifier\.1\.', 'head.logits.'),
        ],
        [  # torchvision's MobileNetV2, after `_staged`.
            (r'^features\.0\.0\.', 'stem.'), (r'^features\.0\.1\.', 'stem_norm.'),
            (r'^features\.18\.0\.', 'final.'), (r'^features\.18\.1\.', 'final_norm.'),
            (r'^(stage1\..*)conv\.0\.0\.', r'\1depthwise.'),
            (r'^(stage1\..*)conv\.0\.1\.', r'\1depthwise_norm.'),
            (r'^(stage1\..*)conv\.1\.', r'\1project.'),
            (r'^(stage1\..*)conv\.2\.', r'\1project_norm.'),
            (r'conv\.0\.0\.', 'expand.'), (r'conv\.0\.1\.', 'expand_norm.'),
            (r'conv\.1\.0\.', 'depthwise.'), (r'conv\.1\.1\.', 'depthwise_norm.'),
            (r'conv\.2\.', 'project.'), (r'conv\.3\.', 'project_norm.'),
            (r'^classifier\.1\.', 'head.logits.'),
        ],
    ],
    'convnext': [
        [  # timm.
            (r'^stem\.0\.', 'stem.'), (r'^stem\.1\.', 'stem_norm.'),
            (r'^stages\.(\d+)\.blocks\.(\d+)\.', _from_0('stage')),
            (r'^stages\.(\d+)\.', lambda m: f'stage{int(m[1]) + 1}.'),
            (r'downsample\.0\.', 'downsample.norm.'), (r'downsample\.1\.', 'downsample.conv.'),
            (r'conv_dw\.', 'depthwise.'), (r'mlp\.fc1\.', 'expand.'), (r'mlp\.fc2\.', 'project.'),
            (r'gamma$', 'layer_scale'), (r'^head\.fc\.', 'head.logits.'),
        ],
        [  # torchvision: stages and what stands before them by turns.
            (r'^features\.0\.0\.', 'stem.'), (r'^features\.0\.1\.', 'stem_norm.'),
            (r'^features\.([2468])\.0\.', lambda m: f'stage{int(m[1]) // 2 + 1}.downsample.norm.'),
            (r'^features\.([2468])\.1\.', lambda m: f'stage{int(m[1]) // 2 + 1}.downsample.conv.'),
            (r'^features\.(\d)\.(\d+)\.',
             lambda m: f'stage{int(m[1]) // 2 + 1}.block{int(m[2]) + 1}.'),
            (r'block\.0\.', 'depthwise.'), (r'block\.2\.', 'norm.'), (r'block\.3\.', 'expand.'),
            (r'block\.5\.', 'project.'),
            (r'^classifier\.0\.', 'head.norm.'), (r'^classifier\.2\.', 'head.logits.'),
        ],
    ],
}  # fmt: skip
_LEAVES = {'weight': 'scale', 'running_mean': 'mean', 'running_var': 'var', 'bias': 'bias'}


def convert(
    model: Mapping[str, Any], state: Mapping[str, np.ndarray], targets: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Returns the arrays of a published state dict by our names, with axes in our order.

    Args:
      model: `config.model`.
      state: arrays by their published names.
      targets: shapes of `params` and `batch_stats` by names such as `params/stem/kernel`.

    Returns:
      An array for each target, but for those of the dense layers of the head where one differs.

    Raises:
      ValueError: the state dict is of another net; the text says how.
    """
    placed = _best_layout(model, state, targets)
    head = {name for name in targets if re.match(r'params/head/(logits|dense\d+)/', name)}
    missing = [name for name in targets if name not in placed and name not in head]
    if missing:
        raise ValueError(f'they have nothing for {_some(missing)}')
    wrong = [name for name in placed if placed[name].shape != targets[name].shape]
    if strange := [name for name in wrong if name not in head]:
        raise ValueError(
            f'{strange[0]} has the shape {placed[strange[0]].shape} there, and '
            f'{targets[strange[0]].shape} here'
        )
    left_out = head if wrong or not head <= placed.keys() else set()
    return {name: placed[name] for name in targets if name not in left_out}


def _best_layout(
    model: Mapping[str, Any], state: Mapping[str, np.ndarray], targets: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Returns arrays by our names, by the layout that knows most of the published ones."""
    if model['family'] not in LAYOUTS:
        raise ValueError(f'layouts are known for the families {", ".join(LAYOUTS)} alone')
    names = [name for name in state if not name.endswith('num_batches_tracked')]
    best: dict[str, np.ndarray] = {}
    strangers = names
    for rules in LAYOUTS[model['family']]:
        placed, unknown = {}, []
        for name in names:
            where = _place(_renamed(name, rules, model), targets)
            if where:
                placed[where] = _as_ours(np.asarray(state[name]), targets[where].ndim)
            else:
                unknown.append(name)
        if len(unknown) < len(strangers) or not best:
            best, strangers = placed, unknown
    if strangers:
        raise ValueError(f'the net has no place for {_some(strangers)}')
    return best


def _renamed(name: str, rules: _Rules, model: Mapping[str, Any]) -> str:
    name = re.sub(r'^features\.(\d+)\.conv\.', lambda m: _staged(int(m[1]), model), name)
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def _staged(index: int, model: Mapping[str, Any]) -> str:
    """Returns stage and block of the block with this number, counted from 1 through all stages."""
    ends = list(itertools.accumulate(model['stage_sizes']))
    stage = next((i for i, end in enumerate(ends) if index <= end), None)
    if stage is None:
        return f'block {index}.conv.'
    first = ends[stage] - model['stage_sizes'][stage]
    return f'stage{stage + 1}.block{index - first}.conv.'


def _place(name: str, targets: Mapping[str, Any]) -> str:
    """Returns our name of the array, '' where we have none: kernel, bias, or part of a norm."""
    module, _, leaf = name.rpartition('.')
    path = module.replace('.', '/')
    options = [f'params/{path}/kernel'] if leaf == 'weight' else []
    options.append(f'params/{path}/{leaf}')
    for norm in ('batch', 'layer'):
        for collection in ('params', 'batch_stats'):
            options.append(f'{collection}/{path}/{norm}/{_LEAVES.get(leaf, leaf)}')
    return next((option for option in options if option in targets), '')


def _as_ours(array: np.ndarray, ndim: int) -> np.ndarray:
    """Turns [out, in, h, w] into [h, w, in, out], [out, in] into [in, out]; 1x1 where asked for."""
    if array.ndim == 3:  # A layer scale, [channels, 1, 1].
        array = array.reshape(-1)
    array = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
    if array.ndim == 2 and ndim == 4:
        return array[None, None]
    return array[0, 0] if array.ndim == 4 and ndim == 2 else array


def _some(names: Sequence[str]) -> str:
    return ', '.join(names[:3]) + (f' and {len(names) - 3} more' if len(names) > 3 else '')
