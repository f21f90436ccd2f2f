"""Algorithms by name. The module of each is imported when the algorithm is first asked for."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, TypeVar

from renshu.errors import UnknownNameError

if TYPE_CHECKING:
    from renshu.algorithms.base import Algorithm

MODULES: dict[str, str] = {
    "A2C": "renshu.algorithms.policy_gradient.a2c",
    "APPO": "renshu.algorithms.policy_gradient.appo",
    "ARS": "renshu.algorithms.evolution.ars",
    "AlphaZero": "renshu.algorithms.planning.alphazero",
    "ApeX": "renshu.algorithms.apex",
    "ApeXDDPG": "renshu.algorithms.apex",
    "CrossQ": "renshu.algorithms.continuous.crossq",
    "DDPG": "renshu.algorithms.continuous.ddpg",
    "DQN": "renshu.algorithms.value_based.dqn",
    "DynaQ": "renshu.algorithms.tabular.dynaq",
    "ES": "renshu.algorithms.evolution.es",
    "ExpectedSARSA": "renshu.algorithms.tabular.expected_sarsa",
    "GumbelAlphaZero": "renshu.algorithms.planning.alphazero",
    "GumbelMuZero": "renshu.algorithms.planning.muzero",
    "IMPALA": "renshu.algorithms.policy_gradient.impala",
    "MAPElites": "renshu.algorithms.evolution.map_elites",
    "MCTS": "renshu.algorithms.planning.mcts",
    "MuZero": "renshu.algorithms.planning.muzero",
    "NEAT": "renshu.algorithms.evolution.neat",
    "PPO": "renshu.algorithms.policy_gradient.ppo",
    "PQN": "renshu.algorithms.value_based.pqn",
    "QLearning": "renshu.algorithms.tabular.qlearning",
    "QRDQN": "renshu.algorithms.value_based.qrdqn",
    "R2D2": "renshu.algorithms.value_based.r2d2",
    "Rainbow": "renshu.algorithms.value_based.rainbow",
    "SAC": "renshu.algorithms.continuous.sac",
    "SARSA": "renshu.algorithms.tabular.sarsa",
    "SampledMuZero": "renshu.algorithms.planning.sampled_muzero",
    "StochasticMuZero": "renshu.algorithms.planning.stochastic_muzero",
    "TD3": "renshu.algorithms.continuous.td3",
    "TQC": "renshu.algorithms.continuous.tqc",
}
"""Module of each algorithm that comes with the library; the class has the name of the entry."""

_AGENT = "renshu.agent.agent:Agent"
_registered: dict[str, type[Algorithm]] = {}
_Kind = TypeVar("_Kind", bound="type[Algorithm]")


def register(algorithm: _Kind) -> _Kind:
    """Make an algorithm of your own known by its name: to the command line, to `renshu.load` and as `renshu.NAME`.

    algorithm: a subclass of Algorithm. Returned as it is, so that this serves as a decorator of the class.
    Raises UnknownNameError where another algorithm has that name already, in any case of letters.
    """
    name = algorithm.__name__
    taken = _canonical(name)
    # A class that is defined again, as a notebook does, replaces the earlier one.
    if taken is not None and (taken in MODULES or _defined_at(_registered[taken]) != _defined_at(algorithm)):
        raise UnknownNameError(f"there is an algorithm {taken} already: give the class {name} another name")
    _registered[name] = algorithm
    return algorithm


def names() -> list[str]:
    """Names of all algorithms, sorted; imports none of them."""
    return sorted([*MODULES, *_registered])


def algorithm(name: str) -> type[Algorithm]:
    """Find an algorithm by its name, in any case of letters: "ppo" or "PPO". Raises UnknownNameError with the names."""
    known = _canonical(name)
    if known is None:
        raise UnknownNameError(f"there is no algorithm {name!r}. There are: {', '.join(names())}")
    if known in _registered:
        return _registered[known]
    return getattr(importlib.import_module(MODULES[known]), known)


def algorithms() -> dict[str, type[Algorithm]]:
    """All algorithms by name."""
    return {name: algorithm(name) for name in names()}


def agent_class() -> Any:
    """Return the class Agent. It is found by name here, because agents stand above algorithms."""
    module, _, name = _AGENT.partition(":")
    return getattr(importlib.import_module(module), name)


def _canonical(name: str) -> str | None:
    return next((known for known in [*_registered, *MODULES] if known.lower() == name.lower()), None)


def _defined_at(algorithm: type) -> tuple[str, str]:
    return algorithm.__module__, algorithm.__qualname__
