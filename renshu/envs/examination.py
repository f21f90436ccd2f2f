"""Examination of an environment before training: what Gymnasium asks of it, and what training needs beyond."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env as gymnasium_check

from renshu.envs.checks import CheckedEnv
from renshu.envs.source import EnvSource
from renshu.errors import EnvironmentFault, HyperparameterError
from renshu.ops.spaces import flatten, leaf_spaces

STEPS = 1000
"""Random steps that are looked at."""
LARGE = 30.0
"""Size of observations and rewards above which networks learn slowly."""


@dataclass(frozen=True)
class Finding:
    """A finding: "error" (training will fail or learn something else), "warning" (it may), or "fine"."""

    level: str
    text: str


@dataclass(frozen=True)
class Examination:
    """Findings on an environment; prints as lines, the worst first."""

    name: str
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Absence of errors."""
        return all(finding.level != "error" for finding in self.findings)

    def __str__(self) -> str:
        order = ("error", "warning", "fine")
        lines = sorted(self.findings, key=lambda finding: order.index(finding.level))
        return "\n".join([self.name, *(f"  {finding.level:<8} {finding.text}" for finding in lines)])


def check_env(env: Any, *, steps: int = STEPS, seed: int = 0, **kwargs: Any) -> Examination:
    """Examine an environment by Gymnasium's checker and by random steps.

    env: as for an Agent. kwargs: arguments to make it with. Looked at are faults, NaN, bounds and scale of observations
    and rewards, ends of episodes, whether a seed repeats them, and speed; one that raises or returns nonsense is an
    error, with which the examination ends. Raises SpaceError or EnvironmentFault where it cannot be made,
    HyperparameterError for `steps` below 1.
    """
    if steps < 1:
        raise HyperparameterError(f"steps={steps}: expected at least 1")
    source = EnvSource.of(env, kwargs)
    findings = _by_gymnasium(source)
    try:
        played, again = (_played(source, steps, seed) for _ in range(2))
    except EnvironmentFault as error:
        return Examination(source.name, (*findings, Finding("error", str(error))))
    findings += [*_of_observations(played), *_of_rewards(played), *_of_episodes(played, source), *_of_actions(played)]
    same = all(np.array_equal(a, b, equal_nan=True) for a, b in zip(played.columns, again.columns, strict=True))
    findings.append(
        Finding("fine", "the same seed and actions give the same episodes")
        if same
        else Finding("warning", "the same seed and actions give other episodes: draw all chance from self.np_random")
    )
    rate = steps / played.seconds
    advice = "" if rate > 10_000 else "; several in processes of their own (num_envs=8, processes=True) are faster"
    findings.append(Finding("fine", f"{rate:,.0f} steps a second{advice}"))
    return Examination(source.name, tuple(findings))


@dataclass(frozen=True)
class _Played:
    """Random steps: observations leaf by leaf, rewards, ends."""

    space: spaces.Space
    action_space: spaces.Space
    observations: list[np.ndarray]
    rewards: np.ndarray
    lengths: list[int]
    truncated: int
    seconds: float

    @property
    def columns(self) -> list[np.ndarray]:
        return [*self.observations, self.rewards]


def _by_gymnasium(source: EnvSource) -> list[Finding]:
    env = source.single()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            gymnasium_check(env.unwrapped, skip_render_check=True)
            found = [Finding("fine", "Gymnasium's own checker finds no fault")]
        except Exception as error:  # it asserts, and raises whatever the environment does
            found = [Finding("error", f"Gymnasium's own checker: {error}")]
        finally:
            env.close()
    # Its advice on scales stands below in other words.
    texts = {str(one.message).replace("\x1b[33mWARN: ", "").replace("\x1b[0m", "") for one in told}
    return found + [Finding("warning", f"Gymnasium's own checker: {text}") for text in sorted(texts)]


def _played(source: EnvSource, steps: int, seed: int) -> _Played:
    env = CheckedEnv(source.single(), 0, source.name)
    try:
        return _random_steps(env, steps, seed)
    finally:
        env.close()


def _random_steps(env: gymnasium.Env, steps: int, seed: int) -> _Played:
    space, action_space = env.observation_space, env.action_space
    action_space.seed(seed)
    obs, info = env.reset(seed=seed)
    rows, rewards, lengths, truncated, length = [flatten(space, obs)], [], [], 0, 0
    began = time.perf_counter()
    for _ in range(steps):
        mask = info.get("action_mask") if isinstance(action_space, spaces.Discrete) else None
        action = action_space.sample() if mask is None else action_space.sample(np.asarray(mask, np.int8))
        obs, reward, terminated, cut, info = env.step(action)
        rows.append(flatten(space, obs))
        rewards.append(float(reward))
        length += 1
        if terminated or cut:
            lengths.append(length)
            truncated += bool(cut)
            length = 0
            obs, info = env.reset()
            rows.append(flatten(space, obs))
    seconds = time.perf_counter() - began
    leaves = [np.stack([np.asarray(row[i]) for row in rows]) for i in range(len(rows[0]))]
    return _Played(space, action_space, leaves, np.array(rewards), lengths, truncated, seconds)


def _of_observations(played: _Played) -> list[Finding]:
    found = []
    for leaf, values in zip(leaf_spaces(played.space), played.observations, strict=True):
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            found.append(Finding("error", f"observations of {leaf} hold NaN or infinity"))
        elif not isinstance(leaf, spaces.Box):
            continue
        elif (values < leaf.low).any() or (values > leaf.high).any():
            text = f"observations from {values.min():g} to {values.max():g} lie outside of {leaf}: widen its bounds"
            found.append(Finding("error", text))
        elif leaf.dtype != np.uint8 and np.abs(values).max() > LARGE:
            text = f"observations reach {np.abs(values).max():,.0f}: norm_obs=True, or scale them to about 1"
            found.append(Finding("warning", text))
    return found or [Finding("fine", "observations are within their space, and of a size that networks learn from")]


def _of_rewards(played: _Played) -> list[Finding]:
    rewards = played.rewards
    if not np.isfinite(rewards).all():
        return [Finding("error", "rewards hold NaN or infinity")]
    if np.abs(rewards).max() > LARGE:
        return [Finding("warning", f"rewards reach {np.abs(rewards).max():,.0f}: norm_reward=True, or scale them")]
    if not rewards.any():
        return [Finding("warning", f"no reward in {len(rewards):,} random steps: exploration has to find a first one")]
    return [Finding("fine", f"rewards from {rewards.min():g} to {rewards.max():g}")]


def _of_episodes(played: _Played, source: EnvSource) -> list[Finding]:
    count = len(played.lengths)
    if count:
        mean = np.mean(played.lengths)
        return [Finding("fine", f"random episodes take {mean:,.0f} steps, {played.truncated} of {count} cut off")]
    none = f"no episode ended in {len(played.rewards):,} random steps"
    limit = source.gym_spec.max_episode_steps if source.gym_spec else source.limit
    if limit:
        return [Finding("fine", f"{none}; the time limit is {limit:,}")]
    return [Finding("warning", f"{none}, and there is no time limit: max_episode_steps= sets one")]


def _of_actions(played: _Played) -> list[Finding]:
    space = played.action_space
    if isinstance(space, spaces.Box) and not (space.bounded_above & space.bounded_below).all():
        return [Finding("warning", f"actions of {space} have no bounds: give them some, best -1 and 1")]
    if not isinstance(space, spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
        return [Finding("error", f"actions of {space}: make them a Box, Discrete, MultiDiscrete or MultiBinary")]
    return []
