"""Time to begin: imports and the command line, in fresh processes.

python -m bench.startup
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

from bench.report import publish, table

COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import renshu": [sys.executable, "-c", "import renshu"],
    "from renshu import PPO": [sys.executable, "-c", "from renshu import PPO"],
    "from renshu import Agent (with Gymnasium and all that training needs)": [
        sys.executable,
        "-c",
        "from renshu import Agent",
    ],
    "renshu --help": [str(Path(sys.executable).parent / "renshu"), "--help"],
}
GOALS = {"import renshu": "< 1.5 s", "from renshu import PPO": "< 1.5 s", "renshu --help": "< 0.5 s"}


def seconds(command: list[str]) -> float:
    """Measure the wall time of a process."""
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def main(repeats: int = 7) -> None:
    """Measure in turn and publish medians."""
    taken: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(repeats):
        for name, command in COMMANDS.items():
            taken[name].append(seconds(command))
    rows = [[name, f"{statistics.median(times):.2f} s", GOALS.get(name, "")] for name, times in taken.items()]
    body = table(["whole process", f"median of {repeats}", "goal"], rows)
    publish("startup", "Time to begin", "python -m bench.startup", body)


if __name__ == "__main__":
    main()
