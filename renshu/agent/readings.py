"""Readings of an agent: its parts, and the progress of its training."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from renshu.agent.trainer import Trainer
from renshu.algorithms.base import Algorithm
from renshu.envs.adapt import FittedSpaces
from renshu.types import EnvSpec, PyTree

if TYPE_CHECKING:
    from collections import deque

    from renshu.tracking.run import Run


class Readings:
    """Properties of an agent that are read from its trainer."""

    trainer: Trainer

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute. Raises AttributeError for a hyperparameter: the programs were made by what it was."""
        if name != "trainer" and name in {field.name for field in dataclasses.fields(self.algorithm)}:
            raise AttributeError(
                f"{name} is a hyperparameter, which an agent has from its beginning. To go on with another value, save "
                f"it and load it with that: renshu.load(path, env=..., {name}={value!r}); for one that changes in "
                "training, give a schedule, as renshu.Linear(...)"
            )
        object.__setattr__(self, name, value)

    @property
    def algorithm(self) -> Algorithm:
        """The algorithm with its hyperparameters."""
        return self.trainer.algorithm

    @property
    def spec(self) -> EnvSpec:
        """Description of the environment: spaces, number, limits."""
        return self.trainer.spec

    @property
    def fitted(self) -> FittedSpaces:
        """The environment as the algorithm sees it."""
        return self.trainer.fitted

    @property
    def seed(self) -> int:
        """Root of all randomness."""
        return self.trainer.seed

    @property
    def name(self) -> str:
        """Name of the environment."""
        return self.trainer.name

    @property
    def loop_name(self) -> str | None:
        """The loop that trains, "host", "compiled" or "cluster"; None after loading, until there is an environment."""
        return self.trainer.loop_name

    @property
    def workers(self) -> int:
        """Number of workers of a cluster, 0 in other loops. Set it in a callback: they come or go."""
        return self.trainer.workers

    @workers.setter
    def workers(self, count: int) -> None:
        self.trainer.resize_cluster(count)

    @property
    def title(self) -> str:
        """Algorithm and environment: "ppo CartPole-v1"."""
        return f"{type(self.algorithm).__name__.lower()} {self.name}"

    @property
    def plans(self) -> bool:
        """True where acting looks at the environment's own state, to plan in it."""
        return self.trainer.learner.needs.env_state

    @property
    def steps(self) -> int:
        """Environment steps learned from, over all calls of learn."""
        return self.trainer.steps

    @property
    def state(self) -> Any:
        """The learner's whole state, a pytree of arrays."""
        return self.trainer.state

    @property
    def parameters(self) -> PyTree:
        """The weights, a pytree of arrays. They are replaced, not changed, when the agent learns."""
        return self.trainer.held.params

    @property
    def recent_returns(self) -> deque[float]:
        """Returns of the recent training episodes: those of the last 10,000 steps, at least 20 and at most 100."""
        return self.trainer.recent_returns.values

    @property
    def recent_lengths(self) -> deque[float]:
        """Lengths of the recent training episodes, in steps."""
        return self.trainer.recent_lengths.values

    @property
    def recent_info(self) -> dict[str, deque[float]]:
        """Numbers in the `info` of the last steps of the recent training episodes that gave them, by name."""
        return {name: recent.values for name, recent in self.trainer.recent_info.items()}

    @property
    def run(self) -> Run | None:
        """Run folder of the call of learn that is running, or that a resumed agent goes on with."""
        return self.trainer.run

    @property
    def last_run(self) -> Run | None:
        """Run folder of the latest call of learn that had one."""
        return self.trainer.last_run
