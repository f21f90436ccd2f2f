"""Trained agents that come with Renshu, to play against and to measure others by."""

from __future__ import annotations

from pathlib import Path

from renshu.agent.agent import Agent, load
from renshu.envs.device import DeviceEnv
from renshu.envs.gymnasium.registration import device_env
from renshu.errors import UnknownNameError

NAMESPACE = "renshu/"


def path_of(environment: str) -> Path:
    """Return the path of the file for an environment, whether there is one or not."""
    return Path(__file__).parent / f"{environment.removeprefix(NAMESPACE)}.safetensors"


def baselines() -> list[str]:
    """Return the ids of the environments that have a baseline."""
    return sorted(NAMESPACE + path.stem for path in path_of("").parent.glob("*.safetensors"))


def baseline(environment: str | DeviceEnv) -> Agent:
    """Load the agent that comes with Renshu for an environment, as "renshu/TicTacToe-v0".

    `python -m bench.alphazero --baseline` trains them.

    Raises UnknownNameError for one that has none, naming those that do.
    """
    named = environment if isinstance(environment, str) else environment.id
    if named not in (known := baselines()):
        raise UnknownNameError(f"no trained agent comes with Renshu for {named}; there is one for {', '.join(known)}")
    return load(path_of(named), env=device_env(named))
