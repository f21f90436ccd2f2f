"""MAP-Elites (Mouret and Clune 2015) with variation along lines (Vassiliades and Mouret 2018)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from renshu.algorithms.base import Picture
from renshu.algorithms.evolution.drawing import draw_archive
from renshu.algorithms.evolution.population import ActorState, State
from renshu.algorithms.evolution.weights import VectorAlgorithm, VectorLearner
from renshu.algorithms.hyperparameters import boolean, function, integer, number, several
from renshu.errors import HyperparameterError
from renshu.ops.spaces import dummy
from renshu.types import OBSERVATION, Array, EnvSpec, Key, Metrics, PyTree, Rollout

EXAMPLE = """
def behavior(episode):  # one episode: obs [T+1, ...], action [T, ...], reward [T], valid [T]
    return jnp.mean(episode.action[:, :2], axis=0, where=episode.valid[:, None])  # two numbers, [2]

MAPElites(behavior=behavior, behavior_low=(-1, -1), behavior_high=(1, 1), cells=(16, 16))"""


@dataclass(frozen=True, kw_only=True)
class MAPElites(VectorAlgorithm):
    """MAP-Elites: an archive of policies that behave differently, each the best of those that behave like it.

    A function of yours says by some numbers what a policy did in an episode. Their range is a grid of cells, and each
    keeps the best policy that fell into it, its elite; children are made of two elites. What plays without exploration
    is the elite of the highest return. An elite is judged once: take several `n_eval_episodes` where chance decides
    much.

    Source: Mouret and Clune 2015, "Illuminating search spaces by mapping elites"; Vassiliades and Mouret 2018,
    "Discovering the elite hypervolume by leveraging interspecies correlation" (variation).
    """

    behavior: Any = function(
        "your function from an Episode (obs [T+1, ...], action [T, ...], reward [T], valid [T]) to B numbers [B]; it "
        "is compiled by JAX. Steps that are not valid came after the end"
    )
    behavior_low: Any = several(None, "least value of each of the B numbers in the archive", optional=True)
    behavior_high: Any = several(None, "greatest values; others fall into the outermost cells", optional=True)
    cells: Any = several((16, 16), "cells of the archive along each of the B numbers", integer=True, least=1)
    population_size: int = integer(64, "children of a generation", least=2)
    sigma_start: float = number(
        0.5, "deviation of the members about the first weights while no cell is filled", least=0, traceable=True
    )
    sigma_iso: float = number(0.01, "deviation of a child about the line through its parents", least=0, traceable=True)
    sigma_line: float = number(
        0.2, "deviation of a child along that line, as a share of its parents' difference", least=0, traceable=True
    )
    norm_obs: bool = boolean(False, "cannot be: elites were judged by the statistics of their time")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.norm_obs:
            raise HyperparameterError(
                "MAPElites: norm_obs=True cannot be: statistics go on changing, and an elite would no longer act as it "
                "did when it was judged. Scale observations in the environment"
            )
        low, high = self.behavior_low, self.behavior_high
        if low is None and high is None:
            return
        if low is None or high is None or not len(low) == len(high) == len(self.cells):
            raise HyperparameterError(
                f"MAPElites: expected as many numbers in behavior_low as in behavior_high and cells, not {low}, {high} "
                f"and {self.cells}"
            )
        for i, (least, most) in enumerate(zip(low, high, strict=True)):
            if not least < most:
                raise HyperparameterError(
                    f"MAPElites: behavior_low[{i}]={least:g} must be less than behavior_high[{i}]={most:g}"
                )

    @property
    def members(self) -> int:
        """Children of a generation."""
        return self.population_size

    def build(self, spec: EnvSpec) -> MAPElitesLearner:
        """Bind MAP-Elites to an environment."""
        return MAPElitesLearner(self, spec)


class Episode(NamedTuple):
    """An episode as `behavior` sees it: up to its end T steps, of which the first ones are valid."""

    obs: PyTree  # [T+1, ...]  as the environment gave them, without the mask of actions; obs[t + 1] follows on step t
    action: PyTree  # [T, ...]  as the policy chose it, before it is fitted to the environment
    reward: Array  # [T] float32  0 after the end
    valid: Array  # [T] bool  the step was played; False after the end


class Archive(NamedTuple):
    """An elite in each of C cells."""

    weights: Array  # [C, D]  where a cell is empty, those that the search began at
    fitness: Array  # [C]  -inf where it is empty
    behavior: Array  # [C, B]  0 where it is empty


class MAPElitesLearner(VectorLearner[MAPElites]):
    """Episodes that say how members behaved, and the archive of their weights."""

    def __init__(self, config: MAPElites, spec: EnvSpec) -> None:
        given = {"behavior": config.behavior, "behavior_low": config.behavior_low}
        for name, value in given.items():
            if value is None:
                raise HyperparameterError(
                    f"MAPElites needs {name}: policies are told apart by a function of yours, as in\n{EXAMPLE}"
                )
        super().__init__(config, spec)
        self.needs = dataclasses.replace(self.needs, keep=self.needs.keep | {"obs", "action"})
        self._check_behavior()

    def _check_behavior(self) -> None:
        """Raise HyperparameterError where the user's function does not return B numbers for an episode."""
        spec, steps, expected = self.spec, self.needs.steps, (len(self.config.cells),)
        name = getattr(self.config.behavior, "__name__", repr(self.config.behavior))
        episode = Episode(
            dummy(spec.network_space, steps + 1),
            dummy(spec.action_space, steps),
            np.zeros(steps, np.float32),
            np.ones(steps, np.bool_),
        )
        try:
            found = jax.eval_shape(self._numbers, episode)
        except Exception as error:
            shapes = jax.tree.map(lambda x: f"{x.dtype}{list(x.shape)}", episode)
            raise HyperparameterError(
                f"MAPElites: behavior={name} failed on an episode of this environment, obs {shapes.obs}, action "
                f"{shapes.action}, with {type(error).__name__}: {error}. It is compiled by JAX, as in\n{EXAMPLE}"
            ) from error
        if found.shape != expected:
            raise HyperparameterError(
                f"MAPElites: behavior={name} returns an array of shape {list(found.shape)} for an episode, expected "
                f"{list(expected)}: one number for each in behavior_low={self.config.behavior_low}"
            )

    def _numbers(self, episode: Episode) -> Array:
        return jnp.asarray(self.config.behavior(episode), jnp.float32)

    @property
    def strategy(self) -> Elites:
        """The search, with hyperparameters that may be traced."""
        return Elites(self.config)

    def actor_state(self, state: State) -> ActorState:
        """Select the weights of elites, and which cells are filled."""
        return super().actor_state(state)._replace(search=state.search._replace(behavior=()))

    def behaviors(self, rollout: Rollout) -> Array:
        """Compute the numbers of each episode, `[N, B]`."""
        obs = rollout.obs[OBSERVATION] if self.spec.masks else rollout.obs
        return jax.vmap(self._numbers, in_axes=1)(Episode(obs, rollout.action, rollout.reward, rollout.valid))

    def tell(
        self, key: Key, members: Array, fitness: Array, search: Archive, learning_rate: Array, rollout: Rollout
    ) -> Archive:
        """Tell the archive how members behaved, and their returns as they are: who has none must not enter."""
        behavior = self.by_member(rollout, self.behaviors(rollout))
        returns = self.by_member(rollout, self.returns(rollout))
        return self.strategy.tell(key, (members, behavior), returns, search, learning_rate)

    def metrics(self, search: Archive, solution: Array, rate: Array) -> Metrics:
        """Return the share of filled cells, the sum of what their elites have above the worst one, and the best."""
        filled = jnp.isfinite(search.fitness)
        lowest = jnp.where(filled, search.fitness, jnp.inf).min()
        return {
            "coverage": filled.mean(dtype=jnp.float32),
            "qd_score": jnp.where(filled, search.fitness - lowest, 0.0).sum(),
            "fitness_best": jnp.where(filled.any(), search.fitness.max(), 0.0),
            **super().metrics(search, solution, rate),
        }

    def named(self, state: State) -> dict[str, PyTree]:
        """Return the elite of the highest fitness."""
        return {"best": state.params}

    def member(self, state: State, which: str | int | Sequence[float]) -> State:
        """Return the state in which another plays: by B numbers the elite that behaved most like them.

        Distances are in units of the archive's bounds. Raises HyperparameterError where there is no such member, as
        while the archive is empty.
        """
        if isinstance(which, str | int):
            return super().member(state, which)
        wanted = np.asarray(which, np.float32)
        low, high = (np.asarray(x, np.float32) for x in (self.config.behavior_low, self.config.behavior_high))
        if wanted.shape != low.shape:
            raise HyperparameterError(f"a behavior is {len(low)} numbers, as in behavior_low, not {which!r}")
        archive = Archive(*(np.asarray(x) for x in state.search))
        filled = np.flatnonzero(np.isfinite(archive.fitness))
        if not len(filled):
            raise HyperparameterError("the archive is empty: there is no elite before agent.learn(...)")
        distance = np.square((archive.behavior[filled] - wanted) / (high - low)).sum(axis=1)
        return state._replace(params=self.params_of(jnp.asarray(archive.weights[filled[distance.argmin()]])))

    def pictures(self, state: State) -> dict[str, Picture]:
        """Return a picture of the archive: a map of two numbers, or else the distribution of the elites' returns."""
        config = self.config
        draw = partial(
            draw_archive,
            fitness=np.asarray(state.search.fitness),
            cells=config.cells,
            low=config.behavior_low,
            high=config.behavior_high,
        )
        return {"archive": draw}


