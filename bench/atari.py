"""Breakout on this machine: steps of the agent a second, stepping alone and training, beside Stable-Baselines3.

    python -m bench.atari [--repeats 3]

Every figure is of a process of its own, in turn; ratios are taken run by run. A step of the agent is four frames.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from importlib.util import find_spec

from bench.report import publish, table
from bench.speed import ROOT, peers_python

PEER = "Stable-Baselines3"
STEPS = {"collect": 16_000, "a2c": 8_000, "ppo": 6_144}
CASES = [("collect", 8), ("collect", 16), ("collect", 32), ("a2c", 16), ("ppo", 8)]


def run(who: str, part: str, num_envs: int) -> dict:
    """Time one case; who: an engine, or PEER."""
    arguments = [part, str(num_envs), str(STEPS[part])]
    if who == PEER:
        command = [str(peers_python()), "bench/run_peer_atari.py", *arguments]
    else:
        command = [sys.executable, "-m", "bench.run_atari", *arguments, who]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
    found = json.loads(done.stdout.splitlines()[-1])
    return {**found, "rate": STEPS[part] / found["seconds"]}


def main() -> None:
    """Measure and publish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    engines = ["ale", *(["envpool"] if find_spec("envpool") else []), "gymnasium"]
    rows, shares = [], []
    for part, num_envs in CASES:
        everyone = [*(engines if part == "collect" else engines[:-1]), PEER]
        found: dict[str, list[dict]] = {who: [] for who in everyone}
        for repeat in range(repeats):
            for who in everyone:
                found[who].append(run(who, part, num_envs))
                print(f"{part} {num_envs} {repeat + 1}/{repeats} {who:<18} {found[who][-1]['rate']:,.0f}", flush=True)
        for who in everyone:
            ratios = [ours["rate"] / theirs["rate"] for ours, theirs in zip(found[who], found[PEER], strict=True)]
            rate = statistics.median(one["rate"] for one in found[who])
            of = "" if who == PEER else f"{statistics.median(ratios):.2f}x ({min(ratios):.2f} to {max(ratios):.2f})"
            rows.append(["stepping alone" if part == "collect" else part.upper(), num_envs, who, f"{rate:,.0f}", of])
            if "shares" in found[who][0]:
                parts = ", ".join(f"{name} {share:.0%}" for name, share in found[who][-1]["shares"].items())
                shares.append(f"{part.upper()} with {who}: {parts}.")
    body = table(["", "games at once", "by", "steps/s", f"/ {PEER}"], rows)
    body += f"\n\nMedians of {repeats} runs in turn. Where the time goes: {' '.join(shares)}"
    publish("atari", "Breakout", "python -m bench.atari", body)


if __name__ == "__main__":
    main()
