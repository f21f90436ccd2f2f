"""Atari games made ready, as since Mnih et al. 2015: no-ops, skipped frames, small grey pictures, lives, FIRE.

An episode of the learner is a life: after a lost one the game goes on, in the step that would reset, by pressing FIRE
where the game knows it. `info["life_lost"]` says so, and all statistics are of whole games. Frames are not stacked
here, and rewards are not clipped: both are the learner's.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec as GymSpec
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.vector.utils import batch_space

from renshu.envs.gymnasium.lookup import find
from renshu.errors import EnvironmentFault, HyperparameterError, did_you_mean
from renshu.types import LIFE_LOST, Array

FRAME_STACK = 4
"""Frames that a learner sees at once, unless it is asked for another number."""
ENGINES = ("ale", "envpool", "gymnasium")
_ENTRY_POINT = "ale_py.env:AtariEnv"


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """Options by which an Atari game is made ready; arguments of `env_kwargs`.

    Names are those of gymnasium.wrappers.AtariPreprocessing and of ALE. engine: "ale" steps many games in C++, as does
    "envpool" (extra `envpool`); "gymnasium" steps them in turn, in Python. noop_max: most steps of waiting at first.
    frame_skip: frames that an action lasts; of the last two the maximum is seen. screen_size: sides of the picture.
    terminal_on_life_loss: a life is an episode for the learner. fire: press FIRE where a game or a life begins.
    repeat_action_probability: of a frame that goes on with the action before ("sticky actions", Machado et al. 2018).
    full_action_space: all 18 actions, not only those that the game knows. max_num_frames_per_episode: length of a game.
    """

    game: str
    engine: str = "ale"
    noop_max: int = 30
    frame_skip: int = 4
    screen_size: int = 84
    grayscale_obs: bool = True
    terminal_on_life_loss: bool = True
    fire: bool = True
    repeat_action_probability: float = 0.0
    full_action_space: bool = False
    max_num_frames_per_episode: int = 108_000
    mode: int | None = None
    difficulty: int | None = None

    @classmethod
    def of(cls, spec: GymSpec, kwargs: Mapping[str, Any]) -> Preparation:
        """Make the options of a registered game. Raises HyperparameterError for what is none of them."""
        kwargs = dict(kwargs)
        kwargs.pop("render_mode", None)
        skip = kwargs.get("frame_skip", cls.frame_skip)
        if (limit := kwargs.pop("max_episode_steps", None)) is not None:
            kwargs["max_num_frames_per_episode"] = limit * skip
        known = [field.name for field in dataclasses.fields(cls)]
        if unknown := sorted(kwargs.keys() - {*known} | kwargs.keys() & {"game"}):
            raise HyperparameterError(
                f"{spec.id} has no option {unknown[0]!r}.{did_you_mean(unknown[0], known[1:])} Options: "
                f"{', '.join(known[1:])}, and preprocessing=False for the game as ale-py makes it"
            )
        given = {name: value for name, value in spec.kwargs.items() if name in known}
        made = cls(**{**given, **kwargs})
        if made.engine not in ENGINES:
            raise HyperparameterError(f"engine={made.engine!r}: expected one of {', '.join(ENGINES)}")
        if made.engine == "envpool" and made.noop_max < 1:
            raise HyperparameterError('noop_max=0: engine="envpool" wants at least 1, and crashes without')
        return made

    @property
    def max_episode_steps(self) -> int:
        """Length of a game in steps of the agent."""
        return self.max_num_frames_per_episode // self.frame_skip

    @property
    def variant(self) -> dict[str, int]:
        """Mode and difficulty, as far as they were asked for."""
        asked = {"mode": self.mode, "difficulty": self.difficulty}
        return {name: value for name, value in asked.items() if value is not None}

    def __str__(self) -> str:
        sticky = f"sticky actions {self.repeat_action_probability:g}" if self.repeat_action_probability else "no sticky"
        return ", ".join(
            [
                sticky.replace("no sticky", "no sticky actions"),
                "all 18 actions" if self.full_action_space else "the game's own actions",
                f"up to {self.noop_max} no-ops",
                f"{self.frame_skip} frames a step",
                f"{self.screen_size} x {self.screen_size} {'grey' if self.grayscale_obs else 'RGB'}",
                "a life is an episode (scores are of whole games)" if self.terminal_on_life_loss else "whole games",
                *(["FIRE is pressed at the start and after a lost life"] if self.fire else []),
                f"engine {self.engine}",
            ]
        )


def is_atari(spec: GymSpec | None) -> bool:
    """Tell whether a spec is of an Atari game."""
    return spec is not None and spec.entry_point == _ENTRY_POINT


def is_prepared(spec: GymSpec | None, kwargs: Mapping[str, Any]) -> bool:
    """Tell whether what is made by a spec is an Atari game to be made ready."""
    plain = kwargs.get("preprocessing") is False or kwargs.get("obs_type", "rgb") != "rgb"
    return is_atari(spec) and not plain


def described(id: str | None, kwargs: Mapping[str, Any]) -> str | None:
    """Describe how the Atari game of an id is made ready; None for all else, and where a file would import a module."""
    if id is None or ":" in id or not ("ALE/" in id or "NoFrameskip" in id):
        return None
    spec = find(id)
    return str(Preparation.of(spec, kwargs)) if is_prepared(spec, kwargs) else None


def make(spec: GymSpec, **kwargs: Any) -> gymnasium.Env:
    """Make one environment by Gymnasium; an Atari game is made ready."""
    if not is_prepared(spec, kwargs):
        return gymnasium.make(spec, **{"disable_env_checker": True, **_without_switch(spec, kwargs)})
    return single(spec, Preparation.of(spec, kwargs), kwargs.get("render_mode"))


def _without_switch(spec: GymSpec, kwargs: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in kwargs.items() if name != "preprocessing" or not is_atari(spec)}


def single(spec: GymSpec, options: Preparation, render_mode: str | None = None) -> gymnasium.Env:
    """Make one game by Gymnasium's wrappers, with observations of `[size, size, channels]` uint8."""
    from gymnasium.wrappers import AtariPreprocessing

    _hush()
    env = gymnasium.make(
        spec,
        frameskip=1,
        repeat_action_probability=options.repeat_action_probability,
        full_action_space=options.full_action_space,
        max_num_frames_per_episode=options.max_num_frames_per_episode,
        render_mode=render_mode,
        disable_env_checker=True,
        **options.variant,
    )
    env = AtariPreprocessing(
        env,
        noop_max=options.noop_max,
        frame_skip=options.frame_skip,
        screen_size=options.screen_size,
        grayscale_obs=options.grayscale_obs,
        grayscale_newaxis=options.grayscale_obs,
    )
    return Lives(env, terminal=options.terminal_on_life_loss, fire=options.fire)


