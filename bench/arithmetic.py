"""The matrix products of one gradient step alone, on this machine: what no arrangement of the rest can beat.

    python -m bench.arithmetic sac

Prints JSON: flop, the operations of the products of one step; seconds, the time that these take in one program, where
none waits for another, so that all cores are used; updates, the gradient steps of the case.
"""

import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import jaxprs_in_params

import renshu
from bench.cases import CASES
from renshu.algorithms.off_policy import Core, OffPolicyLearner, State
from renshu.loops.programs import compiler_options

TURNS, CALLS = 20, 50


def products(jaxpr: Any) -> Iterator[tuple[tuple[int, ...], tuple[int, ...], Any]]:
    """Shapes and dimension numbers of all matrix products of a program; what a branch or a loop holds counts once."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            left, right = (variable.aval.shape for variable in equation.invars)
            yield left, right, equation.params["dimension_numbers"]
        for inner in jaxprs_in_params(equation.params):
            yield from products(inner)


def of_one_update(learner: OffPolicyLearner) -> Counter:
    """The matrix products of one gradient step; of one whose policy learns, where it does not each time."""
    key = jax.random.key(0)

    def update(state: State) -> Any:
        core = Core(learner.pack(state.params), state.target, state.opt_state, jnp.int32(0), state.extra, jnp.bool_(1))
        samples = learner.replay.sample(state.memory, key, learner.algorithm.batch_size)
        return learner.update(core, samples, key, jnp.float32(0), jnp.float32(0))

    return Counter(products(jax.make_jaxpr(update)(jax.eval_shape(learner.init, key)).jaxpr))


def flop(product: tuple[tuple[int, ...], tuple[int, ...], Any]) -> int:
    """Multiplications and additions of one product."""
    left, right, ((contracted, _), _) = product
    size = 2
    for n in (*left, *right):
        size *= n
    for axis in contracted:
        size //= left[axis]
    return size


def main(case: str) -> None:
    """Count, measure and print."""
    c = CASES[case]
    agent = getattr(renshu, c.get("algorithm", case.upper()))(**c["settings"], **c["own"]).on(
        c["environment"], num_envs=c["num_envs"], seed=0
    )
    found = of_one_update(agent.learner)
    inputs = [(jnp.ones(left), jnp.ones(right)) for left, right, _ in found.elements()]
    numbers = [numbers for _, _, numbers in found.elements()]

    def run(inputs: list[tuple[jax.Array, jax.Array]]) -> list[jax.Array]:
        def once(turn: jax.Array, _: list[jax.Array]) -> list[jax.Array]:
            # What is multiplied depends on the turn, or XLA would take the products out of the loop.
            changed = [(left.at[0, 0].set(turn.astype(jnp.float32)), right) for left, right in inputs]
            return [jax.lax.dot_general(*pair, n) for pair, n in zip(changed, numbers, strict=True)]

        return jax.lax.fori_loop(0, TURNS, once, once(jnp.int32(0), []))

    program = jax.jit(run, compiler_options=compiler_options())
    jax.block_until_ready(program(inputs))
    seconds = []
    for _ in range(CALLS):
        began = time.perf_counter()
        jax.block_until_ready(program(inputs))
        seconds.append((time.perf_counter() - began) / TURNS)
    s = c["settings"]
    trainings = (c["steps"] - s.get("learning_starts", 100)) / (s.get("train_freq", 1) * c["num_envs"])
    total = sum(flop(product) * count for product, count in found.items())
    delay = getattr(agent.algorithm, "policy_delay", 1)
    print(
        json.dumps(
            {
                "flop": total,
                "seconds": min(seconds),
                "updates": trainings * s.get("gradient_steps", 1),
                "products": sum(found.values()),
                "policy_delay": delay,
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
