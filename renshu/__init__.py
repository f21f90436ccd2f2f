"""Renshu (練習, practice): reinforcement learning in which an algorithm is written once and any loop can run it.

from renshu import PPO

agent = PPO().on("CartPole-v1", num_envs=8).learn(100_000)
agent.record("cartpole.mp4")
"""

from __future__ import annotations

import importlib
from importlib.metadata import version as _version
from typing import TYPE_CHECKING, Any

from renshu.algorithms import registry as _registry
from renshu.algorithms.registry import register as register
from renshu.envs.gymnasium.registration import register as _register_environments

if TYPE_CHECKING:
    from renshu.agent import callbacks as callbacks
    from renshu.agent.agent import Agent as Agent
    from renshu.agent.agent import load as load
    from renshu.agent.together import learn_together as learn_together
    from renshu.algorithms.apex import ApeX as ApeX
    from renshu.algorithms.apex import ApeXDDPG as ApeXDDPG
    from renshu.algorithms.base import Algorithm as Algorithm
    from renshu.algorithms.base import Learner as Learner
    from renshu.algorithms.continuous.crossq import CrossQ as CrossQ
    from renshu.algorithms.continuous.ddpg import DDPG as DDPG
    from renshu.algorithms.continuous.sac import SAC as SAC
    from renshu.algorithms.continuous.td3 import TD3 as TD3
    from renshu.algorithms.continuous.tqc import TQC as TQC
    from renshu.algorithms.evolution.ars import ARS as ARS
    from renshu.algorithms.evolution.es import ES as ES
    from renshu.algorithms.evolution.map_elites import MAPElites as MAPElites
    from renshu.algorithms.evolution.neat import NEAT as NEAT
    from renshu.algorithms.planning.alphazero import AlphaZero as AlphaZero
    from renshu.algorithms.planning.alphazero import GumbelAlphaZero as GumbelAlphaZero
    from renshu.algorithms.planning.mcts import MCTS as MCTS
    from renshu.algorithms.planning.muzero import GumbelMuZero as GumbelMuZero
    from renshu.algorithms.planning.muzero import MuZero as MuZero
    from renshu.algorithms.planning.sampled_muzero import SampledMuZero as SampledMuZero
    from renshu.algorithms.planning.stochastic_muzero import StochasticMuZero as StochasticMuZero
    from renshu.algorithms.policy_gradient.a2c import A2C as A2C
    from renshu.algorithms.policy_gradient.appo import APPO as APPO
    from renshu.algorithms.policy_gradient.impala import IMPALA as IMPALA
    from renshu.algorithms.policy_gradient.ppo import PPO as PPO
    from renshu.algorithms.tabular.dynaq import DynaQ as DynaQ
    from renshu.algorithms.tabular.expected_sarsa import ExpectedSARSA as ExpectedSARSA
    from renshu.algorithms.tabular.qlearning import QLearning as QLearning
    from renshu.algorithms.tabular.sarsa import SARSA as SARSA
    from renshu.algorithms.value_based.dqn import DQN as DQN
    from renshu.algorithms.value_based.pqn import PQN as PQN
    from renshu.algorithms.value_based.qrdqn import QRDQN as QRDQN
    from renshu.algorithms.value_based.r2d2 import R2D2 as R2D2
    from renshu.algorithms.value_based.rainbow import Rainbow as Rainbow
    from renshu.baselines import baseline as baseline
    from renshu.envs.device import DeviceEnv as DeviceEnv
    from renshu.envs.device import Step as Step
    from renshu.envs.examination import check_env as check_env
    from renshu.experiments.experiment import experiment as experiment
    from renshu.experiments.pbt import pbt as pbt
    from renshu.experiments.tune import tune as tune
    from renshu.files.datasets import Dataset as Dataset
    from renshu.loops.cluster_settings import Cluster as Cluster
    from renshu.loops.evaluation import Evaluation as Evaluation
    from renshu.ops.schedules import Cosine as Cosine
    from renshu.ops.schedules import Linear as Linear
    from renshu.ops.schedules import Piecewise as Piecewise
    from renshu.presets import preset as preset

_MODULES = {
    "Agent": "renshu.agent.agent",
    "Algorithm": "renshu.algorithms.base",
    "Cluster": "renshu.loops.cluster_settings",
    "Cosine": "renshu.ops.schedules",
    "Dataset": "renshu.files.datasets",
    "DeviceEnv": "renshu.envs.device",
    "Evaluation": "renshu.loops.evaluation",
    "Learner": "renshu.algorithms.base",
    "Linear": "renshu.ops.schedules",
    "Piecewise": "renshu.ops.schedules",
    "Step": "renshu.envs.device",
    "baseline": "renshu.baselines",
    "check_env": "renshu.envs.examination",
    "experiment": "renshu.experiments.experiment",
    "pbt": "renshu.experiments.pbt",
    "tune": "renshu.experiments.tune",
    "learn_together": "renshu.agent.together",
    "load": "renshu.agent.agent",
    "preset": "renshu.presets",
}
"""Module of each public name; those of the algorithms are in the registry."""

_register_environments()  # renshu/CartPole-v1 and its like, for gymnasium.make


def __dir__() -> list[str]:
    """Public names, those of the algorithms included."""
    return sorted({*globals(), *_MODULES, *_registry.names(), "callbacks", "__version__"})


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: `import renshu` stays cheap."""
    if name == "__version__":
        return _version("renshu")
    if name == "callbacks":
        return importlib.import_module("renshu.agent.callbacks")
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    if name.startswith("_"):
        raise AttributeError(f"module 'renshu' has no attribute {name!r}")
    from renshu.algorithms.migration import name_of_module
    from renshu.errors import UnknownNameError

    if answer := name_of_module(name):
        raise ImportError(answer)  # no AttributeError: `from renshu import NAME` would replace its message
    try:
        return _registry.algorithm(name)
    except UnknownNameError as error:
        raise AttributeError(f"renshu has no {name!r}; {error}") from None
