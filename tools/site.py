"""The pages as a site in two languages: `python -m tools.site` (`make docs`) writes site/.

What the code knows is put into the pages of docs/ where they ask for it (<!-- hyperparameters -->), formulas become
MathML, files outside of docs/ that are linked to become pages of their own, and Zensical makes HTML of it all.
"""

from __future__ import annotations

import csv
import dataclasses
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import tomllib
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from latex2mathml.converter import convert

from renshu.algorithms.hyperparameters import kind_of
from renshu.algorithms.registry import algorithm
from renshu.presets import preset, presets

HOME = Path(__file__).parent.parent
DOCS = HOME / "docs"
FENCE = re.compile(r"^(```|~~~).*?^\1[^\n]*\n?", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!\\)\]\(([^()\s]+)\)")
WORDS = {
    "en": ("hyperparameter", "default", "what it is", "environment", "at once", "steps", "score, seed by seed", "time"),
    "ja": ("ハイパーパラメータ", "既定値", "意味", "環境", "並列数", "ステップ数", "シードごとのスコア", "時間"),
}
"""Headings of the tables that are put in."""
NOTES = {
    "en": "Scores are means of greedy episodes after training, as `bench/` measured them on two cores.",
    "ja": "スコアは学習後の貪欲方策による平均収益で、`bench/` が 2 コアで測定したものです。",
}


def outside_code(text: str, change: Callable[[str], str]) -> str:
    """Change what is not in a fenced block."""
    done, start = [], 0
    for fence in FENCE.finditer(text):
        done += [change(text[start : fence.start()]), fence[0]]
        start = fence.end()
    return "".join([*done, change(text[start:])])


def row(*cells: object) -> str:
    """Write a row of a table."""
    return f"| {' | '.join(str(cell).replace('|', '&#124;') for cell in cells)} |\n"


def hyperparameters(name: str, language: str) -> str:
    """Write the table of an algorithm's hyperparameters, from their declarations."""
    path = DOCS / "ja" / "hyperparameters.toml"
    known = tomllib.loads(path.read_text()) if language == "ja" else {}
    lines = [row(*WORDS[language][:3]), row("---", "---", "---")]
    for field in dataclasses.fields(algorithm(name)):
        default = list(field.default) if isinstance(field.default, tuple) else field.default
        text = kind_of(field).doc
        lines.append(row(f"`{field.name}`", f"`{default}`", known.get(text, text)))
    return "".join(lines)


def scores() -> dict[tuple[str, str], list[tuple[float, float]]]:
    """Read means and seconds of presets, by algorithm and environment; of each seed the better agent.

    Those that were trained for fewer steps than the preset says are left out.
    """
    best: dict[tuple[str, str, str], tuple[float, float]] = {}
    shorter = set()
    for name in ("zoo", "physics"):
        with (DOCS / "benchmarks" / f"{name}.csv").open() as file:
            for line in csv.DictReader(file):
                key = (line["algorithm"], line["environment"], line["seed"])
                if line["agent"] == "last" and int(line["steps"]) < 0.9 * preset(*key[:2]).total_steps:
                    shorter.add(key[:2])
                if line["agent"] != "random":
                    best[key] = max(best.get(key, (float("-inf"), 0.0)), (float(line["mean"]), float(line["seconds"])))
    found = defaultdict(list)
    for (name, environment, _), result in sorted(best.items()):
        if (name, environment) not in shorter:
            found[name, environment].append(result)
    return found


def presets_of(name: str, language: str) -> str:
    """Write the table of an algorithm's presets, with what they were measured to reach."""
    known, measured = presets().get(name, []), scores()
    if not known:
        return ""
    words = WORDS[language][3:]
    lines = [row(*words), row(*(["---"] * len(words)))]
    for environment in known:
        found, result = preset(name, environment), measured.get((name, environment), [])
        means = ", ".join(f"{mean:g}" for mean, _ in result)
        seconds = f"{statistics.median(seconds for _, seconds in result):.0f} s" if result else ""
        lines.append(row(f"`{environment}`", found.num_envs, f"{found.total_steps:,}", means, seconds))
    scored = any((name, environment) in measured for environment in known)
    return "".join(lines) + (f"\n{NOTES[language]}\n" if scored else "")


def filled(page: Path, text: str, language: str) -> str:
    """Put in what the code knows."""
    for mark, made in (("hyperparameters", hyperparameters), ("presets", presets_of)):
        if f"<!-- {mark} -->" in text:
            text = text.replace(f"<!-- {mark} -->", made(page.stem, language))
    return text


def mathematics(text: str) -> str:
    """Turn ```math blocks and $`...`$ into MathML, which browsers draw without a script."""

    def block(found: re.Match[str]) -> str:
        return f'<div class="formula">{convert(found[1].strip(), display="block")}</div>\n'

    text = re.sub(r"^```math\n(.*?)^```\n?", block, text, flags=re.MULTILINE | re.DOTALL)
    inline = re.compile(r"\$`(.+?)`\$", re.DOTALL)
    return outside_code(text, lambda part: inline.sub(lambda found: convert(found[1]), part))


