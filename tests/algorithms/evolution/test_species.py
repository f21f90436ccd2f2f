"""Species: who belongs together as in neat-python, who dies out, and how many children each has."""

from itertools import count

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renshu import NEAT
from renshu.algorithms.evolution.species import children, no_species, offspring, speciate, survivors
from renshu.networks.graph import NONE
from tests.algorithms.evolution.genes import MEMBERS, configuration, grown, member, theirs

PLACES = 12
SHAPED = {"max_species": PLACES, "population_size": MEMBERS, "compatibility_threshold": 2.9}


@pytest.fixture(scope="module")
def generations():
    config, first, _ = grown(6, **SHAPED)
    return config, first, grown(7, **SHAPED)[1]


def test_species_are_those_of_neat_python(generations, tmp_path):
    neat = pytest.importorskip("neat", reason="neat-python is not installed")
    config, *of_each = generations
    made = configuration(tmp_path / "config", config)
    kinds = neat.DefaultSpeciesSet(made.species_set_config, neat.reporting.ReporterSet())
    kinds.indexer = count(0)
    species = no_species(of_each[0], PLACES)
    found = jax.jit(lambda genomes, species, number: speciate(genomes, species, number, config))
    for number, genomes in enumerate(of_each):
        species, place = found(genomes, species, number)
        keys = range(number * MEMBERS, (number + 1) * MEMBERS)
        kinds.speciate(made, {key: theirs(member(genomes, key % MEMBERS), made, key) for key in keys}, number)
        expected = [kinds.get_species_id(key) for key in keys]
        np.testing.assert_array_equal(species.key[place], expected)
    assert 3 <= len(set(expected)) < PLACES


def test_where_places_are_taken_others_join_the_nearest(generations):
    config = NEAT(max_species=2, compatibility_threshold=0.01)
    genomes = jax.tree.map(jnp.asarray, generations[1])
    species, place = speciate(genomes, no_species(genomes, 2), jnp.int32(0), config)
    assert set(np.asarray(place)) == {0, 1}
    np.testing.assert_array_equal(species.key, [0, 1])


def _species(key, best, improved):
    found = no_species(grown(0)[1], len(key))
    return found._replace(key=jnp.array(key), best=jnp.array(best), improved=jnp.array(improved))


def test_species_without_progress_die_out_but_for_the_best():
    config = NEAT(max_stagnation=5, species_elitism=1)
    species = _species([4, NONE, 7, 9], [10.0, 0.0, 2.0, 3.0], [0, 0, 0, 7])
    place, fitness = jnp.array([0, 0, 2, 3, 3]), jnp.array([9.0, 1.0, 1.0, 2.0, 0.0])
    after, size, mean = survivors(species, place, fitness, jnp.int32(8), config)
    # 4 is the best, though stagnant; 7 is stagnant; 9 improved a generation ago.
    np.testing.assert_array_equal(after.key, [4, NONE, NONE, 9])
    np.testing.assert_array_equal(size, [2, 0, 1, 2])
    np.testing.assert_array_equal(mean[np.array([0, 2, 3])], [5.0, 1.0, 1.0])
    # A species that improves in this generation stays.
    after, *_ = survivors(species, place, fitness.at[2].set(2.5), jnp.int32(8), config)
    np.testing.assert_array_equal(after.key, [4, NONE, 7, 9])
    np.testing.assert_array_equal(after.best[:1], [10.0])
    assert after.best[2] == 2.5
    assert after.improved[2] == 8


@pytest.mark.parametrize("seed", range(6))
def test_children_sum_up_and_follow_fitness(seed):
    draw = np.random.default_rng(seed)
    lives = draw.random(8) < 0.6
    lives[0] = True
    size = jnp.asarray(np.where(lives, draw.multinomial(100, np.ones(8) / 8), 0))
    mean = jnp.asarray(draw.normal(size=8).astype(np.float32))
    counts = np.asarray(offspring(jnp.asarray(lives), size, mean, mean.min() - 1, 100, 3))
    assert counts.sum() == 100
    assert (counts[lives] >= 3).all()
    assert (counts[~lives] == 0).all()


def test_equal_species_share_alike():
    lives, size = jnp.array([True, True, False]), jnp.array([50, 50, 0])
    np.testing.assert_array_equal(offspring(lives, size, jnp.zeros(3), jnp.float32(0), 100, 2), [50, 50, 0])
    counts = offspring(lives, size, jnp.array([2.0, 1.0, 9.0]), jnp.float32(0.9), 100, 2)
    assert counts[0] > 70
    assert counts[2] == 0


@pytest.mark.parametrize("seed", range(4))
def test_shares_are_neat_pythons(seed):
    from neat.reproduction import DefaultReproduction

    draw = np.random.default_rng(seed)
    size = draw.multinomial(200, np.ones(5) / 5)
    fitness = [draw.normal(draw.normal() * 50, 20, count).astype(np.float32) for count in size]
    mean, lowest = np.array([x.mean() for x in fitness]), min(x.min() for x in fitness)
    adjusted = (mean - lowest) / max(1.0, max(x.max() for x in fitness) - lowest)
    theirs = DefaultReproduction.compute_spawn(adjusted.tolist(), size.tolist(), 200, 2)
    ours = offspring(jnp.ones(5, bool), jnp.asarray(size), jnp.asarray(mean), jnp.float32(lowest), 200, 2)
    np.testing.assert_allclose(ours, theirs, atol=3)


def test_the_best_go_on_unchanged_and_parents_are_of_the_better_part():
    config = NEAT(population_size=MEMBERS, max_species=3, elitism=2, survival_threshold=0.25, species_elitism=3)
    genomes = jax.tree.map(jnp.asarray, grown(0)[1])
    place = jnp.arange(MEMBERS) % 3
    fitness = jnp.arange(MEMBERS, dtype=jnp.float32)
    species = _species([0, 1, 2], [-jnp.inf] * 3, [0] * 3)
    _, made, changes = children(jax.random.key(0), genomes, species, place, fitness, jnp.int32(1), config)
    assert (~changes).sum() == 6
    # Bias of the first output, which tells all genomes apart, and which children have from one of their parents.
    of = genomes.bias[:, -2]
    parent = [int(np.flatnonzero(of == bias)[0]) for bias in made.bias[:, -2]]
    still = [parent[i] for i in np.flatnonzero(~changes)]
    assert sorted(still) == [24, 25, 26, 27, 28, 29]
    # Of ten members in each species the best three have children.
    assert 21 <= min(parent) < 24
    for i in np.flatnonzero(~changes):
        jax.tree.map(lambda new, old, i=i: np.testing.assert_array_equal(new[i], old[parent[i]]), made, genomes)
