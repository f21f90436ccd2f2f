"""Compiled programs of a learner, for loops, evaluation and prediction. Made once per agent."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from itertools import count
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from renshu.algorithms.base import Learner
from renshu.ops.images import has_images
from renshu.optim.guards import guarded_learn
from renshu.types import ActorOutput, Array, Key, PyTree, Rollout, TimeStep


class Programs:
    """Jitted functions of one learner, whose rollouts have T steps.

    init(key) -> state. keys(key, iteration) -> [T + 1] keys: one for each step of a rollout, the last for learn.
    act(actor_state, carry, timestep, keys, t) -> ActorOutput, exploring; act_greedy: the same, greedy.
    pack(actor_state) -> packed, and act_packed(packed, carry, obs, first, keys, t): act, for many calls on one state;
    both take an env_id too, and act_packed an env_state, where there is one.
    learn(state, rollout, keys) -> (state, vector of metrics and the number of gradient steps); donates the state.
    explain(actor_state, carry, timestep) -> dict.
    """

    def __init__(self, learner: Learner) -> None:
        self.learner = learner
        self.metric_names: list[str] = []
        steps = learner.needs.steps

        def keys(key: Key, iteration: int) -> Key:
            return jax.vmap(partial(jax.random.fold_in, jax.random.fold_in(key, iteration)))(jnp.arange(steps + 1))

        def act(
            actor_state: PyTree, carry: PyTree, timestep: TimeStep, keys: Key, t: int, *, explore: bool
        ) -> ActorOutput:
            env_id = acting_in(learner, timestep.env_id, timestep.first.shape[0])
            acting = learner.prepare(actor_state, env_id)
            return learner.act(acting, carry, timestep, keys[t], explore=explore)

        def explain(actor_state: PyTree, carry: PyTree, timestep: TimeStep) -> dict[str, Array]:
            env_id = acting_in(learner, timestep.env_id, timestep.first.shape[0])
            return learner.explain(learner.prepare(actor_state, env_id), carry, timestep)

        guarded = guarded_learn(learner)

        def learn(state: Any, rollout: Rollout, keys: Key) -> tuple[Any, Array]:
            before = state.counters.updates
            state, metrics = guarded(state, rollout, keys[steps])
            self.metric_names = sorted(metrics)
            numbers = [metrics[name] for name in self.metric_names]
            return state, jnp.array([*numbers, state.counters.updates - before], jnp.float32)

        def prepare(actor_state: PyTree, env_id: Array = ()) -> PyTree:
            return learner.prepare(actor_state, env_id)

        def acting(key: Key, env_id: Array) -> PyTree:
            return prepare(learner.actor_state(learner.init(key)), env_id)

        # Plain arguments: JAX takes 0.4 us longer to look into a TimeStep, a fiftieth of a call.
        def act_packed(
            packed: list[Array],
            carry: PyTree,
            obs: PyTree,
            first: Array,
            keys: Key,
            t: int,
            env_id: Array = (),
            env_state: PyTree = (),
        ) -> ActorOutput:
            like = jax.eval_shape(acting, jax.random.key(0), env_id)
            timestep = TimeStep(obs, first, env_id, env_state)
            return learner.act(unpack(packed, like), carry, timestep, keys[t], explore=True)

        options = compiler_options(learner)
        jit = partial(jax.jit, compiler_options=options)
        self.init = jax.jit(learner.init, compiler_options=compiler_options() | fast_to_compile())
        self.keys = jit(keys)
        self.act = jit(lambda *inputs: act(*inputs, explore=True))
        self.act_greedy = jit(lambda *inputs: act(*inputs, explore=False))
        self._prepare = None if is_default(learner, "prepare") else jit(prepare)
        self._pack, self._packs, self._nothing = jit(pack), True, jnp.zeros(0)
        alone = {} if convolves(learner) else single_threaded()
        self.act_packed = jax.jit(act_packed, compiler_options=options | alone)
        self.learn = jit(learn, donate_argnums=0)
        self.explain = jit(explain)

    def pack(self, actor_state: PyTree, env_id: Array = ()) -> list[Array]:
        """Put an actor state into the form of `act_packed`; a large one is not copied, and valid until learn."""
        if self._prepare is not None:
            actor_state = self._prepare(actor_state, env_id)
        if not self._packs:
            return [self._nothing, *jax.tree.leaves(actor_state)]
        packed = self._pack(actor_state)
        if packed[0].size == 0:
            self._packs = False
        return packed

    def metrics(self, vector: Array) -> dict[str, float]:
        """Name the numbers of the vector that learn returned; those of gradient steps only where one was taken."""
        *numbers, updates = np.asarray(vector).tolist()
        return valid_metrics(self.learner, dict(zip(self.metric_names, numbers, strict=True)), updates)

    def key_stream(self, key: Key) -> Iterator[tuple[Key, int]]:
        """Yield keys for acting outside of rollouts, endlessly: `(keys, t)` as `act` takes them."""
        for block in count():
            keys = self.keys(key, block)
            for t in range(self.learner.needs.steps):
                yield keys, t

    def compiled(self) -> int:
        """Count the programs compiled so far; steady training adds none."""
        programs = (self.init, self.keys, self.act, self.act_greedy, self._pack, self.act_packed, self.learn)
        programs += (self.explain,)
        return sum(getattr(program, "_cache_size")() for program in programs)


def valid_metrics(learner: Learner, metrics: dict[str, float], updates: float) -> dict[str, float]:
    """Drop the metrics of gradient steps where none was taken, and nothing went wrong."""
    idle = learner.idle_metrics
    if updates or idle is None or not all(map(math.isfinite, metrics.values())):
        return metrics
    return {name: value for name, value in metrics.items() if name in idle}


def is_default(learner: Learner, method: str) -> bool:
    """Tell whether a learner leaves a method of the contract as it is."""
    return getattr(type(learner), method) is getattr(Learner, method)


def acting_in(learner: Learner, env_id: Array, count: int) -> Array:
    """Return the environments for `prepare`: counted from 0 where an agent acts in others than those of training."""
    return jnp.arange(count) if isinstance(env_id, tuple) and count != learner.spec.num_envs else env_id


SMALL = 2**16
"""Largest actor state, in numbers, that is packed; copying more would cost more than it saves."""


def pack(actor_state: PyTree) -> list[Array]:
    """Put the float32 leaves of a small actor state into one vector: a call with two arrays is cheaper than a dozen."""
    leaves = jax.tree.leaves(actor_state)
    packed = [x.reshape(-1) for x, inside in zip(leaves, _inside(leaves), strict=True) if inside]
    others = [x for x, inside in zip(leaves, _inside(leaves), strict=True) if not inside]
    return [jnp.concatenate([jnp.zeros(0), *packed]), *others]


def unpack(packed: list[Array], like: PyTree) -> PyTree:
    """Undo `pack`. like: arrays or shapes of such an actor state."""
    leaves, treedef = jax.tree.flatten(like)
    inside = _inside(leaves)
    sizes = [math.prod(x.shape) for x, yes in zip(leaves, inside, strict=True) if yes]
    parts = iter(jnp.split(packed[0], np.cumsum(sizes)))
    others = iter(packed[1:])
    found = [next(parts).reshape(x.shape) if yes else next(others) for x, yes in zip(leaves, inside, strict=True)]
    return jax.tree.unflatten(treedef, found)


def is_small(actor_state: PyTree) -> bool:
    """Tell whether an actor state has at most SMALL numbers: then a program's parts take microseconds."""
    return sum(math.prod(x.shape) for x in jax.tree.leaves(actor_state)) <= SMALL


