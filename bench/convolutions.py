"""Trials to make Atari faster on a CPU: number formats, layouts, compiler, collecting while learning.

python -m bench.convolutions [--repeats 5] [--steps 20000]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bench.report import publish, table
from renshu.networks.convolutions import convolution
from renshu.runtime import prepare

BATCH = 80
YNN = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_DOT"}


def nature(x: jax.Array, params: list[jax.Array], layout: str) -> jax.Array:
    """Compute Nature's convolutions by XLA alone. layout: NHWC or NCHW."""
    kernel = "HWIO" if layout == "NHWC" else "OIHW"
    for weight, stride in zip(params, (4, 2, 1), strict=True):
        weight = weight if layout == "NHWC" else weight.transpose(3, 2, 0, 1)
        x = jax.nn.relu(
            jax.lax.conv_general_dilated(x, weight, (stride,) * 2, "VALID", dimension_numbers=(layout, kernel, layout))
        )
    return x


def variants() -> dict[str, Callable[[], Any]]:
    """Programs of the gradient of Nature's convolutions for a batch of frames, by name; made when asked for."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (BATCH, 84, 84, 4), dtype=np.uint8)
    shapes = (8, 8, 4, 32), (4, 4, 32, 64), (3, 3, 64, 64)
    params = [jnp.asarray(rng.normal(0, 0.05, shape), jnp.float32) for shape in shapes]

    def plain(dtype: Any, layout: str, options: dict[str, Any]) -> Callable[[], Any]:
        given = images if layout == "NHWC" else images.transpose(0, 3, 1, 2)

        def loss(params: list[jax.Array], x: jax.Array) -> jax.Array:
            out = nature(x.astype(dtype) / 255, [p.astype(dtype) for p in params], layout)
            return (out.astype(jnp.float32) ** 2).mean()

        program = jax.jit(jax.grad(loss), compiler_options=options)
        return lambda: jax.block_until_ready(program(params, given))

    def ours(looped: bool) -> Callable[[], Any]:
        module = convolution("nature", ortho_init=True, layer_norm=False)
        held = module.init(jax.random.key(0), jnp.zeros((1, 84, 84, 4)))

        def loss(held: Any, x: jax.Array) -> jax.Array:
            return (module.apply(held, x.astype(jnp.float32) / 255) ** 2).mean()  # type: ignore[operator]

        def once(held: Any, _: Any) -> tuple[Any, None]:
            step = jax.grad(loss)(held, images)
            return jax.tree.map(lambda p, g: p - 1e-3 * g, held, step), None

        run = (lambda held: jax.lax.scan(once, held, None, 4)[0]) if looped else (lambda held: once(held, None)[0])
        program = jax.jit(run, compiler_options=YNN)
        return lambda: jax.block_until_ready(program(held))

    return {
        "float32, NHWC, XLA as it is": plain(jnp.float32, "NHWC", {}),
        "float32, NHWC, YNN": plain(jnp.float32, "NHWC", YNN),
        "float32, NCHW, XLA as it is": plain(jnp.float32, "NCHW", {}),
        "float32, NCHW, YNN": plain(jnp.float32, "NCHW", YNN),
        "bfloat16, NHWC, XLA as it is": plain(jnp.bfloat16, "NHWC", {}),
        "bfloat16, NHWC, YNN": plain(jnp.bfloat16, "NHWC", YNN),
        "Renshu's gradient, YNN": ours(False),
        "Renshu's gradient, YNN, four in a loop": ours(True),
    }


def seconds(call: Callable[[], Any], repeats: int) -> float:
    """Return the median time of a call."""
    call()
    found = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        found.append(time.perf_counter() - began)
    return statistics.median(found)


def while_learning(steps: int) -> list[list[str]]:
    """Train IMPALA on Breakout in the host loop, and with one actor that collects while the learner learns."""
    from renshu import IMPALA, Cluster

    rows = []
    for name, options in (
        ("collect, then learn (host loop)", {}),
        (
            "collect while learning (lockstep, one actor)",
            {"cluster": Cluster(workers=1, max_workers=1, mode="lockstep")},
        ),
    ):
        algorithm = IMPALA(n_steps=5, reward_clipping=True)
        with algorithm.on("BreakoutNoFrameskip-v4", num_envs=16, seed=0, frame_stack=4, **options) as agent:
            agent.learn(2_000, progress=False)
            before, began = agent.steps, time.perf_counter()
            agent.learn(steps, progress=False)
            rate = (agent.steps - before) / (time.perf_counter() - began)
        rows.append([name, f"{rate:,.0f}"])
        print(*rows[-1], flush=True)
    return rows


def main() -> None:
    """Measure and publish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--steps", type=int, default=20_000)
    options = parser.parse_args()
    prepare()  # before JAX is used, as the first agent does
    rows = []
    for name, call in variants().items():
        took = seconds(call, options.repeats)
        took /= 4 if "four" in name else 1
        rows.append([name, f"{took * 1e3:.1f} ms"])
        print(*rows[-1], flush=True)
    body = (
        f"Gradient of Nature's three convolutions for {BATCH} frames of 84x84x4 (YNN: the compiler's option of "
        f"`programs.py: compiler_options`):\n\n{table(['how', 'time of one'], rows)}\n\n"
        f"IMPALA on Breakout, 16 games, rollouts of 5 steps, {options.steps:,} steps:\n\n"
        f"{table(['how', 'steps/s'], while_learning(options.steps))}"
    )
    publish("convolutions", "What was tried for images on a CPU", "python -m bench.convolutions", body)


if __name__ == "__main__":
    main()
