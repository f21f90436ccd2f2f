"""Tuned hyperparameters for known environments, as data: one TOML file per algorithm, one table per environment.

Besides hyperparameters, a table holds `num_envs` (if the algorithm does not set it) and `total_steps`, and may hold
options of `on(...)`: `bins`, `frame_stack` and `masks`.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from importlib import resources
from typing import TYPE_CHECKING, Any

from renshu.algorithms.registry import algorithm as by_name
from renshu.errors import UnknownNameError

if TYPE_CHECKING:
    from renshu.algorithms.base import Algorithm


ATARI = "atari"
"""Name of the presets for all Atari games."""
CONSOLE = "retro"
"""Name of the presets for all console games."""
GROUPS = (ATARI, CONSOLE)
"""Names that stand for many environments."""
OPTIONS = ("bins", "frame_stack", "masks")
"""Options of `on(...)` that a preset may hold."""


@dataclass(frozen=True)
class Preset:
    """Hyperparameters that are known to solve an environment, with the number of environments and steps they take.

    options: further ones of `on(...)`, as `algorithm.on(environment, num_envs=num_envs, **options)`.
    """

    algorithm: Algorithm
    environment: str
    num_envs: int
    total_steps: int
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def asked_envs(self) -> int | None:
        """Environments to ask for; None where the algorithm sets their number by itself."""
        return self.num_envs if self.algorithm.default_num_envs == 1 else None


def presets() -> dict[str, dict[str, dict[str, Any]]]:
    """Return all presets as plain data: `{"ppo": {"CartPole-v1": {...}}}`."""
    found = {}
    for file in sorted(resources.files(__name__).iterdir(), key=lambda file: file.name):
        if file.name.endswith(".toml"):
            found[file.name.removesuffix(".toml")] = tomllib.loads(file.read_text(encoding="utf-8"))
    return found


def preset_name(algorithm: str, environment: str) -> str | None:
    """Return the name of an environment's preset, or None.

    It is its own, Gymnasium's for an equal one of Renshu's, that of gymnax for a name without "gymnax/" before it, or
    that of all Atari or all console games.
    """
    known = presets().get(algorithm.lower(), {})
    names = [environment, environment.removeprefix("renshu/"), f"gymnax/{environment}"]
    names += [ATARI] if environment.startswith("ALE/") or "NoFrameskip" in environment else []
    names += [CONSOLE] if environment.startswith("retro/") else []
    return next((name for name in names if name in known), None)


def preset(algorithm: str, environment: str, **overrides: Any) -> Preset:
    """Return the preset of an algorithm for an environment; `overrides` replace single hyperparameters.

    Raises UnknownNameError listing the environments that have one.
    """
    kind = by_name(algorithm)
    known = presets().get(algorithm.lower(), {})
    name = preset_name(algorithm, environment)
    if name is None:
        raise UnknownNameError(
            f"there is no preset of {kind.__name__} for {environment!r}. There are: {', '.join(known) or 'none'}"
        )
    data = dict(known[name])
    num_envs, total_steps = data.pop("num_envs", None), data.pop("total_steps")
    options = {option: data.pop(option) for option in OPTIONS if option in data}
    made = kind.from_json(data, **overrides)
    return Preset(made, environment, num_envs or made.default_num_envs, total_steps, options)