def vector(spec: GymSpec, options: Preparation, num_envs: int) -> VectorEnv:
    """Make `num_envs` games that step together, by the engine of the options."""
    if options.engine == "gymnasium":
        return SyncVectorEnv([partial(single, spec, options)] * num_envs)
    return (AleGames if options.engine == "ale" else EnvPoolGames)(spec, options, num_envs)


def _hush() -> None:
    """Keep ALE from printing a page for each game."""
    import ale_py

    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)


def fire_action(meanings: list[str]) -> int | None:
    """Return the action that presses FIRE alone, in games that wait for it; None in others."""
    return meanings.index("FIRE") if "FIRE" in meanings and len(meanings) >= 3 else None


class Lives(gymnasium.Wrapper):
    """A game whose lives are episodes, or one that only goes on by itself after a lost life.

    terminal: a lost life ends the episode, and the next `reset` goes on with the game. Otherwise FIRE is pressed within
    the step. fire: press it where a game or a life begins; the observation after it is the one that is returned.
    """

    def __init__(self, env: gymnasium.Env, *, terminal: bool, fire: bool) -> None:
        super().__init__(env)
        self.terminal = terminal
        self.fire = fire_action(self.game.get_action_meanings()) if fire else None
        self.lives, self.goes_on, self.held = 0, False, 0.0
        self.count = int(env.action_space.n)  # type: ignore[attr-defined]

    @property
    def game(self) -> Any:
        """The game itself."""
        return self.env.unwrapped

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin a game, or go on with it after a lost life (unless a seed is given)."""
        goes_on, self.goes_on = self.goes_on and seed is None, False
        if goes_on:
            obs, self.held, over, info = self._pressed(0 if self.fire is None else self.fire)
        else:
            obs, info = self.env.reset(seed=seed, options=options)
            over, self.held = False, 0.0
            if self.fire is not None:
                obs, self.held, over, info = self._pressed(self.fire)
        if over:
            obs, info = self.env.reset()
            self.held = 0.0
        self.lives = self.game.ale.lives()
        return obs, info

    def _pressed(self, action: int) -> tuple[Any, float, bool, dict[str, Any]]:
        obs, reward, terminated, truncated, info = self.env.step(action)
        return obs, float(reward), terminated or truncated, info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Step the game."""
        if not 0 <= int(action) < self.count:
            raise ValueError(f"the game has no action {action}: expected 0 to {self.count - 1}")
        obs, reward, terminated, truncated, _ = self.env.step(action)
        reward, self.held = float(reward) + self.held, 0.0
        lives = self.game.ale.lives()
        lost = 0 < lives < self.lives and not (terminated or truncated)
        self.lives = lives
        if lost and self.terminal:
            self.goes_on = True
            return obs, reward, True, False, {LIFE_LOST: True}
        if lost and self.fire is not None:
            obs, more, terminated, truncated, _ = self.env.step(self.fire)
            reward += float(more)
        # Lives and numbers of frames are no measures of an agent, which `info` at an end is reported as.
        return obs, reward, bool(terminated), bool(truncated), {}


