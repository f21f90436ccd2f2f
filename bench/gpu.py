"""Breakout on a machine with a GPU: steps of the agent a second, the GPU's idle share, and scores after minutes.

    python -m bench.gpu --minutes 9.5 [--out runs/gpu]
    python -m bench.gpu --page docs/benchmarks/gpu.json    # the page of figures that were made elsewhere

Every part is a process of its own, so that one that fails costs no other. What a part finds is written to results.json
in the folder of --out at once; agents are saved there, too. A step of the agent is four frames.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench.report import measured_on, publish, table

ROOT = Path(__file__).parent.parent
MEASURED = [("stepping", "-", n) for n in (16, 64, 128)]
MEASURED += [("speed", *case) for case in (("a2c", 64), ("ppo", 64), ("a2c", 16), ("ppo", 128), ("ppo", 8))]
SMALL = [("stepping", "-", 2), ("speed", "a2c", 4), ("speed", "ppo", 2)]
ALGORITHMS, HOW, GAMES = ("ppo", "a2c"), ("sampled", "greedy"), 64
SHOWN = ("n_steps", "batch_size", "n_epochs", "learning_rate", "clip_range", "ent_coef", "vf_coef")
SPEED_SECONDS, KEPT = 150.0, 25.0  # about, for measuring speed; of each training, for its evaluations
NEW_LINE = "\n"  # which Python 3.11 does not take within an f-string
Found = dict[str, Any]


def save(found: Found, out: Path) -> None:
    """Write the results; the old ones stay until the new ones are whole."""
    part = out / "results.part"
    part.write_text(json.dumps(found, indent=1), encoding="utf-8")
    part.replace(out / "results.json")


def run(found: Found, out: Path, arguments: list[str], limit: float) -> None:
    """Run a part, for `limit` seconds at most, and put its lines into the results as they come."""
    name = " ".join(arguments[:3])
    entry = found["parts"].setdefault(name, {})
    print(f"--- {name}, at most {limit:.0f} s", flush=True)
    began = time.monotonic()
    environment = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false", "PYTHONUNBUFFERED": "1"}
    with tempfile.TemporaryFile("w+", errors="replace") as errors:
        command = [sys.executable, "-m", "bench.run_gpu", *arguments]
        where: Any = {"cwd": ROOT, "env": environment, "stdout": subprocess.PIPE, "stderr": errors}
        process = subprocess.Popen(command, **where, text=True, errors="replace")
        timer = threading.Timer(limit, process.kill)
        timer.start()
        for line in process.stdout or []:
            if line.startswith("{") and line.endswith("}\n"):
                entry.update(json.loads(line))
                entry.setdefault("ready", time.monotonic() - began)
                save(found, out)
            else:
                print(f"{name}: {line.rstrip()}", flush=True)
        status = process.wait()
        timer.cancel()
        errors.seek(0)
        tail = errors.read()[-2000:].strip()
    took = time.monotonic() - began
    entry["took"] = round(took, 1)
    if status:
        entry["failed"] = f"stopped after {took:.0f} s" if took >= limit else f"ended with status {status}"
        print(f"{name} FAILED: {entry['failed']}\n{tail}", flush=True)
    rate = f", {entry['rate']:,.0f} steps/s" if "rate" in entry else ""
    print(f"{name}: {took:.0f} s{rate}", flush=True)
    save(found, out)


def measure(out: Path, asked: argparse.Namespace) -> Found:
    """Run all parts in the minutes that there are."""
    began = time.monotonic()
    end = began + 60 * asked.minutes - 5
    speed_end = began + min(SPEED_SECONDS, 0.27 * 60 * asked.minutes)
    games = f"--ppo-games {asked.ppo_games} --a2c-games {asked.a2c_games}"
    command = f"python -m bench.gpu --minutes {asked.minutes:g} {games}"
    found: Found = {"measured": measured_on(), "command": command, "parts": {}}
    for part, algorithm, games in SMALL if asked.small else MEASURED:
        left = speed_end - time.monotonic()
        if left < 12:
            print(f"--- {part} {algorithm} {games}: left out, there is no time for it", flush=True)
            continue
        seconds = 2 if asked.small else 5 if part == "stepping" else 10
        run(found, out, [part, algorithm, str(games), str(seconds)], min(60.0, left + 15))
    for index, algorithm in enumerate(ALGORITHMS):
        games = 4 if asked.small else getattr(asked, f"{algorithm}_games")
        share = (end - time.monotonic()) / (len(ALGORITHMS) - index)
        more = [time.time() + share - 2, out, min(KEPT, 0.3 * share), 3 if asked.small else 30]
        run(found, out, ["training", algorithm, str(games), *map(str, more)], share)
    return found


def percent(share: float | None) -> str:
    """Format a share."""
    return "not measured" if share is None else f"{share:.0%}"


def score(entry: Found, how: str) -> str:
    """Format the returns of an evaluation."""
    if how not in entry:
        return "not measured"
    returns = entry[how]["returns"]
    spread = f"{np.mean(returns):.1f} ± {np.std(returns):.1f} (min {min(returns):.0f}, max {max(returns):.0f})"
    return f"{spread}, {len(returns)} games in {entry[how]['seconds']:.0f} s"


def words(name: str, value: Any) -> str:
    """Format a hyperparameter."""
    if isinstance(value, dict):
        value = f"{value['schedule']} from {value['start']:.3g} to {value['end']:g}"
    return f"{name} {value}"


def page(found: Found) -> str:
    """Write the page's body from the results."""
    stepping, speed, trained, settings, curves = ([] for _ in range(5))
    device = next((entry["device"] for entry in found["parts"].values() if "device" in entry), "unknown")
    for name, entry in found["parts"].items():
        part, algorithm, games = name.split()
        title = [algorithm.upper(), games]
        rate = f"{entry['rate']:,.0f}" if "rate" in entry else entry.get("failed", "not measured")
        shares = ", ".join(f"{key} {share:.0%}" for key, share in entry.get("shares", {}).items())
        ready = f"{entry['ready']:.0f} s" if "ready" in entry else ""
        if part == "stepping":
            stepping.append([games, rate])
        elif part == "speed":
            speed.append([*title, rate, shares, percent(entry.get("idle")), ready])
        else:
            spent = [f"{entry.get('steps', 0):,}", f"{entry.get('seconds', 0) / 60:.1f}", rate]
            trained.append([*title, *spent, *(score(entry, how) for how in HOW), percent(entry.get("idle"))])
            known = ", ".join(words(key, entry["settings"][key]) for key in SHOWN if key in entry.get("settings", {}))
            settings.append(f"- {algorithm.upper()}: {known}.{f' Where time goes: {shares}.' if shares else ''}")
            curve = entry.get("curve", [])
            points = [curve[i] for i in np.unique(np.linspace(0, len(curve) - 1, 10).astype(int))] if curve else []
            told = ", ".join(f"{at / 1e6:.2f}M {mean:.0f}" for at, _, mean in points)
            curves.append(f"- {algorithm.upper()}: {told}.")
    head = ["", "games at once", "steps/s", "where time goes", "GPU idle", "ready after"]
    tested = ["", "games", "steps", "minutes", "steps/s", "sampled actions", "greedy actions", "GPU idle"]
    return f"""JAX ran on: {device}. Breakout is `BreakoutNoFrameskip-v4` by the library's engine of ale-py.

## Stepping alone, at random

{table(["games at once", "steps/s"], stepping)}

## Training, after compilation

{table(head, speed)}

Presets; only the number of games differs. "act" is choosing actions, "env" stepping, "learn" the update, each with
the waiting for it. Rows without a time under "ready after" are parts started by hand (python -m bench.run_gpu speed
ALGORITHM GAMES SECONDS), for which the time did not suffice. GPU idle: mean of 100 % less its utilisation, read five
times a second; it counts as used while anything runs on it, however small. Ready: seconds from the start of the
process until all is compiled.

## Minutes of training

{table(tested, trained)}

{NEW_LINE.join(settings)}

The learning rate falls to 0 over the steps that were expected in the time. For more games than the preset has it begins
higher, by the root of the ratio, and PPO's minibatches are larger; all else is the preset's. Minutes are of training
alone. Scores are of whole games, all at once, after the training: mean ± deviation of the games.

Mean return of the recent training games, by steps:

{NEW_LINE.join(curves)}"""


def main() -> None:
    """Measure and publish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=9.5, help="of everything together")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "gpu", help="folder of results and agents")
    parser.add_argument("--ppo-games", type=int, default=GAMES, help="games at once in PPO's training")
    parser.add_argument("--a2c-games", type=int, default=GAMES, help="games at once in A2C's training")
    parser.add_argument("--page", type=Path, help="write the page from this results.json and measure nothing")
    parser.add_argument("--small", action="store_true", help=argparse.SUPPRESS)  # a trial of the bench itself
    asked = parser.parse_args()
    if asked.page:
        found = json.loads(asked.page.read_text(encoding="utf-8"))
    else:
        asked.out.mkdir(parents=True, exist_ok=True)
        found = measure(asked.out.resolve(), asked)
    if asked.small:
        print(f"\n{page(found)}\n\nnothing written: this was a trial")
        return
    publish("gpu", "Breakout on a GPU", found["command"], page(found), found["measured"])


if __name__ == "__main__":
    main()
