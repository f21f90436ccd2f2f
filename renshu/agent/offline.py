"""The backend of the offline loop: a data set in the place of environments."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from renshu.agent.backends import CompiledBackend, HostBackend, make_backend
from renshu.algorithms.base import Algorithm, Learner
from renshu.envs.source import EnvSource
from renshu.errors import HyperparameterError, SpaceError
from renshu.files.datasets import Dataset, source_of
from renshu.loops.evaluation import Evaluation
from renshu.loops.offline import OfflineLoop
from renshu.loops.programs import Programs
from renshu.ops.spaces import same_structure
from renshu.types import EnvSpec, PyTree


class OfflineBackend:
    """A data set to learn from; environments are made for evaluation alone.

    Raises HyperparameterError for options of environments that a data set does not have.
    """

    loop_name = "offline"
    processes = False

    def __init__(
        self, dataset: Dataset, num_envs: int | None = None, *, loop: str | None, processes: bool, timeout: float
    ) -> None:
        self.dataset, self.timeout = dataset, timeout
        self.num_envs = dataset.spec.num_envs
        if loop not in (None, "offline"):
            raise HyperparameterError(f'loop={loop!r}: a data set is for the loop "offline"; leave loop= out')
        if processes or num_envs not in (None, self.num_envs):
            raise HyperparameterError(
                f"a data set has no environments to step: leave num_envs= and processes= out ({dataset.name} holds "
                f"steps of {self.num_envs})"
            )
        self._masks: bool | None = None
        self._played: HostBackend | CompiledBackend | None = None

    @property
    def name(self) -> str:
        """Name of the environment, or of the data set where that is not known."""
        source = source_of(self.dataset)
        return self.dataset.name if source is None else source.name

    @property
    def source(self) -> EnvSource:
        """The environment that the data are of. Raises SpaceError where nothing says how to make it."""
        source = source_of(self.dataset)
        if source is None:
            raise SpaceError(
                f"nothing says how to make the environment that {self.dataset.name} is of: name it, as in "
                "Dataset.open(..., env=MyEnv) or evaluate(env=MyEnv)"
            )
        return source.with_masks(self._masks)

    def use_masks(self, masks: bool) -> None:
        """Let environments give masks, or not."""
        self._masks = masks

    def spec(self) -> EnvSpec:
        """Describe the environments for a learner."""
        return self.dataset.spec

    probe_spec = spec

    def sized(self, algorithm: Algorithm) -> Algorithm:
        """Fit an algorithm to the data: a memory no larger than they are, nothing about collecting.

        Raises HyperparameterError for an algorithm that cannot learn from them.
        """
        name = type(algorithm).__name__
        from renshu.algorithms.replay_learner import ReplayAlgorithm

        if not isinstance(algorithm, ReplayAlgorithm):
            raise HyperparameterError(
                f"{name} learns from experience of its own and cannot learn from a data set: take an algorithm that "
                "learns from replay, as DQN, SAC or TD3"
            )
        if algorithm.elite_episodes:
            raise HyperparameterError(
                f"{name}: elite_episodes=True chooses among episodes as they end; choose those of a data set before"
            )
        if algorithm.buffer_size < self.num_envs:
            raise HyperparameterError(
                f"{name}: buffer_size={algorithm.buffer_size} has no room for {self.num_envs} steps"
            )
        rows = min(self.dataset.rows, algorithm.buffer_size // self.num_envs)
        # A memory needs a row more than the steps that are summed up or stacked.
        size = max(rows, algorithm.n_steps, 2) * self.num_envs
        return dataclasses.replace(
            algorithm,
            buffer_size=size,
            batch_size=min(algorithm.batch_size, size),
            learning_starts=0,
            train_freq=1,
            gradient_steps=1,
        )

    def check(self, learner: Learner) -> None:
        """Raise HyperparameterError where a learner wants newer experience, or what only acting gives."""
        if learner.needs.max_lag is not None:
            raise HyperparameterError(
                f"{type(learner.config).__name__} learns from experience that is no more than {learner.needs.max_lag} "
                "updates old, and that of a data set may be of any age"
            )
        memory = jax.eval_shape(learner.init, jax.random.key(0)).memory
        if jax.tree.leaves((memory.ring.extras, memory.ring.carry)) or getattr(learner, "judges_at_once", False):
            raise HyperparameterError(
                f"{type(learner.config).__name__} learns from what it recorded as it acted, which no data set holds"
            )

    def make_loop(
        self,
        programs: Programs,
        state: Any,
        decode_action: Callable,
        *,
        encode_action: Callable,
        snapshot: PyTree = None,
        **options: Any,
    ) -> OfflineLoop:
        """Make a loop whose memory the data fill, or one that goes on from a `snapshot`."""
        from renshu.algorithms.replay_learner import ReplayLearner

        assert isinstance(programs.learner, ReplayLearner)
        data, room = self.dataset, programs.learner.replay.rows
        read = data.chunks, data.shuffled
        return OfflineLoop(programs, state, *read, data.rows, room, encode_action, snapshot=snapshot, **options)

    def evaluate(self, *args: Any, **options: Any) -> Evaluation:
        """Run whole episodes in the environment that the data are of; see `HostBackend.evaluate`."""
        if self._played is None:
            played = make_backend(self.source, None, loop=None, processes=False, timeout=self.timeout)
            ours, theirs = self.dataset.spec, played.spec()
            pairs = (ours.observation_space, theirs.observation_space), (ours.action_space, theirs.action_space)
            if not all(same_structure(a, b) for a, b in pairs):
                played.close_own()
                raise SpaceError(
                    f"{self.dataset.name} is of observations {ours.observation_space} and actions {ours.action_space}; "
                    f"{played.source.name} has {theirs.observation_space} and {theirs.action_space}"
                )
            self._played = played
        return self._played.evaluate(*args, **options)

    def close_training(self) -> None:
        """Do nothing: no environment trains."""

    def close(self) -> None:
        """Close what was made for evaluation."""
        if self._played is not None:
            self._played.close_own()
            self._played = None

    close_own = close
