"""Hyperparameters found from the defaults: beside those of the presets, with a search that is killed on the way.

    python -m bench.tune [--case ppo] [--trials 40] [--batch 64]

Each case is a search by `renshu tune --no-preset`, which is killed (kill -9) after a third of its trials and goes on by
`--resume`. The defaults, what was found and the preset are trained on seeds by which nothing was chosen. Then as
many trials of PPO on renshu/Acrobot-v1 in one batch, and in a process for each core; `--case batch` is that alone.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.report import DOCS, publish, revision, table
from renshu import preset, tune
from renshu.algorithms.registry import algorithm

TRIALS = 40
SEEDS = range(10, 14)
SCORED = 100
CORES = len(os.sched_getaffinity(0))
EPISODES = 20


@dataclass(frozen=True)
class Case:
    """A search. steps: of each training. margin: by which the result may be below the preset's score."""

    algorithm: str
    environment: str
    steps: int
    seeds: int
    envs: int
    margin: float


CASES = {
    "ppo": Case("ppo", "CartPole-v1", 50_000, 2, 8, 5.0),
    "sac": Case("sac", "Pendulum-v1", 8_000, 2, 1, 10.0),
}


TOGETHER = Case("ppo", "renshu/Acrobot-v1", 200_000, 2, 16, 0.0)
BATCH = 64
ROWS = DOCS / "tune.json"


def line(case: Case, trials: int, folder: Path, resume: bool) -> list[str]:
    """Make the command line of a search."""
    where = ["--resume" if resume else "--run", str(folder), "--trials", str(trials)]
    begun = [case.algorithm, case.environment, "--no-preset", "--steps", str(case.steps), "--seeds", str(case.seeds)]
    begun += ["--envs", str(case.envs), "--eval-episodes", str(EPISODES)]
    return [sys.executable, "-c", "from renshu.cli import main; main()", "tune", *([] if resume else begun), *where]


def ended(folder: Path) -> int:
    """Count the trials that have ended, by the file of the study."""
    path = folder / "study.db"
    if not path.exists():
        return 0
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=60) as study:
        try:
            found = study.execute("select count(*) from trials where state in ('COMPLETE', 'PRUNED')").fetchone()
        except sqlite3.OperationalError:  # its tables are being made
            return 0
    return int(found[0])


def searched(case: Case, trials: int, folder: Path) -> float:
    """Search, killed after a third of the trials and gone on with; return the seconds of both parts."""
    began = time.perf_counter()
    with subprocess.Popen(line(case, trials, folder, resume=False)) as process:
        while ended(folder) < trials // 3:
            if process.poll() is not None:
                raise SystemExit("the search has ended before it was killed")
            time.sleep(0.2)
        process.send_signal(signal.SIGKILL)
    print(f"killed after {ended(folder)} trials", flush=True)
    subprocess.run(line(case, trials, folder, resume=True), check=True)
    return time.perf_counter() - began


def without_programs(folder: Path) -> dict[str, str]:
    """Environment of a process that finds no compiled programs: each search pays for its own."""
    return {**os.environ, "RENSHU_CACHE_DIR": str(folder)}


