"""Neuroevolution of augmenting topologies (Stanley and Miikkulainen 2002)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from renshu.algorithms.base import KINDS, Learner, Picture
from renshu.algorithms.evolution.drawing import draw_network, draw_species
from renshu.algorithms.evolution.genomes import first_genomes, mutate
from renshu.algorithms.evolution.population import Acting, ActorState, EvolutionaryAlgorithm, PopulationLearner, State
from renshu.algorithms.evolution.species import Species, children, no_species, speciate
from renshu.algorithms.hyperparameters import boolean, choice, integer, number
from renshu.errors import HyperparameterError
from renshu.networks.graph import NONE, Genome, Sizes, Wiring, outputs, wire
from renshu.networks.heads import Distribution, describe, discrete, outputs_for
from renshu.networks.layers import ACTIVATIONS
from renshu.ops.distributions import Categorical, Normal, TanhNormal
from renshu.ops.masks import mask_values
from renshu.ops.rows import choose
from renshu.ops.spaces import dummy, encode
from renshu.types import Accepts, ActorOutput, Array, EnvSpec, Key, Metrics, PyTree, TimeStep

HISTORY = 1_000
"""Generations of which the sizes of species are known."""


@dataclass(frozen=True, kw_only=True)
class NEAT(EvolutionaryAlgorithm):
    """Neuroevolution of augmenting topologies: networks that begin without hidden nodes and grow while they evolve.

    Genes have historical marks, so that networks of different shapes can be crossed; species protect new structure
    until it has proven itself. What plays without exploration is the best of the latest generation. Names as in
    neat-python.

    Source: Stanley and Miikkulainen 2002, "Evolving neural networks through augmenting topologies".
    """

    accepts: ClassVar[Accepts] = Accepts(observations=KINDS | {"nested"}, actions=KINDS, masks=True)

    population_size: int = integer(150, "networks of a generation", least=2)
    max_hidden: int = integer(32, "most hidden nodes of a network", least=1)
    max_connections: int | None = integer(
        None, "most connections of a network; None: all from inputs to outputs and four for each hidden node",
        least=1, optional=True,
    )  # fmt: skip
    activation_fn: str = choice("tanh", "activation of hidden nodes; outputs are linear", tuple(ACTIVATIONS))
    recurrent: bool = boolean(False, "let connections close cycles: networks that remember")
    initial_connection: float = number(
        1.0, "share of the connections from inputs to outputs that the first networks have", least=0, most=1
    )
    node_add_prob: float = number(0.1, "chance of a child to get a new node", least=0, most=1, traceable=True)
    node_delete_prob: float = number(0.0, "chance of a child to lose a node; the paper has none", least=0, most=1)
    conn_add_prob: float = number(0.2, "chance of a child to get a new connection", least=0, most=1, traceable=True)
    conn_delete_prob: float = number(0.0, "chance of a child to lose a connection; the paper has none", least=0, most=1)
    weight_init_stdev: float = number(1.0, "deviation of new weights and biases", least=0, traceable=True)
    weight_mutate_rate: float = number(0.8, "chance of a weight or bias to be moved", least=0, most=1, traceable=True)
    weight_mutate_power: float = number(0.5, "deviation of that move", least=0, traceable=True)
    weight_replace_rate: float = number(
        0.1, "chance of a weight or bias to be drawn anew", least=0, most=1, traceable=True
    )
    weight_max_value: float = number(30.0, "weights and biases are kept within +- this", above=0)
    enable_rate: float = number(0.05, "chance of a disabled connection to be enabled again", least=0, most=1)
    compatibility_threshold: float = number(3.0, "distance from which two genomes are of two species", above=0)
    compatibility_disjoint_coefficient: float = number(1.0, "weight in it of genes that only one has", least=0)
    compatibility_weight_coefficient: float = number(0.5, "weight in it of differences of matching genes", least=0)
    max_species: int = integer(20, "most species at a time; further genomes join the nearest", least=1)
    max_stagnation: int = integer(15, "generations without a better member after which a species dies out", least=1)
    species_elitism: int = integer(2, "so many of the best species never die out", least=1)
    min_species_size: int = integer(2, "members that a species has at the least", least=1)
    elitism: int = integer(2, "so many of the best of each species go on unchanged", least=0)
    survival_threshold: float = number(0.2, "share of a species that has children, the best of it", above=0, most=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        least = self.max_species * self.least
        if least > self.population_size:
            raise HyperparameterError(
                f"NEAT: {self.max_species} species (max_species) of at least {self.least} members (min_species_size, "
                f"elitism) are {least}, more than population_size={self.population_size}"
            )
        if self.weight_mutate_rate + self.weight_replace_rate > 1:
            raise HyperparameterError("NEAT: weight_mutate_rate and weight_replace_rate are together more than 1")

    @property
    def members(self) -> int:
        """Networks of a generation."""
        return self.population_size

    @property
    def least(self) -> int:
        """Members of a species at the least."""
        return max(self.min_species_size, self.elitism)

    def build(self, spec: EnvSpec) -> NEATLearner:
        """Bind NEAT to an environment."""
        return NEATLearner(self, spec)


class Search(NamedTuple):
    """A generation, and what its history has left."""

    genomes: Genome  # [P, ...]
    place: Array  # [P] int32  of each genome's species
    species: Species
    next_node: Array  # [] int32  id of the next hidden node that comes into being
    generation: Array  # [] int32
    keys: Array  # [HISTORY, S] int32  of the species of the latest generations; NONE: empty
    sizes: Array  # [HISTORY, S] int32  and how many genomes were in each


class NEATLearner(PopulationLearner[NEAT]):
    """Networks of all shapes in their environments."""

    def __init__(self, config: NEAT, spec: EnvSpec) -> None:
        super().__init__(config, spec)
        inputs = jax.eval_shape(lambda: encode(spec.network_space, dummy(spec.network_space, 1))).shape[1]
        outs = outputs_for(spec.action_space)
        room = config.max_connections or inputs * outs + 4 * config.max_hidden
        if room < inputs * outs:
            raise HyperparameterError(
                f"NEAT: max_connections={room}, but {inputs} inputs and {outs} outputs make {inputs * outs} connections"
            )
        self.sizes = Sizes(inputs, outs, config.max_hidden, room)

    @property
    def strategy(self) -> Topologies:
        """The search for networks."""
        return Topologies(self.config, self.sizes)

    def start(self, key: Key) -> Genome:
        """Make a first network."""
        return jax.tree.map(lambda x: x[0], first_genomes(key, 1, self.config, self.sizes))

    def params_of(self, solution: Genome) -> Genome:
        """Return the best network itself: its genes are its weights."""
        return solution

    def start_from(self, state: State, params: PyTree) -> State:
        """Raise HyperparameterError: networks of other algorithms have layers."""
        return Learner.start_from(self, state, params)

    def actor_state(self, state: State) -> ActorState:
        """Select the genomes, without what only reproduction needs."""
        search = state.search._replace(place=(), species=(), keys=(), sizes=())
        return super().actor_state(state)._replace(search=search)

    def prepare(self, actor_state: ActorState, env_id: Array) -> Acting:
        """Wire the networks that play here, and the best one."""
        made = super().prepare(actor_state, env_id)
        best = jax.tree.map(lambda x: x[None], made.params)
        recurrent = self.config.recurrent
        return Acting(wire(best, self.sizes, recurrent), wire(made.members, self.sizes, recurrent), made.obs_stats)

    def initial_carry(self, num_envs: int) -> PyTree:
        """Return the hidden nodes of recurrent networks at the start of an episode, `[num_envs, H]`."""
        return jnp.zeros((num_envs, self.sizes.hidden)) if self.config.recurrent else ()

    def act(self, acting: Acting, carry: PyTree, timestep: TimeStep, key: Key, *, explore: bool) -> ActorOutput:
        """Let each network act in its environments; without exploration the best one in all."""
        policy, memory = self.policies(acting.members if explore else acting.params, acting, carry, timestep)
        return ActorOutput(policy.mode(), memory)

    def explain(self, acting: Acting, carry: PyTree, timestep: TimeStep) -> dict[str, Array]:
        """Return the parameters of the best network's policy, `[N, ...]`."""
        found = describe(self.policies(acting.params, acting, carry, timestep)[0])
        return {name: value for name, value in found.items() if name != "std"}

    def policies(
        self, wiring: Wiring, acting: Acting, carry: PyTree, timestep: TimeStep
    ) -> tuple[Distribution, PyTree]:
        """Compute the distributions over actions in N environments, and the newer memory."""
        seen, mask = self.split(self.normalized(acting, timestep.obs))
        if self.config.recurrent:
            carry = choose(timestep.first, jnp.zeros_like(carry), carry)
        x = encode(self.spec.network_space, seen)
        found, memory = outputs(wiring, x, carry, self.config.activation_fn)
        space = self.spec.action_space
        if isinstance(space, spaces.Box):
            kind = TanhNormal if self.config.squash_output else Normal
            return kind(found, jnp.zeros_like(found)), memory
        policy = discrete(space, found)
        return Categorical(mask_values(found, mask)) if self.spec.masks else policy, memory

    def named(self, state: State) -> dict[str, PyTree]:
        """Return the best network of the latest generation."""
        return {"best": state.params}

    def pictures(self, state: State) -> dict[str, Picture]:
        """Return pictures of the best network and of the species of the latest generations."""
        search: Search = state.search
        count = int(search.generation)
        rows = np.arange(max(0, count - HISTORY), count)
        keys, sizes = (np.asarray(x)[rows % HISTORY] for x in (search.keys, search.sizes))
        return {
            "network": partial(draw_network, genome=state.params, sizes=self.sizes),
            "species": partial(draw_species, keys=keys, counts=sizes, first=int(rows[0]) if count else 0),
        }

    def metrics(self, search: Search, solution: Genome, rate: Array) -> Metrics:
        """Return the number of species, and how large networks are."""
        hidden = (search.genomes.hidden != NONE).sum(axis=1)
        connections = search.genomes.enabled.sum(axis=1)
        return {
            "species": (search.species.key != NONE).sum(dtype=jnp.float32),
            "hidden_mean": hidden.mean(),
            "connections_mean": connections.mean(),
            "hidden_best": (solution.hidden != NONE).sum(dtype=jnp.float32),
            "connections_best": solution.enabled.sum(dtype=jnp.float32),
        }


