"""What learners from replay have in common: a memory in the state, and gradient steps on what is drawn from it."""

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
from renshu.algorithms.hyperparameters import ScheduleLike, flag, real, schedule, whole
from renshu.errors import HyperparameterError
from renshu.ops.descent import keep_if
from renshu.ops.history import nothing_seen, recall, stacked_space
from renshu.ops.schedules import value_of
from renshu.ops.spaces import dummy
from renshu.replay.good_episodes import GoodEpisodes
from renshu.replay.memory import Memory, Replay
from renshu.replay.ring import Place, Samples
from renshu.types import Array, Counters, EnvSpec, Key, Metrics, PyTree, Rollout


@dataclass(frozen=True, kw_only=True)
class OffPolicyAlgorithm(Algorithm):
    """Hyperparameters that all learners from replay share; names and meaning as in Stable-Baselines3."""

    learning_rate: ScheduleLike = schedule(3e-4, "step size of Adam", least=0)
    buffer_size: int = whole(1_000_000, "steps that the memory holds, of all environments together", least=1)
    learning_starts: int = whole(100, "steps before the first gradient step; their actions are random", least=0)
    batch_size: int = whole(256, "steps drawn for one gradient step", least=1)
    tau: float = real(0.005, "share of the parameters that the target network takes over in an update", above=0, most=1)
    gamma: float = real(0.99, "discount factor", least=0, most=1)
    train_freq: int = whole(1, "steps collected of each environment between two trainings", least=1)
    gradient_steps: int = whole(1, "gradient steps in a training; -1: as many as steps were collected", least=-1)
    n_step: int = whole(1, "rewards summed up before the value of what comes after", least=1)
    good_episodes: bool = flag(False, "remember episodes with one of the best returns so far, few of the others")
    best_episodes: int = whole(100, "how many returns count as the best", least=1)
    other_episodes: float = real(0.01, "share of the other episodes that is remembered too", least=0, most=1)
    prioritized: bool = flag(False, "draw steps in proportion to their last error")
    prioritized_replay_alpha: float = real(0.6, "how much priorities matter: 0 not at all", least=0)
    prioritized_replay_beta: ScheduleLike = schedule(
        0.4, "how much weights take back of the bias of priorities", least=0
    )


class State(NamedTuple):
    """Everything that learning changes."""

    params: PyTree
    target: PyTree  # what targets are computed with: a late copy of some of the parameters
    opt_state: PyTree
    memory: Memory
    counters: Counters
    episodes: Array  # [] int32  episodes that ended
    exploration: Array  # [] float32  the share of random actions
    extra: PyTree  # what only some algorithms have


class Core(NamedTuple):
    """What a gradient step changes."""

    params: PyTree
    target: PyTree
    opt_state: PyTree
    updates: Array  # [] int32  gradient steps taken in all
    extra: PyTree = ()  # what only some algorithms have
    sound: Array | bool = True  # [] bool  no loss and no gradient of this learn was NaN or infinite


class View(NamedTuple):
    """What acting needs."""

    params: PyTree
    exploration: Array
    extra: PyTree


