"""Data sets that others recorded: arrays of steps in a row, and those of Minari."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import numpy as np
from gymnasium import spaces

from renshu.envs.source import EnvSource
from renshu.errors import CheckpointError, SpaceError
from renshu.ops.rollouts import joined
from renshu.ops.spaces import flatten, leaf_spaces, stored
from renshu.types import EnvSpec, PyTree, Rollout

NAMES = {
    "observations": "obs",
    "actions": "action",
    "rewards": "reward",
    "terminals": "terminated",
    "terminations": "terminated",
    "timeouts": "truncated",
    "truncations": "truncated",
    "next_observations": "next_obs",
}
"""Names of the same arrays elsewhere, as in D4RL and Minari."""
REQUIRED = ("obs", "action", "reward", "terminated")
OPTIONAL = ("truncated", "next_obs")
CHUNK_ROWS = 4096
"""Rows that are read of Minari's episodes at a time, at least."""


def from_arrays(
    arrays: Mapping[str, Any],
    env: Any,
    observation_space: spaces.Space | None,
    action_space: spaces.Space | None,
) -> tuple[Rollout, EnvSpec]:
    """Make a rollout of steps in a row, and describe its environment; see `renshu.Dataset.open`.

    Without "next_obs" the last step before a truncation is left out, with a warning, since nothing says where it led.
    """
    given = {NAMES.get(name, name): value for name, value in arrays.items()}
    missing, unknown = [n for n in REQUIRED if n not in given], [n for n in given if n not in REQUIRED + OPTIONAL]
    if missing or unknown:
        raise SpaceError(
            f"a data set of arrays has {', '.join(REQUIRED)} and may have {', '.join(OPTIONAL)}; "
            + (f"missing: {', '.join(missing)}" if missing else f"unknown: {', '.join(unknown)}")
        )
    spec = _spec_of(env, given, observation_space, action_space)
    obs = _checked(spec.observation_space, given["obs"], "obs")
    action = _checked(spec.action_space, given["action"], "action", keep=True)
    reward = np.asarray(given["reward"], np.float32)
    terminated = np.asarray(given["terminated"], np.bool_)
    truncated = np.asarray(given.get("truncated", np.zeros_like(terminated)), np.bool_) & ~terminated
    next_obs = None if "next_obs" not in given else _checked(spec.observation_space, given["next_obs"], "next_obs")
    lengths = {"obs": _length(obs), "action": _length(action)}
    lengths |= {"reward": len(reward), "terminated": len(terminated), "truncated": len(truncated)}
    if (
        len(set(lengths.values())) > 1
        or reward.ndim != 1
        or (next_obs is not None and _length(next_obs) != len(reward))
    ):
        raise SpaceError(f"arrays of a data set are of steps in a row, all [T, ...]; these have {lengths} of them")
    return _rows(obs, action, reward, terminated, truncated, next_obs), spec


