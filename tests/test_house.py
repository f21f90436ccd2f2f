"""The house: which files there are, how long they are, how their docstrings begin."""

import ast
import configparser
import re
from pathlib import Path

import pytest

import renshu

HOUSE = Path(renshu.__file__).parent
FILES = sorted(HOUSE.rglob("*.py"))


def names(folder):
    return {path.name for path in folder.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}


def test_four_files_at_the_top():
    assert {name for name in names(HOUSE) if name.endswith(".py")} == {
        "__init__.py",
        "errors.py",
        "runtime.py",
        "types.py",
    }


def test_no_file_is_long():
    long = {str(path.relative_to(HOUSE)): len(path.read_text().splitlines()) for path in FILES}
    assert {name: lines for name, lines in long.items() if lines > 400} == {}


@pytest.mark.parametrize("folder", ["renshu", "bench", "examples"])
def test_docstrings_begin_with_a_noun_or_a_verb(folder):
    clause = re.compile(r"(What|Where|How|Which|Whether)\b")
    found = []
    for path in sorted((HOUSE.parent / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            kinds = (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef, ast.Module)
            text = ast.get_docstring(node) if isinstance(node, kinds) else None
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                text = str(node.value.value)  # below a constant
            if text and clause.match(text):
                found.append(f"{path.name}: {text.splitlines()[0]}")
    assert found == []


def test_loops_may_import_the_contract_alone():
    """The linter has no pattern for "all but": a module that is added must be added there."""
    linter = configparser.ConfigParser()
    linter.read(HOUSE.parent / ".importlinter")
    forbidden = set(linter["importlinter:contract:loops"]["forbidden_modules"].split())
    rooms = {f"renshu.algorithms.{name.removesuffix('.py')}" for name in names(HOUSE / "algorithms")}
    assert rooms - forbidden == {"renshu.algorithms.base", "renshu.algorithms.__init__"}
    assert "ignore_imports" not in (HOUSE.parent / ".importlinter").read_text()
