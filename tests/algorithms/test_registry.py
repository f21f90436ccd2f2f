"""Algorithms by name: those that come along, and those that users register."""

import ast
from dataclasses import dataclass
from pathlib import Path

import pytest

import renshu
from renshu import A2C, load
from renshu.algorithms import registry
from renshu.errors import UnknownNameError


@pytest.fixture(autouse=True)
def _nothing_stays(monkeypatch):
    monkeypatch.setattr(registry, "_registered", {})


def own():
    @dataclass(frozen=True, kw_only=True)
    class Mine(A2C):
        """An algorithm of a user's own."""

    return Mine


def type_checking_block():
    """Names that type checkers see in `renshu`, and the module of each."""
    tree = ast.parse(Path(renshu.__file__).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    assert all(isinstance(node, ast.ImportFrom) for node in block.body)
    found = [(alias.name, alias.asname, node.module) for node in block.body for alias in node.names]
    assert all(name == seen for name, seen, _ in found), "only `X as X` is public for type checkers"
    return {name: module for name, _, module in found}


def test_type_checkers_see_what_is_there():
    seen = type_checking_block()
    assert {name: seen[name] for name in seen if name in registry.MODULES} == registry.MODULES
    others = {name: module for name, module in seen.items() if name not in registry.MODULES}
    assert others.pop("callbacks") == "renshu.agent"
    assert others == renshu._MODULES
    assert set(seen) <= set(dir(renshu))


def test_every_entry_is_an_algorithm_of_its_name():
    for name, module in registry.MODULES.items():
        kind = registry.algorithm(name.lower())
        assert (kind.__name__, kind.__module__) == (name, module)
        assert getattr(renshu, name) is kind


def test_a_registered_algorithm_is_one_like_the_others(tmp_path):
    mine = renshu.register(own())
    assert registry.algorithm("mine") is registry.algorithms()["Mine"] is renshu.Mine is mine
    assert {"Mine", "PPO"} <= set(dir(renshu))
    agent = mine(net_arch=[4]).on("CartPole-v1", seed=0)
    assert type(load(agent.save(tmp_path / "a.safetensors")).algorithm) is mine


def test_names_are_taken_once():
    renshu.register(own())
    again = own()
    assert renshu.register(again) is again, "defined again, as in a notebook"
    assert registry.algorithm("Mine") is again
    for taken in ("Mine", "mINE", "PPO", "dqn"):
        with pytest.raises(
            UnknownNameError, match=rf"(?i)an algorithm {taken} already: give the class {taken} another"
        ):
            renshu.register(type(taken, (A2C,), {}))
    assert registry.algorithm("ppo") is renshu.PPO
    with pytest.raises(UnknownNameError, match=r"no algorithm 'Min'\. There are: A2C.*Mine"):
        registry.algorithm("Min")
