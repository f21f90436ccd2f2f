"""Evaluation of an agent: whole episodes in environments of their own."""

from __future__ import annotations

import math
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
from renshu.loops.programs import Programs, compiler_options, convolves, single_threaded
from renshu.loops.report import info_columns, info_numbers
from renshu.ops.spaces import stored
from renshu.types import Array, Key, PyTree, TimeStep

CHUNK = 512
"""Steps of an evaluation in one call to the device, at most."""
SUCCESS = "is_success"
"""Key of `info` by which an environment says that an episode reached its goal, as in Stable-Baselines3."""
LIMIT = 10_000
"""Steps after which an episode is cut off in an evaluation, where the environment has no time limit."""
Episode: TypeAlias = tuple[float, int, dict[str, float], bool]
"""Return, length, the numbers of the last step's `info`, and whether it was cut off."""


@dataclass(frozen=True)
class Evaluation:
    """Returns and lengths of whole episodes; prints as `mean ± std`."""

    returns: list[float] = field(repr=False)
    lengths: list[int] = field(repr=False)
    info: Mapping[str, list[float]] = field(default_factory=dict, repr=False)
    """Numbers that environments gave in the `info` of an episode's last step, by name; NaN where one gave none."""
    cut: int = 0
    """Episodes that did not end, in an environment without a time limit; their returns are those until then."""

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
        digits = _digits(self.mean, self.std)
        words = f"{self.mean:.{digits}f} ± {self.std:.{digits}f}"
        words += "" if self.success_rate is None else f", success {self.success_rate:.0%}"
        return (
            words
            if not self.cut
            else f"{words} ({self.cut} of {self.episodes} cut off after {max(self.lengths):,} steps)"
        )

    def __repr__(self) -> str:
        digits = _digits(self.mean, self.std) + 1
        success = "" if self.success_rate is None else f", success_rate={self.success_rate:.2f}"
        cut = f", cut={self.cut}" if self.cut else ""
        numbers = f"mean={self.mean:.{digits}f}, std={self.std:.{digits}f}"
        return f"Evaluation({numbers}, episodes={self.episodes}{success}{cut})"


def _digits(*numbers: float) -> int:
    """Return the decimals that show three digits of the largest number, one at least."""
    largest = max((abs(x) for x in numbers if math.isfinite(x)), default=0.0)
    return 1 if largest >= 10 or largest == 0 else min(2 - math.floor(math.log10(largest)), 6)


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
    limited: bool = True,
) -> Evaluation:
    """Run `episodes` whole episodes, each environment its fixed share, so that short ones are not counted too often.

    limited: the environments have a time limit; in others episodes are cut off after LIMIT steps, and marked.

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
    limit = math.inf if limited else LIMIT
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
        cut = ~ended & (lengths >= limit)
        over = ended & ~first  # who is out stays marked while it waits for others
        over = over if envs.life_lost is None else over & ~envs.life_lost
        for i in np.flatnonzero(over | cut):
            if len(found[i]) < share[i]:
                numbers = {} if cut[i] else info_numbers(envs.infos, int(i))
                found[i].append((float(returns[i]), int(lengths[i]), numbers, bool(cut[i])))
                missing -= 1
            returns[i], lengths[i] = 0.0, 0
        t += 1
    return _evaluation([episode for env in found for episode in env])


def _evaluation(episodes: list[Episode]) -> Evaluation:
    returns, lengths, infos, cut = (list(column) for column in zip(*episodes, strict=True))
    columns = {name: column.tolist() for name, column in info_columns(infos).items()}
    return Evaluation(returns, lengths, columns, sum(cut))


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

        options = compiler_options(learner) | ({} if convolves(learner) else single_threaded())
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
                found[i].append((float(returns[t, i]), int(lengths[t, i]), numbers, False))
            if self.envs.env.max_episode_steps is None:
                self._cut(found, share, ended[-1], returns[-1], lengths[-1])
            if all(len(episodes) >= wanted for episodes, wanted in zip(found, share, strict=True)):
                break
        return _evaluation([one for ended, wanted in zip(found, share, strict=True) for one in ended[:wanted]])

    @staticmethod
    def _cut(found: list[list[Episode]], share: list[int], ended: Array, returns: Array, lengths: Array) -> None:
        """Count running episodes that are longer than LIMIT in the place of all that their environment has to play."""
        for i in np.flatnonzero(~ended & (lengths >= LIMIT)):
            missing = share[i] - len(found[i])
            found[i] += [(float(returns[i]), int(lengths[i]), {}, True)] * missing
