"""Augmented random search (Mania, Guy and Recht 2018)."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from renshu.algorithms.evolution.population import State
from renshu.algorithms.evolution.weights import VectorAlgorithm, VectorLearner
from renshu.algorithms.hyperparameters import NetArch, ScheduleLike, boolean, integer, layer_sizes, number, schedule
from renshu.errors import HyperparameterError
from renshu.ops.schedules import value_of
from renshu.types import Array, Counters, EnvSpec, Key, Metrics, PyTree, Rollout


@dataclass(frozen=True, kw_only=True)
class ARS(VectorAlgorithm):
    """Augmented random search: pairs of opposite steps from the policy, weighed by the difference of their returns.

    A linear policy that begins at zero is enough for many tasks. norm_obs=True is the paper's V2, n_top < n_delta its
    V1-t and V2-t. Names and defaults as in SB3-Contrib.

    Source: Mania, Guy and Recht 2018, "Simple random search of static linear policies is competitive for reinforcement
    learning", algorithm 2.
    """

    n_delta: int = integer(8, "random directions in a generation; two members try each of them", least=1)
    n_top: int | None = integer(
        None, "directions that the policy moves along, those of the highest returns; None: all", least=1, optional=True
    )
    learning_rate: ScheduleLike = schedule(0.02, "step size", least=0, traceable=True)
    delta_std: float = number(0.05, "deviation of the members from the policy", above=0, traceable=True)
    alive_bonus_offset: float = number(
        0.0, "added to the reward of each step, to take off what an environment pays for being alive"
    )
    zero_policy: bool = boolean(True, "begin with weights that are all zero")
    net_arch: NetArch | None = layer_sizes((), "widths of the hidden layers; [] is a linear policy", optional=True)
    squash_output: bool = boolean(False, "squash continuous actions by tanh instead of clipping them")
    with_bias: bool = boolean(False, "a bias on the outputs; hidden layers have one anyway")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_top is not None and self.n_top > self.n_delta:
            raise HyperparameterError(f"ARS: n_top={self.n_top} of n_delta={self.n_delta} directions: expected no more")

    @property
    def members(self) -> int:
        """Two for each direction."""
        return 2 * self.n_delta

    def build(self, spec: EnvSpec) -> ARSLearner:
        """Bind ARS to an environment."""
        return ARSLearner(self, spec)


class ARSLearner(VectorLearner[ARS]):
    """Returns with an offset, and where the search begins."""

    @property
    def strategy(self) -> Directions:
        """The search, with hyperparameters that may be traced."""
        return Directions(self.config, self.policy.size)

    def learning_rate(self, counters: Counters) -> Array:
        """Return the step size of the next generation."""
        return value_of(self.config.learning_rate, counters.progress_remaining)

    def metrics(self, search: PyTree, solution: Array, rate: Array) -> Metrics:
        """Return the step size."""
        return {"learning_rate": rate, **super().metrics(search, solution, rate)}

    def named(self, state: State) -> dict[str, PyTree]:
        """Return the policy about which members are drawn."""
        return {"mean": state.params}

    def start(self, key: Key) -> Array:
        """Begin at zero, or as a network begins."""
        return jnp.zeros(self.policy.size) if self.config.zero_policy else super().start(key)

    def returns(self, rollout: Rollout) -> Array:
        """Sum the rewards of each episode, with the offset in each of its steps."""
        return super().returns(rollout) + self.config.alive_bonus_offset * rollout.valid.sum(axis=0)


@dataclass(frozen=True)
class Directions:
    """The search of ARS (see `Strategy`); its state is the policy's weights `[D]`. size: D."""

    config: ARS
    size: int

    def init(self, key: Key, start: Array) -> Array:
        """Begin at `start`."""
        return start

    def ask(self, key: Key, state: Array) -> tuple[Array, Array]:
        """Return members on both sides of the policy, `[2 * n_delta, D]`, and the policy."""
        steps = self.config.delta_std * jax.random.normal(key, (self.config.n_delta, self.size))
        return jnp.concatenate([state + steps, state - steps]), state

    def tell(self, key: Key, members: Array, fitness: Array, state: Array, learning_rate: Array) -> Array:
        """Move along the best directions, by the differences of their returns (algorithm 2, line 7)."""
        n_delta = self.config.n_delta
        top = self.config.n_top or n_delta
        plus, minus = fitness[:n_delta], fitness[n_delta:]
        deltas = (members[:n_delta] - members[n_delta:]) / (2 * self.config.delta_std)
        best = jax.lax.top_k(jnp.maximum(plus, minus), top)[1]
        plus, minus = plus[best], minus[best]
        deviation = jnp.concatenate([plus, minus]).std()
        return state + learning_rate / (top * deviation + 1e-6) * ((plus - minus) @ deltas[best])

    def solution(self, state: Array, members: Array, fitness: Array) -> Array:
        """Return the policy's weights."""
        return state
