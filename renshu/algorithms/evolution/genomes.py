"""Genes of NEAT: distance, crossover and mutation, of one genome or of a whole generation."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from renshu.networks.graph import NONE, Genome, Sizes, matrix, reaches
from renshu.types import Array, Key

if TYPE_CHECKING:
    from renshu.algorithms.evolution.neat import NEAT

DISABLED = 0.75
"""Share of the children whose gene is disabled where it was in either of the parents."""


def first_genomes(key: Key, members: int, config: NEAT, sizes: Sizes) -> Genome:
    """Make genomes `[members, ...]` without hidden nodes."""
    inputs, outs = sizes.inputs, sizes.outputs
    pairs = inputs * outs
    key_there, key_weight, key_bias = jax.random.split(key, 3)
    order = jax.vmap(lambda key: jax.random.permutation(key, pairs))(jax.random.split(key_there, members))
    there = order < round(config.initial_connection * pairs)

    def padded(x: Array, fill: float) -> Array:
        rest = jnp.full((members, sizes.connections - pairs), fill, x.dtype)
        return jnp.concatenate([jnp.where(there, x, jnp.asarray(fill, x.dtype)), rest], axis=1)

    index = jnp.arange(pairs, dtype=jnp.int32)
    spread = config.weight_init_stdev
    return Genome(
        hidden=jnp.full((members, sizes.hidden), NONE, jnp.int32),
        bias=spread * jax.random.normal(key_bias, (members, sizes.hidden + outs)),
        source=padded(index % inputs, NONE),
        target=padded(inputs + index // inputs, NONE),
        weight=padded(spread * jax.random.normal(key_weight, (members, pairs)), 0.0),
        enabled=padded(jnp.ones(pairs, bool), False),
    )


def _nodes(genome: Genome, other: Genome) -> tuple[Array, Array]:
    """Find the hidden nodes of one genome in another: whether each is there `[H]`, and where."""
    same = (genome.hidden[:, None] == other.hidden) & (genome.hidden[:, None] != NONE)
    return same.any(axis=1), jnp.argmax(same, axis=1)


def _connections(genome: Genome, other: Genome) -> tuple[Array, Array]:
    """Find the connections of one genome in another: whether each is there `[C]`, and where."""
    same = (genome.source[:, None] == other.source) & (genome.target[:, None] == other.target)
    same &= genome.source[:, None] != NONE
    return same.any(axis=1), jnp.argmax(same, axis=1)


def distance(a: Genome, b: Genome, config: NEAT) -> Array:
    """Return how far two genomes are apart, [], by the formula of neat-python.

    Of nodes and of connections each: differences of matching genes by compatibility_weight_coefficient, and genes that
    only one has by compatibility_disjoint_coefficient, over the number of genes of the larger one.
    """
    found, at = _connections(a, b)
    differs = jnp.abs(a.weight - b.weight[at]) + (a.enabled != b.enabled[at])
    connections = _share(jnp.where(found, differs, 0.0).sum(), found.sum(), _count(a), _count(b), config)
    found, at = _nodes(a, b)
    hidden, outs = len(a.hidden), len(a.bias) - len(a.hidden)
    differs = jnp.where(found, jnp.abs(a.bias[:hidden] - b.bias[at]), 0.0).sum()
    differs += jnp.abs(a.bias[hidden:] - b.bias[hidden:]).sum()
    nodes = (outs + (genome.hidden != NONE).sum() for genome in (a, b))
    return connections + _share(differs, found.sum() + outs, *nodes, config)


def _count(genome: Genome) -> Array:
    return (genome.source != NONE).sum()


def _share(differs: Array, matching: Array, of_a: Array, of_b: Array, config: NEAT) -> Array:
    apart = of_a + of_b - 2 * matching
    total = config.compatibility_weight_coefficient * differs + config.compatibility_disjoint_coefficient * apart
    return total / jnp.maximum(of_a, of_b).clip(1)


def crossover(key: Key, fitter: Genome, other: Genome) -> Genome:
    """Return a child with the structure of the fitter parent; values of matching genes are of either by chance."""
    key_connections, key_nodes = jax.random.split(key)
    by_chance, enabled_by_chance, disables = jax.random.uniform(key_connections, (3, len(fitter.weight)))
    found, at = _connections(fitter, other)
    enabled = jnp.where(found & (enabled_by_chance < 0.5), other.enabled[at], fitter.enabled)
    disabled = found & ~(fitter.enabled & other.enabled[at])
    there, where = _nodes(fitter, other)
    outs = len(fitter.bias) - len(fitter.hidden)
    there = jnp.concatenate([there, jnp.ones(outs, bool)])
    where = jnp.concatenate([where, len(fitter.hidden) + jnp.arange(outs)])
    theirs = there & (jax.random.uniform(key_nodes, there.shape) < 0.5)
    return fitter._replace(
        weight=jnp.where(found & (by_chance < 0.5), other.weight[at], fitter.weight),
        enabled=enabled & ~(disabled & (disables < DISABLED)),
        bias=jnp.where(theirs, other.bias[where], fitter.bias),
    )


# --- mutation ---------------------------------------------------------------------------------------------------------


def mutate(
    key: Key, genomes: Genome, changes: Array, next_node: Array, config: NEAT, sizes: Sizes
) -> tuple[Genome, Array]:
    """Mutate a generation `[P, ...]`, where `changes` [P]; returns the id of the next node, too."""
    key_chance, key_new, *keys = jax.random.split(key, 5)
    chance = jax.random.uniform(key_chance, (8, len(changes)))
    # A child that may not change has no luck in anything.
    chance = chance.at[:4].add(~changes)
    genomes, next_node = add_nodes(chance[0], chance[4], genomes, next_node, config, sizes)
    genomes = jax.vmap(partial(delete_node, config=config))(chance[1], chance[5], genomes)
    genomes = add_connections(key_new, chance[2], chance[6], genomes, config, sizes)
    genomes = jax.vmap(partial(delete_connection, config=config))(chance[3], chance[7], genomes)
    values = jnp.concatenate([genomes.weight, genomes.bias], axis=1)
    values = jnp.where(changes[:, None], moved(keys[0], keys[1], values, config), values)
    weight, bias = jnp.split(values, [sizes.connections], axis=1)
    toss = jax.random.uniform(keys[2], genomes.enabled.shape) + ~changes[:, None]
    rate = config.enabled_mutate_rate
    enabled = jnp.where(toss < rate, toss < rate / 2, genomes.enabled) & (genomes.source != NONE)
    return genomes._replace(weight=weight, bias=bias, enabled=enabled), next_node


def moved(key_which: Key, key_noise: Key, values: Array, config: NEAT) -> Array:
    """Move weights and biases, or draw them anew, by chance."""
    which = jax.random.uniform(key_which, values.shape)
    noise = jax.random.normal(key_noise, values.shape)
    rate, limit = config.weight_mutate_rate, config.weight_max_value
    anew = jnp.where(which < rate + config.weight_replace_rate, config.weight_init_stdev * noise, values)
    return jnp.where(which < rate, values + config.weight_mutate_power * noise, anew).clip(-limit, limit)


def pick(chance: Array, mask: Array) -> Array:
    """Choose one of the places where a mask `[K]` is True, by a number from [0, 1): []; 0 where there is none."""
    return jnp.argmax(jnp.cumsum(mask) > jnp.floor(chance * mask.sum()))


def numbered(wanted: Array, first: Array, second: Array) -> tuple[Array, Array]:
    """Give numbers from 0 to those that are wanted, `[P]`, the same to equal pairs, and say how many there are.

    The numbers of the others mean nothing.
    """
    order = jnp.lexsort((first, second, ~wanted))
    there, first, second = wanted[order], first[order], second[order]
    differs = (first[1:] != first[:-1]) | (second[1:] != second[:-1])
    new = there & jnp.concatenate([jnp.ones(1, bool), differs])
    return jnp.zeros(len(order), jnp.int32).at[order].set(jnp.cumsum(new, dtype=jnp.int32) - 1), new.sum(
        dtype=jnp.int32
    )


def add_nodes(
    chance: Array, place: Array, genomes: Genome, next_node: Array, config: NEAT, sizes: Sizes
) -> tuple[Genome, Array]:
    """Split connections by new nodes: the first half weighs 1, the second as the old one, which is disabled.

    chance, place: `[P]` numbers from [0, 1) that decide who gets one, and where. Nodes that split the same connection
    have the same id.
    """
    room = (genomes.hidden == NONE).any(axis=1) & ((genomes.source == NONE).sum(axis=1) >= 2)
    wanted = (chance < config.node_add_prob) & room & genomes.enabled.any(axis=1)
    slot = jax.vmap(pick)(place, genomes.enabled)
    source, target = (jnp.take_along_axis(x, slot[:, None], axis=1)[:, 0] for x in (genomes.source, genomes.target))
    number, count = numbered(wanted, source, target)

    def one(genome: Genome, slot: Array, number: Array, wanted: Array) -> Genome:
        place = jnp.argmax(genome.hidden == NONE)
        node = next_node + number
        after = genome._replace(
            hidden=genome.hidden.at[place].set(node),
            bias=genome.bias.at[place].set(0.0),
            enabled=genome.enabled.at[slot].set(False),
        )
        after = _connected(after, genome.source[slot], node, jnp.float32(1.0))
        after = _connected(after, node, genome.target[slot], genome.weight[slot])
        return jax.tree.map(lambda new, old: jnp.where(wanted, new, old), after, genome)

    return jax.vmap(one)(genomes, slot, number, wanted), next_node + count


def _connected(genome: Genome, source: Array, target: Array, weight: Array) -> Genome:
    slot = jnp.argmax(genome.source == NONE)
    return genome._replace(
        source=genome.source.at[slot].set(source),
        target=genome.target.at[slot].set(target),
        weight=genome.weight.at[slot].set(weight),
        enabled=genome.enabled.at[slot].set(True),
    )


def add_connections(key: Key, chance: Array, place: Array, genomes: Genome, config: NEAT, sizes: Sizes) -> Genome:
    """Connect pairs of nodes that were not; in feed-forward networks none that would close a cycle."""
    wanted = (chance < config.conn_add_prob) & (genomes.source == NONE).any(axis=1)

    def choose(place: Array, genome: Genome) -> tuple[Array, Array, Array]:
        there = genome.hidden != NONE
        rows = jnp.concatenate([there, jnp.ones(sizes.outputs, bool)])
        columns = jnp.concatenate([jnp.ones(sizes.inputs, bool), there])
        taken = matrix(genome, genome.source != NONE, sizes)
        free = rows[:, None] & columns & ~taken
        index = pick(place, free.reshape(-1))
        row, column = index // taken.shape[1], index % taken.shape[1]
        fits = free.any()
        if not config.recurrent:
            # A connection closes a cycle where its source can be reached from its target already.
            behind = reaches(taken[: sizes.hidden, sizes.inputs :], row)
            inner = (row < sizes.hidden) & (column >= sizes.inputs)
            fits &= ~(inner & behind[(column - sizes.inputs).clip(0)])
        first = sizes.inputs + sizes.outputs
        ids = jnp.concatenate([jnp.arange(first), genome.hidden])
        target = jnp.where(row < sizes.hidden, ids[first + row], sizes.inputs + row - sizes.hidden)
        source = jnp.where(column < sizes.inputs, column, ids[first + column - sizes.inputs])
        return source, target, fits

    source, target, fits = jax.vmap(choose)(place, genomes)
    weight = config.weight_init_stdev * jax.random.normal(key, wanted.shape)

    def one(genome: Genome, source: Array, target: Array, weight: Array, wanted: Array) -> Genome:
        after = _connected(genome, source, target, weight)
        return jax.tree.map(lambda new, old: jnp.where(wanted, new, old), after, genome)

    return jax.vmap(one)(genomes, source, target, weight, wanted & fits)


def _without(genome: Genome, gone: Array) -> Genome:
    return genome._replace(
        source=jnp.where(gone, NONE, genome.source),
        target=jnp.where(gone, NONE, genome.target),
        weight=jnp.where(gone, 0.0, genome.weight),
        enabled=genome.enabled & ~gone,
    )


def delete_node(chance: Array, place: Array, genome: Genome, config: NEAT) -> Genome:
    """Take a hidden node away with its connections, by chance."""
    there = genome.hidden != NONE
    wanted = (chance < config.node_delete_prob) & there.any()
    index = pick(place, there)
    node = genome.hidden[index]
    after = genome._replace(hidden=genome.hidden.at[index].set(jnp.where(wanted, NONE, node)))
    return _without(after, wanted & ((genome.source == node) | (genome.target == node)))


def delete_connection(chance: Array, place: Array, genome: Genome, config: NEAT) -> Genome:
    """Take a connection away, by chance."""
    there = genome.source != NONE
    return _without(genome, (chance < config.conn_delete_prob) & there & (jnp.arange(len(there)) == pick(place, there)))
