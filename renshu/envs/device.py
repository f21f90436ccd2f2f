"""Environments as pure functions: the compiled loop builds its program from them, and the host loop can step them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from renshu.envs.masks import with_mask
from renshu.errors import SpaceError
from renshu.ops.rows import choose
from renshu.types import MASK, OBSERVATION, Array, EnvSpec, Key, PyTree


class Step(NamedTuple):
    """Result of one step of one environment."""

    state: PyTree
    obs: PyTree  # as the observation space describes; at the end of an episode its true last observation
    reward: Array  # [] float32; in games [P], for each player
    terminated: Array  # [] bool    the episode ended for good
    truncated: Array | bool = False  # [] bool    cut off; `max_episode_steps` is counted elsewhere
    info: Mapping[str, Array] = {}  # [] each   numbers to report of an episode's last step, as "is_success"


class DeviceEnv(ABC):
    """A single environment as pure functions of arrays; the library batches and resets it.

    observation_space, action_space: as Gymnasium describes them. max_episode_steps: the time limit, counted by the
    library; None for no limit. reward_threshold: the mean return at which it counts as solved. id: its Gymnasium id.
    players: of a game 2 or more, whose rewards are [P] float32; see `renshu.envs.games.Game`.
    """

    observation_space: spaces.Space
    action_space: spaces.Space
    max_episode_steps: int | None = None
    reward_threshold: float | None = None
    id: str | None = None
    players: int = 1
    renews: bool = False
    """Presence of a `step_or_reset` of its own, for environments in which both cost much and have much in common."""

    @abstractmethod
    def reset(self, key: Key) -> tuple[PyTree, PyTree]:
        """Begin an episode. Returns its state (any pytree of arrays of fixed shape and dtype) and first observation."""

    @abstractmethod
    def step(self, state: PyTree, action: PyTree, key: Key) -> Step:
        """Advance by one action from the action space. Never called on a state whose episode has ended."""

    def step_or_reset(self, state: PyTree, action: PyTree, ended: Array, key_step: Key, key_reset: Key) -> Step:
        """Advance by one action, or begin an episode where the last one has `ended`. Optional."""
        raise NotImplementedError(f"{self.name} has reset and step apart")

    def action_mask(self, state: PyTree) -> Array:
        """Return which of n Discrete actions are allowed in a state: [n] bool. Optional."""
        raise NotImplementedError(f"{self.name} allows all actions at all times")

    @property
    def names_actions(self) -> bool:
        """Presence of an `action_name` of its own."""
        return type(self).action_name is not DeviceEnv.action_name

    @property
    def gives_masks(self) -> bool:
        """Presence of an `action_mask`."""
        return type(self).action_mask is not DeviceEnv.action_mask

    def to_play(self, state: PyTree) -> Array:
        """Return the seat of the player to move in a game: [] int32, from 0."""
        return jnp.int32(0)

    def bare(self, state: PyTree) -> PyTree:
        """Return the part of a state that `model` steps: without what stands around it, as opponents in a game."""
        return state

    @property
    def model(self) -> DeviceEnv:
        """The environment that a learner plans in, whose states `bare` returns."""
        return self

    def action_name(self, action: int) -> str:
        """Name an action as people write it, such as "d3" for a square of a board. Default: its number."""
        return str(action)

    def render(self, state: PyTree) -> np.ndarray:
        """Draw a state as [H, W, 3] uint8, on the host with NumPy. Optional."""
        raise NotImplementedError(f"{self.name} has no picture")

    def text(self, state: PyTree) -> str:
        """Show a state as lines of text, on the host. Optional."""
        raise NotImplementedError(f"{self.name} has no text")

    @property
    def name(self) -> str:
        """Name of the environment in messages."""
        return self.id or type(self).__name__

    def spec(self, num_envs: int) -> EnvSpec:
        """Describe `num_envs` of this environment for a learner."""
        return EnvSpec(
            observation_space=self.observation_space,
            action_space=self.action_space,
            num_envs=num_envs,
            id=self.id,
            max_episode_steps=self.max_episode_steps,
            reward_threshold=self.reward_threshold,
            players=self.players,
            model=self.model,
        )


class MaskedDeviceEnv(DeviceEnv):
    """A DeviceEnv whose observations are {MASK: [n] int8, OBSERVATION: its own}.

    env: has Discrete(n) actions and an `action_mask`. Raises SpaceError when the mask is not of shape [n].
    """

    def __init__(self, env: DeviceEnv) -> None:
        self.env, n = env, int(env.action_space.n)  # type: ignore[attr-defined]
        self.observation_space, self.action_space = with_mask(env.observation_space, n), env.action_space
        self.max_episode_steps, self.reward_threshold, self.id = env.max_episode_steps, env.reward_threshold, env.id
        self.players, self.renews = env.players, env.renews
        mask = jax.eval_shape(lambda key: env.action_mask(env.reset(key)[0]), jax.random.key(0))
        if mask.shape != (n,):
            raise SpaceError(f"action_mask of {env.name} has the shape {mask.shape}; its {n} actions want ({n},)")

    def reset(self, key: Key) -> tuple[PyTree, PyTree]:
        """Begin an episode."""
        state, obs = self.env.reset(key)
        return state, self._joined(state, obs)

    def step(self, state: PyTree, action: PyTree, key: Key) -> Step:
        """Advance by one action."""
        after = self.env.step(state, action, key)
        return after._replace(obs=self._joined(after.state, after.obs))

    def step_or_reset(self, state: PyTree, action: PyTree, ended: Array, key_step: Key, key_reset: Key) -> Step:
        """Advance by one action, or begin an episode."""
        after = self.env.step_or_reset(state, action, ended, key_step, key_reset)
        return after._replace(obs=self._joined(after.state, after.obs))

    def _joined(self, state: PyTree, obs: PyTree) -> dict[str, PyTree]:
        return {MASK: (self.env.action_mask(state) != 0).astype(jnp.int8), OBSERVATION: obs}

    def to_play(self, state: PyTree) -> Array:
        """Return the seat of the player to move."""
        return self.env.to_play(state)

    def bare(self, state: PyTree) -> PyTree:
        """Return the part of a state that `model` steps."""
        return self.env.bare(state)

    @property
    def model(self) -> DeviceEnv:
        """The environment that a learner plans in, with the mask in its observations."""
        return self if self.env.model is self.env else MaskedDeviceEnv(self.env.model)

    @property
    def names_actions(self) -> bool:
        """Presence of names for actions."""
        return self.env.names_actions

    def action_name(self, action: int) -> str:
        """Name an action as people write it."""
        return self.env.action_name(action)

    def render(self, state: PyTree) -> np.ndarray:
        """Draw a state."""
        return self.env.render(state)

    def text(self, state: PyTree) -> str:
        """Show a state as lines of text."""
        return self.env.text(state)

    @property
    def name(self) -> str:
        """Name of the wrapped environment."""
        return self.env.name


_ROOT = np.uint32(2**32 - 1)
"""Folded into the key of a reset, because an actor and a learner may both count from 0 on the same key."""


class EnvsState(NamedTuple):
    """N environments in progress: all that it takes to continue bit for bit."""

    inner: PyTree  # [N, ...]  the environments' own states
    ended: Array  # [N] bool   the last step ended an episode: the next one only resets
    elapsed: Array  # [N] int32  steps of the running episode
    key: Key  # [] the root of their randomness
    count: Array  # [] int32   steps since the first reset


class Outcome(NamedTuple):
    """Result of one step of N environments, by the NEXT_STEP rule of Gymnasium's vector environments."""

    obs: PyTree  # [N, ...]
    reward: Array  # [N] float32, in games [N, P]; 0 where the step only reset
    terminated: Array  # [N] bool
    truncated: Array  # [N] bool
    info: Mapping[str, Array]  # [N] each


