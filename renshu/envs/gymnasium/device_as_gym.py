"""DeviceEnvs behind Gymnasium's interfaces: one as a `gymnasium.Env`, many as a `gymnasium.vector.VectorEnv`."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import gymnasium
import jax
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from renshu.envs.device import DeviceEnv, DeviceEnvs, EnvsState, Outcome, Step, episodes_of
from renshu.envs.gymnasium.registration import device_env, with_limit
from renshu.envs.seats import seat
from renshu.errors import EnvironmentFault, HyperparameterError, UnknownNameError
from renshu.types import MASK, Array, Key, PyTree

FPS = 30
"""Frames per second of windows and recordings."""


class GymEnv(gymnasium.Env):
    """One DeviceEnv as a Gymnasium environment.

    env: the DeviceEnv; a game gets opponents that move at random. render_mode: None, "rgb_array", "ansi" (text) or
    "human" (a window), if it supports that.
    time_limit: True counts `max_episode_steps` here; False leaves it to the TimeLimit that `gymnasium.make` adds.
    Attributes: env, and state, the environment's own pytree (None before the first reset).
    Raises HyperparameterError for an unsupported render_mode, EnvironmentFault for "human" without pygame.
    """

    def __init__(self, env: DeviceEnv, render_mode: str | None = None, time_limit: bool = False) -> None:
        self.env = env = seat(env)
        self._limit = env.max_episode_steps if time_limit else None
        self.observation_space, self.action_space = env.observation_space, env.action_space
        self.metadata = {"render_modes": _render_modes(env), "render_fps": FPS}
        self.render_mode = _checked(render_mode, env, self.metadata["render_modes"])
        self.state: PyTree = None
        self._key: Key | None = None
        self._count = 0
        self._ended = False
        self._window: _Window | None = None
        if isinstance(self.action_space, spaces.Discrete) and env.names_actions:
            names = [env.action_name(action) for action in range(int(self.action_space.n))]
            self.get_action_meanings = lambda: names
        shapes = jax.tree.map(np.shape, self.action_space.sample())

        def reset(key: Key) -> tuple[PyTree, PyTree, PyTree]:
            state, obs = env.reset(jax.random.fold_in(key, 0))
            return state, obs, _info(env, state)

        def step(state: PyTree, action: PyTree, key: Key, count: Array) -> tuple[Step, PyTree]:
            _check_actions(env.name, action, shapes)
            done = env.step(state, action, jax.random.fold_in(key, count))
            return done, {**done.info, **_info(env, done.state)}

        self._reset = jax.jit(reset)
        self._step = jax.jit(step)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[PyTree, dict]:
        """Begin an episode. seed: None continues with the current randomness. Options are ignored.

        Returns the observation, as NumPy arrays that belong to the caller, and {}, or the mask [n] bool of an
        environment that has an `action_mask`.
        """
        super().reset(seed=seed)
        if seed is not None or self._key is None:
            self._key = _key(self, seed)
        else:
            self._key = jax.random.fold_in(self._key, self._count)
        self.state, obs, info = self._reset(self._key)
        self._count, self._ended = 1, False
        if self.render_mode == "human":
            self.render()
        return _single(self.observation_space, obs), _owned(info)

    def step(self, action: PyTree) -> tuple[PyTree, float, bool, bool, dict]:
        """Advance by one action. Returns observation, reward, terminated, truncated, info, as in Gymnasium.

        Raises EnvironmentFault before the first reset, after the end of an episode, and for actions of another shape.
        """
        if self.state is None or self._ended:
            when = "after its episode has ended" if self._ended else "before the first reset"
            raise EnvironmentFault(f"{self.env.name} was stepped {when}: call reset before step")
        action = _arrays(self.action_space, action)
        done, info = self._step(self.state, action, self._key, self._count)
        terminated = bool(done.terminated)
        truncated = bool(done.truncated) or self._count == self._limit
        self.state, self._count, self._ended = done.state, self._count + 1, terminated or truncated
        if self.render_mode == "human":
            self.render()
        # NaN stands for numbers that are of other episodes, as the return in the other seat of a game.
        known = {name: value for name, value in _owned(info).items() if not np.isnan(value).all()}
        return _single(self.observation_space, done.obs), float(done.reward), terminated, truncated, known

    def render(self) -> Any:
        """Render as [H, W, 3] uint8 ("rgb_array"), as text ("ansi"), in a window ("human"), or not at all (None).

        Raises EnvironmentFault before the first reset.
        """
        if self.render_mode is None:
            return None
        if self.state is None:
            raise EnvironmentFault(f"{self.env.name} was rendered before the first reset: call reset before render")
        picture = _picture(self.env, self.render_mode, jax.device_get(self.state))
        if self.render_mode != "human":
            return picture
        self._window = self._window or _Window(self.env.name, picture)
        self._window.show(picture)

    def close(self) -> None:
        """Close the window, if there is one."""
        if self._window is not None:
            self._window.close()
            self._window = None


class GymVectorEnv(VectorEnv):
    """DeviceEnvs behind Gymnasium's vector interface, with their time limit and their resets (NEXT_STEP).

    env: the DeviceEnv. num_envs: number of environments, N. render_mode: None, "rgb_array" or "ansi", if supported.
    Attributes: env, and state, the EnvsState (None before the first reset), which may be set to continue from there.
    Raises HyperparameterError when num_envs is below 1, or for an unsupported render_mode.
    """

    def __init__(self, env: DeviceEnv, num_envs: int = 1, render_mode: str | None = None) -> None:
        if num_envs < 1:
            raise HyperparameterError(f"num_envs={num_envs}: expected at least 1")
        self.env, self.num_envs = (env := seat(env)), num_envs
        self.single_observation_space, self.single_action_space = env.observation_space, env.action_space
        self.observation_space = batch_space(env.observation_space, num_envs)
        self.action_space = batch_space(env.action_space, num_envs)
        modes = [mode for mode in _render_modes(env) if mode != "human"]
        self.metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP, "render_modes": modes, "render_fps": FPS}
        self.render_mode = _checked(render_mode, env, modes)
        self.state: EnvsState | None = None
        self._common_seeds = 1
        self._compile(DeviceEnvs(env, num_envs))

    @property
    def common_seeds(self) -> int:
        """So many neighbours have the same randomness. It may be set, as loops do for a learner; that compiles anew."""
        return self._common_seeds

    @common_seeds.setter
    def common_seeds(self, common_seeds: int) -> None:
        if common_seeds != self._common_seeds:
            self._common_seeds = common_seeds
            self._compile(DeviceEnvs(self.env, self.num_envs, episodes_of(common_seeds, self.num_envs)))

    def _compile(self, envs: DeviceEnvs) -> None:
        self._envs, env, num_envs = envs, self.env, self.num_envs
        shapes = jax.tree.map(np.shape, self.action_space.sample())

        def infos(state: EnvsState) -> PyTree:
            # Mapped over numbers too, because a state may hold no array at all.
            return jax.vmap(lambda state, _: _info(env, state))(state.inner, np.arange(num_envs))

        def reset(key: Key) -> tuple[EnvsState, PyTree, PyTree]:
            state, obs = envs.reset(key)
            return state, obs, infos(state)

        def step(state: EnvsState, action: PyTree) -> tuple[EnvsState, Outcome, PyTree]:
            _check_actions(f"{num_envs} {env.name}", action, shapes)
            state, outcome = envs.step(state, action)
            return state, outcome, {**outcome.info, **infos(state)}

        self._reset, self._step = jax.jit(reset), jax.jit(step)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[PyTree, dict]:
        """Begin an episode in each environment. Options are ignored.

        seed: an int gives what `DeviceEnvs.reset(jax.random.key(seed))` gives; None continues with the current
        randomness. Returns observations [N, ...], as NumPy arrays that belong to the caller, and {}, or masks [N, n]
        bool.
        """
        super().reset(seed=seed)
        key = _key(self, seed) if seed is not None or self.state is None else self._envs.root_after(self.state)
        self.state, obs, infos = self._reset(key)
        return _arrays(self.observation_space, obs), _owned(infos)

    def step(self, actions: PyTree) -> tuple[PyTree, np.ndarray, np.ndarray, np.ndarray, dict]:
        """Step each environment by its action [N, ...]; one whose episode has ended begins a new one instead.

        Returns observations [N, ...], rewards [N] float32, terminated and truncated [N] bool, all NumPy arrays that
        belong to the caller, and infos as from reset. Raises EnvironmentFault before the first reset and for actions of
        another shape.
        """
        if self.state is None:
            raise EnvironmentFault(f"{self.env.name} was stepped before the first reset: call reset before step")
        self.state, outcome, infos = self._step(self.state, _arrays(self.action_space, actions))
        flags = (np.array(outcome.terminated), np.array(outcome.truncated))
        return _arrays(self.observation_space, outcome.obs), np.array(outcome.reward), *flags, _owned(infos)

    def render(self) -> tuple[Any, ...] | None:
        """Render each environment as [H, W, 3] uint8 ("rgb_array") or as text ("ansi"); None without a render_mode.

        Raises EnvironmentFault before the first reset.
        """
        mode = self.render_mode
        if mode is None:
            return None
        if self.state is None:
            raise EnvironmentFault(f"{self.env.name} was rendered before the first reset: call reset before render")
        inner = jax.device_get(self.state.inner)
        each = (jax.tree.map(lambda x, i=i: x[i, ...], inner) for i in range(self.num_envs))
        return tuple(_picture(self.env, mode, state) for state in each)


def make(device_env: str, render_mode: str | None = None, **fields: Any) -> GymEnv:
    """Make one of Renshu's environments for `gymnasium.make`. device_env: its id. fields: of its class.

    A game becomes an environment for one player, by `opponent` among the fields: a name or a function, see
    `renshu.envs.seats.as_player`; one that moves at random where none is given.

    Raises UnknownNameError for another id, HyperparameterError for an argument that is not a field.
    """
    return GymEnv(_found(device_env, fields), render_mode)


def make_vec(
    device_env: str,
    num_envs: int = 1,
    render_mode: str | None = None,
    max_episode_steps: int | None = None,
    **fields: Any,
) -> GymVectorEnv:
    """Make several of Renshu's environments for `gymnasium.make_vec`: as `make`, but the time limit is counted here.

    max_episode_steps: None for the environment's own limit, -1 for none.
    """
    return GymVectorEnv(with_limit(_found(device_env, fields), max_episode_steps), num_envs, render_mode)


class _Window:
    """A window that shows pictures [H, W, 3] uint8 of one size, no faster than FPS."""

    def __init__(self, title: str, picture: np.ndarray) -> None:
        import pygame

        pygame.display.init()
        pygame.display.set_caption(title)
        self._screen = pygame.display.set_mode((picture.shape[1], picture.shape[0]))
        self._clock = pygame.time.Clock()

    def show(self, picture: np.ndarray) -> None:
        import pygame

        pygame.surfarray.blit_array(self._screen, picture.swapaxes(0, 1))
        pygame.event.pump()
        pygame.display.flip()
        self._clock.tick(FPS)

    def close(self) -> None:
        import pygame

        pygame.display.quit()


def _found(id: str, fields: dict[str, Any]) -> DeviceEnv:
    env = device_env(id, **fields)
    if env is None:
        raise UnknownNameError(
            f"{id!r} is not one of Renshu's environments: see renshu.envs.gymnasium.registration.ENTRIES"
        )
    return env


def _render_modes(env: DeviceEnv) -> list[str]:
    draws = type(env).render is not DeviceEnv.render
    writes = type(env).text is not DeviceEnv.text
    return ["human", "rgb_array"] * draws + ["ansi"] * writes


def _checked(render_mode: str | None, env: DeviceEnv, modes: list[str]) -> str | None:
    if render_mode is not None and render_mode not in modes:
        raise HyperparameterError(f"{env.name} has no render_mode {render_mode!r}; expected None, {', '.join(modes)}")
    if render_mode == "human" and find_spec("pygame") is None:
        raise EnvironmentFault('render_mode="human" needs pygame: pip install pygame, or use "rgb_array"')
    return render_mode


def _picture(env: DeviceEnv, render_mode: str, state: PyTree) -> Any:
    return env.text(state) if render_mode == "ansi" else env.render(state)


def _key(env: GymEnv | GymVectorEnv, seed: int | None) -> Key:
    return jax.random.key(int(env.np_random.integers(2**32)) if seed is None else seed)


def _info(env: DeviceEnv, state: PyTree) -> dict[str, Array]:
    return {MASK: env.action_mask(state)} if env.gives_masks else {}


def _owned(info: dict[str, Array]) -> dict[str, np.ndarray]:
    return {name: np.array(value) for name, value in info.items()}


def _arrays(space: spaces.Space, value: PyTree) -> PyTree:
    """Copy a value to new NumPy arrays with the structure and dtypes of its space."""
    if isinstance(space, spaces.Dict):
        return {name: _arrays(part, value[name]) for name, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_arrays(part, one) for part, one in zip(space.spaces, value, strict=True))
    return np.array(value, space.dtype)


def _single(space: spaces.Space, value: PyTree) -> PyTree:
    """Copy the value of one environment as `_arrays` does, but as a scalar for Discrete, as Gymnasium expects."""
    if isinstance(space, spaces.Dict):
        return {name: _single(part, value[name]) for name, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_single(part, one) for part, one in zip(space.spaces, value, strict=True))
    array = np.array(value, space.dtype)
    return array[()] if isinstance(space, spaces.Discrete) else array


def _check_actions(name: str, action: PyTree, shapes: PyTree) -> None:
    """Check the shapes of actions. This runs while a program is traced, so it costs a step nothing."""
    given = jax.tree.map(np.shape, action)
    if given != shapes:
        raise EnvironmentFault(f"{name} got actions of shape {given}; expected {shapes}, as the action space says")
