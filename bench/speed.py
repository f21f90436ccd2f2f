"""Wall time of `learn()`: Renshu, Stable-Baselines3 and SBX in turn on this machine, with the same hyperparameters.

    python -m bench.speed [--repeats 5] [--case ppo]

Peers live in a virtual environment of their own (.venv-peers), which the first run makes. "empty cache": every
program is compiled; "warm cache": compiled programs are read from disk, for Renshu and SBX alike; "no compilation":
the second learn of a process.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.cases import CASES
from bench.report import publish, table

ROOT = Path(__file__).parent.parent
PEERS = ROOT / ".venv-peers"
MODES = {"empty cache": "cold", "warm cache": "cold", "no compilation": "steady"}
TARGETS = {
    "ppo": {"empty cache": "3x", "warm cache": "4x", "no compilation": "6x"},
    "a2c": dict.fromkeys(MODES, "3x"),
    "dqn": {"no compilation": "3x, 1.5x"},
    "sac": {"no compilation": "3x, 1.5x"},
    "td3": {"no compilation": "3x"},
    "td3_sbx": {"no compilation": "1.3x"},
    "dqn_compiled": {"no compilation": "40,000 steps/s"},
    "sac_compiled": {"no compilation": "1.3x the host loop"},
}
TITLES = {"speed": "Speed of learn()", "speed_replay": "Speed of learn() from replay"}


def peers_python(folder: Path = PEERS, wanted: Path = ROOT / "bench" / "peers.txt") -> Path:
    """Return the interpreter of a virtual environment of peers, which is made if it is missing.

    folder: where it is. wanted: its requirements.
    """
    python, done = folder / "bin" / "python", folder / "installed"
    if not done.exists() or done.read_text() != wanted.read_text():
        print(f"making {folder.name} ...", flush=True)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "-r", wanted], check=True)
        done.write_text(wanted.read_text())
    return python


def run(who: str, case: str, mode: str, cache: Path) -> dict:
    """Time one learn in a process of its own."""
    environment = {
        **os.environ,
        "RENSHU_CACHE_DIR": str(cache / "renshu"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    if who in ("renshu", "host"):
        command = [sys.executable, "-m", "bench.run_renshu", case, mode, who]
    else:
        command = [str(peers_python()), "bench/run_peer.py", who, case, mode]
        environment["JAX_COMPILATION_CACHE_DIR"] = str(cache / who)
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(case: str, repeats: int) -> tuple[dict, dict]:
    """Measure the seconds by mode and library, a list of each, and Renshu's shares of the time."""
    everyone = ["renshu", *CASES[case]["peers"]]
    modes = {mode: MODES[mode] for mode in CASES[case]["modes"]}
    seconds: dict = {mode: {who: [] for who in everyone} for mode in modes}
    shares: dict = {}
    for repeat in range(repeats):
        cache = Path(tempfile.mkdtemp(prefix="renshu-bench-"))
        for mode, argument in modes.items():
            for who in everyone:
                result = run(who, case, argument, cache)
                seconds[mode][who].append(result["seconds"])
                shares |= {mode: result["shares"]} if "shares" in result else {}
                print(f"{case} {repeat + 1}/{repeats} {mode:<15} {who:<7} {result['seconds']:.2f} s", flush=True)
        shutil.rmtree(cache)
    return seconds, shares


def arithmetic(case: str, ours: float) -> str:
    """Describe how long the matrix products of a case take at best, measured now, against Renshu's `ours` seconds."""
    command = [sys.executable, "-m", "bench.arithmetic", case]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    whole = found["seconds"] * found["updates"]
    return (
        f" The matrix products of a gradient step, {found['flop'] / 1e6:,.0f} million operations, take "
        f"{found['seconds'] * 1e3:.2f} ms by themselves on all cores ({found['flop'] / found['seconds'] / 1e9:.0f} "
        f"GFLOPS, `python -m bench.arithmetic {case}`): the {found['updates']:,.0f} of the run are {whole:.2f} s, "
        f"{whole / ours:.0%} of Renshu's time."
    )


def lines(case: str, seconds: dict, shares: dict) -> str:
    """Format the figures of one case as Markdown."""
    c, rows = CASES[case], []
    for mode, by_library in seconds.items():
        ours = by_library["renshu"]
        row = [mode, f"{statistics.median(ours):.2f} s"]
        for peer in c["peers"]:
            ratios = [theirs / own for theirs, own in zip(by_library[peer], ours, strict=True)]
            row.append(f"{statistics.median(by_library[peer]):.2f} s")
            row.append(f"{statistics.median(ratios):.1f}x ({min(ratios):.1f} to {max(ratios):.1f})")
        rows.append([*row, TARGETS[case][mode]])
    header = [
        "",
        "Renshu",
        *(cell for peer in c["peers"] for cell in (peer.upper(), f"{peer.upper()} / Renshu")),
        "goal",
    ]
    where = ", ".join(f"{name} {share:.0%}" for name, share in shares["no compilation"].items())
    rate = c["steps"] / statistics.median(seconds["no compilation"]["renshu"])
    return (
        f"## {case.upper()}, {c['environment']}, {c['num_envs']} environments, {c['steps']:,} steps\n\n"
        f"{table(header, rows)}\n\n"
        f"Medians of {len(seconds['no compilation']['renshu'])} runs in turn; ratios are taken run by run. "
        f"Renshu without compilation: {rate:,.0f} steps/s; its time goes to {where}."
        f"{arithmetic(case, statistics.median(seconds['no compilation']['renshu'])) if c['page'] != 'speed' else ''}"
    )


def main() -> None:
    """Measure and publish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--case", choices=list(CASES), action="append")
    options = parser.parse_args()
    peers_python()
    for name, title in TITLES.items():
        cases = [case for case in options.case or CASES if CASES[case]["page"] == name]
        if cases:
            body = [lines(case, *measure(case, options.repeats)) for case in cases]
            publish(name, title, "python -m bench.speed", "\n\n".join(body))


if __name__ == "__main__":
    main()
