"""The compiled loop: environments, acting and learning are one program; the host gets reports now and then."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from time import perf_counter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import optimization_barrier

from renshu.algorithms.base import Learner
from renshu.envs.device import DeviceEnvs, EnvsState
from renshu.envs.seats import opponents_in, opponents_of, replaced
from renshu.errors import NotFiniteError
from renshu.files.checkpoint import named, restore
from renshu.loops.programs import Programs, acting_in, compiler_options, is_small, single_threaded, valid_metrics
from renshu.loops.report import Clock, Report, StepCount
from renshu.ops.rows import choose
from renshu.ops.spaces import map_space, storage_dtype
from renshu.optim.guards import guarded_learn
from renshu.types import KEEP, Array, Key, PyTree, Rollout, TimeStep

CHUNK_STEPS = 2**14
"""Environment steps between two reports to the host, about, at most; always whole rollouts."""

FAULTS = ("observation", "reward", "action")


class LoopState(NamedTuple):
    """State of a loop between two rollouts: N environments and their actor."""

    envs: EnvsState
    obs: PyTree  # [N, ...]
    first: Array  # [N] bool
    carry: PyTree
    running_return: Array  # [N] float32, or [N, P] of each player, of the episode so far
    running_length: Array  # [N] int32
    past: PyTree = ()  # copies of the learner that are opponents in its games; see `renshu.envs.self_play`


class RolloutStats(NamedTuple):
    """Statistics of one rollout."""

    metrics: Array  # [M] float32
    updates: Array  # [] int32    gradient steps taken
    steps: Array  # [T] int32     valid steps, over the environments
    ended: Array  # [T, N] bool   the step was an episode's last
    returns: Array  # [T, N] float32  sum of raw rewards of the episode up to here
    lengths: Array  # [T, N] int32
    faults: Array  # [3] bool      NaN or infinity in observations, rewards, actions
    info: Mapping[str, Array]  # [T, N] float32 each  numbers of the environments' `info`


class TrainIteration:
    """Collect a rollout and learn from it, as one pure function of arrays.

    `start(key) -> LoopState`; `__call__(state, loop_state, key, iteration) -> state, loop_state, RolloutStats`.
    refuse: learn nothing from a rollout with NaN or infinity in it. Under vmap that is a choice between two states,
    number for number, replay included: leave it out there. env_id: [N] int32, which of all environments these are,
    where there are others; () otherwise.
    """

    def __init__(
        self,
        learner: Learner,
        envs: DeviceEnvs,
        decode_action: Callable[[PyTree], PyTree],
        refuse: bool = True,
        env_id: Array = (),
    ) -> None:
        self.learner, self.envs, self.decode_action, self.refuse = learner, envs, decode_action, refuse
        self.env_id = env_id
        self.metric_names: list[str] = []
        opponents = opponents_of(envs.env)
        self.opponents = None if opponents is None else opponents.of(learner)

    def start(self, key: Key) -> LoopState:
        """Reset the environments. key: the root of their randomness."""
        past = () if self.opponents is None else self.opponents.start()
        return self._started(*self._sharing(past).reset(key), past)

    def _sharing(self, past: PyTree) -> DeviceEnvs:
        """Return the environments, with the copies of the learner that play in them."""
        if self.opponents is None:
            return self.envs
        return DeviceEnvs(replaced(self.envs.env, self.opponents.sharing(past)), self.envs.num_envs, self.envs.episodes)

    def _started(self, envs: EnvsState, obs: PyTree, past: PyTree) -> LoopState:
        n = self.envs.num_envs
        players = self.envs.env.players
        carry, nothing = self.learner.initial_carry(n), jnp.zeros((n, players) if players > 1 else n, jnp.float32)
        return LoopState(envs, self.stored(obs), jnp.ones(n, jnp.bool_), carry, nothing, jnp.zeros(n, jnp.int32), past)

    def stored(self, obs: PyTree) -> PyTree:
        """Convert observations to the dtypes in which rollouts hold them."""
        space = self.envs.env.observation_space
        return map_space(lambda leaf, x: jnp.asarray(x, storage_dtype(leaf.dtype)), space, obs)

    def __call__(
        self, state: Any, loop_state: LoopState, key: Key, iteration: Array
    ) -> tuple[Any, LoopState, RolloutStats]:
        T = self.learner.needs.steps
        fold = jax.vmap(jax.random.fold_in, (None, 0))
        keys = fold(jax.random.fold_in(key, iteration), jnp.arange(T + 1))
        loop_state, rollout, stats = self.collect(self.learner.actor_state(state), loop_state, keys[:T])
        # The barrier keeps learn the same program as in the host loop, to the last bit.
        rollout = optimization_barrier(rollout)

        def learn() -> tuple[Any, Array]:
            after, metrics = guarded_learn(self.learner)(state, rollout, keys[T])
            self.metric_names = sorted(metrics)
            return after, jnp.array([metrics[name] for name in self.metric_names], jnp.float32)

        def refuse() -> tuple[Any, Array]:
            return state, jnp.full(len(self.metric_names), jnp.nan)

        after, metrics = jax.lax.cond(~stats.faults.any(), learn, refuse) if self.refuse else learn()
        updates = after.counters.updates - state.counters.updates
        if self.opponents is not None:
            playing = opponents_in(loop_state.envs.inner)
            past = self.opponents.renewed(loop_state.past, self.learner.actor_state(after), playing)
            loop_state = loop_state._replace(past=past)
        return after, loop_state, stats._replace(metrics=metrics, updates=updates)

    def collect(
        self, actor_state: PyTree, loop_state: LoopState, keys: Key, explore: bool = True, fresh: bool | None = None
    ) -> tuple[LoopState, Rollout, RolloutStats]:
        """Step the environments once for each of `keys`. The statistics returned lack the metrics of learn.

        fresh: begin an episode in each environment, and stop there when it ends: the rows that follow are no steps.
        None: as the learner needs it.
        """
        needs = self.learner.needs
        fresh = needs.fresh if fresh is None else fresh
        if fresh:
            envs = self._sharing(loop_state.past)
            loop_state = self._started(*envs.reset(envs.root_after(loop_state.envs)), loop_state.past)
        # The barrier: as a constant the ids would be folded into other numbers than the host loop's argument gives.
        env_id = self.env_id if isinstance(self.env_id, tuple) else optimization_barrier(jnp.asarray(self.env_id))
        acting = self.learner.prepare(actor_state, acting_in(self.learner, env_id, self.envs.num_envs))
        step = partial(self._step, acting, env_id, explore)
        carry = loop_state, jnp.zeros_like(loop_state.first) if fresh else ()
        (after, _), (row, stats, faults) = jax.lax.scan(self._step_until_over(step) if fresh else step, carry, keys)
        last = after.obs if "obs" in needs.keep else ()
        rollout = Rollout(
            obs=jax.tree.map(lambda rows, last: jnp.concatenate([rows, last[None]]), row.obs, last),
            first=jnp.concatenate([row.first, after.first[None]]),
            action=row.action,
            reward=row.reward,
            terminated=row.terminated,
            carry=loop_state.carry,
            extras=row.extras,
            env_id=env_id,
            to_play=self._to_play(row.to_play, after.envs),
        )
        if needs.keep == KEEP:
            faults = jnp.stack([_not_finite(part) for part in (rollout.obs, row.reward, (row.action, row.extras))])
        else:
            faults = faults.any(axis=0)
        steps, ended, returns, lengths, info = stats
        known = RolloutStats(jnp.zeros(0), jnp.int32(0), steps, ended, returns, lengths, faults, info)
        return after, rollout, known

    def _step(
        self, acting: PyTree, env_id: Array, explore: bool, carry: tuple[LoopState, Array], key: Key
    ) -> tuple[tuple[LoopState, Array], tuple[Rollout, Any, Array]]:
        """Step the environments once; those that are `over` (in fresh rollouts) stay where they are."""
        at, over = carry
        keep, bare = self.learner.needs.keep, ()
        if self.learner.needs.env_state:
            bare = jax.vmap(self.envs.env.bare)(at.envs.inner)
        to_play = self._to_play((), at.envs)
        timestep = TimeStep(at.obs, at.first, env_id=env_id, env_state=bare, to_play=to_play)
        act = self.learner.act(acting, at.carry, timestep, key, explore=explore)
        envs, outcome = self._sharing(at.past).step(at.envs, self.decode_action(act.action))
        resets, ended, reward, terminated = at.envs.ended, envs.ended, outcome.reward, outcome.terminated
        obs = self.stored(outcome.obs)
        if not isinstance(over, tuple):
            obs = jax.tree.map(partial(choose, over), at.obs, obs)
            resets, ended, terminated = over, ended & ~over, terminated & ~over
            reward, over = choose(over, jnp.zeros_like(reward), reward), over | ended
        total = at.running_return + reward
        total = choose(resets, jnp.zeros_like(total), total)
        length = jnp.where(resets, 0, at.running_length + 1)
        after = LoopState(envs, obs, resets, act.carry, total, length, at.past)
        info = {name: jnp.asarray(value, jnp.float32) for name, value in outcome.info.items()}
        returns = total
        if total.ndim > 1:  # of all players: that of the first is the episode's, and each has its name
            returns, info = total[:, 0], info | {f"seat_{i}": total[:, i] for i in range(total.shape[1])}
        stats = ((~resets).sum(dtype=jnp.int32), ended, returns, length, info)
        faults = ()
        if keep != KEEP:
            bears = not self.learner.needs.finite_rewards and not isinstance(over, tuple)  # in training
            judged = (at.obs, () if bears else reward, (act.action, act.extras))
            faults = jnp.stack([_not_finite(part) for part in judged])
        row = Rollout(
            obs=at.obs if "obs" in keep else (),
            first=at.first,
            action=act.action if "action" in keep else (),
            reward=reward if "reward" in keep else (),
            terminated=terminated,
            extras=act.extras if "extras" in keep else (),
            to_play=to_play,
        )
        return (after, over), (row, stats, faults)

    def _to_play(self, rows: Array, envs: EnvsState) -> Array:
        """Return whose turn it is, [N], after rows `[T, N]` of it where there are some; () outside of games."""
        if self.learner.spec.players == 1:
            return ()
        now = jax.vmap(self.envs.env.to_play)(envs.inner)
        return now if isinstance(rows, tuple) else jnp.concatenate([rows, now[None]])

    def _step_until_over(self, step: Callable) -> Callable:
        """Make the step of a fresh rollout, which does nothing once all episodes are over."""

        def stepped(carry: tuple[LoopState, Array], key: Key) -> tuple[Any, Any]:
            at, over = carry
            shapes = jax.eval_shape(step, carry, key)[1]

            def rest() -> tuple[Any, Any]:
                row, stats, faults = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
                row = row._replace(obs=at.obs if jax.tree.leaves(row.obs) else (), first=at.first)
                return (at._replace(first=over), over), (row, stats, faults)

            return jax.lax.cond(over.all(), rest, lambda: step(carry, key))

        return stepped


class Chunk(NamedTuple):
    """Result of some rollouts: the states after them, and statistics of each, [K, ...]; of the first `done` only."""

    state: Any
    loop_state: LoopState
    done: Array  # [] int32
    stats: RolloutStats


def make_chunk(train_iteration: TrainIteration, most: int) -> Callable[[Any, LoopState, Key, Array, Array], Chunk]:
    """Make the program that runs `count <= most` rollouts: (state, loop_state, key, iteration, count) -> Chunk.

    It stops early after a rollout with NaN or infinity in it. One program serves every count, so
    that the times of reports change no bit of the result.
    """

    def chunk(state: Any, loop_state: LoopState, key: Key, iteration: Array, count: Array) -> Chunk:
        shapes = jax.eval_shape(train_iteration, state, loop_state, key, iteration)[2]
        rows = jax.tree.map(lambda s: jnp.zeros((most, *s.shape), s.dtype), shapes)

        def going(carry: tuple[Chunk, Array]) -> Array:
            return (carry[0].done < count) & carry[1]

        def body(carry: tuple[Chunk, Array]) -> tuple[Chunk, Array]:
            at, _ = carry
            state, loop_state, stats = train_iteration(at.state, at.loop_state, key, iteration + at.done)
            rows = jax.tree.map(lambda all_, one: all_.at[at.done].set(one), at.stats, stats)
            finite = jnp.isfinite(stats.metrics).all() & ~stats.faults.any()
            return Chunk(state, loop_state, at.done + 1, rows), finite

        return jax.lax.while_loop(going, body, (Chunk(state, loop_state, jnp.int32(0), rows), jnp.bool_(True)))[0]

    return chunk


class CompiledLoop:
    """Rollouts and updates on the device, some at a time, with statistics of each for the host.

    state: the learner's. decode_action: from the learner's actions to the environment's; it is compiled too.
    key: the root of the randomness of acting and learning. seed: of the environments. steps: valid steps so far.
    snapshot: of an earlier loop, from `snapshot()` or a file, to go on from there to the bit.
    env_id: as for a TrainIteration.
    uninterrupted: a context in which Ctrl-C waits, so that the state is never lost between two updates.
    """

    def __init__(
        self,
        programs: Programs,
        state: Any,
        envs: DeviceEnvs,
        decode_action: Callable[[Any], Any],
        *,
        key: Key,
        seed: int,
        iteration: int = 0,
        steps: int = 0,
        snapshot: PyTree = None,
        env_id: Array = (),
        uninterrupted: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        self.state, self.envs, self.key, self.iteration = state, envs, key, iteration
        self.uninterrupted = uninterrupted
        self.clock, self.episodes = Clock(), StepCount(steps)
        self.train_iteration = TrainIteration(programs.learner, envs, decode_action, env_id=env_id)
        self.size = programs.learner.needs.steps * envs.num_envs
        self.most = max(1, CHUNK_STEPS // self.size)
        options = compiler_options(programs.learner) | (
            single_threaded() if is_small(programs.learner.actor_state(state)) else {}
        )
        self._chunk = jax.jit(
            make_chunk(self.train_iteration, self.most), donate_argnums=(0, 1), compiler_options=options
        )
        start = jax.jit(self.train_iteration.start)
        root = jax.random.key(np.uint32(seed))
        self.loop_state: LoopState = start(root) if snapshot is None else _restored(start, root, snapshot)
        self._faulty = False

    def snapshot(self) -> PyTree:
        """Return the state of environments and actor as plain arrays; None where environments went NaN."""
        return None if self._faulty else without_keys(self.loop_state)

    def advance(self, most_steps: int) -> Report:
        """Run as many rollouts as fit in `most_steps` environment steps, at least one, and learn from each.

        Raises NotFiniteError for NaN or infinity in observations, rewards, actions or losses: the rollout is the last,
        nothing was learned from it, but its steps count.
        """
        began = perf_counter()
        count = min(self.most, max(1, most_steps // self.size))
        with self.uninterrupted():
            chunk = self._chunk(self.state, self.loop_state, self.key, np.int32(self.iteration), np.int32(count))
            self.state, self.loop_state = chunk.state, chunk.loop_state
            done = int(chunk.done)
            self.iteration += done
        stats: RolloutStats = jax.tree.map(lambda x: np.asarray(x)[:done], chunk.stats)
        metrics = dict(zip(self.train_iteration.metric_names, stats.metrics[-1].tolist(), strict=True))
        metrics = valid_metrics(self.train_iteration.learner, metrics, stats.updates[-1])
        steps, finished = self.episodes.add(stats)
        self.clock.learn += perf_counter() - began
        self.clock.total += perf_counter() - began
        self._check(stats, metrics)
        return Report(done, steps, metrics, finished)

    def _check(self, stats: RolloutStats, metrics: dict[str, float]) -> None:
        where = f"update {self.iteration}, step {self.episodes.steps}"
        self._faulty = bool(np.any(stats.faults[-1]))
        check_faults(stats.faults[-1], self.envs.env.name, f" in the rollout of {where}. Nothing was learned from it")
        wrong = ", ".join(f"{name} is {value}" for name, value in metrics.items() if not np.isfinite(value))
        if wrong:
            raise NotFiniteError(
                f"{where} went wrong: {wrong}. Its result was thrown away and the parameters are those from before. "
                "Often a lower learning_rate, norm_obs=True or norm_reward=True helps"
            )


def check_faults(faults: Array, name: str, where: str = "") -> None:
    """Raise NotFiniteError where a rollout of the environment `name` had bad numbers. faults: of its statistics."""
    for what, bad in zip(FAULTS, np.asarray(faults), strict=True):
        if bad:
            raise NotFiniteError(
                f"an {what} of {name} is NaN or infinite{where}; fix the environment, or clip what it returns"
            )


def _restored(start: Callable[[Key], LoopState], root: Key, snapshot: PyTree) -> LoopState:
    """Make a loop state from the arrays of a file. Raises CheckpointError where they are of another environment."""
    arrays = restore(jax.eval_shape(lambda key: without_keys(start(key)), root), named(snapshot))
    return with_keys(jax.eval_shape(start, root), arrays)


def without_keys(tree: PyTree) -> PyTree:
    """Replace random keys by plain numbers, which can be saved."""
    return jax.tree.map(lambda x: jax.random.key_data(x) if _is_key(x) else x, tree)


def with_keys(like: PyTree, tree: PyTree) -> PyTree:
    """Undo `without_keys`. like: arrays or shapes of the tree that it was given."""
    return jax.tree.map(
        lambda s, x: jax.random.wrap_key_data(jnp.asarray(x)) if _is_key(s) else jnp.asarray(x), like, tree
    )


def _is_key(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def _not_finite(tree: PyTree) -> Array:
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    return ~jnp.array([jnp.isfinite(x).all() for x in leaves], jnp.bool_).all()
