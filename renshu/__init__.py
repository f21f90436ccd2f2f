"""Renshu (練習, practice): reinforcement learning in which an algorithm is written once and any loop can run it.

from renshu import PPO

agent = PPO().on("CartPole-v1", num_envs=8).learn(100_000)
agent.record("cartpole.mp4")
"""

from __future__ import annotations

import importlib
from importlib.metadata import version as _version
from typing import TYPE_CHECKING, Any

from renshu.envs.registration import register as _register

if TYPE_CHECKING:
    from renshu import callbacks as callbacks
    from renshu.agent import Agent as Agent
    from renshu.algorithms.a2c import A2C as A2C
    from renshu.algorithms.base import Algorithm as Algorithm
    from renshu.algorithms.base import Learner as Learner
    from renshu.algorithms.crossq import CrossQ as CrossQ
    from renshu.algorithms.ddpg import DDPG as DDPG
    from renshu.algorithms.dynaq import DynaQ as DynaQ
    from renshu.algorithms.expectedsarsa import ExpectedSARSA as ExpectedSARSA
    from renshu.algorithms.ppo import PPO as PPO
    from renshu.algorithms.pqn import PQN as PQN
    from renshu.algorithms.qlearning import QLearning as QLearning
    from renshu.algorithms.sac import SAC as SAC
    from renshu.algorithms.sarsa import SARSA as SARSA
    from renshu.algorithms.td3 import TD3 as TD3
    from renshu.algorithms.tqc import TQC as TQC
    from renshu.envs.device import DeviceEnv as DeviceEnv
    from renshu.envs.device import Step as Step
    from renshu.evaluation import Evaluation as Evaluation
    from renshu.experiments import experiment as experiment
    from renshu.ops.schedules import Cosine as Cosine
    from renshu.ops.schedules import Linear as Linear
    from renshu.ops.schedules import Piecewise as Piecewise
    from renshu.presets import preset as preset
    from renshu.saving import load as load

_WHERE = {
    "Agent": "renshu.agent",
    "Algorithm": "renshu.algorithms.base",
    "Learner": "renshu.algorithms.base",
    "Evaluation": "renshu.evaluation",
    "Linear": "renshu.ops.schedules",
    "Cosine": "renshu.ops.schedules",
    "Piecewise": "renshu.ops.schedules",
    "DeviceEnv": "renshu.envs.device",
    "Step": "renshu.envs.device",
    "experiment": "renshu.experiments",
    "load": "renshu.saving",
    "preset": "renshu.presets",
}

_register()  # renshu/CartPole-v1 and its like, for gymnasium.make


def __dir__() -> list[str]:
    """The public names, with the algorithms that are there."""
    from renshu.algorithms import algorithms

    return sorted([*globals(), *_WHERE, *algorithms(), "callbacks", "__version__"])


def __getattr__(name: str) -> Any:
    """Load what is asked for when it is asked for: `import renshu` stays cheap. Algorithms are found by their name."""
    if name == "__version__":
        return _version("renshu")
    if name in _WHERE:
        return getattr(importlib.import_module(_WHERE[name]), name)
    if not name.startswith("_"):
        from renshu.algorithms import algorithm
        from renshu.errors import UnknownNameError

        try:
            return importlib.import_module(f"renshu.{name}") if name == "callbacks" else algorithm(name)
        except UnknownNameError as error:
            raise AttributeError(f"renshu has no {name!r}; {error}") from None
    raise AttributeError(f"module 'renshu' has no attribute {name!r}")
