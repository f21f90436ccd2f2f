"""The compiled programs of a learner: what a loop, an evaluation and a prediction call. Made once an agent."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from renshu.algorithms.base import Learner
from renshu.types import Act, Array, Key, PyTree, Rollout


class Programs:
    """Jitted functions of one learner.

    act(view, carry, obs, first, key, iteration, t) -> Act: exploring, with the key folded by iteration and t.
    act_greedy: the same, greedy. learn(state, rollout, key, iteration) -> (state, metrics vector); donates the state.
    explain(view, carry, obs) -> dict. Call `metrics(vector)` for the names.
    """

    def __init__(self, learner: Learner) -> None:
        self.learner = learner
        self.metric_names: list[str] = []

        def act(
            view: PyTree, carry: PyTree, obs: PyTree, first: Array, key: Key, iteration: int, t: int, *, explore: bool
        ) -> Act:
            return learner.act(view, carry, obs, first, fold(key, iteration, t), explore=explore)

        def learn(state: Any, rollout: Rollout, key: Key, iteration: int) -> tuple[Any, Array]:
            state, metrics = learner.learn(state, rollout, fold(key, iteration, learner.rollout_length))
            self.metric_names = sorted(metrics)
            return state, jnp.array([metrics[name] for name in self.metric_names], jnp.float32)

        jit = partial(jax.jit, compiler_options=compiler_options())
        self.init = jit(learner.init)
        self.act = jit(lambda *inputs: act(*inputs, explore=True))
        self.act_greedy = jit(lambda *inputs: act(*inputs, explore=False))
        self.learn = jit(learn, donate_argnums=0)
        self.explain = jit(learner.explain)

    def metrics(self, vector: Array) -> dict[str, float]:
        """Names and numbers of the vector that learn returned."""
        return dict(zip(self.metric_names, np.asarray(vector).tolist(), strict=True))

    def compiled(self) -> int:
        """How many programs have been compiled so far; steady training adds none."""
        return sum(
            getattr(f, "_cache_size")() for f in (self.init, self.act, self.act_greedy, self.learn, self.explain)
        )


def compiler_options() -> dict[str, int]:
    """Options of XLA for every program. On a CPU: vectors as wide as it has (8 % of a PPO learn)."""
    return {"xla_cpu_prefer_vector_width": 512} if jax.default_backend() == "cpu" else {}


def fold(key: Key, iteration: Any, t: Any) -> Key:
    """The key of step `t` in `iteration`: the same in every loop."""
    return jax.random.fold_in(jax.random.fold_in(key, iteration), t)
