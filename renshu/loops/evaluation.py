"""Evaluation of an agent: whole episodes in environments of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any, TypeAlias

import jax
import numpy as np

from renshu.algorithms.base import Learner
from renshu.envs.device import DeviceEnvs
from renshu.envs.gymnasium.vector import HostEnvs
from renshu.errors import NotFiniteError
from renshu.loops.compiled import FAULTS, LoopState, RolloutStats, TrainIteration
from renshu.loops.programs import Programs, compiler_options, single_threaded
from renshu.loops.report import info_columns, info_numbers
from renshu.ops.spaces import stored
from renshu.types import Array, Key, PyTree, TimeStep

CHUNK = 512
"""Steps of an evaluation in one call to the device, at most."""
SUCCESS = "is_success"
"""Key of `info` by which an environment says that an episode reached its goal, as in Stable-Baselines3."""
Episode: TypeAlias = tuple[float, int, dict[str, float]]
"""Return, length, and the numbers of the last step's `info`."""


@dataclass(frozen=True)
class Evaluation:
    """Returns and lengths of whole episodes; prints as `mean ± std`."""

    returns: list[float] = field(repr=False)
    lengths: list[int] = field(repr=False)
    info: Mapping[str, list[float]] = field(default_factory=dict, repr=False)
    """Numbers that environments gave in the `info` of an episode's last step, by name; NaN where one gave none."""

    @property
    def mean(self) -> float:
        """Mean return."""
        return float(np.mean(self.returns))

    @property
    def std(self) -> float:
        """Standard deviation of the returns over the episodes."""
        return float(np.std(self.returns))

    @property
    def episodes(self) -> int:
        """Number of episodes."""
        return len(self.returns)

    @property
    def success_rate(self) -> float | None:
        """Share of episodes with `is_success` in the `info` of their last step; None where no environment gives it."""
        return float(np.nanmean(self.info[SUCCESS])) if SUCCESS in self.info else None

    def __str__(self) -> str:
        words = f"{self.mean:.1f} ± {self.std:.1f}"
        return words if self.success_rate is None else f"{words}, success {self.success_rate:.0%}"

    def __repr__(self) -> str:
        success = "" if self.success_rate is None else f", success_rate={self.success_rate:.2f}"
        return f"Evaluation(mean={self.mean:.2f}, std={self.std:.2f}, episodes={self.episodes}{success})"


def evaluate(
    programs: Programs,
    actor_state: PyTree,
    envs: HostEnvs,
    decode_action: Callable[[Any], Any],
    *,
    episodes: int,
    deterministic: bool,
    seed: int,
    key: Key,
) -> Evaluation:
    """Run `episodes` whole episodes, each environment its fixed share, so that short ones are not counted too often.

    Raises NotFiniteError for NaN or infinity in a reward or an action (and so in an observation that leads to one).
    """
    n, space = envs.num_envs, envs.single_observation_space
    act = programs.act_greedy if deterministic else programs.act
    share = np.array([episodes // n + (i < episodes % n) for i in range(n)])
    found: list[list[Episode]] = [[] for _ in range(n)]
    obs, carry = envs.reset(seed), programs.learner.initial_carry(n)
    first, ended = np.ones(n, np.bool_), np.zeros(n, np.bool_)
    returns, lengths = np.zeros(n), np.zeros(n, np.int64)
    missing, t, stream = share.sum(), 0, programs.key_stream(key)
    while missing:
        obs = stored(space, obs)
        env_state = envs.state if programs.learner.needs.env_state else ()
        chosen = act(actor_state, carry, TimeStep(obs, first, env_state=env_state), *next(stream))
        action, carry = np.asarray(chosen.action), chosen.carry
        if action.dtype.kind == "f" and not np.isfinite(action).all():
            raise NotFiniteError(f"an action is NaN or infinite in step {t} of the evaluation; observation: {obs}")
        obs, reward, terminated, truncated = envs.step(decode_action(action))
        if not np.isfinite(reward).all():
            bad = int(np.argmin(np.isfinite(reward)))
            raise NotFiniteError(f"environment {bad} ({envs.name}) gave a reward of {reward[bad]} in step {t}")
        returns += np.where(ended, 0.0, reward)
        lengths += ~ended
        first, ended = ended, np.logical_or(terminated, truncated)
        for i in np.flatnonzero(ended):
            if len(found[i]) < share[i]:
                found[i].append((float(returns[i]), int(lengths[i]), info_numbers(envs.infos, int(i))))
                missing -= 1
            returns[i], lengths[i] = 0.0, 0
        t += 1
    return _evaluation([episode for env in found for episode in env])


def _evaluation(episodes: list[Episode]) -> Evaluation:
    returns, lengths, infos = (list(column) for column in zip(*episodes, strict=True))
    return Evaluation(returns, lengths, {name: column.tolist() for name, column in info_columns(infos).items()})


class CompiledEvaluation:
    """Evaluation in N environments on the device, many steps per call; made once for each learner and N."""

    def __init__(self, learner: Learner, envs: DeviceEnvs, decode_action: Callable[[Any], Any]) -> None:
        self.envs, train_iteration = envs, TrainIteration(learner, envs, decode_action)
        limit = envs.env.max_episode_steps or CHUNK

        def play(
            actor_state: PyTree, loop_state: LoopState, key: Key, block: Array, explore: bool
        ) -> tuple[LoopState, RolloutStats]:
            keys = jax.random.split(jax.random.fold_in(key, block), min(limit + 1, CHUNK))
            loop_state, _, stats = train_iteration.collect(actor_state, loop_state, keys, explore, fresh=False)
            return loop_state, stats

        options = compiler_options() | single_threaded()
        self._start = jax.jit(train_iteration.start)
        self._play = jax.jit(play, static_argnums=4, compiler_options=options)

    def __call__(self, actor_state: PyTree, *, episodes: int, deterministic: bool, seed: int, key: Key) -> Evaluation:
        """Run `episodes` whole episodes, each environment its fixed share, as `evaluate` does.

        Raises NotFiniteError for NaN or infinity in an observation, a reward or an action.
        """
        n = self.envs.num_envs
        share = [episodes // n + (i < episodes % n) for i in range(n)]
        found: list[list[Episode]] = [[] for _ in range(n)]
        loop_state = self._start(jax.random.key(np.uint32(seed)))
        for block in count():
            loop_state, stats = self._play(actor_state, loop_state, key, np.int32(block), not deterministic)
            ended, returns, lengths = (np.asarray(x) for x in (stats.ended, stats.returns, stats.lengths))
            for name, bad in zip(FAULTS, np.asarray(stats.faults), strict=True):
                if bad:
                    raise NotFiniteError(f"an {name} of {self.envs.env.name} is NaN or infinite in the evaluation")
            info = {name: np.asarray(x) for name, x in stats.info.items()}
            for t, i in np.argwhere(ended):
                numbers = {name: float(x[t, i]) for name, x in info.items()}
                found[i].append((float(returns[t, i]), int(lengths[t, i]), numbers))
            if all(len(episodes) >= wanted for episodes, wanted in zip(found, share, strict=True)):
                break
        return _evaluation([one for ended, wanted in zip(found, share, strict=True) for one in ended[:wanted]])
