"""Networks of any shape: nodes and connections as padded lists, computed for a whole population at once."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from renshu.networks.layers import ACTIVATIONS
from renshu.types import Array

NONE = -1
"""Id where there is no gene."""


class Sizes(NamedTuple):
    """Room of each genome: its inputs and outputs, and the most hidden nodes (one at least) and connections."""

    inputs: int  # I
    outputs: int  # O
    hidden: int  # H
    connections: int  # C


class Genome(NamedTuple):
    """A network as genes. Ids of nodes: inputs from 0, outputs from I, hidden ones from I + O; NONE: no gene here.

    Inputs have no bias, and outputs are linear: sums of what comes in. Nothing comes out of an output. A hidden node's
    id is its historical mark (innovation number), and a connection's mark is the pair of its nodes.
    """

    hidden: Array  # [H] int32  ids of hidden nodes
    bias: Array  # [H + O] float32  of hidden nodes, then of outputs
    source: Array  # [C] int32  id of the node that a connection leaves
    target: Array  # [C] int32  id of the node that it enters
    weight: Array  # [C] float32
    enabled: Array  # [C] bool


class Wiring(NamedTuple):
    """Genomes of P members as matrices, last axis P, so that a step is a few sums over long rows."""

    weight: Array  # [H + O, I + H, P]  into hidden nodes, in an order in which they can be computed, then outputs
    bias: Array  # [H + O, P]
    count: Array  # [] int32  the most hidden nodes that any of the members has


def rows_of(genome: Genome, ids: Array, sizes: Sizes) -> Array:
    """Find nodes by their ids `[K]`: hidden ones are 0 to H - 1 as the genome lists them, outputs follow, `[K]`."""
    first = sizes.inputs + sizes.outputs
    hidden = jnp.argmax(ids[:, None] == genome.hidden, axis=1)
    return jnp.where(ids < first, sizes.hidden + ids - sizes.inputs, hidden)


def columns_of(genome: Genome, ids: Array, sizes: Sizes) -> Array:
    """Find nodes that connections leave: inputs are 0 to I - 1, hidden ones follow as the genome lists them, `[K]`."""
    return jnp.where(ids < sizes.inputs, ids, sizes.inputs + rows_of(genome, ids, sizes))


def matrix(genome: Genome, values: Array, sizes: Sizes) -> Array:
    """Make a matrix `[H + O, I + H]` of one value for each connection, `[C]`; 0 or False where there is none."""
    rows = jnp.where(genome.source == NONE, sizes.hidden + sizes.outputs, rows_of(genome, genome.target, sizes))
    empty = jnp.zeros((sizes.hidden + sizes.outputs, sizes.inputs + sizes.hidden), values.dtype)
    return empty.at[rows, columns_of(genome, genome.source, sizes)].set(values, mode="drop")


def wire(genomes: Genome, sizes: Sizes, recurrent: bool) -> Wiring:
    """Make matrices of genomes `[P, ...]`. Raises nothing: a feed-forward genome has no cycle (see `reaches`)."""
    weight, bias = jax.vmap(lambda genome: _wire(genome, sizes, recurrent))(genomes)
    count = (genomes.hidden != NONE).sum(axis=1, dtype=jnp.int32).max(initial=0)
    return Wiring(jnp.moveaxis(weight, 0, -1), bias.T, count)


def _wire(genome: Genome, sizes: Sizes, recurrent: bool) -> tuple[Array, Array]:
    count = sizes.hidden
    weight = matrix(genome, jnp.where(genome.enabled, genome.weight, 0.0), sizes)
    there = genome.hidden != NONE
    bias = genome.bias.at[:count].set(jnp.where(there, genome.bias[:count], 0.0))
    if recurrent:
        order = jnp.argsort(~there)
    else:
        links = matrix(genome, genome.enabled, sizes)[:count, sizes.inputs :]
        order = jnp.argsort(jnp.where(there, _depths(links), count + 1))
    rows = jnp.concatenate([order, count + jnp.arange(sizes.outputs)])
    columns = jnp.concatenate([jnp.arange(sizes.inputs), sizes.inputs + order])
    return weight[rows][:, columns], bias[rows]


def _depths(links: Array) -> Array:
    """Return the longest path to each of H nodes; links `[H, H]`: from the node of the column to that of the row."""

    def deeper(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        depth, _ = carry
        after = jnp.where(links, depth + 1, 0).max(axis=1)
        return after, (after != depth).any()

    return jax.lax.while_loop(lambda carry: carry[1], deeper, (jnp.zeros(len(links), jnp.int32), jnp.bool_(True)))[0]


def reaches(links: Array, start: Array) -> Array:
    """Tell which of H nodes can be reached from one, itself included, `[H]`; links as a matrix, from column to row."""

    def further(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        seen, _ = carry
        after = seen | (links & seen).any(axis=1)
        return after, (after != seen).any()

    begin = jnp.arange(len(links)) == start
    return jax.lax.while_loop(lambda carry: carry[1], further, (begin, jnp.bool_(True)))[0]


def outputs(wiring: Wiring, x: Array, memory: Array, activation_fn: str) -> tuple[Array, Array]:
    """Compute the outputs `[N, O]` of inputs `[N, I]`, of which row n goes through the network of member n mod P.

    memory: `[N, H]` what hidden nodes of recurrent networks were in the step before, of which all nodes are computed
    at once; () for feed-forward ones. Returns the newer memory, too.
    """
    members, hidden = wiring.bias.shape[1], wiring.weight.shape[1] - x.shape[1]
    activation = ACTIVATIONS[activation_fn]

    def by_member(rows: Array) -> Array:  # [N, K] -> [K, episodes, P]
        return rows.T.reshape(rows.shape[1], -1, members)

    def in_order(values: Array) -> Array:
        return values.reshape(len(values), -1).T

    def total(row: Array, values: Array, count: Array) -> Array:
        # Term by term: XLA sums along the first axis 25 times as slowly on a CPU, and nodes that no member has are
        # left out.
        start = jnp.broadcast_to(wiring.bias[row], values.shape[1:])
        return jax.lax.fori_loop(0, count, lambda j, sum: sum + wiring.weight[row, j] * values[j], start)

    inputs, known = by_member(x), x.shape[1] + wiring.count
    outs = range(hidden, len(wiring.bias))
    if not isinstance(memory, tuple):
        before = by_member(memory)
        values = jnp.concatenate([inputs, before])
        after = jax.lax.fori_loop(
            0, wiring.count, lambda i, after: after.at[i].set(activation(total(i, values, known))), before
        )
        return in_order(jnp.stack([total(row, values, known) for row in outs])), in_order(after)

    def node(i: Array, values: Array) -> Array:
        return values.at[x.shape[1] + i].set(activation(total(i, values, x.shape[1] + i)))

    values = jnp.concatenate([inputs, jnp.zeros((hidden, *inputs.shape[1:]))])
    values = jax.lax.fori_loop(0, wiring.count, node, values)
    return in_order(jnp.stack([total(row, values, known) for row in outs])), ()
