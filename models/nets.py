"""Published nets by name: fields of the families, with their exact parameter counts.

To add a net: one line in `NETS`; `--config=configs/nets.py:NAME:DATASET` trains it.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from models.scaling import round_filters


@dataclasses.dataclass(frozen=True)
class Net:
    """One published net.

    Attributes:
      family: of `models.FAMILIES`.
      source: where it was published.
      parameters: with `input_shape` and `classes`; batch norm's running statistics not counted.
      input_shape: of one example, as published, to which the count belongs: height, width and
        channels; or features; or times and features.
      classes: as published; 1 for a number.
      fields: of the family, where they differ from its defaults.
      training: config fields that the net needs to train at all, where they differ.
    """

    family: str
    source: str
    parameters: int
    input_shape: tuple[int, ...] = (224, 224, 3)
    classes: int = 1000
    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    training: Mapping[str, Any] = dataclasses.field(default_factory=dict)


# VGG and LeNet: without norm layers a rate of 0.1 makes them diverge; the paper's is 0.01.
_SLOW = {'optimizer.learning_rate': 0.01}
_ADAMW = {'optimizer.name': 'adamw', 'optimizer.learning_rate': 1e-3,
          'optimizer.weight_decay': 0.05}  # fmt: skip
_CIFAR: dict[str, Any] = {'input_shape': (32, 32, 3), 'classes': 10}
_LENET: dict[str, Any] = {
    'stage_sizes': (1, 1), 'norm': 'none', 'padding': 'valid', 'head.pooling': 'flatten',
    'kernel_init': 'glorot_uniform',
}  # fmt: skip


def _vgg(stage_sizes: tuple[int, ...], parameters: int, norm: str) -> Net:
    return Net(
        'plain', 'Simonyan and Zisserman 2014, table 1' + (', with batch norm' * (norm == 'batch')),
        parameters,
        fields={
            'stage_sizes': stage_sizes, 'filters': (64, 128, 256, 512, 512), 'norm': norm,
            'bias': 'always', 'head.pooling': 'flatten', 'head.dense_units': (4096, 4096),
            'head.dropout': 0.5,
        },
        training=_SLOW,
    )  # fmt: skip


def _resnet(stage_sizes: tuple[int, ...], parameters: int, block: str) -> Net:
    return Net(
        'residual', 'He et al. 2016, "Deep Residual Learning", table 1', parameters,
        fields={'stage_sizes': stage_sizes, 'width': 64, 'stem': 'large', 'block': block},
    )  # fmt: skip


def _cifar_resnet(depth: int, parameters: int, **fields: Any) -> Net:
    """ResNet-(6n + 2); the paper's shortcuts have no parameters (option A)."""
    size = (depth - 2) // 6
    fields = {'stage_sizes': (size,) * 3, 'shortcut': 'identity', **fields}
    source = 'He et al. 2016, "Deep Residual Learning", section 4.2'
    if 'preactivation' in fields:
        source = 'He et al. 2016, "Identity Mappings", table 2'
    return Net('residual', source, parameters, **_CIFAR, fields=fields)


