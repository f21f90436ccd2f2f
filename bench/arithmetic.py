"""The matrix products of one gradient step alone, on this machine: a bound that no arrangement of the rest can beat.

    python -m bench.arithmetic sac

Prints JSON: flop, the operations of the products of a gradient step; seconds, the time that these take in one program,
where none waits for another, so that all cores are used; updates, the gradient steps of the case. For a policy that
learns only every few steps (policy_delay), the share of each step counts.
"""

import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import jaxprs_in_params
from jax.interpreters.partial_eval import dce_jaxpr

import renshu
from bench.cases import CASES
from renshu.algorithms.replay_learner import ReplayLearner, State
from renshu.loops.programs import compiler_options

CALLS = 1_000


class Product(NamedTuple):
    """A matrix product of a program."""

    left: tuple[int, ...]
    right: tuple[int, ...]
    numbers: Any  # dimensions that are summed over, in the form of dot_general
    delayed: bool  # inside a loop, as is all that happens only every few gradient steps

    @property
    def flop(self) -> int:
        """Number of multiplications and additions."""
        (summed, _), (batch, _) = self.numbers
        both = math.prod(self.left[axis] for axis in (*summed, *batch))
        return 2 * math.prod(self.left) * math.prod(self.right) // both


def products(jaxpr: Any, delayed: bool = False) -> Iterator[Product]:
    """Yield all matrix products of a program but those whose results are unused, which XLA leaves out."""
    jaxpr, _ = dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            left, right = (variable.aval.shape for variable in equation.invars)
            yield Product(left, right, equation.params["dimension_numbers"], delayed)
        for inner in jaxprs_in_params(equation.params):
            yield from products(inner, delayed or equation.primitive.name == "while")


def of_one_update(learner: ReplayLearner) -> list[Product]:
    """Return the matrix products of one gradient step."""
    key = jax.random.key(0)

    def update(state: State) -> Any:
        batch = learner.replay.sample(state.memory, key, learner.config.batch_size, gamma=learner.config.gamma)
        return learner.gradient_step(learner.pack(state.train), batch, key, jnp.float32(0))

    return list(products(jax.make_jaxpr(update)(jax.eval_shape(learner.init, key)).jaxpr))


def time_of(found: list[Product]) -> float:
    """Measure the seconds that products take together, the best of several runs."""
    if not found:
        return 0.0

    def run(inputs: list[tuple[jax.Array, jax.Array]], _: list[jax.Array]) -> list[jax.Array]:
        return [jax.lax.dot_general(*pair, one.numbers) for pair, one in zip(inputs, found, strict=True)]

    inputs = [(jnp.ones(one.left), jnp.ones(one.right)) for one in found]
    results = jax.jit(run)(inputs, [])
    # The bare cost of a call is subtracted: that of a program with the same inputs and results that does nothing.
    whole, results = best(run, inputs, results)
    return whole - best(lambda _, results: results, inputs, results)[0]


def best(run: Callable, inputs: list, results: list[jax.Array]) -> tuple[float, list[jax.Array]]:
    """Return the seconds of the fastest of many calls, and the last results.

    Results overwrite those of the previous call, so no memory is allocated. A loop inside the program would not do,
    since XLA computes once, before the loop, what is the same in each iteration.
    """
    program = jax.jit(run, donate_argnums=1, keep_unused=True, compiler_options=compiler_options())
    least = math.inf
    for _ in range(CALLS):
        began = time.perf_counter()
        results = jax.block_until_ready(program(inputs, results))
        least = min(least, time.perf_counter() - began)
    return least, results


def main(case: str) -> None:
    """Count, measure and print."""
    c = CASES[case]
    agent = getattr(renshu, c.get("algorithm", case.upper()))(**c["settings"], **c["own"]).on(
        c["environment"], num_envs=c["num_envs"], seed=0
    )
    found, s = of_one_update(agent.trainer.learner), c["settings"]
    delay = getattr(agent.algorithm, "policy_delay", 1)
    trainings = (c["steps"] - s.get("learning_starts", 100)) / (s.get("train_freq", 1) * c["num_envs"])
    result = {
        "flop": sum(one.flop / (delay if one.delayed else 1) for one in found),
        "seconds": time_of([one for one in found if not one.delayed])
        + time_of([one for one in found if one.delayed]) / delay,
        "updates": trainings * s.get("gradient_steps", 1),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
