"""The longest chain of calls from `learn` to a loss, in an earlier commit and in this version.

    python -m bench.call_chain COMMIT

`bench/run_call_chain.py` says what counts as a chain, and finds them. Writes docs/benchmarks/call_chain.md.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from itertools import zip_longest
from pathlib import Path
from typing import Any

from bench.before_after import ROOT, checkout, run
from bench.report import DOCS, table

INTRODUCTION = """
A chain is the functions of the library that are on the stack at once: from `learn`, through the loss (the function
whose gradient is taken, in bold below), down to the deepest function that the loss is made of. Networks and all that
they call are left out, and so are JAX's own functions; nested functions and lambdas count. `learn` is traced on shapes,
with the default options of each algorithm.

The first loss is that of the values: of the critics, of the Q-network, or PPO's only one. The others are those of the
policy and of the temperature. "12 in 4" are 12 functions in 4 files.
""".strip()


def chains_of(library: Path) -> dict[str, Any]:
    """Trace the package in a folder: algorithm -> loss -> chain, and the place of the loss in it."""
    with tempfile.TemporaryDirectory(prefix="renshu-chains-") as folder:
        found = json.loads(run(library, [str(ROOT / "bench" / "run_call_chain.py")], Path(folder)))
    if Path(found["library"]).resolve() != library.resolve():
        raise SystemExit(f"traced the package in {found['library']}, not the one in {library}")
    return found["chains"]


def first(chains: dict[str, Any]) -> dict[str, Any]:
    """Return the chain of the loss that is computed first."""
    return next(iter(chains.values()))


def longest(chains: dict[str, Any]) -> dict[str, Any]:
    """Return the longest chain of all losses."""
    return max(chains.values(), key=lambda found: len(found["chain"]))


def size(found: dict[str, Any]) -> str:
    """Count functions and files of a chain."""
    return f"{len(found['chain'])} in {len({file for _, file in found['chain']})}"


def cells(found: dict[str, Any]) -> list[str]:
    """Name the functions of a chain with their files, the loss in bold."""
    marks = ["**" if place == found["loss"] else "" for place in range(len(found["chain"]))]
    return [f"{mark}`{name}`{mark} {file}" for mark, (name, file) in zip(marks, found["chain"], strict=True)]


def side_by_side(title: str, before: dict[str, Any], after: dict[str, Any]) -> str:
    """Make the table of two chains, a row for each depth."""
    pairs = zip_longest(cells(before), cells(after), fillvalue="")
    rows = [[depth, *pair] for depth, pair in enumerate(pairs, start=1)]
    return f"{title}\n\n{table(['', 'before', 'after'], rows)}"


def summary(before: dict[str, Any], after: dict[str, Any]) -> str:
    """Make the table of all algorithms."""
    header = ["", "first loss, before", "after", "longest of all losses, before", "after"]
    rows = [
        [name, *(size(pick(chains[name])) for pick in (first, longest) for chains in (before, after))] for name in after
    ]
    return table(header, rows)


def details(name: str, before: dict[str, Any], after: dict[str, Any]) -> str:
    """Show the chains of one algorithm."""
    shown = [side_by_side("The first loss:", first(before), first(after))]
    if len(after) > 1:
        shown.append(side_by_side("The longest of all losses:", longest(before), longest(after)))
    return "\n\n".join([f"## {name}", *shown])


def page(commit: str, before: dict[str, Any], after: dict[str, Any]) -> str:
    """Write the page."""
    parts = [
        "# From learn to a loss",
        f"Before: commit {commit}. After: this version. Command: `python -m bench.call_chain {commit}`.",
        INTRODUCTION,
        summary(before, after),
        *(details(name, before[name], after[name]) for name in after),
    ]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Trace both versions; print the summary and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commit")
    commit = parser.parse_args().commit
    with tempfile.TemporaryDirectory(prefix="renshu-before-") as folder:
        before, after = chains_of(checkout(commit, Path(folder))), chains_of(ROOT)
    (DOCS / "call_chain.md").write_text(page(commit, before, after), encoding="utf-8")
    print(f"{summary(before, after)}\n\nwritten to docs/benchmarks/call_chain.md")


if __name__ == "__main__":
    main()
