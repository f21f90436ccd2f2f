"""Console games of stable-retro made ready: skipped frames, small grey pictures, a list of buttons to press.

A game is named "retro/NAME" after stable-retro's own name for it, as in "retro/Airstriker-Genesis-v0"; the newest
version is meant where none is given. A process holds one emulator at most, so each game runs in a process of its own.
Frames are not stacked here, and rewards are not clipped: both are the learner's.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import importlib.util
import itertools
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec as GymSpec

from renshu.errors import EnvironmentFault, HyperparameterError, UnknownNameError, did_you_mean
from renshu.types import Array

PREFIX = "retro/"
"""Beginning of the ids of console games."""
FRAME_STACK = 4
"""Frames that a learner sees at once, unless it is asked for another number."""
MAX_EPISODE_STEPS = 4_500
"""Time limit in steps of the agent, unless another is asked for: 5 minutes of play at 4 frames a step."""
ONE_EACH = (
    "A process holds one emulator at most: close the other one, or give each game its process. By the id of a game "
    "that happens by itself, for a function it takes processes=True"
)
"""Advice where a second emulator is asked for."""
ACTIONS = ("few", "all", "buttons")
_ENTRY_POINT = "renshu.envs.gymnasium.retro:make"
_DIRECTIONS = frozenset({"UP", "DOWN", "LEFT", "RIGHT"})


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """Options by which a console game is made ready; arguments of `env_kwargs`.

    state: the saved state in which an episode begins, None for the game's usual one. scenario: of stable-retro, which
    defines rewards and ends; None for the usual one. frame_skip: frames that an action lasts; the last is seen.
    screen_size: sides of the picture in pixels, None for the console's own. grayscale_obs: grey, not RGB.
    repeat_action_probability: of a frame that goes on with the buttons before ("sticky actions", Machado et al. 2018);
    without it a game is the same at each reset.
    actions: "few" numbers each direction with at most one other button, "all" each combination that stable-retro
    allows, "buttons" is a MultiBinary of the single buttons; or a list of combinations to choose from, as
    [[], ["LEFT"], ["RIGHT", "B"]].

    Raises HyperparameterError for other values.
    """

    game: str
    state: str | None = None
    scenario: str | None = None
    frame_skip: int = 4
    screen_size: int | None = 84
    grayscale_obs: bool = True
    repeat_action_probability: float = 0.25
    actions: str | Sequence[Sequence[str]] = "few"

    def __post_init__(self) -> None:
        if self.frame_skip < 1 or (self.screen_size is not None and self.screen_size < 1):
            raise HyperparameterError(
                f"frame_skip={self.frame_skip}, screen_size={self.screen_size}: expected at least 1 (screen_size=None "
                "keeps the console's own)"
            )
        if not 0 <= self.repeat_action_probability < 1:
            raise HyperparameterError(
                f"repeat_action_probability={self.repeat_action_probability}: expected at least 0 and below 1"
            )
        listed = not isinstance(self.actions, str) and len(self.actions) > 0
        if not (listed or self.actions in ACTIONS):
            raise HyperparameterError(
                f"actions={self.actions!r}: expected one of {', '.join(ACTIONS)}, or a list of combinations of "
                'buttons, as [[], ["LEFT"], ["RIGHT", "B"]]'
            )

    @classmethod
    def of(cls, spec: GymSpec, kwargs: Mapping[str, Any]) -> Preparation:
        """Make the options of a registered game. Raises HyperparameterError for what is none of them."""
        known = [field.name for field in dataclasses.fields(cls) if field.name != "game"]
        given = {key: kwargs[key] for key in kwargs if key not in ("render_mode", "max_episode_steps")}
        if unknown := sorted(given.keys() - set(known)):
            raise HyperparameterError(
                f"{spec.id} has no option {unknown[0]!r}.{did_you_mean(unknown[0], known)} Options: {', '.join(known)}"
            )
        return cls(**{**spec.kwargs, **given})

    def __str__(self) -> str:
        sticky, side = self.repeat_action_probability, self.screen_size
        return ", ".join(
            [
                f"sticky actions {sticky:g}" if sticky else "no sticky actions",
                f"{self.frame_skip} frames a step",
                f"{side} x {side}" if side else "the console's size",
                "grey" if self.grayscale_obs else "RGB",
                f"actions {self.actions}" if isinstance(self.actions, str) else f"{len(self.actions)} listed actions",
                "each game in a process of its own",
            ]
        )


def is_console(spec: GymSpec | None) -> bool:
    """Tell whether a spec is of a console game."""
    return spec is not None and spec.entry_point == _ENTRY_POINT


def is_second(error: Exception) -> bool:
    """Tell whether an error is that of a second emulator in a process."""
    return isinstance(error, RuntimeError) and "multiple emulator" in str(error)


def described(id: str | None, kwargs: Mapping[str, Any]) -> str | None:
    """Describe how the console game of an id is made ready; None for all else."""
    spec = gymnasium.registry.get(id or "")
    return str(Preparation.of(spec, kwargs)) if spec is not None and is_console(spec) else None


def register(name: str) -> None:
    """Register a console game with Gymnasium. name: begins with PREFIX, and may leave out the version.

    Raises UnknownNameError where stable-retro is missing or knows no such game, EnvironmentFault where it has no ROM.
    """
    retro, game = _library(name), name.removeprefix(PREFIX)
    known = _games(retro)
    versions = [one for one in known if one == game or one.rpartition("-v")[0] == game]
    if not versions:
        by_lower = {one.lower(): one for one in known}
        near = [by_lower[one] for one in difflib.get_close_matches(game.lower(), by_lower, n=3)]
        hint = f"Did you mean {' or '.join(PREFIX + one for one in near)}?" if near else _playable(retro)
        raise UnknownNameError(f"stable-retro knows no game {game!r}. {hint}")
    game = versions[-1]
    if not _has_rom(retro, game):
        raise EnvironmentFault(
            f"the ROM of {game} is not there. Import the one that you own from its folder: "
            f"python -m stable_retro.import FOLDER. {_playable(retro)}"
        )
    _register(game)


def register_playable() -> None:
    """Register all games whose ROM is there; nothing where stable-retro is missing."""
    if importlib.util.find_spec("stable_retro") is not None:
        retro = _library(PREFIX)
        for game in _games(retro):
            if _has_rom(retro, game):
                _register(game)


def _register(game: str) -> None:
    if PREFIX + game not in gymnasium.registry:
        gymnasium.register(
            PREFIX + game, entry_point=_ENTRY_POINT, max_episode_steps=MAX_EPISODE_STEPS, kwargs={"game": game}
        )


def _library(name: str) -> Any:
    try:
        return importlib.import_module("stable_retro")
    except ModuleNotFoundError as error:
        raise UnknownNameError(f'{name} needs packages that are not installed: pip install "renshu[retro]"') from error


def _games(retro: Any) -> list[str]:
    return retro.data.list_games(retro.data.Integrations.ALL)


def _has_rom(retro: Any, game: str) -> bool:
    try:
        return bool(retro.data.get_romfile_path(game, retro.data.Integrations.ALL))
    except FileNotFoundError:
        return False


def _playable(retro: Any) -> str:
    """List some of the games whose ROM is there."""
    found = [PREFIX + game for game in _games(retro) if _has_rom(retro, game)]
    more = f" and {len(found) - 10} more" if len(found) > 10 else ""
    return f"There {'are' if len(found) > 1 else 'is'} {', '.join(found[:10]) or 'none'}{more}"


def make(game: str, render_mode: str | None = None, **options: Any) -> gymnasium.Env:
    """Make one game in this process; see Preparation for the options. Raises EnvironmentFault where it holds one."""
    return ConsoleGame(Preparation(game=game, **options), render_mode)


class ConsoleGame(gymnasium.Env):
    """A console game: observations `[size, size, channels]` uint8, actions that press buttons for some frames.

    Raises HyperparameterError for a state that the game has not and for buttons that the console has not,
    EnvironmentFault where this process has an emulator already.
    """

    def __init__(self, options: Preparation, render_mode: str | None = None) -> None:
        self.options, self.render_mode = options, render_mode
        self.game = _emulator(options, render_mode)
        self.metadata = {"render_modes": ["human", "rgb_array"], "render_fps": 60 / options.frame_skip}
        try:
            self.buttons: list[str | None] = self.game.buttons
            self.combinations = self._combinations()
        except Exception:
            self.close()
            raise
        height, width, _ = self.game.observation_space.shape
        sides = (height, width) if options.screen_size is None else (options.screen_size, options.screen_size)
        self.shape = (*sides, 1 if options.grayscale_obs else 3)
        self.observation_space = spaces.Box(0, 255, self.shape, np.uint8)
        self.action_space = (
            self.game.action_space if self.combinations is None else spaces.Discrete(len(self.combinations))
        )
        self.held = np.zeros(len(self.buttons), np.int8)

    def _combinations(self) -> Array | None:
        """Return the buttons that each action presses, `[actions, buttons]`; None where an action is the buttons."""
        asked = self.options.actions
        if asked == "buttons":
            return None
        if not isinstance(asked, str):
            return np.stack([self._pressed(names) for names in asked])
        together = [reduce(operator.or_, chosen) for chosen in itertools.product(*self.game.button_combos)]
        pressed = np.array([[bits >> i & 1 for i in range(len(self.buttons))] for bits in together], np.int8)
        others = [name not in _DIRECTIONS for name in self.buttons]
        return pressed if asked == "all" else pressed[pressed[:, others].sum(axis=1) <= 1]

    def _pressed(self, names: Sequence[str]) -> Array:
        known = [name for name in self.buttons if name]
        for name in names:
            if name not in known:
                raise HyperparameterError(f"the console has no button {name!r}: it has {', '.join(known)}")
        return np.array([name in names for name in self.buttons], np.int8)

    def get_action_meanings(self) -> list[str]:
        """Return the buttons of each action, as "RIGHT+B"; of single buttons where an action is all of them."""
        if self.combinations is None:
            return [name or "" for name in self.buttons]
        named = [[name for name, on in zip(self.buttons, row, strict=True) if name and on] for row in self.combinations]
        return ["+".join(names) for names in named]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        """Begin the game in its saved state."""
        super().reset(seed=seed)
        screen, info = self.game.reset(seed=seed)
        self.held = np.zeros(len(self.buttons), np.int8)
        return self._seen(screen), info

    def step(self, action: Any) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """Press the buttons of an action for `frame_skip` frames."""
        wanted = np.asarray(action, np.int8) if self.combinations is None else self.combinations[int(action)]
        total, sticky = 0.0, self.options.repeat_action_probability
        screen, ended, cut, info = None, False, False, {}
        for _ in range(self.options.frame_skip):
            if not sticky or self.np_random.random() >= sticky:
                self.held = wanted
            screen, reward, ended, cut, info = self.game.step(self.held)
            total += float(reward)
            if ended or cut:
                break
        assert screen is not None
        return self._seen(screen), total, bool(ended), bool(cut), info

    def render(self) -> Any:
        """Return the console's whole screen, [height, width, 3] uint8, or show it in a window."""
        return self.game.render()

    def close(self) -> None:
        """Close the emulator, so that this process may have another."""
        self.game.close()

    def _seen(self, screen: Array) -> Array:
        height, width, channels = self.shape
        from PIL import Image  # only here: whoever plays no console game need not wait for it

        image = Image.fromarray(np.ascontiguousarray(screen))
        if channels == 1:
            image = image.convert("L")
        if image.size != (width, height):
            image = image.resize((width, height), Image.Resampling.BOX)
        return np.array(image, np.uint8).reshape(height, width, channels)


def _emulator(options: Preparation, render_mode: str | None) -> Any:
    retro = _library(PREFIX + options.game)
    every = retro.data.Integrations.ALL
    states = retro.data.list_states(options.game, every)
    if options.state is not None and options.state not in states:
        raise HyperparameterError(
            f"{options.game} has no state {options.state!r}.{did_you_mean(options.state, states)} "
            f"States: {', '.join(states) or 'none'}"
        )
    try:
        return retro.make(
            options.game,
            retro.State.DEFAULT if options.state is None else options.state,
            scenario=options.scenario,
            # Combinations are lists of our own, so that only single buttons need stable-retro's filter.
            use_restricted_actions=retro.Actions.FILTERED if options.actions == "buttons" else retro.Actions.ALL,
            inttype=every,
            render_mode=render_mode,
        )
    except RuntimeError as error:
        if is_second(error):
            raise EnvironmentFault(f"{PREFIX}{options.game} finds another game in this process. {ONE_EACH}") from error
        raise
