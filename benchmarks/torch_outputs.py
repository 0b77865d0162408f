"""Do published nets compute here what they compute in PyTorch? And do their state dicts load?

    pip install -r requirements-bench.txt
    python benchmarks/torch_outputs.py

Each net is built in PyTorch by the library that publishes it, filled with random weights, and its
state dict read into ours; both see the same images. The largest difference of their logits is
printed, relative to the largest logit, in float32 and float64. `--write` renews the layouts and
logits that tests/test_published.py compares with where there is no PyTorch.
"""

import argparse
import json
import os
import pathlib
import platform
import sys

os.environ['JAX_ENABLE_X64'] = '1'
ROOT = pathlib.Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import timm  # noqa: E402
import torch  # noqa: E402
import torchvision  # noqa: E402

from tests.published_nets import IMAGES, STORE, outputs, random_weights  # noqa: E402

# Our name, the library, its name.
ROWS = [
    ('resnet18', 'torchvision', 'resnet18'),
    ('resnet50', 'torchvision', 'resnet50'),
    ('resnet50', 'timm', 'resnet50'),
    ('mobilenet_v2', 'torchvision', 'mobilenet_v2'),
    ('mobilenet_v2', 'timm', 'mobilenetv2_100'),
    ('efficientnet_b0', 'torchvision', 'efficientnet_b0'),
    ('efficientnet_b0', 'timm', 'efficientnet_b0'),
    ('convnext_tiny', 'torchvision', 'convnext_tiny'),
    ('convnext_tiny', 'timm', 'convnext_tiny'),
]


def build(library: str, name: str) -> torch.nn.Module:
    """Returns the net without published weights, in evaluation mode."""
    if library == 'timm':
        return timm.create_model(name, pretrained=False).eval()
    return getattr(torchvision.models, name)(weights=None).eval()


def main() -> None:
    """Prints the table; with --write, renews what the test compares with."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--write', action='store_true')
    write = parser.parse_args().write
    versions = {m.__name__: m.__version__ for m in (torch, torchvision, timm)}
    print(f'Python {platform.python_version()}, {versions}, {platform.machine()}')
    stored = []
    for ours, library, theirs in ROWS:
        net = build(library, theirs)
        layout = {
            name: list(value.shape)
            for name, value in net.state_dict().items()
            if not name.endswith('num_batches_tracked')
        }
        weights = random_weights(layout)
        differences = []
        for dtype in ('float32', 'float64'):
            kind = getattr(torch, dtype)
            net = net.to(kind)
            state = {name: torch.from_numpy(value).to(kind) for name, value in weights.items()}
            missing, unknown = net.load_state_dict(state, strict=False)
            assert not unknown
            assert all(name.endswith('num_batches_tracked') for name in missing)
            with torch.no_grad():
                images = torch.from_numpy(IMAGES.transpose(0, 3, 1, 2).copy()).to(kind)
                expected = net(images).numpy()
            got = outputs(ours, weights, dtype)
            differences.append(abs(got - expected).max() / abs(expected).max())
        print(
            f'{ours:16} {library:12} float32 {differences[0]:.1e}  float64 {differences[1]:.1e}',
            flush=True,
        )
        stored.append({
            'net': ours, 'library': library, 'layout': layout,
            'logits': expected[:, :: len(expected[0]) // 10].tolist(),
        })  # fmt: skip
    if write:
        STORE.write_text(json.dumps({'versions': versions, 'nets': stored}) + '\n')


if __name__ == '__main__':
    main()