class Linked:
    """Links of a page: those out of docs/ lead to a page made of the file, those out of docs/ja/ to the other site."""

    def __init__(self, page: Path, root: Path) -> None:
        self.page, self.root = page, root
        self.sources: set[Path] = set()

    def __call__(self, found: re.Match[str]) -> str:
        """Rewrite one link."""
        target, _, anchor = found[1].partition("#")
        if not target or re.match(r"[a-z]+:", target):
            return found[0]
        path = Path(os.path.normpath(self.page.parent / target))
        anchor = f"#{anchor}" if anchor else ""
        if not path.is_relative_to(DOCS):
            self.sources.add(path)
            path = DOCS / "source" / source_name(path)
        if path.is_relative_to(self.root):
            return f"]({os.path.relpath(path, self.page.parent)}{anchor})"
        # From the Japanese site, which lies in a folder of the English one: to its HTML.
        here = Path("ja") / self.page.relative_to(self.root).parent
        there = path.relative_to(DOCS)
        there = there.with_suffix(".html") if there.suffix == ".md" else there
        return f"]({os.path.relpath(there, here)}{anchor})"


def source_name(path: Path) -> str:
    """Name the page of a file outside of docs/."""
    return f"{path.relative_to(HOME).as_posix().replace('/', '_')}.md"


def stage(language: str, to: Path) -> set[Path]:
    """Write the pages of a language to a folder, with their pictures. Returns the files outside that are linked to."""
    root = DOCS if language == "en" else DOCS / "ja"
    (to / "pages").mkdir(parents=True)
    settings = (root / "zensical.toml").read_text()
    (to / "zensical.toml").write_text(settings.replace('paths = ["../../.."]', f'paths = ["{HOME.as_posix()}"]'))
    sources: set[Path] = set()
    for file in sorted(root.rglob("*")):
        if file.is_dir() or file.suffix == ".toml" or (language == "en" and DOCS / "ja" in file.parents):
            continue
        target = to / "pages" / file.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix != ".md":
            shutil.copy(file, target)
            continue
        links = Linked(file, root)
        text = mathematics(filled(file, file.read_text(), language))
        target.write_text(outside_code(text, lambda part, links=links: LINK.sub(links, part)))
        sources |= links.sources
    return sources


def show(path: Path) -> str:
    """Write the page of a file outside of docs/."""
    name = path.relative_to(HOME)
    if path.suffix == ".md":
        return outside_code(path.read_text(), lambda part: LINK.sub("]", part))
    text = path.read_text()
    fence = "`" * 4
    return f"# {name.name}\n\n`{name}`\n\n{fence}{'python' if path.suffix == '.py' else ''}\n{text}{fence}\n"


def build(folder: Path) -> None:
    """Have Zensical write HTML. Raises SystemExit with its words where it warns."""
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean", "-f", "zensical.toml"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    words = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr)
    if done.returncode:
        raise SystemExit(words)


def reference() -> dict[str, str]:
    """Write the pages of the reference: what each public name is, by its docstring."""
    import renshu
    from renshu.algorithms.registry import algorithms

    kinds = {kind.__name__: kind for kind in algorithms().values()}
    others = [name for name in dir(renshu) if name[0] != "_" and name in renshu._MODULES]  # pyright: ignore
    groups = {
        "agent": ("Agents", ["Agent", "Evaluation", "baseline", "learn_together", "load", "preset"]),
        "environments": ("Environments", ["DeviceEnv", "Step", "check_env"]),
        "research": ("Experiments", ["experiment", "pbt", "tune"]),
        "building": (
            "Building blocks",
            ["Algorithm", "Learner", "Cluster", "Dataset", "Linear", "Cosine", "Piecewise"],
        ),
    }
    if missing := set(others) - {name for _, names in groups.values() for name in names}:
        raise SystemExit(f"tools/site.py: put {', '.join(sorted(missing))} into a group of the reference")
    written = {}
    for stem, (title, names) in groups.items():
        parts = [f"::: {renshu._MODULES[name]}.{name}\n" for name in names]
        written[stem] = f"# {title}\n\n" + "\n".join(parts)
    written["callbacks"] = "# Callbacks\n\n::: renshu.agent.callbacks\n"
    written["errors"] = "# Errors\n\n::: renshu.errors\n"
    alone = "    options:\n      members: false\n"
    parts = [f"::: {kind.__module__}.{name}\n{alone}" for name, kind in sorted(kinds.items())]
    written["algorithms"] = "# Algorithms\n\n" + "\n".join(parts)
    return written


def build_site(work: Path) -> Path:
    """Stage and build both languages in an empty folder. Returns that of the site."""
    sources = stage("en", work / "en") | stage("ja", work / "ja")
    shutil.copytree(DOCS / "assets", work / "ja" / "pages" / "assets")
    folder = work / "en" / "pages"
    (folder / "source").mkdir()
    for path in sorted(sources):
        (folder / "source" / source_name(path)).write_text(show(path))
    (folder / "reference").mkdir()
    for stem, text in reference().items():
        (folder / "reference" / f"{stem}.md").write_text(text)
    for language in ("en", "ja"):
        build(work / language)
    return shutil.copytree(work / "ja" / "site", work / "en" / "site" / "ja").parent


def main() -> None:
    """Build it and put it into site/."""
    with tempfile.TemporaryDirectory() as work:
        built = build_site(Path(work))
        shutil.rmtree(HOME / "site", ignore_errors=True)
        shutil.copytree(built, HOME / "site")
    count = sum(1 for _ in (HOME / "site").rglob("*.html"))
    print(f"{count} pages: open site/index.html")


if __name__ == "__main__":
    main()