def from_minari(name: str) -> tuple[EnvSpec, int, int, list[Callable[[], Rollout]]]:
    """Open one of Minari's data sets that is on this machine: its environment, rows, steps, and parts."""
    try:
        import minari
    except ImportError as error:
        raise CheckpointError(f"minari:{name} is read by Minari: pip install 'renshu[offline]'") from error
    try:
        found = minari.load_dataset(name)
    except (FileNotFoundError, ValueError) as error:
        raise CheckpointError(
            f"Minari has no data set {name!r} on this machine ({error}). Fetch it with: minari download {name}"
        ) from error
    about = found.spec.env_spec
    spec = EnvSpec(found.observation_space, found.action_space, 1)
    if about is not None:
        limits = {"max_episode_steps": about.max_episode_steps, "reward_threshold": about.reward_threshold}
        spec = EnvSpec(found.observation_space, found.action_space, 1, id=about.id, kwargs=about.kwargs, **limits)

    def read(episodes: np.ndarray) -> Rollout:
        return joined([_episode(spec, episode) for episode in found.iterate_episodes(episodes)])

    groups = np.array_split(found.episode_indices, -(-int(found.total_steps) // CHUNK_ROWS))
    parts = [partial(read, group) for group in groups if len(group)]
    steps = int(found.total_steps)
    return spec, steps + int(found.total_episodes), steps, parts


def _episode(spec: EnvSpec, episode: Any) -> Rollout:
    """Make a rollout of one environment of an episode of Minari's, and the step behind it that only resets."""
    steps = len(episode.rewards)
    # The observation after a reset is that of the next episode, which is put in its place.
    obs = jax.tree.map(lambda x: np.concatenate([x, x[:1]]), stored(spec.observation_space, episode.observations))
    first = np.isin(np.arange(steps + 2), (0, steps + 1))
    action = jax.tree.map(lambda x: np.concatenate([x, x[-1:]]), episode.actions)
    reward = np.append(np.asarray(episode.rewards, np.float32), np.float32(0))
    terminated = np.append(np.asarray(episode.terminations, np.bool_), False)
    return jax.tree.map(lambda x: np.asarray(x)[:, None], Rollout(obs, first, action, reward, terminated))


def _rows(
    obs: PyTree, action: PyTree, reward: np.ndarray, terminated: np.ndarray, truncated: np.ndarray, next_obs: PyTree
) -> Rollout:
    """Put a row behind each step that ends an episode, with the observation that it led to."""
    steps, ended = len(reward), terminated | truncated
    if next_obs is None:
        after, known = obs, terminated  # beyond a terminal state nothing is valued: any observation will do
        lost = int(truncated.sum()) + int(not ended[-1])
        if lost:
            warnings.warn(
                f"{lost:,} of {steps:,} steps end an episode early and are left out, because nothing says which "
                'observation they led to: give "next_obs"',
                stacklevel=4,
            )
    else:
        after = next_obs
        # Where the next step begins elsewhere the episode was cut off, though nothing says so.
        pairs = zip(jax.tree.leaves(next_obs), jax.tree.leaves(obs), strict=True)
        same = [(x[:-1] == y[1:]).reshape(steps - 1, -1).all(axis=1) for x, y in pairs]
        ended = ended | ~np.append(np.logical_and.reduce(same), False)
        known = ended
    place = np.arange(steps) + np.cumsum(known) - known
    end = place[known] + 1
    total = steps + int(known.sum())

    def put(values: PyTree, last: PyTree = None) -> PyTree:
        def leaf(x: np.ndarray, y: np.ndarray | None) -> np.ndarray:
            rows = np.zeros((total, *x.shape[1:]), x.dtype)
            rows[place] = x
            if y is not None:
                rows[end] = y[known]
            return rows[:, None]

        return jax.tree.map(leaf, values, values if last is None else last)

    first = put(np.append(True, ended[:-1]), np.zeros(steps, np.bool_))
    nothing = np.zeros_like(reward), np.zeros_like(terminated)
    columns = (put(action), put(reward, nothing[0]), put(terminated, nothing[1]))
    return Rollout(put(obs, after), first, *(jax.tree.map(lambda x: x[:-1], column) for column in columns))


def _spec_of(
    env: Any, arrays: Mapping[str, Any], observation_space: spaces.Space | None, action_space: spaces.Space | None
) -> EnvSpec:
    if env is not None and observation_space is None and action_space is None:
        source = EnvSource.of(env)
        vector = source.evaluation(1)
        try:
            return source.spec(vector, 1)
        finally:
            vector.close()
    obs, action = arrays["obs"], np.asarray(arrays["action"])
    if observation_space is None:
        obs = np.asarray(obs)
        if obs.dtype.kind != "f":
            raise SpaceError(f"the space of {obs.dtype} observations is not known: give observation_space=, or env=")
        observation_space = spaces.Box(-np.inf, np.inf, obs.shape[1:], np.float32)
    if action_space is None:
        if action.dtype.kind not in "iu" or action.ndim != 1:
            raise SpaceError("the bounds of the actions are not known: give action_space=, or env=")
        action_space = spaces.Discrete(int(action.max()) + 1)
    return EnvSpec(observation_space, action_space, 1)


def _checked(space: spaces.Space, values: PyTree, name: str, keep: bool = False) -> PyTree:
    """Return `[T, ...]` arrays of a space in the dtypes that are stored. Raises SpaceError where they are not of it."""
    try:
        kinds, leaves = leaf_spaces(space), [np.asarray(leaf) for leaf in flatten(space, values)]
    except (KeyError, IndexError, TypeError) as error:
        raise SpaceError(f"{name} is not of {space}: {type(error).__name__}: {error}") from error
    for kind, leaf in zip(kinds, leaves, strict=True):
        if leaf.shape[1:] != (kind.shape or ()):
            raise SpaceError(
                f"{name} of {kind} has the shape [T, {', '.join(map(str, kind.shape or ()))}]; this has {leaf.shape}"
            )
        if leaf.dtype.kind == "f" and not np.isfinite(leaf).all():
            raise SpaceError(f"{name} holds NaN or infinity, at step {int(np.argwhere(~np.isfinite(leaf))[0][0])}")
    return jax.tree.map(np.asarray, values) if keep else stored(space, values)


def _length(tree: PyTree) -> int:
    return len(jax.tree.leaves(tree)[0])
