"""The host loop: Gymnasium environments step in Python, acting and learning are compiled programs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from time import perf_counter
from typing import Any

import numpy as np

from renshu.envs.gymnasium.vector import HostEnvs
from renshu.errors import NotFiniteError
from renshu.loops.collector import Collected, Collector
from renshu.loops.programs import Programs
from renshu.loops.report import Episodes, Report
from renshu.types import Array, Key


class HostLoop:
    """Rollouts from Gymnasium environments, each followed by an update.

    state: the learner's; read it back from `.state`. decode_action, seed, env_id: as for a Collector.
    key: the root of all randomness of acting and learning. steps: valid steps so far.
    uninterrupted: a context in which Ctrl-C waits, so that the state is never lost between two updates.
    """

    def __init__(
        self,
        programs: Programs,
        state: Any,
        envs: HostEnvs,
        decode_action: Callable[[Any], Any],
        *,
        key: Key,
        seed: int,
        iteration: int = 0,
        steps: int = 0,
        env_id: Array = (),
        uninterrupted: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        self.programs, self.state, self.key, self.iteration = programs, state, key, iteration
        self.uninterrupted = uninterrupted
        self.collector = Collector(programs, envs, decode_action, seed=seed, env_id=env_id)
        self.clock = self.collector.clock
        self.episodes = Episodes(envs.num_envs, steps)

    def snapshot(self) -> None:
        """Return None: Gymnasium's environments cannot be saved."""

    def advance(self, most_steps: int = 0) -> Report:
        """Collect one rollout and learn from it, whatever `most_steps` asks for.

        Raises NotFiniteError for NaN or infinity in observations, rewards, actions or losses, EnvironmentFault from
        the environments. Nothing was learned then; after a bad loss the rollout's steps count all the same.
        """
        began = perf_counter()
        collected = self.collect()
        tick = perf_counter()
        with self.uninterrupted():
            self.state, vector = self.programs.learn(self.state, collected.rollout, self.keys)
            self.iteration += 1
        vector = np.asarray(vector)
        self.clock.learn += perf_counter() - tick
        steps, finished = self.episodes.add(*collected.of_episodes)
        metrics = learned(self.programs, vector, self.episodes.steps, self.iteration)
        self.clock.total += perf_counter() - began
        return Report(1, steps, metrics, finished)

    def collect(self) -> Collected:
        """Step the environments `needs.steps` times."""
        if self.programs.learner.needs.fresh:
            self.episodes.drop()
        self.keys = self.programs.keys(self.key, self.iteration)
        actor_state = self.programs.learner.actor_state(self.state)
        return self.collector.collect(actor_state, self.keys, self.episodes.steps, self.iteration)

    def begin_anew(self) -> None:
        """Begin an episode in each environment; those that ran are not learned from any further."""
        self.collector.begin_anew()
        self.episodes.drop()


def learned(programs: Programs, vector: Array, steps: int, iteration: int) -> dict[str, float]:
    """Name the numbers that `learn` returned as a vector. Raises NotFiniteError where one is NaN or infinite."""
    metrics = programs.metrics(vector)
    if not np.isfinite(vector).all():
        bad = ", ".join(f"{name} is {value}" for name, value in metrics.items() if not np.isfinite(value))
        raise NotFiniteError(
            f"the update after step {steps} (update {iteration}) went wrong: {bad}. Its result was thrown away and the "
            "parameters are those from before. Often a lower learning_rate, norm_obs=True or norm_reward=True helps"
        )
    return metrics
