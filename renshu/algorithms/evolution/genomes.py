"""Genes of NEAT: distance, crossover and mutation, of one genome or of a whole generation."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

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


class Aligned(NamedTuple):
    """Genes of genomes `[P, ...]` that others have too, and the values that these have there."""

    found: Array  # [P, C] bool
    weight: Array  # [P, C]
    enabled: Array  # [P, C] bool
    there: Array  # [P, H] bool
    bias: Array  # [P, H]


def align(genomes: Genome, others: Genome) -> Aligned:
    """Find the genes of genomes `[P, ...]` in others, one for each `[P, ...]`, or the same for all `[1, ...]`."""

    def connection(j: Array, aligned: Aligned) -> Aligned:
        source, target, weight, enabled = (
            jax.lax.dynamic_slice_in_dim(x, j, 1, axis=1)
            for x in (others.source, others.target, others.weight, others.enabled)
        )
        same = (genomes.source == source) & (genomes.target == target) & (source != NONE)
        return aligned._replace(
            found=aligned.found | same,
            weight=jnp.where(same, weight, aligned.weight),
            enabled=jnp.where(same, enabled, aligned.enabled),
        )

    def node(j: Array, aligned: Aligned) -> Aligned:
        hidden, bias = (jax.lax.dynamic_slice_in_dim(x, j, 1, axis=1) for x in (others.hidden, others.bias))
        same = (genomes.hidden == hidden) & (hidden != NONE)
        return aligned._replace(there=aligned.there | same, bias=jnp.where(same, bias, aligned.bias))

    # Gene by gene, and only as far as there are any: most places are empty.
    none, nobody = jnp.zeros(genomes.source.shape, bool), jnp.zeros(genomes.hidden.shape, bool)
    aligned = Aligned(none, jnp.zeros(none.shape), none, nobody, jnp.zeros(nobody.shape))
    aligned = jax.lax.fori_loop(0, _used(others.source), connection, aligned)
    return jax.lax.fori_loop(0, _used(others.hidden), node, aligned)


def _used(ids: Array) -> Array:
    """Count the places up to the last one that any of the genomes uses, of ids `[P, K]`."""
    return (jnp.arange(1, ids.shape[1] + 1) * (ids != NONE).any(axis=0)).max()


def distances(genomes: Genome, one: Genome, config: NEAT) -> Array:
    """Return how far genomes `[P, ...]` are from one, `[P]`, by the formula of neat-python.

    Of nodes and of connections each: differences of matching genes by compatibility_weight_coefficient, and genes that
    only one has by compatibility_disjoint_coefficient, over the number of genes of the larger one.
    """
    aligned = align(genomes, jax.tree.map(lambda x: x[None], one))
    hidden, outs = genomes.hidden.shape[1], genomes.bias.shape[1] - genomes.hidden.shape[1]
    differs = jnp.abs(genomes.weight - aligned.weight) + (genomes.enabled != aligned.enabled)
    differs = jnp.where(aligned.found, differs, 0.0).sum(axis=1)
    mine, its = (genomes.source != NONE).sum(axis=1), (one.source != NONE).sum()
    connections = _share(differs, aligned.found.sum(axis=1), mine, its, config)
    differs = jnp.where(aligned.there, jnp.abs(genomes.bias[:, :hidden] - aligned.bias), 0.0).sum(axis=1)
    differs += jnp.abs(genomes.bias[:, hidden:] - one.bias[hidden:]).sum(axis=1)
    mine, its = outs + (genomes.hidden != NONE).sum(axis=1), outs + (one.hidden != NONE).sum()
    return connections + _share(differs, outs + aligned.there.sum(axis=1), mine, its, config)


def _share(differs: Array, matching: Array, mine: Array, others: Array, config: NEAT) -> Array:
    apart = mine + others - 2 * matching
    total = config.compatibility_weight_coefficient * differs + config.compatibility_disjoint_coefficient * apart
    return total / jnp.maximum(mine, others).clip(1)


def crossover(key: Key, fitter: Genome, other: Genome) -> Genome:
    """Return children `[P, ...]` with the structure of the fitter parents; matching genes are of either by chance."""
    genes, hidden = fitter.weight.shape[1], fitter.hidden.shape[1]
    chance = jax.random.uniform(key, (len(fitter.weight), 3 * genes + fitter.bias.shape[1]))
    weights, enables, disables, biases = jnp.split(chance, [genes, 2 * genes, 3 * genes], axis=1)
    aligned = align(fitter, other)
    enabled = jnp.where(aligned.found & (enables < 0.5), aligned.enabled, fitter.enabled)
    disabled = aligned.found & ~(fitter.enabled & aligned.enabled)
    theirs = biases < 0.5
    there = theirs.at[:, :hidden].set(theirs[:, :hidden] & aligned.there)
    bias = jnp.concatenate([aligned.bias, other.bias[:, hidden:]], axis=1)
    return fitter._replace(
        weight=jnp.where(aligned.found & (weights < 0.5), aligned.weight, fitter.weight),
        enabled=enabled & ~(disabled & (disables < DISABLED)),
        bias=jnp.where(there, bias, fitter.bias),
    )


# --- mutation ---------------------------------------------------------------------------------------------------------


def mutate(
    key: Key, genomes: Genome, changes: Array, next_node: Array, config: NEAT, sizes: Sizes
) -> tuple[Genome, Array]:
    """Mutate a generation `[P, ...]`, where `changes` [P]; returns the id of the next node, too."""
    # Two draws for all there is to draw: each one more is compiled anew.
    key_chance, key_noise = jax.random.split(key)
    genes, count = sizes.connections + genomes.bias.shape[1], len(changes)
    chance = jax.random.uniform(key_chance, (count, 8 + genes + sizes.connections))
    chance, which, toss = jnp.split(chance, [8, 8 + genes], axis=1)
    fresh, noise = jnp.split(jax.random.normal(key_noise, (count, 1 + genes)), [1], axis=1)
    # A child that may not change has no luck in anything.
    luck, place = (chance[:, :4] + ~changes[:, None]).T, chance[:, 4:].T
    genomes, next_node = add_nodes(luck[0], place[0], genomes, next_node, config, sizes)
    genomes = jax.vmap(partial(delete_node, config=config))(luck[1], place[1], genomes)
    weight = config.weight_init_stdev * fresh[:, 0]
    genomes = add_connections(luck[2], place[2], weight, genomes, config, sizes)
    genomes = jax.vmap(partial(delete_connection, config=config))(luck[3], place[3], genomes)
    values = jnp.concatenate([genomes.weight, genomes.bias], axis=1)
    values = jnp.where(changes[:, None], moved(which, noise, values, config), values)
    weight, bias = jnp.split(values, [sizes.connections], axis=1)
    again = (toss < config.enable_rate) & changes[:, None] & (genomes.source != NONE)
    return genomes._replace(weight=weight, bias=bias, enabled=genomes.enabled | again), next_node


def moved(which: Array, noise: Array, values: Array, config: NEAT) -> Array:
    """Move weights and biases, or draw them anew, by numbers from [0, 1) and standard normal ones."""
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


def add_connections(chance: Array, place: Array, weight: Array, genomes: Genome, config: NEAT, sizes: Sizes) -> Genome:
    """Connect pairs of nodes that were not; in feed-forward networks none that would close a cycle.

    chance, place: as for `add_nodes`. weight: `[P]` of the new connections.
    """
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
