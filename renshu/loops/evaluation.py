"""Evaluation of an agent: whole episodes in environments of their own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import jax
import numpy as np

from renshu.algorithms.base import Learner
from renshu.envs.device import DeviceEnvs
from renshu.envs.gymnasium.vector import HostEnvs
from renshu.errors import NotFiniteError
from renshu.loops.compiled import FAULTS, LoopState, RolloutStats, TrainIteration
from renshu.loops.programs import Programs, compiler_options, single_threaded
from renshu.ops.spaces import stored
from renshu.types import Array, Key, PyTree, TimeStep

CHUNK = 512
"""Steps of an evaluation in one call to the device, at most."""


@dataclass(frozen=True)
class Evaluation:
    """Returns and lengths of whole episodes; prints as `mean ± std`."""

    returns: list[float] = field(repr=False)
    lengths: list[int] = field(repr=False)

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

    def __str__(self) -> str:
        return f"{self.mean:.1f} ± {self.std:.1f}"

    def __repr__(self) -> str:
        return f"Evaluation(mean={self.mean:.2f}, std={self.std:.2f}, episodes={self.episodes})"


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
    found: list[list[tuple[float, int]]] = [[] for _ in range(n)]
    obs, carry = envs.reset(seed), programs.learner.initial_carry(n)
    first, ended = np.ones(n, np.bool_), np.zeros(n, np.bool_)
    returns, lengths = np.zeros(n), np.zeros(n, np.int64)
    missing, t, stream = share.sum(), 0, programs.key_stream(key)
    while missing:
        obs = stored(space, obs)
        chosen = act(actor_state, carry, TimeStep(obs, first), *next(stream))
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
                found[i].append((float(returns[i]), int(lengths[i])))
                missing -= 1
            returns[i], lengths[i] = 0.0, 0
        t += 1
    done = [episode for env in found for episode in env]
    return Evaluation([r for r, _ in done], [length for _, length in done])


class CompiledEvaluation:
    """Evaluation in N environments on the device, many steps per call; made once for each learner and N."""

    def __init__(self, learner: Learner, envs: DeviceEnvs, decode_action: Callable[[Any], Any]) -> None:
        self.envs, train_iteration = envs, TrainIteration(learner, envs, decode_action)
        limit = envs.env.max_episode_steps or CHUNK

        def play(
            actor_state: PyTree, loop_state: LoopState, key: Key, block: Array, explore: bool
        ) -> tuple[LoopState, RolloutStats]:
            keys = jax.random.split(jax.random.fold_in(key, block), min(limit + 1, CHUNK))
            loop_state, _, stats = train_iteration.collect(actor_state, loop_state, keys, explore)
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
        found: list[list[tuple[float, int]]] = [[] for _ in range(n)]
        loop_state = self._start(jax.random.key(np.uint32(seed)))
        for block in count():
            loop_state, stats = self._play(actor_state, loop_state, key, np.int32(block), not deterministic)
            ended, returns, lengths = (np.asarray(x) for x in (stats.ended, stats.returns, stats.lengths))
            for name, bad in zip(FAULTS, np.asarray(stats.faults), strict=True):
                if bad:
                    raise NotFiniteError(f"an {name} of {self.envs.env.name} is NaN or infinite in the evaluation")
            for t, i in np.argwhere(ended):
                found[i].append((float(returns[t, i]), int(lengths[t, i])))
            if all(len(episodes) >= wanted for episodes, wanted in zip(found, share, strict=True)):
                break
        done = [one for ended, wanted in zip(found, share, strict=True) for one in ended[:wanted]]
        return Evaluation([r for r, _ in done], [length for _, length in done])
