"""Steady state: a million steps of PPO on CartPole-v1 take no more memory at the end, and nothing is compiled again.

python -m bench.steady [--steps 1000000]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import jax

import renshu
from bench.report import publish, table


def resident() -> float:
    """Return the resident memory of this process in MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise SystemExit("/proc/self/status does not say VmRSS")


def main() -> None:
    """Train, look every tenth of the way, and publish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1_000_000)
    options = parser.parse_args()
    compilations: list[str] = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_args, **_kwargs: compilations.append(event) if "backend_compile" in event else None
    )
    preset = renshu.preset("ppo", "CartPole-v1")
    agent = preset.algorithm.on("CartPole-v1", num_envs=8, seed=0)
    rows: list[list[str]] = []
    samples: list[tuple[float, int]] = []

    def look(agent: renshu.Agent, metrics: dict[str, float]) -> None:
        if agent.steps >= (len(rows) + 1) * options.steps / 10:
            samples.append((resident(), len(compilations)))
            rows.append([f"{agent.steps:,}", f"{samples[-1][0]:.1f}", str(samples[-1][1])])

    agent.learn(options.steps, progress=False, callbacks=look)
    growth, recompiled = samples[-1][0] - samples[0][0], samples[-1][1] - samples[0][1]
    body = table(["steps", "resident memory, MB", "programs compiled so far"], rows)
    body += f"\n\nFrom the first tenth to the last: {growth:+.1f} MB, {recompiled} programs compiled."
    publish("steady", "Steady state", "python -m bench.steady", body)


if __name__ == "__main__":
    main()
