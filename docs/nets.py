"""Writes docs/nets.md, the table of published nets: python docs/nets.py."""

import pathlib
import sys

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import models  # noqa: E402
from configs import nets  # noqa: E402
from models.nets import NETS  # noqa: E402
from models.summary import summarize  # noqa: E402

HEAD = """# Published nets

`python train.py --config=configs/nets.py:NET:DATASET` trains one of these. Parameters and
multiply-adds (of one forward pass) are those of the published input and number of classes; the
running statistics of batch norm are no parameters. Tests hold the parameters to the published
numbers (`resnet9` has biases in its last layer and an activation behind each sum, which Page's
net has not; `convnext_cifar` is Leadline's own). Written by `python docs/nets.py`.

| net | family | input | outputs | parameters | multiply-adds | published by |
|---|---|---|---|---|---|---|
"""


def main() -> None:
    """Writes the table."""
    lines = []
    for name, net in NETS.items():
        model = models.build(nets.get_config(f'{name}:digits').model.to_dict(), net.classes)
        rows = summarize(model, net.input_shape)
        parameters = sum(row.parameters for row in rows)
        multiply_adds = sum(row.flops for row in rows) // 2
        shape = 'x'.join(map(str, net.input_shape))
        lines.append(
            f'| `{name}` | {net.family} | {shape} | {net.classes} | {parameters:,} | '
            f'{multiply_adds:,} | {net.source} |\n'
        )
    (HERE / 'nets.md').write_text(HEAD + ''.join(lines))


if __name__ == '__main__':
    main()