def compared(trials: int) -> list[list[object]]:
    """Search once in one batch, and once by processes that share a study; return the rows of the second table."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="renshu-tune-") as name:
        for how in ("one batch, halved on the way", f"{CORES} processes"):
            folder = Path(name) / how.replace(" ", "-")
            env = without_programs(Path(name) / f"cache-{len(rows)}")
            more = ["--batch", str(trials)] if "batch" in how else []
            began = time.perf_counter()
            running = [subprocess.Popen([*line(TOGETHER, trials, folder, resume=False), *more], env=env)]
            while "processes" in how and len(running) < CORES:
                if ended(folder):  # the study is there
                    running.append(subprocess.Popen(line(TOGETHER, trials, folder, resume=True), env=env))
                time.sleep(0.2)
            if any(process.wait() for process in running):
                raise SystemExit(f"the search {how} has failed")
            seconds = time.perf_counter() - began
            found = tune(resume=folder, progress=False)
            counts = [one.state for one in found.records]
            states = ", ".join(f"{counts.count(state)} {state}" for state in dict.fromkeys(counts))
            rows.append([how, f"{seconds / 60:.1f}", str(found.score), str(found.start_score), states])
            print(*rows[-1], json.dumps(found.values, default=str), sep=" | ", flush=True)
    return rows


def searched_values(case: Case, trials: int) -> dict[str, Any]:
    """Search, and return what was found, with the trials and the minutes that it took."""
    with tempfile.TemporaryDirectory(prefix="renshu-tune-") as name:
        folder = Path(name) / "search"
        seconds = searched(case, trials, folder)
        found = tune(resume=folder, progress=False)
        counts = [one.state for one in found.records]
    states = ", ".join(f"{counts.count(state)} {state}" for state in dict.fromkeys(counts))
    values = found.algorithm.to_json()
    return {"values": {name: values[name] for name in found.values}, "trials": states, "minutes": round(seconds / 60)}


def scored(case: Case, values: dict[str, Any]) -> dict[str, list[float]]:
    """Train defaults, what was found, and the preset on seeds of their own; mean returns by seed.

    All play the same episodes afterwards: on Pendulum a score depends more on where they begin than on the agent.
    """
    kind, chosen = algorithm(case.algorithm), preset(case.algorithm, case.environment)
    found = kind.from_json({**kind().to_json(), **values})
    asked = {"defaults": (kind(), case.envs), "found": (found, case.envs)}
    scores = {}
    for name, (one, envs) in {**asked, "preset": (chosen.algorithm, chosen.num_envs)}.items():
        scores[name] = []
        for seed in SEEDS:
            with one.on(case.environment, num_envs=envs, seed=seed) as agent:
                agent.learn(case.steps, progress=False)
                scores[name].append(agent.evaluate(SCORED, seed=seed).mean)
        print(case.algorithm, name, scores[name], flush=True)
    return scores


def kept() -> dict[str, Any]:
    """Read what was measured before: rows by case, with the commit."""
    return json.loads(ROWS.read_text()) if ROWS.exists() else {}


def row(name: str, found: dict[str, Any]) -> list[object]:
    """Make a row of the page."""
    case, scores = CASES[name], {key: np.array(means) for key, means in found["scores"].items()}
    shown = [f"{means.mean():,.1f} ± {means.std():,.1f}" for means in scores.values()]
    reached = scores["found"].mean() >= scores["preset"].mean() - case.margin
    title = f"{case.algorithm.upper()} on {case.environment}, {case.steps:,} steps"
    return [title, *shown, "yes" if reached else "no", found["minutes"], found["trials"], found["code"]]


def write_page(found: dict[str, Any]) -> None:
    """Write the page of all cases."""
    header = ["", "defaults", "found", "preset", "found as good", "minutes", "trials", "code"]
    margins = ", ".join(f"{case.margin:g} ({case.algorithm.upper()})" for case in CASES.values())
    there = [name for name in CASES if name in found]
    values = "\n".join(f"- {name.upper()}: `{json.dumps(found[name]['values'])}`" for name in there)
    body = f"""{table(header, [row(name, found[name]) for name in there])}

Scores: mean over {len(SEEDS)} fresh seeds of {SCORED} greedy episodes each, ± deviation over the seeds; all three were
trained for as many steps on the same seeds, and play the same episodes. As good: at most {margins} below the preset's.
Each search was killed (kill -9) after a third of its trials, and went on. A trial is two seeds of {EPISODES} episodes.

Found:

{values}"""
    if "batch" in found:
        rows = found["batch"]["rows"]
        body += f"""

## {BATCH} trials in one batch

PPO on {TOGETHER.environment} from its defaults, {TOGETHER.envs} environments, {TOGETHER.steps:,} steps,
{TOGETHER.seeds} seeds a trial, over all ranges that PPO declares. Minutes are of the whole search, compilation and the
training on fresh seeds included; no program was compiled before. Code: {found["batch"]["code"]}.

{table(["", "minutes", "found", "defaults", "trials"], rows)}"""
    publish("tune", "Hyperparameters found from the defaults", "python -m bench.tune", body)


def main() -> None:
    """Search, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    choices = [*CASES, "batch"]
    parser.add_argument("--case", choices=choices, action="append", help="one of them alone; the others stay")
    parser.add_argument("--trials", type=int, default=TRIALS)
    parser.add_argument("--batch", type=int, default=BATCH, help="trials of the batch")
    parser.add_argument("--score", action="store_true", help="score again what was found before")
    asked = parser.parse_args()
    found = kept()
    for name in asked.case or choices:
        if name == "batch":
            found[name] = {"rows": compared(asked.batch), "code": revision()}
        elif not asked.score:
            found[name] = searched_values(CASES[name], asked.trials) | {"code": revision()}
            print(found[name], flush=True)
        if name in CASES:
            found[name]["scores"] = scored(CASES[name], found[name]["values"])
        if asked.trials == TRIALS and asked.batch == BATCH:
            ROWS.write_text(json.dumps(kept() | {name: found[name]}, indent=1) + "\n")
            write_page(kept())


if __name__ == "__main__":
    main()
