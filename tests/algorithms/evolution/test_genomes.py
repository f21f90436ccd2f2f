"""Genes: the distances of neat-python, children of the fitter parent's shape, and marks that tell equal from new."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renshu.algorithms.evolution.genomes import crossover, distances, numbered, pick
from renshu.networks.graph import NONE
from tests.algorithms.evolution.genes import INPUTS, MEMBERS, OUTPUTS, SIZES, configuration, grown, member, theirs


@pytest.fixture(scope="module")
def generation():
    return grown(40)


def test_distances_are_those_of_neat_python(generation, tmp_path):
    pytest.importorskip("neat", reason="neat-python is not installed")
    config, genomes, _ = generation
    made = configuration(tmp_path / "config", config)
    others = [theirs(member(genomes, i), made, i) for i in range(MEMBERS)]
    apart = jax.jit(lambda one: distances(genomes, one, config))
    ours = np.stack([apart(member(genomes, i)) for i in range(MEMBERS)])
    expected = [[mine.distance(other, made.genome_config) for other in others] for mine in others]
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)
    assert ours.max() > 2
    assert ours[0, 0] == 0


def test_a_child_has_the_fitter_parents_genes_and_values_of_both(generation, tmp_path):
    pytest.importorskip("neat", reason="neat-python is not installed")
    config, genomes, _ = generation
    made = configuration(tmp_path / "config", config)
    for i, j in [(0, 1), (5, 2), (9, 20)]:
        a, b = member(genomes, i), member(genomes, j)
        child = crossover(jax.random.key(i), *(jax.tree.map(lambda x: x[None], parent) for parent in (a, b)))
        child = jax.tree.map(lambda x: np.asarray(x[0]), child)
        for field in ("source", "target", "hidden"):
            np.testing.assert_array_equal(getattr(child, field), getattr(a, field))
        pairs = list(zip(a.source.tolist(), a.target.tolist(), strict=True))
        where = {pair: k for k, pair in enumerate(zip(b.source.tolist(), b.target.tolist(), strict=True))}
        both = np.array([pair in where for pair in pairs]) & (a.source != NONE)
        assert both.any()
        other = np.array([b.weight[where[pair]] if there else 0 for pair, there in zip(pairs, both, strict=True)])
        assert ((child.weight == a.weight) | (both & (child.weight == other))).all()
        parents = theirs(a, made, 0), theirs(b, made, 1)
        marks = {}
        for parent in parents:  # the same connection has the same number, as in one generation of theirs
            for pair, gene in parent.connections.items():
                gene.innovation = marks.setdefault(pair, len(marks))
        parents[0].fitness, parents[1].fitness = 2.0, 1.0
        expected = type(parents[0])(2)
        expected.configure_crossover(*parents, made.genome_config)
        ours = theirs(child, made, 3)
        assert ours.connections.keys() == expected.connections.keys()
        assert ours.nodes.keys() == expected.nodes.keys()


def test_values_are_of_either_parent_by_halves_and_disabled_genes_mostly_stay_so():
    _, genomes, _ = grown(0)
    a, b = member(genomes, 0), member(genomes, 1)
    b = b._replace(enabled=np.zeros_like(b.enabled))
    many = (jax.tree.map(lambda x: np.repeat(x[None], 2_000, axis=0), parent) for parent in (a, b))
    children = crossover(jax.random.key(0), *many)
    pairs = INPUTS * OUTPUTS
    assert abs((children.weight[:, :pairs] == b.weight[:pairs]).mean() - 0.5) < 0.03
    # Half of the genes are of the parent that has them enabled, and of those a quarter stays enabled.
    assert abs(children.enabled[:, :pairs].mean() - 0.125) < 0.02


def test_equal_changes_have_equal_marks():
    nodes_alone = {"node_add_prob": 1.0, "conn_add_prob": 0.0, "node_delete_prob": 0.0, "conn_delete_prob": 0.0}
    _, genomes, node = grown(1, **nodes_alone, enable_rate=0.0)
    split = {}
    for i in range(MEMBERS):
        (disabled,) = np.flatnonzero(~genomes.enabled[i, : INPUTS * OUTPUTS])
        split.setdefault(int(disabled), set()).add(int(genomes.hidden[i, 0]))
    assert len(split) == INPUTS * OUTPUTS
    assert all(len(nodes) == 1 for nodes in split.values())
    assert len(set.union(*split.values())) == INPUTS * OUTPUTS
    assert node == INPUTS + OUTPUTS + INPUTS * OUTPUTS


@pytest.mark.parametrize("recurrent", [False, True])
def test_genomes_stay_sound(recurrent):
    _, genomes, node = grown(60, seed=1, recurrent=recurrent)
    cycles = 0
    for i in range(MEMBERS):
        genome = member(genomes, i)
        there = genome.source != NONE
        nodes = set(range(INPUTS + OUTPUTS)) | {int(node) for node in genome.hidden if node != NONE}
        pairs = list(zip(genome.source[there].tolist(), genome.target[there].tolist(), strict=True))
        assert len(set(pairs)) == len(pairs)
        assert all(a in nodes and b in nodes and b >= INPUTS for a, b in pairs)
        assert all(not INPUTS <= a < INPUTS + OUTPUTS for a, _ in pairs)
        assert max(nodes) < node
        assert not genome.enabled[~there].any()
        cycles += _has_cycle(pairs)
    assert cycles > 0 if recurrent else cycles == 0


def _has_cycle(pairs):
    import graphlib

    before = {}
    for a, b in pairs:
        before.setdefault(b, set()).add(a)
    try:
        list(graphlib.TopologicalSorter(before).static_order())
    except graphlib.CycleError:
        return True
    return False


def test_no_room_no_change():
    _, genomes, _ = grown(200, seed=2, node_delete_prob=0.0, conn_delete_prob=0.0)
    assert ((genomes.source != NONE).sum(axis=1) <= SIZES.connections).all()
    assert (genomes.hidden != NONE).all()  # all full, and still sound


def test_numbered():
    wanted = jnp.array([True, False, True, True, True])
    number, count = numbered(wanted, jnp.array([7, 7, 3, 7, 3]), jnp.array([1, 1, 2, 1, 5]))
    assert count == 3
    assert number[0] == number[3]
    assert len({int(number[i]) for i in (0, 2, 4)}) == 3
    assert numbered(jnp.zeros(5, bool), jnp.arange(5), jnp.arange(5))[1] == 0


def test_pick():
    mask = jnp.array([False, True, False, True, True])
    found = jax.vmap(lambda chance: pick(chance, mask))(jnp.linspace(0, 1, 300, endpoint=False))
    np.testing.assert_array_equal(np.bincount(found, minlength=5), [0, 100, 0, 100, 100])
    assert pick(jnp.float32(0.999999), mask) == 4
    assert pick(jnp.float32(0.5), jnp.zeros(3, bool)) == 0
