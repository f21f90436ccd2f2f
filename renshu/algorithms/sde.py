"""Hyperparameters of exploration by noise that is a function of the state, called gSDE in Stable-Baselines3."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gymnasium import spaces

from renshu.algorithms.hyperparameters import boolean, integer
from renshu.errors import HyperparameterError


@dataclass(frozen=True, kw_only=True)
class StateDependentExploration:
    """Hyperparameters of noise that is a function of the state."""

    use_sde: bool = boolean(False, "explore by noise that is a function of the state (Raffin 2021)")
    sde_sample_freq: int = integer(
        -1, "steps between draws of that function; -1: as many as are collected for one update", least=-1
    )


def sample_freq(config: Any, action_space: spaces.Space, collected: str) -> int:
    """Return the steps between draws of the noise; 0 for algorithms without it, and where it is not asked for.

    collected: name of the hyperparameter that -1 stands for. Raises HyperparameterError where no noise would ever be
    drawn, and for actions that are not continuous.
    """
    name, use, every = type(config).__name__, getattr(config, "use_sde", False), getattr(config, "sde_sample_freq", -1)
    if every == 0:
        raise HyperparameterError(f"{name}: sde_sample_freq=0 draws no noise; give 1 or more, or -1 for {collected}")
    if use and not isinstance(action_space, spaces.Box):
        raise HyperparameterError(
            f"{name}: use_sde is noise on continuous actions; {action_space} has none: leave it out"
        )
    return (getattr(config, collected) if every == -1 else every) if use else 0