class OffPolicyLearner(Learner[State]):
    """Replay, schedules and the loop of gradient steps. A subclass has the networks, `act` and `update`."""

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
        self.history = spec.history
        self.observation_space = spec.network_space  # as the network sees it
        if self.history > 1:
            self.observation_space = stacked_space(spec.network_space, self.history)
        self.rollout_length = a.train_freq
        self.gradient_steps = a.train_freq * n if a.gradient_steps == -1 else a.gradient_steps
        self.guards = self.gradient_steps == 1  # each step keeps what was before, should it go wrong; or learn does
        self.replay = self.make_replay()

    def make_replay(self) -> Replay:
        """Make the memory that the hyperparameters describe."""
        a, spec = self.algorithm, self.spec
        options: dict[str, Any] = {
            "num_envs": spec.num_envs,
            "rollout_length": a.train_freq,
            "n_step": a.n_step,
            "gamma": a.gamma,
            "history": self.history,
            "alpha": a.prioritized_replay_alpha if a.prioritized else None,
        }
        example = dummy(spec.observation_space, spec.num_envs), _dummy_action(spec.action_space, spec.num_envs)
        if not a.good_episodes:
            return Replay(a.buffer_size, *example, **options)
        if spec.max_episode_steps is None:
            raise HyperparameterError(
                f"{type(a).__name__}: good_episodes keeps running episodes until they end, and {spec.id or 'this'} "
                "has no time limit: give it one, as env_kwargs={'max_episode_steps': 1000}"
            )
        options |= {"longest": spec.max_episode_steps, "best": a.best_episodes, "chance": a.other_episodes}
        return GoodEpisodes(a.buffer_size, *example, **options)

    def check_steps(self, start: int, target: int) -> None:
        """Refuse a training that would end before the first gradient step."""
        if target <= self.algorithm.learning_starts:
            raise HyperparameterError(
                f"{type(self.algorithm).__name__}: training ends at step {target:,}, but learning_starts="
                f"{self.algorithm.learning_starts:,}: it would learn nothing. Train longer, or give a smaller "
                "learning_starts"
            )

    @abstractmethod
    def init_core(self, key: Key) -> Core:
        """Make parameters, targets and the optimiser's state."""

    @abstractmethod
    def update(
        self, core: Core, samples: Samples, key: Key, learning_rate: Array, progress_remaining: Array
    ) -> tuple[Core, Metrics, Array]:
        """Take one gradient step. Returns what it changed, metrics, and the error of each sample `[B]`."""

    def pack(self, params: PyTree) -> PyTree:
        """Put the parameters of the state in the form in which `update` takes them. Default: as they are."""
        return params

    def unpack(self, params: PyTree) -> PyTree:
        """Undo `pack`."""
        return params

    def exploration(self, counters: Counters, episodes: Array) -> Array:
        """Return the share of random actions after the first `learning_starts` steps. Default: none."""
        return jnp.float32(0.0)

    def refresh(self, core: Core, before: Counters, after: Counters) -> Core:
        """Update targets that follow environment steps, not gradient steps. Default: nothing."""
        return core

    def init(self, key: Key) -> State:
        core, counters = self.init_core(key), Counters.zeros()
        episodes = jnp.int32(0)
        return State(
            params=self.unpack(core.params),
            target=core.target,
            opt_state=core.opt_state,
            memory=self.replay.init(),
            counters=counters,
            episodes=episodes,
            exploration=self._exploration(counters._replace(target=jnp.int32(1)), episodes),
            extra=core.extra,
        )

    def carry(self, num_envs: int) -> PyTree:
        return nothing_seen(self.spec.observation_space, self.history, num_envs) if self.history > 1 else ()

    def recall(self, carry: PyTree, obs: PyTree, first: Array) -> tuple[PyTree, PyTree]:
        """Observations `[N, ...]`, or the last ones `[N, history, ...]`, masks included; and the new carry."""
        return recall(carry, obs, first)

    def view(self, state: State) -> View:
        return View(state.params, state.exploration, state.extra)

    def learn(self, state: State, rollout: Rollout, key: Key) -> tuple[State, Metrics]:
        a = self.algorithm
        key_add, key_steps = jax.random.split(key)
        memory = self.replay.add(state.memory, rollout, key_add)
        counters = state.counters.add(steps=rollout.valid.sum(dtype=jnp.int32), updates=0)
        # A step of one environment after the first of an episode was a reset: an episode ended before it.
        episodes = state.episodes + rollout.first[1:].sum(dtype=jnp.int32)
        progress = counters.progress_remaining
        core = Core(
            self.pack(state.params), state.target, state.opt_state, counters.updates, state.extra, jnp.bool_(True)
        )
        core = self.refresh(core, state.counters, counters)
        count = jnp.where(counters.steps > a.learning_starts, self.gradient_steps, 0)
        learned, priorities, total = self._descend(core, memory, key_steps, count, progress)
        sound = learned.sound
        if self.guards:
            updates, extra = keep_if(sound, (learned.updates, learned.extra), (core.updates, core.extra))
            learned = learned._replace(updates=updates, extra=extra)
        else:
            learned = keep_if(sound, learned, core)
        metrics = {
            # What went wrong changed nothing: the loop shall hear of it.
            name: jnp.where(sound, x / jnp.maximum(count, 1), jnp.nan)
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
            extra=learned.extra,
        )
        return state, {**metrics, "learning_rate": value_of(a.learning_rate, progress), "exploration": exploration}

    def _descend(
        self, core: Core, memory: Memory, key: Key, count: Array, progress: Array
    ) -> tuple[Core, PyTree, Metrics]:
        """`count` gradient steps, each from samples of its own: core, priorities, metrics summed over the steps."""
        a = self.algorithm
        rate, beta = value_of(a.learning_rate, progress), value_of(a.prioritized_replay_beta, progress)

        def draw(memory: Memory, i: Array) -> tuple[tuple[Place, Array], Key]:
            key_draw, key_update = jax.random.split(jax.random.fold_in(key, i))
            return self.replay.draw(memory, key_draw, a.batch_size, beta), key_update

        # Random numbers of many steps at once cost little more than those of one; of one, a little more than in place.
        early = self.gradient_steps > 1 and not a.prioritized
        ahead = jax.vmap(partial(draw, memory))(jnp.arange(self.gradient_steps)) if early else None

        def one(i: Array, core: Core, priorities: PyTree) -> tuple[Core, PyTree, Metrics]:
            known = memory._replace(priorities=priorities)
            drawn, key_update = draw(known, i) if ahead is None else jax.tree.map(lambda x: x[i], ahead)
            samples = self.replay.gather(known, *drawn)
            core, metrics, error = self.update(core, samples, key_update, rate, progress)
            return core, self.replay.reprioritize(known, samples.place, error).priorities, metrics

        def step(i: Array, carry: tuple[Core, PyTree, Metrics]) -> tuple[Core, PyTree, Metrics]:
            core, priorities, total = carry
            core, priorities, metrics = one(i, core, priorities)
            return core, priorities, jax.tree.map(jnp.add, total, metrics)

        shapes = jax.eval_shape(one, jnp.int32(0), core, memory.priorities)[2]
        nothing = jax.tree.map(lambda s: jnp.zeros(s.shape, jnp.float32), shapes)
        # A loop whose count is not known needs no branch, which could copy what it carries.
        return jax.lax.fori_loop(0, count, step, (core, memory.priorities, nothing))

    def _exploration(self, counters: Counters, episodes: Array) -> Array:
        random = counters.steps < self.algorithm.learning_starts
        return jnp.where(random, 1.0, self.exploration(counters, episodes)).astype(jnp.float32)


def _dummy_action(space: spaces.Space, num_envs: int) -> Any:
    """Actions in the shape and dtype in which learners give them."""
    if isinstance(space, spaces.Discrete):
        return np.zeros(num_envs, np.int32)
    return np.zeros((num_envs, *(space.shape or ())), np.float32)
