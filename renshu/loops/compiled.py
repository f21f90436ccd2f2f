"""The compiled loop: environments, acting and learning are one program; the host looks in now and then."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from time import perf_counter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from renshu.algorithms.base import Learner
from renshu.checkpoint import named, restore
from renshu.envs.device import DeviceEnvs, EnvsState
from renshu.errors import NotFiniteError
from renshu.loops.programs import Programs, compiler_options, in_sequence, is_small
from renshu.loops.report import Clock, Report, StepCount
from renshu.ops.spaces import map_space, storage_dtype
from renshu.types import Array, Key, PyTree, Rollout

VISIT_STEPS = 2**14
"""At most about so many environment steps pass between two looks of the host, of a rollout or more."""

FAULTS = ("observation", "reward", "action")


class Scene(NamedTuple):
    """N environments and their actor between two rollouts."""

    envs: EnvsState
    obs: PyTree  # [N, ...]
    first: Array  # [N] bool
    carry: PyTree
    running_return: Array  # [N] float32  of the episode so far
    running_length: Array  # [N] int32


class Told(NamedTuple):
    """What the host hears of one rollout."""

    metrics: Array  # [M] float32
    steps: Array  # [T] int32     valid steps, over the environments
    ended: Array  # [T, N] bool   the step was an episode's last
    returns: Array  # [T, N] float32  sum of raw rewards of the episode up to here
    lengths: Array  # [T, N] int32
    faults: Array  # [3] bool      NaN or infinity in observations, rewards, actions


class Iterate:
    """Collect a rollout and learn from it, as one pure function of arrays.

    `start(key) -> Scene`; `__call__(state, scene, key, iteration) -> state, scene, Told`. refuse: learn nothing from a
    rollout with NaN or infinity in it. Under vmap that is a choice between two states, number for number, replay
    included: leave it out there.
    """

    def __init__(
        self, learner: Learner, envs: DeviceEnvs, decode_action: Callable[[PyTree], PyTree], refuse: bool = True
    ) -> None:
        self.learner, self.envs, self.decode_action, self.refuse = learner, envs, decode_action, refuse
        self.metric_names: list[str] = []

    def start(self, key: Key) -> Scene:
        """Reset the environments. key: the root of their randomness."""
        n = self.envs.num_envs
        state, obs = self.envs.reset(key)
        nothing = jnp.zeros(n, jnp.float32)
        return Scene(
            state, self.stored(obs), jnp.ones(n, jnp.bool_), self.learner.carry(n), nothing, nothing.astype(jnp.int32)
        )

    def stored(self, obs: PyTree) -> PyTree:
        """Observations in the dtypes in which rollouts hold them."""
        space = self.envs.env.observation_space
        return map_space(lambda leaf, x: jnp.asarray(x, storage_dtype(leaf.dtype)), space, obs)

    def __call__(self, state: Any, scene: Scene, key: Key, iteration: Array) -> tuple[Any, Scene, Told]:
        T = self.learner.rollout_length
        fold = jax.vmap(jax.random.fold_in, (None, 0))
        keys = fold(jax.random.fold_in(key, iteration), jnp.arange(T + 1))
        scene, rollout, heard = self.collect(self.learner.view(state), scene, keys[:T])
        # The barrier keeps learn the same program as in the host loop, to the last bit.
        rollout = jax.lax.optimization_barrier(rollout)

        def learn() -> tuple[Any, Array]:
            after, metrics = self.learner.learn(state, rollout, keys[T])
            self.metric_names = sorted(metrics)
            return after, jnp.array([metrics[name] for name in self.metric_names], jnp.float32)

        def refuse() -> tuple[Any, Array]:
            return state, jnp.full(len(self.metric_names), jnp.nan)

        after, metrics = jax.lax.cond(~heard.faults.any(), learn, refuse) if self.refuse else learn()
        return after, scene, heard._replace(metrics=metrics)

    def collect(self, view: PyTree, scene: Scene, keys: Key, explore: bool = True) -> tuple[Scene, Rollout, Told]:
        """Step the environments once for each of `keys`. The metrics of what is told are still missing."""

        def step(scene: Scene, key: Key) -> tuple[Scene, Any]:
            act = self.learner.act(view, scene.carry, scene.obs, scene.first, key, explore=explore)
            envs, outcome = self.envs.step(scene.envs, self.decode_action(act.action))
            resets = scene.envs.ended
            total = jnp.where(resets, 0.0, scene.running_return + outcome.reward)
            length = jnp.where(resets, 0, scene.running_length + 1)
            after = Scene(envs, self.stored(outcome.obs), resets, act.carry, total, length)
            told = ((~resets).sum(dtype=jnp.int32), envs.ended, total, length)
            return after, (scene.obs, scene.first, act.action, outcome.reward, outcome.terminated, act.extras, told)

        after, (obs, first, action, reward, terminated, extras, told) = jax.lax.scan(step, scene, keys)
        rollout = Rollout(
            obs=jax.tree.map(lambda rows, last: jnp.concatenate([rows, last[None]]), obs, after.obs),
            first=jnp.concatenate([first, after.first[None]]),
            action=action,
            reward=reward,
            terminated=terminated,
            carry=scene.carry,
            extras=extras,
        )
        faults = jnp.stack([_not_finite(part) for part in (rollout.obs, reward, action)])
        return after, rollout, Told(jnp.zeros(0), told[0], told[1], told[2], told[3], faults)


class Visit(NamedTuple):
    """Where a loop stands after some rollouts, and what it tells of each, [K, ...]; of the first `done` only."""

    state: Any
    scene: Scene
    done: Array  # [] int32
    told: Told


def visits(iterate: Iterate, most: int) -> Callable[[Any, Scene, Key, Array, Array], Visit]:
    """Make the program that runs `count <= most` rollouts: (state, scene, key, iteration, count) -> Visit.

    It stops early after a rollout with NaN or infinity in it. One program for every count: so where the host looks in
    changes no bit of the result.
    """

    def visit(state: Any, scene: Scene, key: Key, iteration: Array, count: Array) -> Visit:
        shapes = jax.eval_shape(iterate, state, scene, key, iteration)[2]
        rows = jax.tree.map(lambda s: jnp.zeros((most, *s.shape), s.dtype), shapes)

        def going(carry: tuple[Visit, Array]) -> Array:
            return (carry[0].done < count) & carry[1]

        def body(carry: tuple[Visit, Array]) -> tuple[Visit, Array]:
            at, _ = carry
            state, scene, told = iterate(at.state, at.scene, key, iteration + at.done)
            rows = jax.tree.map(lambda all_, one: all_.at[at.done].set(one), at.told, told)
            fine = jnp.isfinite(told.metrics).all() & ~told.faults.any()
            return Visit(state, scene, at.done + 1, rows), fine

        return jax.lax.while_loop(going, body, (Visit(state, scene, jnp.int32(0), rows), jnp.bool_(True)))[0]

    return visit


class CompiledLoop:
    """Runs rollouts and updates on the device, some at a time; the host hears of each.

    state: the learner's. decode_action: from the learner's actions to the environment's; it is compiled too.
    key: the root of the randomness of acting and learning. seed: of the environments. steps: valid steps so far.
    snapshot: where an earlier loop stood, as `snapshot()` or a file gives it, to go on from there to the bit.
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
        uninterrupted: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        self.state, self.envs, self.key, self.iteration = state, envs, key, iteration
        self.uninterrupted = uninterrupted
        self.clock, self.episodes = Clock(), StepCount(steps)
        self.iterate = Iterate(programs.learner, envs, decode_action)
        self.size = programs.learner.rollout_length * envs.num_envs
        self.most = max(1, VISIT_STEPS // self.size)
        options = compiler_options() | (in_sequence() if is_small(programs.learner.view(state)) else {})
        self._visit = jax.jit(visits(self.iterate, self.most), donate_argnums=(0, 1), compiler_options=options)
        start = jax.jit(self.iterate.start)
        root = jax.random.key(np.uint32(seed))
        self.scene: Scene = start(root) if snapshot is None else _restored(start, root, snapshot)

    def snapshot(self) -> PyTree:
        """Where environments and actor stand, as plain arrays."""
        return without_keys(self.scene)

    def advance(self, most_steps: int) -> Report:
        """Run as many rollouts as fit in `most_steps` environment steps, at least one, and learn from each.

        Raises NotFiniteError for NaN or infinity in observations, rewards, actions or losses: the rollout is the last,
        nothing was learned from it, but its steps count.
        """
        began = perf_counter()
        count = min(self.most, max(1, most_steps // self.size))
        with self.uninterrupted():
            visit = self._visit(self.state, self.scene, self.key, np.int32(self.iteration), np.int32(count))
            self.state, self.scene = visit.state, visit.scene
            done = int(visit.done)
            self.iteration += done
        told: Told = jax.tree.map(lambda x: np.asarray(x)[:done], visit.told)
        metrics = dict(zip(self.iterate.metric_names, told.metrics[-1].tolist(), strict=True))
        steps, finished = self.episodes.add(told)
        self.clock.learn += perf_counter() - began
        self.clock.total += perf_counter() - began
        self._check(told, metrics)
        return Report(done, steps, metrics, finished)

    def _check(self, told: Told, metrics: dict[str, float]) -> None:
        where = f"update {self.iteration}, step {self.episodes.steps}"
        for name, bad in zip(FAULTS, told.faults[-1], strict=True):
            if bad:
                raise NotFiniteError(
                    f"an {name} of {self.envs.env.name} is NaN or infinite in the rollout of {where}. Nothing was "
                    "learned from it; mend the environment, or clip what it returns"
                )
        wrong = ", ".join(f"{name} is {value}" for name, value in metrics.items() if not np.isfinite(value))
        if wrong:
            raise NotFiniteError(
                f"{where} went wrong: {wrong}. Its result was thrown away and the parameters are those from before. "
                "Often a lower learning_rate, norm_obs=True or norm_reward=True helps"
            )


def _restored(start: Callable[[Key], Scene], root: Key, snapshot: PyTree) -> Scene:
    """A scene from the arrays of a file. Raises CheckpointError where they are of another environment."""
    arrays = restore(jax.eval_shape(lambda key: without_keys(start(key)), root), named(snapshot))
    return with_keys(jax.eval_shape(start, root), arrays)


def without_keys(tree: PyTree) -> PyTree:
    """Random keys as plain numbers, which can be saved."""
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
