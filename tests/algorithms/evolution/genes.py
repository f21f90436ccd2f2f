"""Genomes of ours as neat-python has them, and a configuration of it that says the same."""

import math
from functools import lru_cache
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np

from renshu import NEAT
from renshu.algorithms.evolution.genomes import crossover, first_genomes, mutate
from renshu.networks.graph import NONE, Genome, Sizes

INPUTS, OUTPUTS, MEMBERS = 3, 2, 30
SIZES = Sizes(INPUTS, OUTPUTS, 8, 40)
GROWING = {"node_add_prob": 0.6, "conn_add_prob": 0.8, "node_delete_prob": 0.1, "conn_delete_prob": 0.2}

TEXT = """
[NEAT]
fitness_criterion = max
fitness_threshold = 1
no_fitness_termination = True
pop_size = {population}
reset_on_extinction = False
[DefaultGenome]
num_inputs = {inputs}
num_outputs = {outputs}
num_hidden = 0
feed_forward = {feed_forward}
compatibility_disjoint_coefficient = {compatibility_disjoint_coefficient}
compatibility_weight_coefficient = {compatibility_weight_coefficient}
conn_add_prob = {conn_add_prob}
conn_delete_prob = {conn_delete_prob}
node_add_prob = {node_add_prob}
node_delete_prob = {node_delete_prob}
initial_connection = full_direct
bias_init_mean = 0.0
bias_init_stdev = {weight_init_stdev}
bias_init_type = gaussian
bias_max_value = {weight_max_value}
bias_min_value = -{weight_max_value}
bias_mutate_power = {weight_mutate_power}
bias_mutate_rate = {weight_mutate_rate}
bias_replace_rate = {weight_replace_rate}
response_init_mean = 1.0
response_init_stdev = 0.0
response_init_type = gaussian
response_max_value = 1.0
response_min_value = 1.0
response_mutate_power = 0.0
response_mutate_rate = 0.0
response_replace_rate = 0.0
weight_init_mean = 0.0
weight_init_stdev = {weight_init_stdev}
weight_init_type = gaussian
weight_max_value = {weight_max_value}
weight_min_value = -{weight_max_value}
weight_mutate_power = {weight_mutate_power}
weight_mutate_rate = {weight_mutate_rate}
weight_replace_rate = {weight_replace_rate}
enabled_default = True
enabled_mutate_rate = 0.0
enabled_rate_to_true_add = 0.0
enabled_rate_to_false_add = 0.0
activation_default = plain_tanh
activation_mutate_rate = 0.0
activation_options = plain_tanh identity
aggregation_default = sum
aggregation_mutate_rate = 0.0
aggregation_options = sum
[DefaultSpeciesSet]
compatibility_threshold = {compatibility_threshold}
[DefaultStagnation]
species_fitness_func = max
max_stagnation = {max_stagnation}
species_elitism = {species_elitism}
[DefaultReproduction]
elitism = {elitism}
survival_threshold = {survival_threshold}
min_species_size = {min_species_size}
"""


@lru_cache
def program(recurrent):
    """A generation of random parents and mutation, whose rates are arguments."""

    @jax.jit
    def generation(key, genomes, node, rates):
        config = SimpleNamespace(**rates, recurrent=recurrent)
        keys = jax.random.split(key, 3)
        others = jax.tree.map(lambda x: x[jax.random.permutation(keys[0], MEMBERS)], genomes)
        children = crossover(keys[1], genomes, others)
        return mutate(keys[2], children, jnp.ones(MEMBERS, bool), node, config, SIZES)

    return generation


def grown(generations, seed=0, **hyperparameters):
    """Genomes after random generations, with their configuration, and the id of the next node."""
    config = NEAT(**{**GROWING, **hyperparameters})
    rates = {name: value for name, value in config.to_json().items() if type(value) is float}
    key = jax.random.key(seed)
    genomes, node = first_genomes(key, MEMBERS, config, SIZES), jnp.int32(INPUTS + OUTPUTS)
    for i in range(generations):
        genomes, node = program(config.recurrent)(jax.random.fold_in(key, i), genomes, node, rates)
    return config, jax.tree.map(np.asarray, genomes), node


def member(genomes, index):
    """One genome of many."""
    return jax.tree.map(lambda x: x[index], genomes)


def configuration(path, config, inputs=INPUTS, outputs=OUTPUTS, population=MEMBERS):
    """neat-python's configuration with our hyperparameters."""
    import neat
    from neat.innovation import InnovationTracker

    values = {**config.to_json(), "inputs": inputs, "outputs": outputs, "population": population}
    path.write_text(TEXT.format(**values, feed_forward=not config.recurrent))
    kinds = neat.DefaultGenome, neat.DefaultReproduction, neat.DefaultSpeciesSet, neat.DefaultStagnation
    made = neat.Config(*kinds, str(path))
    made.genome_config.add_activation("plain_tanh", lambda x: math.tanh(x))
    made.genome_config.innovation_tracker = InnovationTracker()
    return made


def theirs(genome: Genome, made, key=0, inputs=INPUTS):
    """A genome of ours as one of neat-python: its inputs are negative, and outputs begin at 0."""
    import neat

    def name(node):
        return int(-node - 1 if node < inputs else node - inputs)

    found = neat.DefaultGenome(key)
    hidden, outs = len(genome.hidden), made.genome_config.num_outputs
    biases = {inputs + i: genome.bias[hidden + i] for i in range(outs)}
    biases |= {int(node): genome.bias[i] for i, node in enumerate(genome.hidden) if node != NONE}
    for node, bias in biases.items():
        gene = found.create_node(made.genome_config, name(node))
        gene.bias, gene.activation = float(bias), "identity" if node < inputs + outs else "plain_tanh"
        found.nodes[name(node)] = gene
    for i in np.flatnonzero(genome.source != NONE):
        pair = name(genome.source[i]), name(genome.target[i])
        gene = found.create_connection(made.genome_config, *pair, int(i))
        gene.weight, gene.enabled = float(genome.weight[i]), bool(genome.enabled[i])
        assert pair not in found.connections
        found.connections[pair] = gene
    return found
