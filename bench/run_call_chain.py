"""Trace `learn` of some learners and print, as JSON, the longest chain of calls from it into each loss.

Runs on an older version of the library too, with PYTHONPATH set to that: `python -m bench.call_chain` does so.

A loss is whatever is given to `jax.value_and_grad` or `jax.grad`. A chain is the functions of the library that are on
the stack at once, from `learn` on, through a loss, down to the deepest function that it is made of; networks are left
out, with all that they call. Nothing is computed: the learner is traced on shapes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any
from unittest.mock import patch

import jax
import jax.numpy as jnp
from gymnasium import spaces

import renshu
from renshu.types import EnvSpec, Rollout

PACKAGE = Path(renshu.__file__).parent
SMALL = {"learning_starts": 8, "buffer_size": 64, "batch_size": 8, "net_arch": [8]}
CASES: dict[str, dict[str, Any]] = {
    "PPO": {"n_steps": 4, "batch_size": 8, "n_epochs": 2, "net_arch": [8]},
    "DQN": SMALL,
    "TD3": SMALL,
    "SAC": SMALL,
    "TQC": SMALL,
    "CrossQ": SMALL,
}
"""Algorithms and hyperparameters. Those that matter for the chains are the defaults."""
ENVS = 2


class Tracer:
    """A profile function that keeps the longest chain of calls through each loss.

    chains: for each loss, its functions as [name, file], and the place of the loss among them.
    """

    def __init__(self) -> None:
        self.losses: set[CodeType] = set()
        self.chains: dict[str, tuple[list[list[str]], int]] = {}

    def noting(self, transform: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap `jax.grad` or the like so that it notes the function whose gradient it takes."""

        def wrapped(loss: Callable[..., Any], *args: Any, **options: Any) -> Any:
            self.losses.add(loss.__code__)
            return transform(loss, *args, **options)

        return wrapped

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        """Look at the stack of a call of a function of the library."""
        if event != "call" or not is_ours(frame.f_code):
            return
        stack = stack_of(frame)
        place = next((i for i, code in enumerate(stack) if code in self.losses), None)
        if place is None or any(room(code) == "networks" for code in stack):
            return
        chain, (name, _) = [described(code) for code in stack], described(stack[place])
        if len(chain) > len(self.chains.get(name, ([], 0))[0]):
            self.chains[name] = chain, place


def is_ours(code: CodeType) -> bool:
    """Tell whether code is a function of the library. Comprehensions, which some versions of Python call, are not."""
    return code.co_filename.startswith(f"{PACKAGE}/") and not code.co_name.endswith(("comp>", "genexpr>"))


def stack_of(frame: FrameType | None) -> list[CodeType]:
    """List the library's functions on a stack, from the outermost on, which is `learn`."""
    stack = []
    while frame is not None:
        if is_ours(frame.f_code):
            stack.append(frame.f_code)
        frame = frame.f_back
    return stack[::-1]


def room(code: CodeType) -> str:
    """Return the folder of the package that a function is in."""
    return Path(code.co_filename).relative_to(PACKAGE).parts[0]


def described(code: CodeType) -> list[str]:
    """Return a function's name, with what it is inside of, and its file."""
    return [code.co_qualname.replace(".<locals>", ""), str(Path(code.co_filename).relative_to(PACKAGE))]


def rollout_of(steps: int, action: spaces.Space) -> Rollout:
    """Describe a rollout by its shapes."""
    shape = lambda *size, dtype=jnp.float32: jax.ShapeDtypeStruct(size, dtype)  # noqa: E731
    discrete = isinstance(action, spaces.Discrete)
    return Rollout(
        obs=shape(steps + 1, ENVS, 3),
        first=shape(steps + 1, ENVS, dtype=jnp.bool_),
        action=shape(steps, ENVS, dtype=jnp.int32) if discrete else shape(steps, ENVS, *(action.shape or ())),
        reward=shape(steps, ENVS),
        terminated=shape(steps, ENVS, dtype=jnp.bool_),
        carry=(),
        extras=(),
    )


def trace(name: str) -> dict[str, Any]:
    """Trace the `learn` of one algorithm. Returns its chains by loss, in the order in which losses are computed."""
    algorithm = getattr(renshu, name)(**CASES[name])
    action = spaces.Discrete(2) if name in ("PPO", "DQN") else spaces.Box(-1.0, 1.0, (2,))
    learner = algorithm.build(EnvSpec(spaces.Box(-1.0, 1.0, (3,)), action, ENVS))
    steps = getattr(algorithm, "train_freq", None) or algorithm.n_steps
    state = jax.eval_shape(learner.init, jax.random.key(0))
    tracer = Tracer()
    with patch("jax.grad", tracer.noting(jax.grad)), patch("jax.value_and_grad", tracer.noting(jax.value_and_grad)):
        sys.setprofile(tracer)
        try:
            jax.eval_shape(learner.learn, state, rollout_of(steps, action), jax.random.key(0))
        finally:
            sys.setprofile(None)
    return {loss: {"chain": chain, "loss": place} for loss, (chain, place) in tracer.chains.items()}


if __name__ == "__main__":
    print(json.dumps({"library": str(PACKAGE.parent), "chains": {name: trace(name) for name in CASES}}))
