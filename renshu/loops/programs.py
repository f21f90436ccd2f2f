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
from renshu.types import ActorOutput, Array, Key, PyTree, Rollout


class Programs:
    """Jitted functions of one learner, whose rollouts have T steps.

    init(key) -> state. keys(key, iteration) -> [T + 1] keys: one for each step of a rollout, the last for learn.
    act(actor_state, carry, obs, first, keys, t) -> ActorOutput, exploring; act_greedy: the same, greedy.
    pack(actor_state) -> packed, and act_packed(packed, carry, ...): the same as act, for many calls on one actor state.
    learn(state, rollout, keys) -> (state, metrics as a vector); donates the state.
    explain(actor_state, carry, obs) -> dict.
    """

    def __init__(self, learner: Learner) -> None:
        self.learner = learner
        self.metric_names: list[str] = []
        steps = learner.rollout_length

        def keys(key: Key, iteration: int) -> Key:
            return jax.vmap(partial(jax.random.fold_in, jax.random.fold_in(key, iteration)))(jnp.arange(steps + 1))

        def act(
            actor_state: PyTree, carry: PyTree, obs: PyTree, first: Array, keys: Key, t: int, *, explore: bool
        ) -> ActorOutput:
            return learner.act(actor_state, carry, obs, first, keys[t], explore=explore)

        def learn(state: Any, rollout: Rollout, keys: Key) -> tuple[Any, Array]:
            state, metrics = learner.learn(state, rollout, keys[steps])
            self.metric_names = sorted(metrics)
            return state, jnp.array([metrics[name] for name in self.metric_names], jnp.float32)

        def act_packed(packed: list[Array], *inputs: Any) -> ActorOutput:
            like = jax.eval_shape(lambda key: learner.actor_state(learner.init(key)), jax.random.key(0))
            return act(unpack(packed, like), *inputs, explore=True)

        jit = partial(jax.jit, compiler_options=compiler_options())
        self.init = jax.jit(learner.init, compiler_options=compiler_options() | fast_to_compile())
        self.keys = jit(keys)
        self.act = jit(lambda *inputs: act(*inputs, explore=True))
        self.act_greedy = jit(lambda *inputs: act(*inputs, explore=False))
        self._pack, self._packs, self._nothing = jit(pack), True, jnp.zeros(0)
        self.act_packed = jax.jit(act_packed, compiler_options=compiler_options() | single_threaded())
        self.learn = jit(learn, donate_argnums=0)
        self.explain = jit(learner.explain)

    def pack(self, actor_state: PyTree) -> list[Array]:
        """Put an actor state into the form of `act_packed`; a large one is not copied, and valid until learn."""
        if not self._packs:
            return [self._nothing, *jax.tree.leaves(actor_state)]
        packed = self._pack(actor_state)
        if packed[0].size == 0:
            self._packs = False
        return packed

    def metrics(self, vector: Array) -> dict[str, float]:
        """Name the numbers of the vector that learn returned."""
        return dict(zip(self.metric_names, np.asarray(vector).tolist(), strict=True))

    def key_stream(self, key: Key) -> Iterator[tuple[Key, int]]:
        """Yield keys for acting outside of rollouts, endlessly: `(keys, t)` as `act` takes them."""
        for block in count():
            keys = self.keys(key, block)
            for t in range(self.learner.rollout_length):
                yield keys, t

    def compiled(self) -> int:
        """Count the programs compiled so far; steady training adds none."""
        programs = (self.init, self.keys, self.act, self.act_greedy, self._pack, self.act_packed, self.learn)
        programs += (self.explain,)
        return sum(getattr(program, "_cache_size")() for program in programs)


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


def compiler_options() -> dict[str, int]:
    """Return options of XLA for every program. On a CPU: vectors as wide as it has (8 % of a PPO learn)."""
    return {"xla_cpu_prefer_vector_width": 512} if jax.default_backend() == "cpu" else {}


def fast_to_compile() -> dict[str, int]:
    """Return options of XLA for a program that runs once: it compiles a third faster, with the same numbers."""
    return {"xla_backend_optimization_level": 1} if jax.default_backend() == "cpu" else {}


def single_threaded() -> dict[str, str]:
    """Return options of XLA for programs of microseconds: with several threads they cost five times as much."""
    if jax.default_backend() != "cpu":
        return {}
    return {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