class DeviceEnvs:
    """N copies of a DeviceEnv as two pure functions, with time limit and resets by the NEXT_STEP rule.

    episodes: [N] int32, numbers of their episodes: those of one number have the same randomness, and it does not depend
    on what others there are. None: each has its own.
    """

    def __init__(self, env: DeviceEnv, num_envs: int, episodes: Array | None = None) -> None:
        self.env, self.num_envs, self.episodes = env, num_envs, episodes

    def reset(self, key: Key) -> tuple[EnvsState, PyTree]:
        """Begin an episode in each environment. Returns their state and observations [N, ...]."""
        key = jax.random.fold_in(key, _ROOT)
        inner, obs = self._begin(jax.random.fold_in(key, 0))
        n = self.num_envs
        return EnvsState(inner, jnp.zeros(n, jnp.bool_), jnp.zeros(n, jnp.int32), key, jnp.int32(1)), obs

    def step(self, state: EnvsState, action: PyTree) -> tuple[EnvsState, Outcome]:
        """Step every environment by its action [N, ...]; those whose episode has ended begin a new one instead."""
        n, ended = self.num_envs, state.ended
        chance, anew = (self._keys(self._key(state, use)) for use in (1, 0))
        if self.env.renews:
            stepped = jax.vmap(self.env.step_or_reset)(state.inner, action, ended, chance, anew)
            inner, obs = stepped.state, stepped.obs
        else:
            stepped = jax.vmap(self.env.step)(state.inner, action, chance)

            def renew() -> tuple[PyTree, PyTree]:
                new = jax.vmap(self.env.reset)(anew)
                return jax.tree.map(lambda a, b: choose(ended, a, b), new, (stepped.state, stepped.obs))

            inner, obs = jax.lax.cond(ended.any(), renew, lambda: (stepped.state, stepped.obs))
        elapsed = jnp.where(ended, 0, state.elapsed + 1)
        terminated = stepped.terminated & ~ended
        truncated = jnp.broadcast_to(jnp.asarray(stepped.truncated), (n,)) & ~ended
        if self.env.max_episode_steps is not None:
            truncated |= elapsed >= self.env.max_episode_steps
        reward = stepped.reward.astype(jnp.float32)
        reward = choose(ended, jnp.zeros_like(reward), reward)
        after = EnvsState(inner, terminated | truncated, elapsed, state.key, state.count + 1)
        return after, Outcome(obs, reward, terminated, truncated, self._numbers(stepped.info))

    def _numbers(self, info: Mapping[str, Array]) -> dict[str, Array]:
        wrong = [name for name, value in info.items() if jnp.shape(value) != (self.num_envs,)]
        if wrong:
            raise SpaceError(f"{self.env.name}: info[{wrong[0]!r}] of a step must be one number")
        return dict(info)

    def _key(self, state: EnvsState, use: int) -> Key:
        """Return the key of a step for resets (0) or chance (1); made on demand, since many steps need none."""
        return jax.random.fold_in(jax.random.fold_in(state.key, state.count), use)

    def _begin(self, key: Key) -> tuple[PyTree, PyTree]:
        return jax.vmap(self.env.reset)(self._keys(key))

    def _keys(self, key: Key) -> Key:
        if self.episodes is None:
            return jax.random.split(key, self.num_envs)
        return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.asarray(self.episodes))

    def root_later(self, key: Key, resets: Array) -> Key:
        """Return the root key of a state after so many resets of all, by `root_after`. key: that of the state now."""
        again = lambda _, key: jax.random.fold_in(jax.random.fold_in(key, 0), _ROOT)  # noqa: E731
        return jax.lax.fori_loop(0, resets, again, key)

    def root_after(self, state: EnvsState) -> Key:
        """Return the root key of a reset of all after a state, however long the episodes before it were."""
        return jax.random.fold_in(state.key, state.count if self.episodes is None else 0)


def episodes_of(common_seeds: int, num_envs: int, env_id: Array = ()) -> np.ndarray | None:
    """Return numbers of the episodes of environments, [N] int32, one for `common_seeds` neighbours; None: each its own.

    env_id: [N] int32, which of all environments these are; () for all in order.
    """
    ids = np.arange(num_envs, dtype=np.int32) if isinstance(env_id, tuple) else np.asarray(env_id, np.int32)
    return None if common_seeds == 1 else ids // common_seeds