class _Games(VectorEnv):
    """Games that step together in C++."""

    def __init__(self, spec: GymSpec, options: Preparation, num_envs: int) -> None:
        _hush()
        self.options, self.num_envs, self.spec = options, num_envs, None
        side, channels = options.screen_size, 1 if options.grayscale_obs else 3
        self.single_observation_space = spaces.Box(0, 255, (side, side, channels), np.uint8)
        self.single_action_space = spaces.Discrete(18 if options.full_action_space else self.count(spec))
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}
        self.pictures = (num_envs, side, side, channels)

    def count(self, spec: GymSpec) -> int:
        """Return how many actions the game knows."""
        return len(self.meanings(spec))

    def meanings(self, spec: GymSpec) -> list[str]:
        """Return the names of the game's actions."""
        from ale_py import ALEInterface, roms

        ale = ALEInterface()
        ale.loadROM(str(roms.get_rom_path(self.options.game)))
        known = ale.getLegalActionSet() if self.options.full_action_space else ale.getMinimalActionSet()
        return [action.name for action in known]

    def checked(self, actions: Array) -> Array:
        """Return actions as whole numbers. Raises EnvironmentFault where the game has none such: it would hang."""
        actions = np.asarray(actions)
        n = int(self.single_action_space.n)  # type: ignore[attr-defined]
        if actions.shape != (self.num_envs,) or actions.dtype.kind not in "iu":
            raise EnvironmentFault(f"actions must be {self.num_envs} whole numbers, not {actions!r}")
        if actions.min() < 0 or actions.max() >= n:
            raise EnvironmentFault(f"actions must be from 0 to {n - 1}, not {actions.tolist()}")
        return actions

    def shaped(self, obs: Array) -> Array:
        """Return pictures `[N, size, size, channels]`."""
        return obs.reshape(self.pictures) if self.options.grayscale_obs else obs[:, 0].reshape(self.pictures)


