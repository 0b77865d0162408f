"""Draws docs/depth.png: how accurate plain nets of 1 to 4 convolutions are on the digits.

python docs/depth.py    (about 5 minutes on 2 cores; runs that have ended are not repeated)
"""

import pathlib
import statistics
import sys

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

ROOT = pathlib.Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from configs import plain_small  # noqa: E402
from training import compilation_cache  # noqa: E402
from training.loop import train_and_evaluate  # noqa: E402

SEEDS = range(5)
DEPTHS = (1, 2, 3, 4)


def accuracies(depth: int) -> list[float]:
    """Trains the net once per seed and returns validation accuracies in per cent."""
    figures = []
    for seed in SEEDS:
        config = plain_small.get_config()
        config.seed = seed
        config.model.stage_sizes = (1,) * depth
        result = train_and_evaluate(config, ROOT / 'runs' / f'depth-{depth}-{seed}', quiet=True)
        figures.append(100 * result['validation']['accuracy'])
    return figures


def draw(points: dict[int, list[float]]) -> None:
    """Draws each run, and mean and standard deviation of each depth."""
    figure = Figure(figsize=(6, 3.4), dpi=110, layout='constrained')
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot(
        xlabel='convolutions', ylabel='validation accuracy, %', xticks=list(points)
    )
    axes.set_title(f'Plain nets on 8x8 digits, {len(SEEDS)} seeds each, 360 images judged')
    for depth, values in points.items():
        axes.plot([depth] * len(values), values, 'o', color='tab:gray', alpha=0.5, markersize=4)
    means = [statistics.mean(values) for values in points.values()]
    spreads = [statistics.stdev(values) for values in points.values()]
    axes.errorbar(list(points), means, spreads, marker='o', capsize=4, color='tab:blue')
    for depth, mean, spread in zip(points, means, spreads, strict=True):
        text = f'{mean:.1f} ± {spread:.1f}'
        axes.annotate(text, (depth, mean), (8, -16), textcoords='offset points')
    axes.margins(x=0.2, y=0.15)
    canvas.print_png(str(ROOT / 'docs' / 'depth.png'))


if __name__ == '__main__':
    compilation_cache.enable()
    draw({depth: accuracies(depth) for depth in DEPTHS})
