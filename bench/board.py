"""The board with ten thousand runs, and its pages as pictures.

    python -m bench.board [--runs 10000] [--pictures runs/]

Needs the extra board, Playwright and Chromium. Times are from the call of the address until the browser shows the rows;
pictures are of the pages over a folder of runs of your own, and are all that is written then.
"""

from __future__ import annotations

import argparse
import json
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import sync_playwright

from bench.report import publish, table
from renshu.tracking.run import Run

ENVIRONMENTS = ("CartPole-v1", "Acrobot-v1", "Pendulum-v1", "MountainCar-v0", "LunarLander-v3", "BipedalWalker-v3")
GOAL = 2.0
RUNS = 10_000
VISITS = 5
PICTURES = Path("docs/board")
TABLES = ("settings.json", "episodes.csv", "metrics.csv", "evaluations.csv")


def write_runs(root: Path, count: int) -> None:
    """Write runs of 200 episodes: one of each environment, and copies of them with seeds of their own."""
    episodes = np.arange(1, 201)
    for number, environment in enumerate(ENVIRONMENTS):
        settings = {"algorithm": "PPO", "environment": environment, "total_steps": 40_000, "hyperparameters": {}}
        with Run.create(root / f"run-{number}", settings | {"seed": 0}) as run:
            run.log_episodes(200 * episodes, 0 * episodes, np.sqrt(episodes), 200 + 0 * episodes, episodes / 10)
            run.log_metrics(40_000, {"loss": 0.1})
            run.log_evaluation(40_000, [10.0] * 100, [200] * 100)
    sources = [[(name, (root / f"run-{part}" / name).read_bytes()) for name in TABLES] for part in range(6)]
    for number in range(len(ENVIRONMENTS), count):
        folder = root / f"part-{number % 50}" / f"run-{number}"
        folder.mkdir(parents=True)
        for name, content in sources[number % 6]:
            if name == "settings.json":
                content = json.dumps(json.loads(content) | {"seed": number}).encode()
            (folder / name).write_bytes(content)


@contextmanager
def serving(root: Path) -> Iterator[str]:
    """Start `renshu board` over a folder; the address of its pages."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = ["-c", "from renshu.cli import main; main()", "board", str(root), "--port", str(port)]
    with subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL) as process:
        try:
            while True:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.05)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


@contextmanager
def browsing() -> Iterator[Any]:
    """Start Chromium without a window."""
    path = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


def visit(browser: Any, address: str, shown: str) -> float:
    """Open a page in a new window; return the seconds until a text is shown."""
    page = browser.new_page()
    began = time.perf_counter()
    page.goto(address)
    page.get_by_text(shown, exact=True).first.wait_for(timeout=60_000)
    taken = time.perf_counter() - began
    page.close()
    return taken


def measure(count: int) -> list[list[object]]:
    """Time the first visit, and further ones, to the list of runs and to one of them."""
    with tempfile.TemporaryDirectory(prefix="renshu-board-") as name:
        root = Path(name)
        write_runs(root, count)
        with serving(root) as address, browsing() as browser:
            visit(browser, f"{address}/leagues", "Leagues")  # Chromium's own start
            first = visit(browser, address, f"{count:,} runs, 0 training")
            again = [visit(browser, address, f"{count:,} runs, 0 training") for _ in range(VISITS)]
            one = [visit(browser, f"{address}/run/run-0", "Learning curve") for _ in range(VISITS)]
    rows: list[list[object]] = [["all runs, none read before", f"{first:.2f} s", "yes" if first <= GOAL else "no"]]
    rows.append([f"all runs, again (median of {VISITS})", f"{statistics.median(again):.2f} s", ""])
    rows.append([f"one run (median of {VISITS})", f"{statistics.median(one):.2f} s", ""])
    for row in rows:
        print(*row, flush=True)
    return rows


def take_pictures(root: Path) -> None:
    """Take pictures of the pages over real runs: on a desk, and on a phone in the dark."""
    searches = {path.parent.name for path in root.glob("*/trials.csv")}
    names = sorted({path.parent.name for path in root.glob("*/settings.json")} - searches)
    pages = {"search": f"/search?name={min(searches)}"} if searches else {}
    if names:
        environments = {name: json.loads((root / name / "settings.json").read_text())["environment"] for name in names}
        alike = [name for name in names if environments[name] == environments[names[0]]]
        pages |= {"runs": "/", "run": f"/run/{names[0]}", "leaderboard": "/leaderboard"}
        pages["comparison"] = "/compare?" + "&".join(f"run={name}" for name in alike)
    if not pages:
        raise SystemExit(f"{root} holds no run and no search")
    PICTURES.mkdir(parents=True, exist_ok=True)
    with serving(root) as address, browsing() as browser:
        for kind, width, dark in (("", 1100, False), ("_phone", 390, True)):
            for name, place in pages.items():
                page = browser.new_page(
                    viewport={"width": width, "height": 800}, color_scheme="dark" if dark else "light"
                )
                page.goto(address + place)
                page.wait_for_timeout(2_500)
                page.screenshot(path=PICTURES / f"{name}{kind}.png")
                page.close()


def main() -> None:
    """Measure, and write the page; or take pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--pictures", type=Path, help="folder of runs that the pictures show")
    asked = parser.parse_args()
    if asked.pictures is not None:
        take_pictures(asked.pictures)
        return
    body = table([f"{asked.runs:,} runs", "until it is shown", f"within {GOAL:g} s"], measure(asked.runs))
    if asked.runs < RUNS:
        print(body)
    else:
        publish("board", "The board", "python -m bench.board", body)


if __name__ == "__main__":
    main()
