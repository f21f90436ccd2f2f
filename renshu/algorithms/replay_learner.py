"""Learners that keep experience: a memory in the state, and gradient steps on what is drawn from it."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from renshu.algorithms.base import Algorithm, Learner
from renshu.algorithms.hyperparameters import GAMMAS, ScheduleLike, boolean, integer, number, schedule
from renshu.errors import HyperparameterError
from renshu.ops.frame_stack import empty_frames, stacked_space
from renshu.ops.rollouts import blocks
from renshu.ops.schedules import value_of
from renshu.ops.spaces import dummy
from renshu.optim.guards import keep_if
from renshu.optim.train_state import TrainState
from renshu.replay.buffer import ReplayBuffer, ReplayState
from renshu.replay.elite import EliteEpisodes
from renshu.replay.ring import Index, history
from renshu.replay.sequences import write_extras
from renshu.types import Array, Counters, EnvSpec, Key, Metrics, Needs, PyTree, Rollout, TimeStep

MOVED_ROWS = 1024
"""Rows that go into a memory of another size at a time."""


@dataclass(frozen=True, kw_only=True)
class ReplayAlgorithm(Algorithm):
    """Hyperparameters of all learners from replay; names and meaning as in Stable-Baselines3."""

    learning_rate: ScheduleLike = schedule(3e-4, "step size of Adam", least=0, traceable=True, tune=(1e-5, 1e-2))
    buffer_size: int = integer(1_000_000, "steps that the memory holds, of all environments together", least=1)
    learning_starts: int = integer(100, "steps before the first gradient step; their actions are random", least=0)
    batch_size: int = integer(256, "steps drawn for one gradient step", least=1, tune=[32, 64, 128, 256, 512])
    gamma: float = number(0.99, "discount factor", least=0, most=1, traceable=True, tune=GAMMAS)
    train_freq: int = integer(
        1, "steps collected of each environment between two trainings", least=1, tune=[1, 4, 8, 16]
    )
    gradient_steps: int = integer(1, "gradient steps in a training; -1: as many as steps were collected", least=-1)
    n_steps: int = integer(1, "rewards summed up before the value of what comes after", least=1)
    reward_clipping: bool = boolean(False, "learn from the sign of the reward, as is usual in Atari games (Mnih 2015)")
    elite_episodes: bool = boolean(False, "keep episodes with one of the best returns so far, and few of the others")
    elite_count: int = integer(100, "number of returns that count as the best", least=1)
    non_elite_fraction: float = number(0.01, "share of the other episodes that is kept too", least=0, most=1)
    prioritized: bool = boolean(False, "draw steps in proportion to their last error")
    prioritized_replay_alpha: float = number(0.6, "how much priorities matter: 0 not at all", least=0)
    prioritized_replay_beta: ScheduleLike = schedule(
        0.4, "importance-sampling exponent: how much weights correct the bias of priorities", least=0, traceable=True
    )


Config = TypeVar("Config", bound=ReplayAlgorithm)


class Aux(NamedTuple):
    """State of an actor-critic besides its networks."""

    metrics: Metrics  # of the latest update of the policy, which may be a delayed one
    noise: PyTree = ()  # state of the exploration noise


class State(NamedTuple):
    """State of a learner from replay."""

    train: TrainState
    memory: ReplayState
    counters: Counters
    exploration: Array  # [] float32  the share of random actions

    @property
    def params(self) -> PyTree:
        """The weights."""
        return self.train.params


class Feedback(NamedTuple):
    """Return of a `gradient_step` that writes more than priorities back into the memory."""

    error: Array  # [B]  for priorities
    extras: PyTree  # [T, B, ...]  in place of those that were drawn, as newer latents


class ActorState(NamedTuple):
    """The part of the state that acting needs."""

    params: PyTree
    exploration: Array
    aux: PyTree


class ReplayLearner(Learner[Config, State]):
    """A learner with a memory of experience. A subclass has the networks, `init_train`, `act` and `gradient_step`.

    `observe` and `update` stand apart, so that a loop may call each as often as it likes: one that reads a data set
    observes it once, one with actors elsewhere updates while nothing arrives. `learn` is one after the other.
    """

    guards_itself = True
    keeps_carry: ClassVar[bool] = False
    """True where the actor's carry at the start of each rollout is kept, for sequences that begin there."""
    writes_extras: ClassVar[bool] = False
    """True where `gradient_step` returns a Feedback, whose extras go into the memory."""
    judges_at_once: ClassVar[bool] = False
    """True where `first_errors` makes priorities of the extras, which are not kept then."""
    idle_metrics = frozenset({"learning_rate", "exploration"})

    def __init__(self, config: Config, spec: EnvSpec) -> None:
        super().__init__(config, spec)
        name = type(config).__name__
        if config.batch_size > config.buffer_size:
            raise HyperparameterError(
                f"{name}: batch_size={config.batch_size} is more than buffer_size={config.buffer_size}: the memory "
                "never holds a batch. Give a smaller batch_size or a larger buffer_size"
            )
        if config.gradient_steps == 0:
            raise HyperparameterError(f"{name}: gradient_steps=0 learns nothing; give 1 or more, or -1")
        self.needs = Needs(steps=config.train_freq, max_lag=None)
        self.observation_space = spec.network_space  # as the network sees it
        if spec.frame_stack > 1:
            self.observation_space = stacked_space(spec.network_space, spec.frame_stack)
        rows = config.train_freq * (spec.rollout_envs or spec.num_envs)
        self.gradient_steps = rows if config.gradient_steps == -1 else config.gradient_steps
        # A single step keeps the state from before, should it go wrong; of several, update does.
        self.guards_each_step = self.gradient_steps == 1
        self.replay = self.make_replay()
        self.replay.clips_rewards = config.reward_clipping

    def check_steps(self, start: int, target: int) -> None:
        """Refuse a training that would end before the first gradient step."""
        if target <= self.config.learning_starts:
            raise HyperparameterError(
                f"{type(self.config).__name__}: training ends at step {target:,}, but learning_starts="
                f"{self.config.learning_starts:,}: it would learn nothing. Train longer, or give a smaller "
                "learning_starts"
            )

    # --- for a subclass ---------------------------------------------------------------------------------------------

    @abstractmethod
    def init_train(self, key: Key) -> TrainState:
        """Make parameters, target networks and optimisers."""

    def make_replay(self) -> ReplayBuffer:
        """Make the buffer. Default: of transitions, as the hyperparameters say."""
        return make_buffer(self.config, self.spec, self.judges_at_once)

    @abstractmethod
    def gradient_step(
        self, train_state: TrainState, batch: Any, key: Key, learning_rate: Array
    ) -> tuple[TrainState, Metrics, Any]:
        """Take one gradient step, which counts in `updates`.

        batch: Transitions, or what the learner's own buffer gives. Returns metrics too, and the errors `[B]` that
        become priorities, or a Feedback.
        """

    def first_errors(self, rollout: Rollout) -> Array:
        """Return the errors of a rollout's steps, `[T, N]`, as the actor knows them; NaN where it does not."""
        raise NotImplementedError(type(self).__name__)

    def random_share(self, counters: Counters) -> Array:
        """Return the share of random actions after the first `learning_starts` steps. Default: none."""
        return jnp.float32(0.0)

    def exploration_after(self, counters: Counters, before: Array | float = 1.0) -> Array:
        """Compute the share of random actions, [] float32. It never rises: more training is not more chance.

        Learners that explore in another way give actors a number of their own in its place.
        """
        random = counters.steps < self.config.learning_starts
        return jnp.minimum(before, jnp.where(random, 1.0, self.random_share(counters))).astype(jnp.float32)

    def pack(self, train_state: TrainState) -> TrainState:
        """Put a train state into the form that `gradient_step` takes. Default: as it is."""
        return train_state

    def unpack(self, train_state: TrainState) -> TrainState:
        """Undo `pack`."""
        return train_state

    # --- the contract -----------------------------------------------------------------------------------------------

    def init(self, key: Key) -> State:
        counters = Counters.zeros()
        exploration = self.exploration_after(counters._replace(target=jnp.int32(1)))
        train = self.unpack(self.init_train(key))
        memory = self.replay.init(*self._recorded(ActorState(train.params, exploration, train.aux)))
        return State(train, memory, counters, exploration)

    def initial_carry(self, num_envs: int) -> PyTree:
        count = self.spec.frame_stack
        return empty_frames(self.spec.observation_space, count, num_envs) if count > 1 else ()

    def actor_state(self, state: State) -> ActorState:
        return ActorState(state.train.params, state.exploration, state.train.aux)

    def observe(self, state: State, rollout: Rollout, key: Key) -> State:
        """Put a rollout into the memory; count its steps, and the gradient steps that they entitle to."""
        counters = state.counters.after(rollout)
        # Rows that only reset entitle to nothing: of a rollout's gradient steps each real row has its share.
        share = rollout.valid.mean(dtype=jnp.float32) * self.gradient_steps
        started = counters.steps > self.config.learning_starts
        state = self.remember(state, rollout, key)
        # An agent whose memory was left out of its file waits until there is one again.
        held, room = self.replay.held(state.memory), self.replay.room(state.memory)
        started &= held >= jnp.minimum(self.config.learning_starts, room)
        counters = counters._replace(owed=counters.owed + jnp.where(started, share, 0.0))
        return self.after_steps(state, counters)

    def remember(self, state: State, rollout: Rollout, key: Key) -> State:
        """Put a rollout into the memory, and nothing else."""
        if self.judges_at_once:
            clips = self.config.reward_clipping
            judged = rollout._replace(reward=jnp.sign(rollout.reward)) if clips else rollout
            rollout = rollout._replace(extras=self.first_errors(judged))
        return state._replace(memory=self.replay.add(state.memory, rollout, key))

    def after_steps(self, state: State, counters: Counters) -> State:
        """Put newer counters in place; change what goes by the number of steps."""
        return state._replace(counters=counters, exploration=self.exploration_after(counters, state.exploration))

    def relearn(self, state: State, key: Key) -> tuple[State, Metrics]:
        """Take one gradient step on what the memory holds already, as on a data set. It counts as a step."""
        counters = state.counters
        counters = counters._replace(steps=counters.steps + 1, owed=counters.owed + 1)
        return self.update(self.after_steps(state, counters), key, jnp.int32(1), most=1)

    def update(self, state: State, key: Key, count: Array, *, most: int = 0) -> tuple[State, Metrics]:
        """Take `count` gradient steps, each on its own batch.

        most: the largest count there may be, if that is known: random numbers of that many steps are drawn at once.
        """
        config, counters = self.config, state.counters
        progress = counters.progress_remaining
        before = self.pack(state.train)._replace(finite=jnp.bool_(True))
        rate, beta = value_of(config.learning_rate, progress), value_of(config.prioritized_replay_beta, progress)
        train, memory, total = self._descend(before, state.memory, key, count, most, rate, beta)
        if self.guards_each_step:
            updates, aux = keep_if(train.finite, (train.updates, train.aux), (before.updates, before.aux))
            train = train._replace(updates=updates, aux=aux)
        else:
            train = keep_if(train.finite, train, before)._replace(finite=train.finite)
        # A bad update changed nothing; NaN tells the loop of it.
        metrics = {name: jnp.where(train.finite, x / jnp.maximum(count, 1), jnp.nan) for name, x in total.items()}
        counters = counters._replace(updates=train.updates, owed=counters.owed - count)
        state = State(self.unpack(train._replace(finite=jnp.bool_(True))), memory, counters, state.exploration)
        return state, {**metrics, "learning_rate": rate, "exploration": state.exploration}

    def resize(self, state: State) -> State:
        """Take over a state. A memory of another size gets what the old one held, one of other environments nothing.

        A memory that the state lacks, as (), stays so.
        """
        old, key = state.memory, jax.random.key(0)
        if old == ():
            return state
        new = jax.eval_shape(self.init, key).memory
        if _shapes(old) == _shapes(new):
            return state
        made = jax.jit(self.init)(key).memory
        # What may differ is the number of rows.
        if _shapes(old, from_axis=1) == _shapes(new, from_axis=1) and not jax.tree.leaves(
            (old.pending, old.ring.carry)
        ):
            add = jax.jit(self.replay.add, donate_argnums=0)
            for block in blocks(iter([history(old.ring)]), min(MOVED_ROWS, self.replay.rows)):
                made = add(made, block, key)
        return state._replace(memory=made)

    def learn(self, state: State, rollout: Rollout, key: Key) -> tuple[State, Metrics]:
        key_observe, key_update = jax.random.split(key)
        state = self.observe(state, rollout, key_observe)
        count = jnp.floor(state.counters.owed + 1e-4).astype(jnp.int32)  # thirds add up to a little less than one
        return self.update(state, key_update, count, most=self.gradient_steps)

    # --- inside -----------------------------------------------------------------------------------------------------

    def _recorded(self, actor_state: ActorState) -> tuple[PyTree, PyTree]:
        """Shapes of the extras and of the carry that the memory keeps, () for none."""
        space, n = self.spec.observation_space, self.spec.num_envs
        carry = self.initial_carry(n)

        def act(actor_state: PyTree, carry: PyTree, obs: PyTree, first: Array, key: Key) -> PyTree:
            acting = self.prepare(actor_state, ())
            return self.act(acting, carry, TimeStep(obs, first), key, explore=True).extras

        extras = ()
        if "extras" in self.needs.keep and not self.judges_at_once:
            example = dummy(space, n), np.ones(n, np.bool_)
            extras = jax.eval_shape(act, actor_state, carry, *example, jax.random.key(0))
        return extras, carry if self.keeps_carry else ()

    def _descend(
        self, train: TrainState, memory: ReplayState, key: Key, count: Array, most: int, rate: Array, beta: Array
    ) -> tuple[TrainState, ReplayState, Metrics]:
        """Take `count` gradient steps. Returns the memory with what was written back, and metrics summed over steps."""

        def draw(memory: ReplayState, i: Array) -> tuple[tuple[Index, Array], Key]:
            key_draw, key_step = jax.random.split(jax.random.fold_in(key, i))
            return self.replay.draw(memory, key_draw, self.config.batch_size, beta), key_step

        # Random numbers of many steps at once cost little more than those of one; of one, a little more than in place.
        early = most > 1 and not self.config.prioritized
        ahead = jax.vmap(partial(draw, memory))(jnp.arange(most)) if early else None

        def one(i: Array, train: TrainState, kept: tuple[PyTree, PyTree]) -> tuple[TrainState, PyTree, Metrics]:
            known = with_kept(memory, kept)
            drawn, key_step = draw(known, i) if ahead is None else jax.tree.map(lambda x: x[i], ahead)
            index, weight = drawn
            batch = self.replay.gather(known, index, weight, self.config.gamma)
            train, metrics, error = self.gradient_step(train, batch, key_step, rate)
            extras = ()
            if isinstance(error, Feedback):
                error, extras = error.error, write_extras(known.ring, batch.indices, batch.weight, error.extras)
            return train, (self.replay.reprioritize(known, batch.indices, error).priorities, extras), metrics

        def step(i: Array, carry: tuple[TrainState, PyTree, Metrics]) -> tuple[TrainState, PyTree, Metrics]:
            train, kept, total = carry
            train, kept, metrics = one(i, train, kept)
            return train, kept, jax.tree.map(jnp.add, total, metrics)

        kept = memory.priorities, memory.ring.extras if self.writes_extras else ()
        shapes = jax.eval_shape(one, jnp.int32(0), train, kept)[2]
        nothing = jax.tree.map(lambda s: jnp.zeros(s.shape, jnp.float32), shapes)
        # A loop whose count is not known needs no branch, which could copy what it carries.
        train, kept, total = jax.lax.fori_loop(0, count, step, (train, kept, nothing))
        return train, with_kept(memory, kept), total


