"""Environments of other libraries: gymnax, Brax, MuJoCo Playground, pgx, Gymnasium's own functional ones, PettingZoo.

All but PettingZoo's are pure functions too: each such adapter is a DeviceEnv around an environment of its library. A
library is imported only when an environment is given by name; its own automatic resets are not used. Keys reach a
library as raw uint32 [2], which all of them take.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
from gymnasium.vector import VectorEnv

from renshu.envs.adapters.apart import AgentApart, apart
from renshu.envs.adapters.brax import Brax, Playground
from renshu.envs.adapters.functional import Functional
from renshu.envs.adapters.gymnax import Gymnax
from renshu.envs.adapters.pettingzoo import AgentsInParallel, SeatInTurns
from renshu.envs.adapters.pgx import Pgx
from renshu.envs.checks import lineage
from renshu.envs.device import DeviceEnv

__all__ = [
    "AgentApart",
    "AgentsInParallel",
    "Brax",
    "Functional",
    "Gymnax",
    "Pgx",
    "Playground",
    "SeatInTurns",
    "adapt",
    "apart",
]

_ADAPTERS: dict[tuple[str, str], Callable[[Any], DeviceEnv | gymnasium.Env | VectorEnv]] = {
    ("gymnax", "Environment"): Gymnax,
    ("brax", "Env"): Brax,
    ("mujoco_playground", "MjxEnv"): Playground,
    ("pgx", "Env"): Pgx,
    ("gymnasium", "FuncEnv"): Functional,
    ("pettingzoo", "ParallelEnv"): lambda env: AgentsInParallel([env]),
    ("pettingzoo", "AECEnv"): SeatInTurns,
}


def adapt(env: Any) -> DeviceEnv | gymnasium.Env | VectorEnv | None:
    """Wrap an environment object of another library, recognised by its base classes; None for anything else.

    Imports no library. A DeviceEnv is returned as it is.
    """
    if isinstance(env, DeviceEnv):
        return env
    adapter = next((_ADAPTERS[kind] for kind in lineage(env) if kind in _ADAPTERS), None)
    return None if adapter is None else adapter(env)
