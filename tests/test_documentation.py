"""Snippets of README and pages run as they are pasted, block by block, with fewer steps."""

import dataclasses
import importlib.util
import re
import shlex
import sys
import types
from functools import cache
from glob import glob
from pathlib import Path

import pytest
from typer.testing import CliRunner

from renshu.agent import collecting
from renshu.agent.agent import Agent
from renshu.agent.trainer import Trainer
from renshu.cli import app
from renshu.experiments import experiment as experiments
from renshu.experiments import pbt as populations
from renshu.experiments import tune as searches

pytestmark = pytest.mark.usefixtures("compiled_fast")

HOME = Path(__file__).parent.parent
DOCS = HOME / "docs"
PAGES = [
    HOME / "README.md",
    *(DOCS / name for name in ("index.md", "first_hour.md", "stable-baselines.md")),
    *sorted((DOCS / "guide").glob("*.md")),
    *sorted((DOCS / "algorithms").glob("*.md")),
]
"""Those in Japanese have the same code: see test_pages.py."""
EXTRAS = {
    "pettingzoo": "pettingzoo",
    "ALE/": "ale_py",
    "renshu.envs.adapters import": "gymnax",
    "Pgx(": "pgx",
    '"minari:': "minari",
    "BipedalWalker": "Box2D",
    "LunarLander": "Box2D",
    "CarRacing": "Box2D",
    "Hopper": "mujoco",
    '"retro/': "stable_retro",
    "gymnax/": "gymnax",
    "workers": "ray",
}
"""Texts of blocks that need a package which may be missing."""
STEPS = 128


@cache
def blocks(page, language):
    return [
        (page.read_text()[: found.start()].count("\n") + 2, found[1])
        for found in re.finditer(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    ]


def small(algorithm):
    """The algorithm with short rollouts and early learning."""
    wanted = {"n_steps": 16, "batch_size": 16, "n_epochs": 1, "learning_starts": 16}
    there = {field.name for field in dataclasses.fields(algorithm)}
    names = wanted.keys() if {"n_epochs"} <= there else {"learning_starts"}
    return dataclasses.replace(algorithm, **{name: wanted[name] for name in names if name in there})


@pytest.fixture
def quick(tmp_path, monkeypatch):
    """Few steps, environments, seeds and episodes, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    trainer_on, learn, evaluate = Trainer.on.__func__, Agent.learn, Agent.evaluate
    fill, write, compare = collecting.fill, collecting.write, experiments.experiment
    population, search = populations.pbt, searches.tune

    def on(cls, algorithm, env, *, num_envs, **options):
        return trainer_on(cls, small(algorithm), env, num_envs=num_envs and min(num_envs, 2), **options)

    def compared(algorithms, env, *, seeds=8, steps, **options):
        chosen = algorithms if isinstance(algorithms, dict) else {"one": algorithms}
        chosen = {label: small(algorithm) for label, algorithm in chosen.items()}
        return compare(chosen, env, seeds=min(seeds, 4), steps=min(steps, STEPS), **options)

    def trained(algorithm, env, *, steps, population_size=16, **options):
        few = {"steps": min(steps, STEPS), "population_size": min(population_size, 3)}
        return population(small(algorithm), env, **few, **options)

    def searched(algorithm=None, env=None, *, trials=None, steps=None, seeds=None, **options):
        few = {"trials": trials and min(trials, 2), "steps": steps and min(steps, STEPS), "seeds": seeds and 1}
        return search(algorithm, env, **few, **options)

    monkeypatch.setattr(searches, "tune", searched)
    monkeypatch.setattr(populations, "pbt", trained)
    monkeypatch.setattr("uvicorn.run", lambda app, **options: None)  # the board would serve until Ctrl-C
    monkeypatch.setattr(Trainer, "on", classmethod(on))
    monkeypatch.setattr(Agent, "learn", lambda self, n=None, **how: learn(self, n and min(n, STEPS), **how))
    monkeypatch.setattr(Agent, "evaluate", lambda self, episodes=20, **how: evaluate(self, min(episodes, 2), **how))
    monkeypatch.setattr(collecting, "fill", lambda trainer, n: fill(trainer, min(n, STEPS)))
    monkeypatch.setattr(collecting, "write", lambda trainer, n, to: write(trainer, min(n, STEPS), to))
    monkeypatch.setattr(experiments, "experiment", compared)


def missing(code):
    return [name for text, name in EXTRAS.items() if text in code and importlib.util.find_spec(name) is None]


def with_blocks(language):
    """The pages that have blocks of a language, by name."""
    return [pytest.param(page, id=page.stem) for page in PAGES if blocks(page, language)]


@pytest.mark.parametrize("page", with_blocks("python"))
def test_python_runs_as_it_is_pasted(page, quick):
    pasted = types.ModuleType("pasted")  # not among those that can be imported, as what is typed cannot be
    for line, code in blocks(page, "python"):
        if names := missing(code):
            print(f"{page.name}:{line} left out, without {', '.join(names)}")
            continue
        # Compiled by its place in the page, so that a traceback shows where to look.
        exec(compile("\n" * (line - 1) + code, str(page), "exec"), pasted.__dict__)


@pytest.mark.parametrize("page", with_blocks("sh"))
def test_shell_lines_run_as_they_are_pasted(page, quick, monkeypatch):
    for _, code in blocks(page, "python"):
        if named := re.match(r"# (\w+\.py)\n", code):
            Path(named[1]).write_text(code)
    monkeypatch.syspath_prepend(Path.cwd())
    monkeypatch.delitem(sys.modules, "mymodule", raising=False)  # that of the page before
    lines = [line for _, code in blocks(page, "sh") for line in code.splitlines()]
    commands = [part.strip() for line in lines for part in line.partition("#")[0].split("&&")]
    for command in commands:
        if not command.startswith("renshu ") or missing(command):
            continue
        words = [word for part in shlex.split(command)[1:] for word in (sorted(glob(part)) if "*" in part else [part])]
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, f"{command}\n{result.output}\n{result.exception!r}"


def test_there_are_snippets():
    assert sum(len(blocks(page, "python")) for page in PAGES) > 60
    assert all(blocks(page, "python") for page in PAGES if page.parent.name == "algorithms" and page.stem != "index")
