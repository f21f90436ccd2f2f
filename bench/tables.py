"""Tables and pictures of experiments before they were mended, and now: `python -m bench.tables [COMMIT]`.

The same experiment is run by an earlier commit, in a work tree of its own, and by this one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from bench.report import DOCS, publish

HOME = Path(__file__).parent.parent
BEFORE = "f61651c~1"
PICTURES = ("grid", "algorithms", "runs")
WIDTH = 760


def made(library: Path, folder: Path) -> str:
    """Run the experiment with the library in a folder. Returns its table."""
    folder.mkdir()
    line = [sys.executable, str(HOME / "bench" / "run_tables.py"), str(folder)]
    subprocess.run(line, check=True, cwd=folder, env={**os.environ, "PYTHONPATH": str(library)})
    return (folder / "table.txt").read_text()


def beside(before: Path, now: Path, to: Path) -> None:
    """Put two pictures beside each other, the earlier one on the left."""
    pictures = [Image.open(path).convert("RGB") for path in (before, now)]
    pictures = [one.resize((WIDTH, WIDTH * one.height // one.width)) for one in pictures]
    both = Image.new("RGB", (2 * WIDTH + 20, max(one.height for one in pictures)), "white")
    for place, one in enumerate(pictures):
        both.paste(one, (place * (WIDTH + 20), 0))
    both.quantize(64).save(to, optimize=True)


def main() -> None:
    """Run both, and write the page."""
    commit = sys.argv[1] if len(sys.argv) > 1 else BEFORE
    with tempfile.TemporaryDirectory(prefix="renshu-tables-") as name:
        work = Path(name)
        tree = ["git", "-C", str(HOME), "worktree"]
        subprocess.run([*tree, "add", "--quiet", "--detach", str(work / "tree"), commit], check=True)
        try:
            tables = [made(library, work / part) for part, library in (("before", work / "tree"), ("now", HOME))]
        finally:
            subprocess.run([*tree, "remove", "--force", str(work / "tree")], check=True)
        (DOCS / "tables").mkdir(exist_ok=True)
        for one in PICTURES:
            beside(work / "before" / f"{one}.png", work / "now" / f"{one}.png", DOCS / "tables" / f"{one}.png")
        shutil.rmtree(work / "now" / "runs")
    body = f"""The same experiments on the left by {commit}, on the right as they are now.

A grid of two hyperparameters, 5 seeds each, at 80 columns:

```text
{tables[0].rstrip()}
```

```text
{tables[1].rstrip()}
```

Its curves; where the seeds ended no episode between two points the last value is carried on:

![curves of a grid](tables/grid.png)

Four algorithms; from the fourth curve on they differ by dashes, too:

![curves of four algorithms](tables/algorithms.png)

`renshu plot` of runs in two environments:

![runs in two environments](tables/runs.png)"""
    publish("tables", "Tables and pictures of experiments", f"python -m bench.tables {commit}", body)


if __name__ == "__main__":
    main()