@dataclass(frozen=True)
class Elites:
    """The search of MAP-Elites (see `Strategy`); its state is the archive."""

    config: MAPElites

    def init(self, key: Key, start: Array) -> Archive:
        """Begin with empty cells, about the weights `start`, [D]."""
        count, numbers = math.prod(self.config.cells), len(self.config.cells)
        weights = jnp.tile(start, (count, 1))
        return Archive(weights, jnp.full(count, -jnp.inf, jnp.float32), jnp.zeros((count, numbers), jnp.float32))

    def ask(self, key: Key, state: Archive) -> tuple[Array, Archive]:
        """Draw children [P, D] of two elites each, from all filled cells alike; the first about the start."""
        key_parents, key_iso, key_line = jax.random.split(key, 3)
        count, size = self.config.population_size, state.weights.shape[1]
        filled = jnp.isfinite(state.fitness)
        number = filled.sum(dtype=jnp.int32)
        # While none is filled all cells hold the weights of the start, and the first of them is taken.
        order = jnp.argsort(~filled)
        parents = order[jax.random.randint(key_parents, (2, count), 0, number.clip(1))]
        one, other = state.weights[parents[0]], state.weights[parents[1]]
        sigma = jnp.where(number > 0, self.config.sigma_iso, self.config.sigma_start)
        along = self.config.sigma_line * jax.random.normal(key_line, (count, 1))
        return one + sigma * jax.random.normal(key_iso, (count, size)) + along * (other - one), state

    def cell(self, behavior: Array) -> Array:
        """Return the numbers of the cells of behaviours [P, B], [P] int32; those outside fall into the outermost."""
        cells, low = np.asarray(self.config.cells), np.asarray(self.config.behavior_low)
        # One product in place of a quotient, which XLA would round in its own way.
        scale = np.float32(cells / (np.asarray(self.config.behavior_high) - low))
        place = jnp.floor((jnp.nan_to_num(behavior) - np.float32(low)) * scale)
        each = jnp.clip(place, 0, cells - 1).astype(jnp.int32)
        return jnp.ravel_multi_index(tuple(each.T), self.config.cells, mode="clip").astype(jnp.int32)

    def tell(
        self, key: Key, members: tuple[Array, Array], fitness: Array, state: Archive, learning_rate: Array
    ) -> Archive:
        """Let members into their cells where they are better than the elite, of several the best, then the first.

        members: weights [P, D] and behaviours [P, B]. fitness: [P]. Where either is not finite a member stays outside.
        """
        weights, behavior = members
        count, cells = len(fitness), len(state.fitness)
        known = jnp.isfinite(fitness) & jnp.isfinite(behavior).all(axis=1)
        fitness = jnp.where(known, fitness, -jnp.inf)
        cell, row = self.cell(behavior), jnp.arange(count, dtype=jnp.int32)
        best = jax.ops.segment_max(fitness, cell, cells)[cell]
        first = jax.ops.segment_min(jnp.where(fitness == best, row, count), cell, cells)[cell]
        enters = known & (row == first) & (fitness > state.fitness[cell])
        place = jnp.where(enters, cell, cells)  # beyond the last cell: nowhere
        new = Archive(weights, fitness, behavior)
        return jax.tree.map(lambda old, new: old.at[place].set(new, mode="drop"), state, new)

    def solution(self, state: Archive, members: Array, fitness: Array) -> Array:
        """Return the elite of the highest fitness, [D]; the start while there is none."""
        return state.weights[state.fitness.argmax()]
