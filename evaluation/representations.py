"""What the maps of a net hold, block by block: linear probes, and their likeness (linear CKA)."""

import dataclasses
import itertools
import warnings
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from evaluation import blocks as net_blocks
from evaluation.blocks import Block
from evaluation.trained import Trained
from input_pipeline import Pipeline

_MOST_TRAINING = 5000  # Examples of a probe.
_CKA_BATCH, _CKA_BATCHES = 64, 8


def probe(
    net: Trained, pipeline: Pipeline, blocks: Sequence[Block], split: str
) -> list[np.ndarray]:
    """Returns which examples a linear classifier of each map gets right: bool [N] for each.

    Alain and Bengio 2016, "Understanding intermediate layers using linear classifier probes":
    logistic regression (L2 of strength 1, on standardised features) on the means of the channels,
    trained on at most 5,000 examples of the training split.

    Args:
      net: the net.
      pipeline: the run's own data.
      blocks: of the net; the maps are what goes into each, and last into the head.
      split: on which the probes are judged.
    """
    members = pipeline.members['train']
    if len(members) > _MOST_TRAINING:
        members = np.sort(np.random.default_rng(0).permutation(members)[:_MOST_TRAINING])
    pipeline = dataclasses.replace(pipeline, members=pipeline.members | {'train': members})

    def features(variables: Any, resident: Any, batch: Any) -> jax.Array:
        seen = net_blocks.maps(net.recipe, blocks, variables, batch)
        return jnp.concatenate([x.astype(jnp.float32).mean(axis=(1, 2)) for x in seen], axis=1)

    mapped = net.devices.map_eval(features)

    def outputs(batch: dict[str, np.ndarray]) -> jax.Array:
        return mapped(net.variables, {}, net.devices.split(batch, axis=0))

    sides = {
        part: net.devices.collect(pipeline.eval_batches(part), outputs) for part in ('train', split)
    }
    widths = [net.input_shape[-1], *_channels(net, blocks)]
    edges = np.cumsum(widths)[:-1]
    train, judged = (np.split(sides[part], edges, axis=1) for part in ('train', split))
    labels, answers = pipeline.labels_of('train'), pipeline.labels_of(split)
    return [_fit(x, labels).predict(y) == answers for x, y in zip(train, judged, strict=True)]


def _channels(net: Trained, blocks: Sequence[Block]) -> list[int]:
    """Returns the channels of the map behind each block: of the next one's input."""
    shapes = jax.eval_shape(
        lambda variables, batch: net_blocks.maps(net.recipe, blocks, variables, batch),
        net.variables,
        {'input': jax.ShapeDtypeStruct((1, *net.input_shape), np.uint8)},
    )
    return [shape.shape[-1] for shape in shapes[1:]]


def _fit(features: np.ndarray, labels: np.ndarray) -> Any:
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    with warnings.catch_warnings():
        # The last digits of the weights do not change what is said.
        warnings.simplefilter('ignore', ConvergenceWarning)
        return classifier.fit(features, labels)


def likeness(net: Trained, pipeline: Pipeline, blocks: Sequence[Block], split: str) -> np.ndarray:
    """Returns the linear CKA [P, P] of all maps: what goes into each block, and into the head.

    Kornblith et al. 2019, "Similarity of neural network representations revisited", section 3, on
    whole maps, by the unbiased estimate over batches of Nguyen, Raghu and Kornblith 2021, "Do wide
    and deep networks learn the same things?", section 3: of few examples with many features the
    plain one says that everything is alike. It may be slightly below 0 or above 1.

    Args:
      net: the net.
      pipeline: the run's own data.
      blocks: of the net.
      split: whose first 512 examples, in a random order, are looked at.
    """
    members = np.random.default_rng(0).permutation(pipeline.members[split])
    size = min(_CKA_BATCH, len(members))

    @jax.jit
    def grams(variables: Any, batch: Any) -> jax.Array:
        seen = net_blocks.maps(net.recipe, blocks, variables, batch)
        flat = [x.reshape(len(x), -1).astype(jnp.float32) for x in seen]
        centred = [x - x.mean(axis=0) for x in flat]  # Changes nothing but rounding.
        return jnp.stack([jnp.matmul(x, x.T, precision='highest') for x in centred])

    variables = jax.tree.map(np.asarray, net.variables)
    total = np.zeros((len(blocks) + 1,) * 2)
    for start in itertools.islice(range(0, len(members) - size + 1, size), _CKA_BATCHES):
        chosen = pipeline.source.inputs[members[start : start + size]]
        total += hsic(np.asarray(grams(variables, {'input': chosen}), np.float64))
    scale = np.sqrt(np.maximum(np.diag(total), 0))
    with np.errstate(all='ignore'):
        return total / np.outer(scale, scale)


def hsic(grams_PNN: np.ndarray) -> np.ndarray:
    """Returns the unbiased estimate of HSIC [P, P] of each pair of Gram matrices.

    Song et al. 2012, "Feature selection via dependence maximization", equation 4.

    Args:
      grams_PNN: inner products of the features of N examples, at least 4.
    """
    count = grams_PNN.shape[1]
    away = grams_PNN * (1 - np.eye(count))
    rows_PN = away.sum(axis=2)
    sums_P = rows_PN.sum(axis=1)
    flat_P = away.reshape(len(away), -1)
    pairs = flat_P @ flat_P.T
    pairs += np.outer(sums_P, sums_P) / ((count - 1) * (count - 2))
    pairs -= 2 / (count - 2) * rows_PN @ rows_PN.T
    return pairs / (count * (count - 3))
