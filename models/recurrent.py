"""The recurrent family: stacked LSTM or GRU layers, of which the last output counts."""

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from models import layers
from models.fields import field

State = tuple[jax.Array, ...]


def _lstm(state: State, gates_BG: jax.Array, recurrent_kernel_UG: jax.Array) -> State:
    """LSTM with forget gate: Gers, Schmidhuber and Cummins 2000, "Learning to Forget"."""
    output, memory = state
    gates_BG += output @ recurrent_kernel_UG
    write, forget, candidate, read = jnp.split(gates_BG, 4, axis=-1)
    memory = nn.sigmoid(forget) * memory + nn.sigmoid(write) * jnp.tanh(candidate)
    return nn.sigmoid(read) * jnp.tanh(memory), memory


def _gru(state: State, gates_BG: jax.Array, recurrent_kernel_UG: jax.Array) -> State:
    """GRU (Cho et al. 2014), the reset gate applied behind the product, as cuDNN does it."""
    (output,) = state
    update, reset, candidate = jnp.split(gates_BG, 3, axis=-1)
    products = jnp.split(output @ recurrent_kernel_UG, 3, axis=-1)
    update, reset = nn.sigmoid(update + products[0]), nn.sigmoid(reset + products[1])
    candidate = jnp.tanh(candidate + reset * products[2])
    return (update * output + (1 - update) * candidate,)


class Cell(NamedTuple):
    """A kind of recurrence.

    Attributes:
      step: (state, what the input adds to the gates, recurrent kernel) to the next state, of
        which the first array is the output.
      state_size: how many arrays [B, U] the state is.
      biases: first bias of each gate, in the order of the kernels' columns.
    """

    step: Callable[[State, jax.Array, jax.Array], State]
    state_size: int
    biases: tuple[float, ...]


CELLS = {
    # Keras' order of the gates; the forget gate is open at first: Jozefowicz et al. 2015.
    'lstm': Cell(_lstm, 2, (0.0, 1.0, 0.0, 0.0)),
    'gru': Cell(_gru, 1, (0.0, 0.0, 0.0)),
}


class RecurrentLayer(nn.Module):
    """One layer over time: inputs [B, T, F] to outputs [B, T, units], from a state of zeros.

    Kernel Glorot uniform, recurrent kernel orthogonal, one bias for each gate: what Keras does.
    """

    units: int
    cell: str
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, inputs_BTF: jax.Array) -> jax.Array:
        cell = CELLS[self.cell]
        gates = len(cell.biases) * self.units

        def weights(name: str, init: Callable, *shape: int) -> jax.Array:
            return self.param(name, init, shape, self.param_dtype).astype(self.dtype)

        kernel_FG = weights('kernel', nn.initializers.glorot_uniform(), inputs_BTF.shape[-1], gates)
        recurrent_kernel_UG = weights(
            'recurrent_kernel', nn.initializers.orthogonal(), self.units, gates
        )
        bias_G = weights(
            'bias', lambda _, shape, dtype: jnp.repeat(jnp.array(cell.biases, dtype), self.units),
            gates
        )  # fmt: skip
        # The inputs' share of all gates at all times is one product; only the rest is in turn.
        gates_TBG = jnp.swapaxes(inputs_BTF @ kernel_FG + bias_G, 0, 1)

        def step(state: State, gates_BG: jax.Array) -> tuple[State, jax.Array]:
            state = cell.step(state, gates_BG, recurrent_kernel_UG)
            return state, state[0]

        first = (jnp.zeros_like(gates_TBG[0, :, : self.units]),) * cell.state_size
        _, outputs_TBU = jax.lax.scan(step, first, gates_TBG)
        return jnp.swapaxes(outputs_TBU, 0, 1)


class Recurrent(nn.Module):
    """A stack of recurrent layers; the last one's last output goes to the outputs."""

    takes: ClassVar[tuple[str, ...]] = ('windows',)

    num_classes: int
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    units: tuple[int, ...] = field(
        (64, 32), 'Units of each recurrent layer; their count is the depth.', at_least=1, longest=8
    )
    cell: str = field('lstm', 'Kind of recurrence.', choices=tuple(CELLS))
    dropout: float = field(
        0.0, 'Share of outputs dropped after each recurrent layer.', at_least=0.0, below=1.0
    )
    head: layers.OutputOptions = layers.OutputOptions()

    @nn.compact
    def __call__(self, inputs_BTF: jax.Array, train: bool) -> jax.Array:
        """Maps normalised windows [B, T, F] to logits [B, num_classes]."""
        types = {'dtype': self.dtype, 'param_dtype': self.param_dtype}
        x = inputs_BTF.astype(self.dtype)
        for i, units in enumerate(self.units, start=1):
            x = RecurrentLayer(units, self.cell, name=f'{self.cell}{i}', **types)(x)
            x = layers.Dropout(self.dropout)(x, train)
        return layers.Head(
            num_classes=self.num_classes,
            options=layers.HeadOptions(outputs=self.head.outputs, pooling='flatten'),
            activation='relu',
            name='head',
            **types,
        )(x[:, -1], train)
