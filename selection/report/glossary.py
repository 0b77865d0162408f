"""What the words of the page mean, and where the ideas that a choice asks about come from."""

from typing import NamedTuple


class Idea(NamedTuple):
    """An idea, the net that made it known, and the paper."""

    idea: str
    net: str
    paper: str


IDEAS = {
    'depth': Idea(
        'more layers of small filters', 'VGG',
        'Simonyan and Zisserman 2014, Very deep convolutional networks for large-scale image '
        'recognition',
    ),
    'skip': Idea(
        'skip connections', 'ResNet',
        'He et al. 2016, Deep residual learning for image recognition',
    ),
    'width': Idea(
        'more filters in place of more layers', 'Wide ResNet',
        'Zagoruyko and Komodakis 2016, Wide residual networks',
    ),
    'narrow': Idea(
        'how many filters', 'Wide ResNet',
        'Zagoruyko and Komodakis 2016, Wide residual networks',
    ),
    'head': Idea(
        'global average pooling in place of dense layers', 'Network in Network',
        'Lin et al. 2014, Network in network',
    ),
    'compound': Idea(
        'depth, width and image size scaled together', 'EfficientNet',
        'Tan and Le 2019, EfficientNet: rethinking model scaling for convolutional neural networks',
    ),
    'kernel': Idea(
        'two filters of 3x3 in place of one of 5x5', 'VGG',
        'Simonyan and Zisserman 2014, Very deep convolutional networks for large-scale image '
        'recognition',
    ),
    'norm': Idea(
        'batch normalisation', 'Inception',
        'Ioffe and Szegedy 2015, Batch normalization: accelerating deep network training by '
        'reducing internal covariate shift',
    ),
    'cell': Idea(
        'gates that decide what a recurrent layer keeps, two in place of three', 'GRU',
        'Cho et al. 2014',
    ),
    'activation': Idea(
        'a smooth activation (GELU) in place of ReLU', 'ConvNeXt',
        'Hendrycks and Gimpel 2016, Gaussian error linear units (GELUs)',
    ),
    'pooling': Idea(
        'neighbouring values averaged into one', 'LeNet-5',
        'LeCun et al. 1998, Gradient-based learning applied to document recognition',
    ),
    'augment': Idea(
        'images shifted and mirrored at random', 'AlexNet',
        'Krizhevsky et al. 2012, ImageNet classification with deep convolutional neural networks',
    ),
    'normalization': Idea(
        'inputs brought to mean 0 and deviation 1', 'LeNet-5',
        'LeCun et al. 1998, Efficient BackProp',
    ),
}  # fmt: skip

GLOSSARY = {
    'layer': 'one step of a net: numbers in, numbers out, with weights that are learned',
    'convolution': 'a layer that looks at each small window of the image (3x3, say) with the same '
    'weights',
    'filter': 'one pattern that a convolution looks for; its width is how many filters it has',
    'block': 'a few layers that belong together: convolution, normalisation, activation',
    'stage': 'the blocks between two halvings of the image',
    'depth': 'how many layers that learn stand behind each other',
    'pooling': 'joining neighbouring values into one, so that the image gets smaller; global '
    'average pooling takes the mean over the whole image',
    'skip connection': 'adds the input of a block to its output, so that a block need only learn '
    'what is missing',
    'parameter': 'a weight that is learned',
    'FLOPs': 'multiplications and additions for one example, a measure of cost that no computer '
    'changes',
    'latency': 'the time from an example, or as many as are predicted at once, to the answer',
    'run': 'one training from start to end',
    'seed': 'the number from which all chance in a run is drawn: first weights, order, '
    'augmentation. Another seed gives another net',
    'fold': 'one of the equal parts of the data. Each run learns from the others and is judged on '
    'the one left out, so every example judges once',
    'repeat': 'one run for each fold; the next repeat draws new folds',
    'candidate': 'a net with its recipe. All candidates share folds and seeds, so that they are '
    'compared example by example',
    'accuracy': 'the share of the examples that are right',
    'balanced accuracy': 'the mean over the classes of the share that is right in each, so that '
    'rare classes count as much as common ones',
    'log loss': 'how far the probabilities are from the truth; 0 is perfect, less is better',
    'point': 'a hundredth: from 94 % to 95 % is 1 point',
    'interval': 'the range in which the true figure lies, but for a small chance. Wide means: few '
    'examples, or few runs',
    'delta': 'the smallest difference that matters, which is chosen before',
    'resolution': 'the smallest difference that these data can show after so many runs',
    'verdict': 'better and worse: sure, but for a small chance of error. No better: a gain '
    'of delta or more is ruled out. Cannot tell: neither',
    'constant predictor': 'says the commonest class whatever it sees; who does not beat it has '
    'learned nothing',
    'linear classifier': 'a net with no layers in between: weighs the pixels and adds up',
    'baseline': 'a net that anyone would take without a search, trained in the same way',
    'Pareto front': 'the nets of which no other one is both cheaper and better',
    'test split': 'examples that no run and no choice has seen, looked at once at the end',
    'prediction interval': 'where the figure of one further run is to be expected; wider than the '
    'interval of a mean',
}