class AleGames(_Games):
    """Games of ale-py's AtariVectorEnv, which knows no lives: they are counted here, and FIRE pressed after each."""

    def __init__(self, spec: GymSpec, options: Preparation, num_envs: int) -> None:
        super().__init__(spec, options, num_envs)
        from ale_py.vector_env import AtariVectorEnv

        if options.variant:
            raise HyperparameterError('mode and difficulty need engine="gymnasium"')
        self.press = fire_action(self.meanings(spec)) if options.fire else None
        self.games = AtariVectorEnv(
            options.game,
            num_envs,
            max_num_frames_per_episode=options.max_num_frames_per_episode,
            repeat_action_probability=options.repeat_action_probability,
            full_action_space=options.full_action_space,
            img_height=options.screen_size,
            img_width=options.screen_size,
            grayscale=options.grayscale_obs,
            stack_num=1,
            frameskip=options.frame_skip,
            noop_max=options.noop_max,
            reward_clipping=False,
            use_fire_reset=options.fire,
        )
        self._begin(np.zeros(num_envs, np.int32))

    def _begin(self, lives: Array) -> None:
        self.lives = lives
        self.lost, self.over = (np.zeros(self.num_envs, np.bool_) for _ in range(2))
        self.held = np.zeros(self.num_envs, np.float32)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        """Begin a game in each."""
        obs, infos = self.games.reset(seed=seed, options=options)
        self._begin(infos["lives"])
        return self.shaped(obs), {}

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """Step the games; those that lost a life in the step before press FIRE, and its reward comes a step later."""
        actions, pressing = self.checked(actions), self.lost
        if pressing.any():
            actions = np.where(pressing, 0 if self.press is None else self.press, actions)
        obs, reward, terminated, truncated, infos = self.games.step(actions)
        lives, over = infos["lives"], terminated | truncated
        lost = (lives < self.lives) & (lives > 0) & ~over & ~self.over
        reward = reward + self.held
        self.held = np.where(pressing & ~over, reward, 0.0).astype(np.float32)
        reward = np.where(pressing & ~over, 0.0, reward).astype(np.float32)
        self.lives, self.over = lives, over
        if not self.options.terminal_on_life_loss:
            self.lost = lost & (self.press is not None)
            return self.shaped(obs), reward, terminated, truncated, {}
        self.lost = lost
        return self.shaped(obs), reward, terminated | lost, truncated, {LIFE_LOST: lost}

    def close(self, **kwargs: Any) -> None:
        """Close the games."""
        self.games.close()


class EnvPoolGames(_Games):
    """Games of EnvPool, which counts lives itself. It takes its seed when it is made: at each reset with one."""

    def __init__(self, spec: GymSpec, options: Preparation, num_envs: int) -> None:
        super().__init__(spec, options, num_envs)
        try:
            self.envpool = importlib.import_module("envpool")
        except ModuleNotFoundError as error:
            raise EnvironmentFault('engine="envpool" needs EnvPool: pip install "renshu[envpool]"') from error
        name = spec.id.rpartition("/")[2].rpartition("-v")[0].removesuffix("NoFrameskip")
        self.how: dict[str, Any] = {
            "task_id": f"{name}-v5",
            "env_type": "gymnasium",
            "num_envs": num_envs,
            "stack_num": 1,
            "frame_skip": options.frame_skip,
            "noop_max": options.noop_max,
            "episodic_life": options.terminal_on_life_loss,
            "use_fire_reset": options.fire,
            "img_height": options.screen_size,
            "img_width": options.screen_size,
            "gray_scale": options.grayscale_obs,
            "full_action_space": options.full_action_space,
            "repeat_action_probability": options.repeat_action_probability,
            "max_episode_steps": options.max_episode_steps,
            **options.variant,
        }
        self.games: Any = None

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        """Begin a game in each."""
        if self.games is None or seed is not None:
            self.close()
            first = np.random.SeedSequence(seed).generate_state(1)[0] if seed is None else seed
            self.games = self.envpool.make(**self.how, seed=int(first) % 2**31)
        obs, _ = self.games.reset()
        return self.shaped(obs), {}

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """Step the games."""
        actions = self.checked(actions).astype(np.int32)
        obs, reward, terminated, truncated, infos = self.games.step(actions)
        lost = terminated & (infos["terminated"] == 0) & ~truncated
        return self.shaped(obs), reward, terminated, truncated, {LIFE_LOST: lost}

    def shaped(self, obs: Array) -> Array:
        """Return pictures `[N, size, size, channels]`."""
        return super().shaped(obs) if self.options.grayscale_obs else np.moveaxis(obs, 1, -1)

    def close(self, **kwargs: Any) -> None:
        """Close the games."""
        if self.games is not None:
            self.games.close()
            self.games = None
