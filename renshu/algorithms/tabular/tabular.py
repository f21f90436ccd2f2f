"""Common part of tabular learners: a value for each state and action, moved towards a target step by step."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from renshu.algorithms.base import KINDS, Algorithm, Learner
from renshu.algorithms.exploration import EpsilonGreedy
from renshu.algorithms.hyperparameters import GAMMAS, Number, ScheduleLike, integer, number, schedule
from renshu.ops.masks import mask_for_display, mask_values
from renshu.ops.schedules import value_of
from renshu.ops.tables import table_index
from renshu.types import Accepts, ActorOutput, Array, Counters, EnvSpec, Key, Metrics, Needs, PyTree, Rollout, TimeStep


@dataclass(frozen=True)
class PerDimension(Number):
    """A number, or a list with one for each dimension, kept as a tuple."""

    def check(self, name: str, value: Any) -> Any:
        if isinstance(value, list | tuple):
            return tuple(super(PerDimension, self).check(f"{name}[{i}]", one) for i, one in enumerate(value))
        return super().check(name, value)

    def range(self) -> str:
        """Describe the range in words."""
        return f"{super().range()}, or a list of such"

    def to_json(self, value: Any) -> Any:
        return list(value) if isinstance(value, tuple) else value


def per_dimension(default: Any, doc: str, **bounds: Any) -> Any:
    """Field: a number or one for each dimension; bounds as `number`."""
    return field(default=default, metadata={"kind": PerDimension(doc, **bounds)})


@dataclass(frozen=True, kw_only=True)
class TabularAlgorithm(EpsilonGreedy, Algorithm):
    """Hyperparameters of all tabular learners."""

    accepts: ClassVar[Accepts] = Accepts(
        observations=KINDS | {"nested"},
        actions=frozenset({"discrete"}),
        masks=True,
    )
    renamed: ClassVar[Mapping[str, str]] = {"bins": "obs_bins"}

    # Beyond 1 a value would jump over its target.
    learning_rate: ScheduleLike = schedule(
        0.1, "share of the way to its target that a value moves", least=0, most=1, traceable=True, tune=(0.01, 1.0)
    )
    n_steps: int = integer(1, "steps collected of each environment before all of them are learned from", least=1)
    gamma: float = number(0.99, "discount factor", least=0, most=1, traceable=True, tune=GAMMAS)
    initial_value: float = number(
        0.0, "of every action; above the true values it makes the agent try everything", traceable=True
    )
    obs_bins: int | tuple[int, ...] = per_dimension(
        10, "bins of each dimension of a Box in the observation, or a list", integer=True, least=1
    )
    obs_low: float | tuple[float, ...] | None = per_dimension(
        None, "where bins begin in dimensions without a bound; a list: in every dimension", optional=True
    )
    obs_high: float | tuple[float, ...] | None = per_dimension(
        None, "where bins end in dimensions without a bound; a list: in every dimension", optional=True
    )


Config = TypeVar("Config", bound=TabularAlgorithm)


class State(NamedTuple):
    """Everything that learning changes."""

    params: Array  # [S, A] float32  the table: the value of each action in each state
    counters: Counters
    exploration: Array  # [] float32  the share of random actions
    aux: PyTree  # state of single algorithms


class ActorState(NamedTuple):
    """The part of the state that acting needs."""

    params: Array
    exploration: Array


class TableSteps(NamedTuple):
    """Steps to learn from, in this order, `[T, N]`."""

    state: Array  # int32
    action: Array  # int32
    reward: Array  # float32
    next_state: Array  # int32
    terminated: Array  # bool
    real: Array  # bool: no reset
    next_action: Array | tuple[()] = ()  # int32, for algorithms that need it
    next_mask: Array | None = None  # [T, N, A] bool: actions allowed in the next state; None for all


class TabularLearner(Learner[Config, State]):
    """The table, epsilon-greedy actions, and updates. A subclass has the value of the next state."""

    max_lag: int | None = None
    guards_itself = True

    def __init__(self, algorithm: Config, spec: EnvSpec) -> None:
        super().__init__(algorithm, spec)
        a = algorithm
        self.needs = Needs(steps=a.n_steps, max_lag=self.max_lag)
        self.actions = int(spec.action_space.n)  # type: ignore[attr-defined]
        self.index = table_index(spec.network_space, a.obs_bins, a.obs_low, a.obs_high, actions=self.actions)

    @abstractmethod
    def next_value(self, values: Array, row: TableSteps, epsilon: Array) -> Array:
        """Estimate the values of N next states, `[N]`.

        values: of their actions, `[N, A]`, FORBIDDEN for those that are not allowed. row: of the N steps there.
        epsilon: the share of random actions of the policy that acted.
        """

    def init(self, key: Key) -> State:
        counters = Counters.zeros()
        return State(
            params=jnp.full((self.index.size, self.actions), self.config.initial_value, jnp.float32),
            counters=counters,
            exploration=self._exploration(counters._replace(target=jnp.int32(1))),
            aux=self.init_aux(),
        )

    def init_aux(self) -> PyTree:
        """Make the state besides the table. Default: nothing."""
        return ()

    def actor_state(self, state: State) -> ActorState:
        return ActorState(state.params, state.exploration)

    def act(self, acting: ActorState, carry: PyTree, timestep: TimeStep, key: Key, *, explore: bool) -> ActorOutput:
        seen, mask = self.split(timestep.obs)
        values = mask_values(acting.params[self.index.of(seen)], mask)
        if not explore:
            return ActorOutput(jnp.argmax(values, axis=1).astype(jnp.int32), carry)
        chosen = jax.random.categorical(key, jnp.log(epsilon_greedy(values, acting.exploration, mask)))
        return ActorOutput(chosen.astype(jnp.int32), carry)

    def explain(self, acting: ActorState, carry: PyTree, timestep: TimeStep) -> dict[str, Array]:
        """Return the expected return of each action, `[N, A]`, -inf if not allowed, and the highest of them, `[N]`."""
        seen, mask = self.split(timestep.obs)
        values = mask_for_display(acting.params[self.index.of(seen)], mask)
        return {"action_values": values, "value": values.max(axis=1)}

    def learn(self, state: State, rollout: Rollout, key: Key) -> tuple[State, Metrics]:
        counters = state.counters.after(rollout)
        rate = value_of(self.config.learning_rate, counters.progress_remaining)
        steps, aux = self.transitions(state.aux, rollout, key)
        params, error = self.improve(state.params, steps, rate, state.exploration)
        exploration = self._exploration(counters, state.exploration)
        counters = counters._replace(updates=counters.updates + steps.real.shape[0])
        metrics = {"td_error": error, "learning_rate": rate, "exploration": exploration}
        return State(params, counters, exploration, aux), metrics

    def transitions(self, aux: PyTree, rollout: Rollout, key: Key) -> tuple[TableSteps, PyTree]:
        """Return the steps to learn from now, and the new state besides the table. Default: those of the rollout."""
        states, mask = self.states(rollout)
        steps = TableSteps(
            state=states[:-1],
            action=rollout.action,
            reward=rollout.reward,
            next_state=states[1:],
            terminated=rollout.terminated,
            real=rollout.valid,
            next_mask=None if mask is None else mask[1:],
        )
        return steps, aux

    def states(self, rollout: Rollout) -> tuple[Array, Array | None]:
        """Look up rows of the table for a rollout's observations, `[T+1, N]` int32, and masks `[T+1, N, A]` or None."""
        shape = rollout.first.shape
        seen, mask = self.split(jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), rollout.obs))
        return self.index.of(seen).reshape(shape), None if mask is None else mask.reshape(*shape, self.actions)

    def improve(self, table: Array, steps: TableSteps, rate: Array, epsilon: Array) -> tuple[Array, Array]:
        """Learn from steps one after the other. Returns the table and the mean absolute TD error.

        Where that would bring NaN or infinity into the table, it is returned as it was, and the error is NaN.
        """
        table, (values, before, errors) = jax.lax.scan(
            lambda table, row: self.update(table, row, rate, epsilon), table, steps
        )
        error = errors.sum() / jnp.maximum(steps.real.sum(), 1)
        finite = jnp.isfinite(values).all() & jnp.isfinite(error)
        last = before.shape[0] - 1

        def undo(i: Array, table: Array) -> Array:
            return table.at[steps.state[last - i], steps.action[last - i]].set(before[last - i])

        # Undone entry by entry: to choose between two tables would copy one in every call.
        table = jax.lax.fori_loop(0, jnp.where(finite, 0, last + 1), undo, table)
        return table, jnp.where(finite, error, jnp.nan)

    def update(
        self, table: Array, row: TableSteps, rate: Array, epsilon: Array
    ) -> tuple[Array, tuple[Array, Array, Array]]:
        """Move the values of N steps towards their targets (Sutton & Barto 2018, equation 2.5).

        Steps of one state and action in several environments count together: their mean error, and the share of the
        way that as many steps one after the other would have gone. So no value moves beyond its targets.
        Returns the table, and `[N]` where each step by itself moves its value, where that was, and the absolute error.
        """
        before = table[row.state, row.action]
        after = self.next_value(mask_values(table[row.next_state], row.next_mask), row, epsilon)
        target = row.reward + self.config.gamma * jnp.where(row.terminated, 0.0, after)
        error = jnp.where(row.real, target - before, 0.0)
        count = jnp.maximum((same_pair(row, self.actions) & row.real).sum(axis=1), 1)
        move = (1 - (1 - rate) ** count) * error
        table = table.at[row.state, row.action].add(move / count)
        return table, (before + move, before, jnp.abs(error))

    def _exploration(self, counters: Counters, before: Array | float = 1.0) -> Array:
        return jnp.float32(self.config.epsilon(counters, before))


def epsilon_greedy(values: Array, epsilon: Array, mask: Array | None = None) -> Array:
    """Compute probabilities of actions, `[N, A]`: uniform over the best of `values` `[N, A]`, over all with `epsilon`.

    mask: `[N, A]` bool, which of them are allowed; the values of the others must be lower. None for all.
    """
    best = values == values.max(axis=1, keepdims=True)
    anything = 1 / values.shape[1] if mask is None else mask / mask.sum(axis=1, keepdims=True)
    return (1 - epsilon) * best / best.sum(axis=1, keepdims=True) + epsilon * anything


def same_pair(row: TableSteps, actions: int) -> Array:
    """Compare N steps: which begin in the same state with the same action, `[N, N]` bool."""
    pair = row.state * actions + row.action
    return pair[:, None] == pair
