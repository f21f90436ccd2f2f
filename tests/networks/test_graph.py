"""Networks of any shape: the outputs of neat-python's networks, in any order of nodes, with and without memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renshu.networks.graph import NONE, outputs, reaches, wire
from tests.algorithms.evolution.genes import INPUTS, MEMBERS, OUTPUTS, SIZES, configuration, grown, member, theirs

neat = pytest.importorskip("neat", reason="neat-python is not installed")
STEPS = 6


@pytest.fixture(scope="module", params=[False, True], ids=["feed_forward", "recurrent"])
def networks(request, tmp_path_factory):
    config, genomes, _ = grown(40, recurrent=request.param)
    made = configuration(tmp_path_factory.mktemp("neat") / "config", config)
    return config, genomes, made


def test_outputs_are_those_of_neat_python(networks):
    config, genomes, made = networks
    hidden = (genomes.hidden != NONE).sum(axis=1)
    assert hidden.max() >= 5
    assert genomes.enabled.sum(axis=1).max() >= 15
    wiring = wire(genomes, SIZES, config.recurrent)
    assert wiring.count == hidden.max()
    x = np.random.default_rng(0).normal(size=(STEPS, 2 * MEMBERS, INPUTS)).astype(np.float32)
    memory = jnp.zeros((2 * MEMBERS, SIZES.hidden)) if config.recurrent else ()
    ours = []
    for step in range(STEPS):
        found, memory = jax.jit(outputs, static_argnums=3)(wiring, x[step], memory, "tanh")
        ours.append(found)
    kind = neat.nn.RecurrentNetwork if config.recurrent else neat.nn.FeedForwardNetwork
    for row in range(2 * MEMBERS):
        network = kind.create(computed(theirs(member(genomes, row % MEMBERS), made), made), made)
        for step in range(STEPS):
            expected = network.activate(x[step, row].tolist())
            np.testing.assert_allclose(ours[step][row], expected, rtol=2e-4, atol=2e-4)


def computed(genome, made):
    """The genome with a connection of weight 0 into each node: theirs does not compute recurrent ones without any."""
    for node in genome.nodes:
        if not any(gene.enabled for (_, target), gene in genome.connections.items() if target == node):
            gene = genome.create_connection(made.genome_config, -1, node, 1_000 + node)
            gene.weight, gene.enabled = 0.0, True
            genome.connections[-1, node] = gene
    return genome


def test_recurrent_networks_remember(networks):
    config, genomes, _ = networks
    if not config.recurrent:
        pytest.skip("feed-forward networks have no memory")
    wiring, x = wire(genomes, SIZES, True), jnp.ones((MEMBERS, INPUTS))
    first, memory = outputs(wiring, x, jnp.zeros((MEMBERS, SIZES.hidden)), "tanh")
    again, _ = outputs(wiring, x, memory, "tanh")
    assert (np.abs(first - again).max(axis=1) > 1e-3).mean() > 0.5


def test_members_do_not_see_each_other(networks):
    config, genomes, _ = networks
    x = np.random.default_rng(1).normal(size=(MEMBERS, INPUTS)).astype(np.float32)
    memory = jnp.zeros((MEMBERS, SIZES.hidden)) if config.recurrent else ()
    together = outputs(wire(genomes, SIZES, config.recurrent), x, memory, "tanh")[0]
    for i in (0, 7):
        one = wire(jax.tree.map(lambda g, i=i: g[i : i + 1], genomes), SIZES, config.recurrent)
        alone = outputs(one, x[i : i + 1], memory[i : i + 1] if config.recurrent else (), "tanh")[0]
        np.testing.assert_allclose(alone[0], together[i], rtol=1e-5, atol=1e-5)
    assert together.shape == (MEMBERS, OUTPUTS)


def test_reaches():
    links = np.zeros((5, 5), bool)
    links[1, 0] = links[2, 1] = links[4, 3] = True
    np.testing.assert_array_equal(reaches(jnp.asarray(links), 0), [True, True, True, False, False])
    np.testing.assert_array_equal(reaches(jnp.asarray(links), 2), [False, False, True, False, False])