def _shapes(memory: ReplayState, from_axis: int = 0) -> Any:
    """Return structure, shapes and dtypes of a memory, but for priorities, whose tree has levels as it has rows."""
    leaves, structure = jax.tree.flatten((memory.ring, memory.pending))
    priorities = bool(jax.tree.leaves(memory.priorities))
    rows = memory.ring.first.shape[0] if from_axis == 0 else None
    return structure, priorities, rows, [(x.shape[from_axis:], x.dtype) for x in leaves]


def with_kept(memory: ReplayState, kept: tuple[PyTree, PyTree]) -> ReplayState:
    """Return a memory with the priorities and extras that gradient steps change; extras are () where they do not."""
    priorities, extras = kept
    memory = memory._replace(priorities=priorities)
    return memory._replace(ring=memory.ring._replace(extras=extras)) if jax.tree.leaves(extras) else memory


def make_buffer(config: ReplayAlgorithm, spec: EnvSpec, judged: bool = False) -> ReplayBuffer:
    """Make the replay buffer that the hyperparameters describe. judged: see ReplayBuffer.

    Raises HyperparameterError where that cannot be.
    """
    options: dict[str, Any] = {
        "num_envs": spec.num_envs,
        "rollout_length": config.train_freq,
        "n_steps": config.n_steps,
        "frame_stack": spec.frame_stack,
        "own_heads": spec.rollout_envs is not None,
        "alpha": config.prioritized_replay_alpha if config.prioritized else None,
    }
    example = examples(spec)
    if not config.elite_episodes:
        return ReplayBuffer(config.buffer_size, *example, **options, judged=judged)
    if options.pop("own_heads"):
        raise HyperparameterError(
            f"{type(config).__name__}: elite_episodes=True wants rollouts of all environments at a time"
        )
    if spec.max_episode_steps is None:
        raise HyperparameterError(
            f"{type(config).__name__}: elite_episodes keeps running episodes until they end, and {spec.id or 'this'} "
            "has no time limit: give it one, as env_kwargs={'max_episode_steps': 1000}"
        )
    options |= {"longest": spec.max_episode_steps, "best": config.elite_count, "probability": config.non_elite_fraction}
    return EliteEpisodes(config.buffer_size, *example, **options)


def examples(spec: EnvSpec) -> tuple[PyTree, PyTree]:
    """Make observations and actions of N environments, for the shapes and dtypes of a memory."""
    return dummy(spec.observation_space, spec.num_envs), _dummy_action(spec.action_space, spec.num_envs)


def _dummy_action(space: spaces.Space, num_envs: int) -> Any:
    """Make actions of the shape and dtype in which learners give them."""
    if isinstance(space, spaces.Discrete):
        return np.zeros(num_envs, np.int32)
    return np.zeros((num_envs, *(space.shape or ())), np.float32)