def _inside(leaves: list[Array]) -> list[bool]:
    small = is_small(leaves)
    return [small and x.dtype == jnp.float32 for x in leaves]


def compiler_options(learner: Learner | None = None) -> dict[str, int | str]:
    """Return options of XLA for every program of a learner. On a CPU: vectors as wide as it has (8 % of a PPO learn).

    Convolutions take half the time by routines which JAX 0.10 knows and does not choose; small products take longer.
    """
    if jax.default_backend() != "cpu":
        return {}
    options: dict[str, int | str] = {"xla_cpu_prefer_vector_width": 512}
    if learner is not None and convolves(learner) and jax.__version_info__ < (0, 11):
        options["xla_cpu_experimental_ynn_fusion_type"] = "LIBRARY_FUSION_TYPE_DOT"
    return options


def convolves(learner: Learner) -> bool:
    """Tell whether a learner's networks convolve."""
    if learner.convolves is not None:
        return learner.convolves
    own = getattr(learner.config, "cnn", None) is not None or getattr(learner.config, "network", None) is not None
    return has_images(learner.spec.network_space, anything=own)


def fast_to_compile() -> dict[str, int]:
    """Return options of XLA for a program that runs once: it compiles a third faster, with the same numbers."""
    return {"xla_backend_optimization_level": 1} if jax.default_backend() == "cpu" else {}


def single_threaded() -> dict[str, str]:
    """Return options of XLA for programs of microseconds: with several threads they cost five times as much."""
    if jax.default_backend() != "cpu":
        return {}
    return {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