def _wide(depth: int, k: int, parameters: int) -> Net:
    return Net(
        'residual', 'Zagoruyko and Komodakis 2016, table 1', parameters, **_CIFAR,
        fields={
            'stage_sizes': ((depth - 4) // 6,) * 3, 'width': 16 * k, 'stem_width': 16,
            'preactivation': True,
        },
    )  # fmt: skip


def _efficientnet(
    number: int, width: float, depth: float, size: int, dropout: float, parameters: int
) -> Net:
    """EfficientNet-B`number`: B0 times `width` and `depth`, which rounds up."""
    # B5 to B7 are known with the norm of the original, B0 to B4 were trained anew in PyTorch.
    norm = {'norm_epsilon': 1e-3, 'norm_momentum': 0.99} if number > 4 else {}
    return Net(
        'mobile', 'Tan and Le 2019, "EfficientNet", table 1', parameters, (size, size, 3),
        fields={
            'stage_sizes': tuple(math.ceil(n * depth) for n in (1, 2, 2, 3, 3, 4, 1)),
            'filters': tuple(round_filters(n * width) for n in (16, 24, 40, 80, 112, 192, 320)),
            'stem_width': round_filters(32 * width), 'head_width': round_filters(1280 * width),
            'strides': (1, 2, 2, 2, 1, 2, 1), 'expansions': (1, 6, 6, 6, 6, 6, 6),
            'kernels': (3, 3, 5, 3, 5, 5, 3), 'squeeze_excitation': 0.25, 'activation': 'silu',
            'stochastic_depth': 0.2, 'head.dropout': dropout, **norm,
        },
    )  # fmt: skip


def _convnext(stage_sizes: tuple[int, ...], parameters: int, drop: float, **fields: Any) -> Net:
    source, shape = 'Liu et al. 2022, section 3', {}
    if fields:
        source, shape = 'Leadline: the blocks of Liu et al. 2022, for small images', _CIFAR
    return Net(
        'convnext', source, parameters, **shape,
        fields={'stage_sizes': stage_sizes, 'stochastic_depth': drop, **fields}, training=_ADAMW,
    )  # fmt: skip


NETS: dict[str, Net] = {
    'lenet5': Net(
        'plain', 'LeCun et al. 1998, section II.B, C3 fully connected', 61_706, (32, 32, 1), 10,
        {**_LENET, 'filters': (6, 16), 'kernel_size': 5, 'pooling': 'average',
         'activation': 'tanh', 'head.dense_units': (120, 84)},
        training=_SLOW,
    ),
    'keras_cnn': Net(
        'plain', 'Keras, "Simple MNIST convnet"', 34_826, (28, 28, 1), 10,
        {**_LENET, 'filters': (32, 64), 'head.dropout': 0.5},
        training={**_ADAMW, 'optimizer.weight_decay': 0.0},
    ),
    'vgg11': _vgg((1, 1, 2, 2, 2), 132_863_336, 'none'),
    'vgg13': _vgg((2, 2, 2, 2, 2), 133_047_848, 'none'),
    'vgg16': _vgg((2, 2, 3, 3, 3), 138_357_544, 'none'),
    'vgg19': _vgg((2, 2, 4, 4, 4), 143_667_240, 'none'),
    'vgg11_bn': _vgg((1, 1, 2, 2, 2), 132_868_840, 'batch'),
    'vgg13_bn': _vgg((2, 2, 2, 2, 2), 133_053_736, 'batch'),
    'vgg16_bn': _vgg((2, 2, 3, 3, 3), 138_365_992, 'batch'),
    'vgg19_bn': _vgg((2, 2, 4, 4, 4), 143_678_248, 'batch'),
    'resnet18': _resnet((2, 2, 2, 2), 11_689_512, 'basic'),
    'resnet34': _resnet((3, 4, 6, 3), 21_797_672, 'basic'),
    'resnet50': _resnet((3, 4, 6, 3), 25_557_032, 'bottleneck'),
    'resnet101': _resnet((3, 4, 23, 3), 44_549_160, 'bottleneck'),
    'resnet152': _resnet((3, 8, 36, 3), 60_192_808, 'bottleneck'),
    'resnet20': _cifar_resnet(20, 269_722),
    'resnet32': _cifar_resnet(32, 464_154),
    'resnet44': _cifar_resnet(44, 658_586),
    'resnet56': _cifar_resnet(56, 853_018),
    'resnet110': _cifar_resnet(110, 1_727_962),
    'preact_resnet110': _cifar_resnet(110, 1_727_962, preactivation=True),
    'wrn16_4': _wide(16, 4, 2_748_890),
    'wrn40_4': _wide(40, 4, 8_949_210),
    'wrn28_10': _wide(28, 10, 36_479_194),
    'resnet9': Net(
        'residual', 'the shape of Page 2018, "How to train your ResNet", part 4', 6_573_130,
        **_CIFAR,
        fields={'stage_sizes': (1, 0, 1), 'width': 128, 'stem_width': 64, 'pooling': 'max',
                'transition': 'conv', 'head.pooling': 'global_max'},
    ),
    'xception_small': Net(
        'xception', 'Keras, "Image classification from scratch", with a softmax of two',
        2_723_802, (180, 180, 3), 2,
        {'head.dropout': 0.25, 'bias': 'always', 'kernel_init': 'glorot_uniform'},
        training={**_ADAMW, 'optimizer.weight_decay': 0.0},
    ),
    'mobilenet_v2': Net(
        'mobile', 'Sandler et al. 2018, table 2', 3_504_872, fields={'head.dropout': 0.2}
    ),
    'efficientnet_b0': _efficientnet(0, 1.0, 1.0, 224, 0.2, 5_288_548),
    'efficientnet_b1': _efficientnet(1, 1.0, 1.1, 240, 0.2, 7_794_184),
    'efficientnet_b2': _efficientnet(2, 1.1, 1.2, 260, 0.3, 9_109_994),
    'efficientnet_b3': _efficientnet(3, 1.2, 1.4, 300, 0.3, 12_233_232),
    'efficientnet_b4': _efficientnet(4, 1.4, 1.8, 380, 0.4, 19_341_616),
    'efficientnet_b5': _efficientnet(5, 1.6, 2.2, 456, 0.4, 30_389_784),
    'efficientnet_b6': _efficientnet(6, 1.8, 2.6, 528, 0.5, 43_040_704),
    'efficientnet_b7': _efficientnet(7, 2.0, 3.1, 600, 0.5, 66_347_960),
    'convnext_tiny': _convnext((3, 3, 9, 3), 28_589_128, 0.1),
    'convnext_small': _convnext((3, 3, 27, 3), 50_223_688, 0.4),
    'convnext_cifar': _convnext((2, 2, 4), 2_675_146, 0.1, width=64, patch_size=2),
    'dense_16': Net(
        'dense', 'Keras, "Structured data classification", one hidden layer', 193, (10,), 2,
        {'hidden_units': (16,), 'head.outputs': 'sigmoid'},
    ),
    'lstm_64_32': Net(
        'recurrent', 'Keras, stacked LSTM for a series', 29_345, (24, 1), 1, {'units': (64, 32)},
    ),
}  # fmt: skip
