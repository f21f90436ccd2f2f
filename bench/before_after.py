"""This version beside an earlier commit: the same numbers to the bit, and no slower.

    python -m bench.before_after COMMIT --part parameters [--updates 20] [--weights]
    python -m bench.before_after COMMIT --part speed [--repeats 7] [--case ppo]
    python -m bench.before_after COMMIT --part rooms

parameters: every algorithm is trained for some updates on fixed seeds in both loops; every array of the learner's state
is compared to the bit, or weights alone, where the layout of states differs.
speed: both versions in turn, each run in a process of its own with an empty cache of programs;
medians, and the ratio pair by pair. rooms: folders of the package, with the number of files and lines of each.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from bench.report import measured_on, table
from bench.run_pair import CASES

ROOT = Path(__file__).parent.parent
UNITS = {"start": "s", "first learn": "s", "learn": "s", "memory": "MiB"}
IMPORTS = ("import renshu", "from renshu import PPO", "from renshu import Agent")


def checkout(commit: str, folder: Path) -> Path:
    """Put the package of a commit into a folder; returns the folder."""
    archive = subprocess.run(["git", "archive", commit, "renshu"], cwd=ROOT, capture_output=True, check=True)
    subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
    return folder


def run(library: Path, command: list[str], cache: Path) -> str:
    """Run Python with the package of a folder; returns the last line of its output."""
    environment = {**os.environ, "PYTHONPATH": str(library), "RENSHU_CACHE_DIR": str(cache)}
    done = subprocess.run([sys.executable, *command], cwd=cache, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} with {library} failed:\n{done.stderr}")
    return (done.stdout.splitlines() or [""])[-1]


def compare_parameters(before: Path, updates: int, options: list[str]) -> bool:
    """Compare the states after some updates; prints a line per case and loop, and tells whether all are equal."""
    arrays = []
    for library in (before, ROOT):
        with tempfile.TemporaryDirectory(prefix="renshu-bench-") as cache:
            out = f"{cache}/out.npz"
            run(
                library,
                [str(ROOT / "bench" / "run_parameters.py"), out, "--updates", str(updates), *options],
                Path(cache),
            )
            arrays.append(dict(np.load(out)))
    old, new = arrays
    cases: dict[str, list[bool]] = {}
    for name in {**old, **new}:
        there = name in old and name in new
        same = there and old[name].dtype == new[name].dtype and np.array_equal(old[name], new[name], equal_nan=True)
        cases.setdefault(name.rpartition(" | ")[0], []).append(bool(same))
    for case, equal in cases.items():
        print(f"{case:<28} {sum(equal):>3} of {len(equal):>3} arrays equal to the bit")
    good = all(all(equal) for equal in cases.values())
    print(f"{len(cases)} runs of {updates} updates: {'all equal' if good else 'NOT EQUAL'}")
    return good


def timed(library: Path, case: str) -> dict[str, float]:
    """Time a case once, with an empty cache."""
    with tempfile.TemporaryDirectory(prefix="renshu-bench-") as cache:
        if case in IMPORTS:
            script = f"import time; t = time.perf_counter()\n{case}\nprint(time.perf_counter() - t)"
            return {"start": float(run(library, ["-c", script], Path(cache)))}
        return json.loads(run(library, [str(ROOT / "bench" / "run_pair.py"), case], Path(cache)))


def compare_speed(before: Path, cases: list[str], repeats: int) -> None:
    """Time both versions in turn and print a table."""
    rows = []
    for case in cases:
        pairs: list[tuple[dict[str, float], dict[str, float]]] = []
        for repeat in range(repeats):
            # The order changes from pair to pair, so that neither always runs second.
            order = (before, ROOT) if repeat % 2 else (ROOT, before)
            found = {library: timed(library, case) for library in order}
            pairs.append((found[before], found[ROOT]))
            print(f"{case} {repeat + 1}/{repeats}", file=sys.stderr, flush=True)
        for what in pairs[0][0]:
            old, new = ([pair[side][what] for pair in pairs] for side in (0, 1))
            ratios = [b / a for a, b in zip(old, new, strict=True)]
            unit, medians = UNITS[what], (statistics.median(old), statistics.median(new))
            spread = f"{statistics.median(ratios):.3f} ({min(ratios):.2f} to {max(ratios):.2f})"
            rows.append([case, what, *(f"{median:.3g} {unit}" for median in medians), spread])
    print(f"{measured_on()}\n\nMedians of {repeats} pairs.\n")
    print(table(["", "", "before", "after", "after / before"], rows))


def rooms(library: Path) -> dict[str, tuple[int, int]]:
    """Count files and lines of each folder of a package, and of the files at its top."""
    found: dict[str, tuple[int, int]] = {}
    package = library / "renshu"
    for path in sorted(package.rglob("*.py")):
        room = "/".join(path.relative_to(package).parts[:-1]) or "(top)"
        files, lines = found.get(room, (0, 0))
        found[room] = files + 1, lines + len(path.read_text(encoding="utf-8").splitlines())
    return found


def compare_rooms(before: Path) -> None:
    """Print the folders of both versions side by side."""
    old, new = rooms(before), rooms(ROOT)
    cells = {
        room: [f"{found[room][0]} / {found[room][1]:,}" if room in found else "" for found in (old, new)]
        for room in sorted({**old, **new})
    }
    totals = [
        f"{sum(files for files, _ in found.values())} / {sum(lines for _, lines in found.values()):,}"
        for found in (old, new)
    ]
    print(
        table(
            ["files / lines", "before", "after"], [*([room, *pair] for room, pair in cells.items()), ["all", *totals]]
        )
    )


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commit")
    parser.add_argument("--part", choices=["parameters", "speed", "rooms"], required=True)
    parser.add_argument("--updates", type=int, default=20)
    parser.add_argument("--weights", action="store_true")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--case", choices=[*IMPORTS, *CASES], action="append")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="renshu-before-") as folder:
        before = checkout(options.commit, Path(folder))
        if options.part == "rooms":
            compare_rooms(before)
        elif options.part == "speed":
            compare_speed(before, options.case or [*IMPORTS, *CASES], options.repeats)
        elif not compare_parameters(before, options.updates, ["--weights"] if options.weights else []):
            raise SystemExit(1)


if __name__ == "__main__":
    main()
