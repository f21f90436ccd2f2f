"""The compiled loop against rejax, gymnax and Stable-Baselines3 on this machine, each in processes of its own, in turn.

    python -m bench.compiled [--repeats 5] [--part one] [--part eight] [--part seeds] [--part steps]

one, eight: PPO on CartPole with PureJaxRL's settings, Renshu and rejax, 1 and 8 seeds. seeds: 1, 8, 64 and 256 seeds
at once, and SB3. steps: environment steps alone, against gymnax. A part that is not selected stays on the page.
Peers live in virtual environments of their own (.venv-rejax, .venv-peers), which the first run makes.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench.report import DOCS, publish, revision, table
from bench.speed import peers_python
from renshu.loops.programs import compiler_options, single_threaded

ROOT = Path(__file__).parent.parent
REJAX = ROOT / ".venv-rejax"
SETTINGS = {
    "n_steps": 128,
    "batch_size": 128,
    "n_epochs": 4,
    "gamma": 0.99,
    "gae_lambda": 0.95,
    "clip_range": 0.2,
    "clip_range_vf": 0.2,
    "ent_coef": 0.01,
    "vf_coef": 0.5,
    "max_grad_norm": 0.5,
}
PPO = {"settings": SETTINGS, "network": [64, 64], "learning_rate": 2.5e-4, "num_envs": 4}
STEPS = 500_000
SB3_STEPS = 50_000
AT_ONCE = {1: STEPS, 8: STEPS, 64: STEPS, 256: 50_000}
"""Numbers of seeds at once, and the steps of each: 256 seeds with all the steps would take minutes on two cores."""
GOALS = {1: 1.0, 8: 1.2}
GOAL_SB3 = 15
ENVIRONMENTS = ("CartPole", "Pendulum")
BATCH = {"num_envs": 256, "steps": 1000, "calls": 5}

DIFFERENCES = """\
The same on both sides: PureJaxRL's settings (learning rate 2.5e-4 to 0 in a straight line, 128 steps of 4
environments, 4 epochs of 4 minibatches, gamma 0.99, lambda 0.95, clip 0.2 for policy and value, entropy 0.01, value
0.5, gradients 0.5, two networks 64-64 with tanh). rejax evaluates 128 episodes each 4,096 steps unless told otherwise:
that is switched off; its networks use swish unless told otherwise: set to tanh. What still differs: rejax clips each
number of the gradient, Renshu its norm; rejax halves the value loss and takes the larger of clipped and unclipped,
Renshu the clipped one; rejax counts a truncated episode as terminated; Renshu also keeps account of episodes, checks
for NaN and lets the host look in 100 times. Several seeds of Renshu are dealt to a program for each core, rejax trains
them in one program, which XLA may spread over the cores. Renshu counts real steps only, so it makes a few more updates
for the resets. Compilation is with an empty cache and beside the time, not in it: Renshu's for 1 seed is all that comes
before the second `learn` of a process."""


def rejax_python() -> Path:
    """Return the interpreter of rejax's virtual environment, which is made if it is missing."""
    python, done = REJAX / "bin" / "python", REJAX / "installed"
    if not done.exists():
        print("making .venv-rejax ...", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", REJAX], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "-r", ROOT / "bench" / "rejax.txt"], check=True)
        done.touch()
    return python


def run(who: str, wanted: dict) -> dict:
    """Time one thing in a process of its own, with an empty compilation cache."""
    commands: dict[str, Callable[[], list]] = {
        "renshu": lambda: [sys.executable, "-m", "bench.run_compiled"],
        "rejax": lambda: [rejax_python(), "bench/run_rejax.py"],
        "sb3": lambda: [peers_python(), "bench/run_sb3.py"],
    }
    with tempfile.TemporaryDirectory(prefix="renshu-bench-") as cache:
        done = subprocess.run(
            [*map(str, commands[who]()), json.dumps(wanted)],
            cwd=ROOT,
            env={**os.environ, "RENSHU_CACHE_DIR": cache},
            capture_output=True,
            text=True,
        )
    if done.returncode:
        raise SystemExit(f"{who}, {wanted}, failed:\n{done.stderr}")
    found = json.loads(done.stdout.splitlines()[-1])
    print(who, {name: wanted[name] for name in ("seeds", "environment", "steps") if name in wanted}, found, flush=True)
    return found


def in_turn(programs: dict[str, tuple[str, dict]], repeats: int) -> dict[str, list[dict]]:
    """Run the programs (who, what) in turn; return the results of each, run after run."""
    found: dict[str, list[dict]] = {name: [] for name in programs}
    for _ in range(repeats):
        for name, (who, wanted) in programs.items():
            found[name].append(run(who, wanted))
    return found


def ratio(theirs: list[float], ours: list[float]) -> tuple[float, str]:
    """Compute how many times as long they take, run by run: the median, and a text with the range."""
    ratios = [a / b for a, b in zip(theirs, ours, strict=True)]
    return statistics.median(ratios), f"{statistics.median(ratios):.2f}x ({min(ratios):.2f} to {max(ratios):.2f})"


def median(found: list[dict], name: str) -> float:
    """Return the median of one of the figures."""
    return statistics.median(one[name] for one in found)


def verdict(value: float, goal: float) -> str:
    """Format the goal, and whether it was reached."""
    return f"{goal:g}x: {'yes' if value >= goal else 'no'}"


def training(repeats: int, seeds: int) -> str:
    """Compare Renshu and rejax, which is compiled both with its own options and with those that Renshu uses."""
    wanted = {**PPO, "what": "train", "steps": STEPS, "seeds": seeds}
    found = in_turn(
        {
            "Renshu": ("renshu", wanted),
            "rejax": ("rejax", {**wanted, "options": {}}),
            "rejax, Renshu's options": ("rejax", {**wanted, "options": compiler_options() | single_threaded()}),
        },
        repeats,
    )
    ours = [one["seconds"] for one in found["Renshu"]]
    rows = []
    for who, one in found.items():
        value, text = ratio([run["seconds"] for run in one], ours)
        seconds = median(one, "seconds")
        row = [who, f"{seconds:.2f} s", f"{seeds * STEPS / seconds:,.0f}", f"{median(one, 'compile'):.1f} s"]
        against = ["", ""] if who == "Renshu" else [text, verdict(value, GOALS[seeds])]
        rows.append([*row, f"{median(one, 'return'):.0f}", *against])
    header = ["", f"{STEPS:,} steps", "steps/s", "compilation", "return", "time / Renshu's", "goal"]
    return (
        f"{table(header, rows)}\n\nMedians of {repeats} runs in turn; ratios are taken run by run. Return: of the last "
        "training episodes (Renshu), or of 20 episodes after training (rejax)."
    )


def seeds(repeats: int) -> str:
    """Measure Renshu with more and more seeds at once, and SB3."""
    programs = {
        str(n): ("renshu", {**PPO, "what": "train", "seeds": n, "steps": steps}) for n, steps in AT_ONCE.items()
    }
    found = in_turn({**programs, "SB3": ("sb3", {**PPO, "steps": SB3_STEPS})}, repeats)
    sb3 = SB3_STEPS / median(found["SB3"], "seconds")
    rows = []
    for n, steps in AT_ONCE.items():
        seconds, compiling = median(found[str(n)], "seconds"), median(found[str(n)], "compile")
        rate = n * steps / seconds
        row = [f"Renshu, {n} at once", f"{steps:,}", f"{seconds:.1f} s", f"{compiling:.1f} s"]
        goal = verdict(rate / sb3, GOAL_SB3) if n == 64 else ""
        rows.append([*row, f"{rate:,.0f}", f"{rate / sb3:.0f}x", goal])
    rows.append(["SB3, 1", f"{SB3_STEPS:,}", f"{SB3_STEPS / sb3:.1f} s", "", f"{sb3:,.0f}", "", ""])
    header = ["seeds", "steps of each", "time", "compilation", "steps/s of all", "a seed, against SB3", "goal"]
    return (
        f"{table(header, rows)}\n\nThe same settings. Medians of {repeats} runs in turn. SB3 runs {SB3_STEPS:,} steps: "
        "its rate is what counts. 256 seeds run fewer too, or one run takes minutes; nothing is scaled up. A seed, "
        "against SB3: the time SB3 takes for a step of its one seed, by the time Renshu takes for a step of one of its "
        "seeds (all of its time by all of its steps)."
    )


def steps(repeats: int) -> str:
    """Measure environment steps alone; gymnax is compiled in the better of two ways."""
    rows = []
    for name in ENVIRONMENTS:
        wanted = {**BATCH, "what": "env", "environment": name}
        found = in_turn(
            {
                "renshu": ("renshu", wanted),
                "default": ("rejax", {**wanted, "options": {}}),
                "same": ("rejax", {**wanted, "options": compiler_options() | single_threaded()}),
            },
            repeats,
        )
        seconds = {who: [statistics.median(run["seconds"]) for run in one] for who, one in found.items()}
        theirs = min(seconds["default"], seconds["same"], key=statistics.median)
        value, text = ratio(theirs, seconds["renshu"])
        rates = [BATCH["num_envs"] * BATCH["steps"] / statistics.median(s) / 1e6 for s in seconds.values()]
        rows.append([name, *(f"{rate:.1f} M" for rate in rates), text, verdict(value, 1.0)])
    header = ["", "Renshu", "gymnax", "gymnax, Renshu's options", "Renshu / better gymnax", "goal"]
    return (
        f"{table(header, rows)}\n\nSteps/s of {BATCH['num_envs']} environments by random actions, with each "
        f"library's own resets and time limits, {BATCH['steps']:,} steps in one program; all that is seen is summed "
        f"up so that none is left out. Medians of {repeats} processes in turn, of {BATCH['calls']} calls each."
    )


PARTS: dict[str, tuple[str, Callable[[int], str]]] = {
    "one": ("PPO on CartPole against rejax, 1 seed", partial(training, seeds=1)),
    "eight": ("PPO on CartPole against rejax, 8 seeds at once", partial(training, seeds=8)),
    "seeds": ("Many seeds at once, and SB3", seeds),
    "steps": ("Environment steps against gymnax", steps),
}


def kept() -> dict[str, str]:
    """Return the parts that are already on the page, by heading."""
    page = DOCS / "compiled.md"
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    return dict(re.findall(r"^## (.+)\n\n((?:(?!^## ).*\n?)*)", text, re.MULTILINE))


def main() -> None:
    """Measure and publish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--part", choices=list(PARTS), action="append")
    options = parser.parse_args()
    bodies = kept()
    for part in options.part or PARTS:
        heading, measure = PARTS[part]
        before = f"Code: {revision()}. Load of the machine as this part began: {os.getloadavg()[0]:.1f}."
        bodies[heading] = f"{measure(options.repeats)}\n\n{before}"
    ordered = [(heading, bodies[heading].strip()) for heading, _ in PARTS.values() if heading in bodies]
    text = "\n\n".join(f"## {heading}\n\n{body}" for heading, body in ordered)
    publish("compiled", "The compiled loop", "python -m bench.compiled", f"{DIFFERENCES}\n\n{text}")


if __name__ == "__main__":
    main()