class Topologies(NamedTuple):
    """The search of NEAT (see `Strategy`); its state is the generation that plays next."""

    config: NEAT
    sizes: Sizes

    def init(self, key: Key, start: Genome) -> Search:
        """Begin with `start` and networks like it."""
        genomes = first_genomes(key, self.config.members, self.config, self.sizes)
        genomes = jax.tree.map(lambda x, first: x.at[0].set(first), genomes, start)
        empty = no_species(genomes, self.config.max_species)
        species, place = speciate(genomes, empty, jnp.int32(0), self.config)
        keys = jnp.full((HISTORY, self.config.max_species), NONE, jnp.int32)
        node = jnp.int32(self.sizes.inputs + self.sizes.outputs)
        return Search(genomes, place, species, node, jnp.int32(0), keys, jnp.zeros_like(keys))

    def ask(self, key: Key, state: Search) -> tuple[Genome, Search]:
        """Return the generation."""
        return state.genomes, state

    def tell(self, key: Key, members: Genome, fitness: Array, state: Search, learning_rate: Array) -> Search:
        """Return the next generation, by species, crossover and mutation."""
        key_children, key_mutation = jax.random.split(key)
        row, places = state.generation % HISTORY, len(state.species.key)
        sizes = jnp.zeros(places, jnp.int32).at[state.place].add(1)
        species, genomes, changes = children(
            key_children, members, state.species, state.place, fitness, state.generation, self.config
        )
        genomes, node = mutate(key_mutation, genomes, changes, state.next_node, self.config, self.sizes)
        generation = state.generation + 1
        after, place = speciate(genomes, species, generation, self.config)
        keys = state.keys.at[row].set(state.species.key)
        return Search(genomes, place, after, node, generation, keys, state.sizes.at[row].set(sizes))

    def solution(self, state: Search, members: Genome, fitness: Array) -> Genome:
        """Return the best network of the latest generation."""
        return jax.tree.map(lambda x: x[fitness.argmax()], members)
