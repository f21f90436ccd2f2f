"""TD3 on Pendulum-v1 after 4,000 steps, with targets that move at two paces, beside Stable-Baselines3 and SBX.

    python -m bench.targets [--seeds 10]

TD3 moves its target networks with its policy, after every second gradient step (algorithm 1 of the paper), and so does
Stable-Baselines3. SBX moves them after every one, whatever `policy_delay` says. With the same settings, SBX therefore
learns by targets that follow twice as fast: `target_update_interval=1` is the same thing here.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
from typing import Any

from bench.report import publish, table
from bench.speed import ROOT, peers_python
from renshu import TD3

STEPS, EPISODES = 4_000, 20
SETTINGS: dict[str, Any] = {"learning_rate": 1e-3, "batch_size": 256, "net_arch": [256, 256], "learning_starts": 100}
WAYS: dict[str, dict[str, Any]] = {
    "Renshu": {},
    "Stable-Baselines3": {"peer": "sb3"},
    "Renshu, target_update_interval=1": {"target_update_interval": 1},
    "SBX": {"peer": "sbx"},
}


def score(way: dict[str, Any], seed: int) -> float:
    """Train one agent and return its mean of 20 greedy episodes."""
    if "peer" in way:
        given = json.dumps({"peer": way["peer"], "seed": seed, "steps": STEPS, "episodes": EPISODES, **SETTINGS})
        command = [str(peers_python()), "bench/run_peer_score.py", given]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        return json.loads(done.stdout.splitlines()[-1])
    agent = TD3(**SETTINGS, **way).on("Pendulum-v1", seed=seed).learn(STEPS, progress=False)
    return agent.evaluate(EPISODES, seed=seed).mean


def main() -> None:
    """Measure and publish."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=10)
    seeds = parser.parse_args().seeds
    rows = []
    for name, way in WAYS.items():
        scores = [score(way, seed) for seed in range(seeds)]
        print(name, [round(x) for x in scores], flush=True)
        quartiles = statistics.quantiles(scores, n=4)
        cells = f"{statistics.median(scores):.0f}", f"{quartiles[0]:.0f} to {quartiles[2]:.0f}"
        rows.append([name, "every second" if way in ({}, {"peer": "sb3"}) else "each", *cells])
    header = ["", "targets move after gradient steps", f"median of {seeds} seeds", "quartiles"]
    told = (
        "TD3 of the paper and of Stable-Baselines3 moves its target networks with the policy, after every second "
        "gradient step. SBX moves them after each, whatever `policy_delay` is; `target_update_interval=1` does here. "
        "Like is compared with like in lines 1 and 2, and in lines 3 and 4. Scores are means of "
        f"{EPISODES} greedy episodes after {STEPS:,} steps; settings: `{SETTINGS}`, the rest each library's own."
    )
    publish("targets", "TD3 and the pace of its targets", "python -m bench.targets", f"{told}\n\n{table(header, rows)}")


if __name__ == "__main__":
    main()
