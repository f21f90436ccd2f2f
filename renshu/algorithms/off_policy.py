"""Common part of learners from replay: a memory in the state, and gradient steps on transitions drawn from it."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from renshu.algorithms.base import Algorithm, Learner
from renshu.algorithms.hyperparameters import ScheduleLike, boolean, integer, number, schedule
from renshu.errors import HyperparameterError
from renshu.ops.frame_stack import empty_frames, stack_frames, stacked_space
from renshu.ops.schedules import value_of
from renshu.ops.spaces import dummy
from renshu.optim.guards import keep_if
from renshu.replay.buffer import ReplayBuffer, ReplayState
from renshu.replay.elite import EliteEpisodes
from renshu.replay.ring import Index, Transitions
from renshu.types import Array, Counters, EnvSpec, Key, Metrics, PyTree, Rollout


@dataclass(frozen=True, kw_only=True)
class OffPolicyAlgorithm(Algorithm):
    """Hyperparameters of all learners from replay; names and meaning as in Stable-Baselines3."""

    learning_rate: ScheduleLike = schedule(3e-4, "step size of Adam", least=0)
    buffer_size: int = integer(1_000_000, "steps that the memory holds, of all environments together", least=1)
    learning_starts: int = integer(100, "steps before the first gradient step; their actions are random", least=0)
    batch_size: int = integer(256, "steps drawn for one gradient step", least=1)
    tau: float = number(0.005, "share of the parameters that a target network takes over in an update", above=0, most=1)
    gamma: float = number(0.99, "discount factor", least=0, most=1)
    train_freq: int = integer(1, "steps collected of each environment between two trainings", least=1)
    gradient_steps: int = integer(1, "gradient steps in a training; -1: as many as steps were collected", least=-1)
    n_step: int = integer(1, "rewards summed up before the value of what comes after", least=1)
    elite_episodes: bool = boolean(False, "keep episodes with one of the best returns so far, and few of the others")
    elite_count: int = integer(100, "number of returns that count as the best", least=1)
    non_elite_fraction: float = number(0.01, "share of the other episodes that is kept too", least=0, most=1)
    prioritized: bool = boolean(False, "draw steps in proportion to their last error")
    prioritized_replay_alpha: float = number(0.6, "how much priorities matter: 0 not at all", least=0)
    prioritized_replay_beta: ScheduleLike = schedule(
        0.4, "importance-sampling exponent: how much weights correct the bias of priorities", least=0
    )


class State(NamedTuple):
    """Everything that learning changes."""

    params: PyTree
    target: PyTree  # target networks: copies of some of the parameters that follow late
    opt_state: PyTree
    memory: ReplayState
    counters: Counters
    episodes: Array  # [] int32  episodes that ended
    exploration: Array  # [] float32  the share of random actions
    aux: PyTree  # state of single algorithms


class TrainState(NamedTuple):
    """State that a gradient step changes."""

    params: PyTree
    target: PyTree
    opt_state: PyTree
    updates: Array  # [] int32  gradient steps taken in all
    aux: PyTree = ()  # state of single algorithms
    finite: Array | bool = True  # [] bool  no loss and no gradient of this learn was NaN or infinite


class ActorState(NamedTuple):
    """The part of the state that acting needs."""

    params: PyTree
    exploration: Array
    aux: PyTree


class OffPolicyLearner(Learner[State]):
    """Replay, schedules and the loop of gradient steps. A subclass has the networks, `act` and `gradient_step`."""

    algorithm: Any
    max_lag = None

    def __init__(self, algorithm: OffPolicyAlgorithm, spec: EnvSpec) -> None:
        super().__init__(algorithm, spec)
        a, n, name = algorithm, spec.num_envs, type(algorithm).__name__
        if a.batch_size > a.buffer_size:
            raise HyperparameterError(
                f"{name}: batch_size={a.batch_size} is more than buffer_size={a.buffer_size}: the memory never holds a "
                "batch. Give a smaller batch_size or a larger buffer_size"
            )
        if a.gradient_steps == 0:
            raise HyperparameterError(f"{name}: gradient_steps=0 learns nothing; give 1 or more, or -1")
        self.frame_stack = spec.frame_stack
        self.observation_space = spec.network_space  # as the network sees it
        if self.frame_stack > 1:
            self.observation_space = stacked_space(spec.network_space, self.frame_stack)
        self.rollout_length = a.train_freq
        self.gradient_steps = a.train_freq * n if a.gradient_steps == -1 else a.gradient_steps
        # A single step keeps the state from before, should it go wrong; of several, learn does.
        self.guards_each_step = self.gradient_steps == 1
        self.replay = self.make_replay()

    def make_replay(self) -> ReplayBuffer:
        """Make the memory that the hyperparameters describe."""
        a, spec = self.algorithm, self.spec
        options: dict[str, Any] = {
            "num_envs": spec.num_envs,
            "rollout_length": a.train_freq,
            "n_step": a.n_step,
            "gamma": a.gamma,
            "frame_stack": self.frame_stack,
            "alpha": a.prioritized_replay_alpha if a.prioritized else None,
        }
        example = dummy(spec.observation_space, spec.num_envs), _dummy_action(spec.action_space, spec.num_envs)
        if not a.elite_episodes:
            return ReplayBuffer(a.buffer_size, *example, **options)
        if spec.max_episode_steps is None:
            raise HyperparameterError(
                f"{type(a).__name__}: elite_episodes keeps running episodes until they end, and {spec.id or 'this'} "
                "has no time limit: give it one, as env_kwargs={'max_episode_steps': 1000}"
            )
        options |= {"longest": spec.max_episode_steps, "best": a.elite_count, "probability": a.non_elite_fraction}
        return EliteEpisodes(a.buffer_size, *example, **options)

    def check_steps(self, start: int, target: int) -> None:
        """Refuse a training that would end before the first gradient step."""
        if target <= self.algorithm.learning_starts:
            raise HyperparameterError(
                f"{type(self.algorithm).__name__}: training ends at step {target:,}, but learning_starts="
                f"{self.algorithm.learning_starts:,}: it would learn nothing. Train longer, or give a smaller "
                "learning_starts"
            )

    @abstractmethod
    def init_train_state(self, key: Key) -> TrainState:
        """Make parameters, targets and the optimiser's state."""

    @abstractmethod
    def gradient_step(
        self, train_state: TrainState, batch: Transitions, key: Key, learning_rate: Array, progress_remaining: Array
    ) -> tuple[TrainState, Metrics, Array]:
        """Take one gradient step. Returns the new train state, metrics, and the error of each transition `[B]`."""

    def pack(self, params: PyTree) -> PyTree:
        """Put the parameters of the state in the form that `gradient_step` takes. Default: as they are."""
        return params

    def unpack(self, params: PyTree) -> PyTree:
        """Undo `pack`."""
        return params

    def exploration(self, counters: Counters, episodes: Array) -> Array:
        """Return the share of random actions after the first `learning_starts` steps. Default: none."""
        return jnp.float32(0.0)

    def update_target(self, train_state: TrainState, before: Counters, after: Counters) -> TrainState:
        """Update targets that follow environment steps, not gradient steps. Default: nothing."""
        return train_state

    def init(self, key: Key) -> State:
        train_state, counters = self.init_train_state(key), Counters.zeros()
        episodes = jnp.int32(0)
        return State(
            params=self.unpack(train_state.params),
            target=train_state.target,
            opt_state=train_state.opt_state,
            memory=self.replay.init(),
            counters=counters,
            episodes=episodes,
            exploration=self._exploration(counters._replace(target=jnp.int32(1)), episodes),
            aux=train_state.aux,
        )

    def initial_carry(self, num_envs: int) -> PyTree:
        return empty_frames(self.spec.observation_space, self.frame_stack, num_envs) if self.frame_stack > 1 else ()

    def stack_frames(self, carry: PyTree, obs: PyTree, first: Array) -> tuple[PyTree, PyTree]:
        """Stack observations `[N, ...]` to `[N, frame_stack, ...]` if there is a stack; returns the new carry too."""
        return stack_frames(carry, obs, first)

    def actor_state(self, state: State) -> ActorState:
        return ActorState(state.params, state.exploration, state.aux)

    def learn(self, state: State, rollout: Rollout, key: Key) -> tuple[State, Metrics]:
        a = self.algorithm
        key_add, key_steps = jax.random.split(key)
        memory = self.replay.add(state.memory, rollout, key_add)
        counters = state.counters.add(steps=rollout.valid.sum(dtype=jnp.int32), updates=0)
        # A step of one environment after the first of an episode was a reset: an episode ended before it.
        episodes = state.episodes + rollout.first[1:].sum(dtype=jnp.int32)
        progress = counters.progress_remaining
        train_state = TrainState(
            self.pack(state.params), state.target, state.opt_state, counters.updates, state.aux, jnp.bool_(True)
        )
        train_state = self.update_target(train_state, state.counters, counters)
        count = jnp.where(counters.steps > a.learning_starts, self.gradient_steps, 0)
        learned, priorities, total = self._gradient_steps(train_state, memory, key_steps, count, progress)
        finite = learned.finite
        if self.guards_each_step:
            updates, extra = keep_if(finite, (learned.updates, learned.aux), (train_state.updates, train_state.aux))
            learned = learned._replace(updates=updates, aux=extra)
        else:
            learned = keep_if(finite, learned, train_state)
        metrics = {
            # A bad update changed nothing; NaN tells the loop of it.
            name: jnp.where(finite, x / jnp.maximum(count, 1), jnp.nan)
            for name, x in total.items()
        }
        exploration = self._exploration(counters, episodes)
        state = State(
            params=self.unpack(learned.params),
            target=learned.target,
            opt_state=learned.opt_state,
            memory=memory._replace(priorities=priorities),
            counters=counters._replace(updates=learned.updates),
            episodes=episodes,
            exploration=exploration,
            aux=learned.aux,
        )
        return state, {**metrics, "learning_rate": value_of(a.learning_rate, progress), "exploration": exploration}

    def _gradient_steps(
        self, train_state: TrainState, memory: ReplayState, key: Key, count: Array, progress: Array
    ) -> tuple[TrainState, PyTree, Metrics]:
        """Take `count` gradient steps, each on its own batch: train state, priorities, metrics summed over them."""
        a = self.algorithm
        rate, beta = value_of(a.learning_rate, progress), value_of(a.prioritized_replay_beta, progress)

        def draw(memory: ReplayState, i: Array) -> tuple[tuple[Index, Array], Key]:
            key_draw, key_update = jax.random.split(jax.random.fold_in(key, i))
            return self.replay.draw(memory, key_draw, a.batch_size, beta), key_update

        # Random numbers of many steps at once cost little more than those of one; of one, a little more than in place.
        early = self.gradient_steps > 1 and not a.prioritized
        ahead = jax.vmap(partial(draw, memory))(jnp.arange(self.gradient_steps)) if early else None

        def one(i: Array, train_state: TrainState, priorities: PyTree) -> tuple[TrainState, PyTree, Metrics]:
            known = memory._replace(priorities=priorities)
            drawn, key_update = draw(known, i) if ahead is None else jax.tree.map(lambda x: x[i], ahead)
            batch = self.replay.gather(known, *drawn)
            train_state, metrics, error = self.gradient_step(train_state, batch, key_update, rate, progress)
            return train_state, self.replay.reprioritize(known, batch.indices, error).priorities, metrics

        def step(i: Array, carry: tuple[TrainState, PyTree, Metrics]) -> tuple[TrainState, PyTree, Metrics]:
            train_state, priorities, total = carry
            train_state, priorities, metrics = one(i, train_state, priorities)
            return train_state, priorities, jax.tree.map(jnp.add, total, metrics)

        shapes = jax.eval_shape(one, jnp.int32(0), train_state, memory.priorities)[2]
        nothing = jax.tree.map(lambda s: jnp.zeros(s.shape, jnp.float32), shapes)
        # A loop whose count is not known needs no branch, which could copy what it carries.
        return jax.lax.fori_loop(0, count, step, (train_state, memory.priorities, nothing))

    def _exploration(self, counters: Counters, episodes: Array) -> Array:
        random = counters.steps < self.algorithm.learning_starts
        return jnp.where(random, 1.0, self.exploration(counters, episodes)).astype(jnp.float32)


def _dummy_action(space: spaces.Space, num_envs: int) -> Any:
    """Make actions of the shape and dtype in which learners give them."""
    if isinstance(space, spaces.Discrete):
        return np.zeros(num_envs, np.int32)
    return np.zeros((num_envs, *(space.shape or ())), np.float32)
