"""The gradient steps of five algorithms, and the update that takes them, beside the equations of their papers.

    python -m bench.papers

Writes docs/architecture/papers.md: the code comes from the library itself, the equations from `bench/equations.py`. A
test compares the page with what this would write, so that the page never falls behind the code.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.equations import CHAPTERS, SHARED, Chapter, Equation
from bench.report import table

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "architecture" / "papers.md"

INTRODUCTION = """
# Beside the papers

A learner reads like its paper. This page shows how: for each algorithm a table of equations, with the line of code that
each is, and below it the code. `python -m bench.papers` writes the page from the code itself, and a test compares the
two. An equation is named by its number, or else by its place in the paper.

In the code, `batch.discount` is $`\\gamma`$ ($`\\gamma^n`$ after n steps), and 0 where the episode terminated, so that
the target is the reward alone there. `weight` is 1, or corrects the bias where transitions are drawn by priority.
`late` is the target networks, $`\\bar\\theta`$ or $`\\theta'`$ or $`\\theta^-`$ in the papers. Values are `[n, B, K]`:
of n critics, for B transitions, K numbers (1, or the quantiles).
""".strip()

CHAIN = """
## From learn to a loss

[How many functions are called](../benchmarks/call_chain.md) between `learn` and the deepest function of a loss, in an
earlier version and in this one. Command: `python -m bench.call_chain ce051c6`.
""".strip()


def source(fn: Callable[..., Any]) -> str:
    """Return the code of a function, from its first column on."""
    return textwrap.dedent(inspect.getsource(fn)).rstrip()


def place(code: str, functions: Sequence[Callable[..., Any]]) -> str:
    """Name the first function that has a piece of code. Raises ValueError where none has."""
    for fn in functions:
        if code in source(fn):
            return fn.__qualname__
    raise ValueError(f"no function on the page has this line any more; give the equation its new one: {code}")


def row(equation: Equation, functions: Sequence[Callable[..., Any]]) -> list[str]:
    """Make a row of the table of equations."""
    return [
        equation.number,
        f"$`{equation.formula}`$",
        f"`{place(equation.code, functions)}`: `{equation.code}`",
    ]


def listing(fn: Callable[..., Any]) -> str:
    """Show a function: its name, a link to its file, its code."""
    file = Path(inspect.getsourcefile(fn) or "").relative_to(ROOT).as_posix()
    return f"`{fn.__qualname__}` in [{file}](../../{file})\n\n```python\n{source(fn)}\n```"


def chapter(found: Chapter) -> str:
    """Write a chapter: papers, equations, differences, code."""
    functions = [*found.functions, *SHARED]
    rows = [row(equation, functions) for equation in found.equations]
    parts = [f"## {found.title}", found.papers, table(["equation", "in the paper", "in the code"], rows)]
    if found.differences:
        parts.append("Where the code differs:\n\n" + "\n".join(f"- {text}" for text in found.differences))
    return "\n\n".join([*parts, *(listing(fn) for fn in found.functions)])


def page() -> str:
    """Write the page."""
    shared = "\n\n".join(["## Functions of several algorithms", *(listing(fn) for fn in SHARED)])
    return "\n\n".join([INTRODUCTION, *(chapter(one) for one in CHAPTERS), shared, CHAIN]) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"written to {PAGE.relative_to(ROOT)}")
