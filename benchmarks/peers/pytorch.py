"""PyTorch, as its performance guide has it: channels_last, fused SGD, AMP for bfloat16.

Also, on a GPU, TF32 and cudnn.benchmark. The threads are as many as PyTorch takes by default.
"""

import itertools

import torch
import torchvision
from torch import nn
from torch.nn import functional

from benchmarks.peers.worker import LEARNING_RATE, MOMENTUM, WEIGHT_DECAY, Case


def plain(classes: int) -> nn.Module:
    """Returns the net of configs/plain_small.py."""
    layers: list[nn.Module] = []
    for channels, filters in ((3, 32), (32, 64), (64, 128)):
        conv = nn.Conv2d(channels, filters, 3, padding=1, bias=False)
        layers += [conv, nn.BatchNorm2d(filters), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, classes)]
    return nn.Sequential(*layers[:-1], *head)  # No pooling after the last convolution.


class Block(nn.Module):
    """Two convolutions + input, subsampled and padded with zeros where the shape changes."""

    def __init__(self, channels: int, filters: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, filters, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(filters)
        self.conv2 = nn.Conv2d(filters, filters, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(filters)
        self.stride, self.added = stride, filters - channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps [B, C, H, W] to [B, F, H / stride, W / stride]."""
        y = functional.relu(self.norm1(self.conv1(x)), inplace=True)
        y = self.norm2(self.conv2(y))
        if self.added:
            x = x[:, :, :: self.stride, :: self.stride]
            x = functional.pad(x, (0, 0, 0, 0, 0, self.added))
        return functional.relu(y + x, inplace=True)


def resnet20(classes: int) -> nn.Module:
    """Returns the net of He et al. 2016, section 4.2, with shortcuts without parameters."""
    stem = [nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True)]
    widths = [16, *[16] * 3, *[32] * 3, *[64] * 3]
    blocks = [Block(c, f, 1 if c == f else 2) for c, f in itertools.pairwise(widths)]
    return nn.Sequential(
        *stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes)
    )


def resnet18_small(classes: int) -> nn.Module:
    """Returns ResNet-18 with the first layers for small images."""
    net = torchvision.models.resnet18(num_classes=classes)
    net.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    net.maxpool = nn.Identity()
    return net


NETS = {
    'plain': plain,
    'resnet20': resnet20,
    'resnet18': lambda classes: torchvision.models.resnet18(num_classes=classes),
    'resnet18_small': resnet18_small,
    'resnet50': lambda classes: torchvision.models.resnet50(num_classes=classes),
    'efficientnet_b0': lambda classes: torchvision.models.efficientnet_b0(num_classes=classes),
}


class Contender:
    """Trains a case eagerly, or with `torch.compile` where the option is 'compile'."""

    def __init__(self, case: Case, option: str):
        self._gpu = torch.cuda.is_available()
        if self._gpu:
            torch.backends.cudnn.benchmark = True
            torch.set_float32_matmul_precision('high')
        device = torch.device('cuda' if self._gpu else 'cpu')
        self._net = NETS[case.net](case.classes).to(device, memory_format=torch.channels_last)
        mean, deviation = (torch.from_numpy(s).view(1, 3, 1, 1) for s in case.statistics())
        self._mean, self._deviation = mean.to(device), deviation.to(device)
        self._amp = torch.autocast(device.type, torch.bfloat16, case.dtype == 'bfloat16')
        kernels = [p for p in self._net.parameters() if p.ndim > 1]
        others = [p for p in self._net.parameters() if p.ndim == 1]
        self._optimizer = torch.optim.SGD(
            [{'params': kernels, 'weight_decay': WEIGHT_DECAY}, {'params': others}],
            LEARNING_RATE, MOMENTUM, nesterov=True, fused=True,
        )  # fmt: skip
        self._loss = torch.compile(self._forward) if option == 'compile' else self._forward
        self._batches = itertools.cycle(
            [
                (
                    torch.from_numpy(images).to(device, non_blocking=True).permute(0, 3, 1, 2),
                    torch.from_numpy(labels).to(device, torch.int64, non_blocking=True),
                )
                for images, labels in case.batches()
            ]
        )

    def _forward(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        with self._amp:
            logits = self._net((images.float() - self._mean) / self._deviation)
            return functional.cross_entropy(logits, labels)

    def facts(self):
        return {
            'parameters': sum(p.numel() for p in self._net.parameters()),
            'platform': 'gpu' if self._gpu else 'cpu',
            'device': torch.cuda.get_device_name()
            if self._gpu
            else f'{torch.get_num_threads()} threads',
            'versions': {'torch': torch.__version__, 'torchvision': torchvision.__version__},
        }

    def start(self):
        self.steps(1)

    def steps(self, count):
        for images, labels in itertools.islice(self._batches, count):
            loss = self._loss(images, labels)
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self._optimizer.step()
        if self._gpu:
            torch.cuda.synchronize()
        return count, loss.item()

    def device_peak_bytes(self):
        return torch.cuda.max_memory_allocated() if self._gpu else None
