"""Species of NEAT: who belongs together, which of them die out, and who their children are."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

from renshu.algorithms.evolution.genomes import crossover, distances
from renshu.networks.graph import NONE, Genome
from renshu.types import Array, Key

if TYPE_CHECKING:
    from renshu.algorithms.evolution.neat import NEAT


class Species(NamedTuple):
    """S places for species; of those that are empty only the key says so."""

    representative: Genome  # [S, ...]
    key: Array  # [S] int32  number of the species, from 0; NONE: nobody
    best: Array  # [S] float32  highest fitness that it ever had
    improved: Array  # [S] int32  generation in which it had that
    number: Array  # [] int32  key of the next species


def no_species(genomes: Genome, places: int) -> Species:
    """Make places that are empty."""
    empty = jax.tree.map(lambda x: jnp.zeros((places, *x.shape[1:]), x.dtype), genomes)
    key = jnp.full(places, NONE, jnp.int32)
    return Species(empty, key, jnp.full(places, -jnp.inf), jnp.zeros(places, jnp.int32), jnp.int32(0))


def speciate(genomes: Genome, species: Species, generation: Array, config: NEAT) -> tuple[Species, Array]:
    """Put genomes `[P, ...]` into species by their distance: the species, and the place of each genome's, `[P]` int32.

    The representative of a species becomes the genome that is nearest to the one before; others join the nearest
    species below the threshold, or found one. Where all places are taken, they join the nearest.
    """
    members = len(genomes.hidden)
    here = jnp.arange(members)

    def genome(index: Array) -> Genome:
        return jax.tree.map(lambda x: x[index], genomes)

    def apart(one: Genome) -> Array:
        return distances(genomes, one, config)

    def followed(taken: Array, place: tuple[Genome, Array]) -> tuple[Array, Array]:
        found = jax.lax.cond(place[1], lambda: apart(place[0]), lambda: jnp.zeros(members))
        nearest = jnp.argmin(jnp.where(taken, jnp.inf, found))
        return taken | (place[1] & (here == nearest)), nearest

    lives = species.key != NONE
    _, chosen = jax.lax.scan(followed, jnp.zeros(members, bool), (species.representative, lives))
    representative = genome(chosen)
    apart_from = jax.lax.map(
        lambda place: jax.lax.cond(place[1], lambda: apart(place[0]), lambda: jnp.full(members, jnp.inf)),
        (representative, lives),
    )
    # Nobody takes a representative away from its species.
    rows = jnp.where(lives, jnp.arange(len(lives)), len(lives))
    apart_from = apart_from.at[rows, chosen].set(-1.0, mode="drop")
    carry = species._replace(representative=representative), apart_from.min(axis=0), jnp.argmin(apart_from, axis=0)

    def alone(carry: tuple[Species, Array, Array]) -> Array:
        return (carry[1] >= config.compatibility_threshold).any() & (carry[0].key == NONE).any()

    def found(carry: tuple[Species, Array, Array]) -> tuple[Species, Array, Array]:
        species, nearest, place = carry
        founder = jnp.argmax(nearest >= config.compatibility_threshold)
        slot = jnp.argmax(species.key == NONE)
        to_founder = apart(genome(founder)).at[founder].set(-1.0)
        joins = (here >= founder) & (to_founder < nearest)
        after = Species(
            jax.tree.map(lambda x, new: x.at[slot].set(new), species.representative, genome(founder)),
            species.key.at[slot].set(species.number),
            species.best.at[slot].set(-jnp.inf),
            species.improved.at[slot].set(generation),
            species.number + 1,
        )
        return after, jnp.where(joins, to_founder, nearest), jnp.where(joins, slot, place)

    species, _, place = jax.lax.while_loop(alone, found, carry)
    return species, place.astype(jnp.int32)


def survivors(
    species: Species, place: Array, fitness: Array, generation: Array, config: NEAT
) -> tuple[Species, Array, Array]:
    """Let species die out that did not improve for long: those left, their sizes and mean fitnesses `[S]`.

    The best `species_elitism` always stay.
    """
    places = len(species.key)
    size = jnp.zeros(places, jnp.int32).at[place].add(1)
    peak = jnp.full(places, -jnp.inf).at[place].max(fitness)
    mean = jnp.zeros(places).at[place].add(fitness) / size.clip(1)
    lives = species.key != NONE
    better = lives & (peak > species.best)
    improved = jnp.where(better, generation, species.improved)
    rank = jnp.argsort(jnp.argsort(-jnp.where(lives, peak, -jnp.inf)))
    stays = lives & ((generation - improved < config.max_stagnation) | (rank < config.species_elitism))
    left = species._replace(
        key=jnp.where(stays, species.key, NONE), best=jnp.where(better, peak, species.best), improved=improved
    )
    return left, size, mean


def offspring(lives: Array, size: Array, mean: Array, lowest: Array, members: int, least: int) -> Array:
    """Share the next generation's members out among species by their mean fitness: numbers `[S]` that sum up to them.

    As in neat-python fitness counts from that of the worst member of all living species on, `lowest`, and sizes go half
    way from where they are; each has `least` at the least.
    """
    worth = jnp.where(lives, mean - lowest, 0.0)
    worth = jnp.where(worth.sum() > 0, worth, lives.astype(jnp.float32))
    wanted = jnp.maximum(worth / worth.sum() * members, least)
    above = jnp.where(lives, ((size + wanted) / 2 - least).clip(0), 0.0)
    above = jnp.where(above.sum() > 0, above, lives.astype(jnp.float32))
    portion = jnp.cumsum(above)
    ends = jnp.round(portion / portion[-1] * (members - least * lives.sum())).astype(jnp.int32)
    return jnp.diff(ends, prepend=0) + least * lives


def children(
    key: Key, genomes: Genome, species: Species, place: Array, fitness: Array, generation: Array, config: NEAT
) -> tuple[Species, Genome, Array]:
    """Make the next generation before mutation: the species left, its genomes `[P, ...]`, and which may change `[P]`.

    The first children of each species are its best members, unchanged; the parents of the others are drawn from the
    better part of it.
    """
    species, size, mean = survivors(species, place, fitness, generation, config)
    members, lives = len(place), species.key != NONE
    lowest = jnp.where(lives[place], fitness, jnp.inf).min()
    counts = offspring(lives, size, mean, lowest, members, config.least)
    ends = jnp.cumsum(counts)
    child = jnp.arange(members)
    of = jnp.searchsorted(ends, child, side="right")
    rank = child - (ends - counts)[of]
    order = jnp.lexsort((-fitness, place))
    start = (jnp.cumsum(size) - size)[of]
    parents = jnp.ceil(config.survival_threshold * size).astype(jnp.int32).clip(2)
    parents = jnp.minimum(parents, size)[of]
    key_parents, key_cross = jax.random.split(key)
    chance = jnp.floor(jax.random.uniform(key_parents, (2, members)) * parents).astype(jnp.int32)
    first, second = order[start + jnp.minimum(chance, parents - 1)]
    swap = fitness[second] > fitness[first]
    first, second = jnp.where(swap, second, first), jnp.where(swap, first, second)
    stays = rank < jnp.minimum(config.elitism, size[of])
    first = jnp.where(stays, order[start + jnp.minimum(rank, size[of] - 1)], first)
    second = jnp.where(stays, first, second)

    def genome(index: Array) -> Genome:
        return jax.tree.map(lambda x: x[index], genomes)

    fitter = genome(first)
    crossed = crossover(key_cross, fitter, genome(second))

    def chosen(old: Array, new: Array) -> Array:
        return jnp.where(stays.reshape(-1, *[1] * (old.ndim - 1)), old, new)

    return species, jax.tree.map(chosen, fitter, crossed), ~stays
