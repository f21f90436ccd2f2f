"""Registration of Renshu's own environments in Gymnasium: `gymnasium.make("renshu/Rocket-v0")`. Cheap to import."""

from __future__ import annotations

import copy
import dataclasses
import importlib
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from renshu.errors import HyperparameterError

if TYPE_CHECKING:
    from renshu.envs.device import DeviceEnv


class Entry(NamedTuple):
    """One registered environment. path: "module:Class" of the DeviceEnv; the other fields repeat those of the class."""

    path: str
    max_episode_steps: int | None = None
    reward_threshold: float | None = None


ENTRIES: dict[str, Entry] = {
    "renshu/CartPole-v1": Entry("renshu.envs.builtin.classic:CartPole", 500, 475.0),
    "renshu/Pendulum-v1": Entry("renshu.envs.builtin.classic:Pendulum", 200),
    "renshu/Acrobot-v1": Entry("renshu.envs.builtin.classic:Acrobot", 500, -100.0),
    "renshu/MountainCar-v0": Entry("renshu.envs.builtin.classic:MountainCar", 200, -110.0),
    "renshu/MountainCarContinuous-v0": Entry("renshu.envs.builtin.classic:MountainCarContinuous", 999, 90.0),
    "renshu/Grid-v0": Entry("renshu.envs.builtin.grid:Grid", 50, 0.65),
    "renshu/Rocket-v0": Entry("renshu.envs.builtin.rocket:Rocket", 500),
    "renshu/Memory-v0": Entry("renshu.envs.builtin.memory:Memory", None, 0.95),
    "renshu/TicTacToe-v0": Entry("renshu.envs.builtin.tic_tac_toe:TicTacToe"),
    "renshu/ConnectFour-v0": Entry("renshu.envs.builtin.connect_four:ConnectFour"),
    "renshu/Othello-v0": Entry("renshu.envs.builtin.othello:Othello"),
    "renshu/StoneTaking-v0": Entry("renshu.envs.builtin.stone_taking:StoneTaking"),
    "renshu/TwoPicks-v0": Entry("renshu.envs.builtin.two_picks:TwoPicks"),
    "renshu/2048-v0": Entry("renshu.envs.builtin.game_2048:Game2048"),
    "renshu/Tiger-v0": Entry("renshu.envs.builtin.tiger:Tiger", 50, 0.0),
    "renshu/OneRoad-v0": Entry("renshu.envs.builtin.one_road:OneRoad", 11, 1.0),
}
"""Entries by Gymnasium id. They repeat the numbers so that registering imports none of the classes, and no JAX."""
GYMNAX = "gymnax/"
"""Beginning of the ids of gymnax's environments, as in "gymnax/Breakout-MinAtar": registered when first asked for."""


def register() -> None:
    """Register every entry with Gymnasium, for `make` and `make_vec`. What is already registered stays as it is."""
    for id, entry in ENTRIES.items():
        _register(id, entry.max_episode_steps, entry.reward_threshold)


def register_gymnax(id: str) -> None:
    """Register an environment of gymnax. Raises UnknownNameError, EnvironmentFault where gymnax is not installed."""
    env = cast("DeviceEnv", device_env(id))
    _register(id, env.max_episode_steps, None)


def _register(id: str, max_episode_steps: int | None, reward_threshold: float | None) -> None:
    from gymnasium.envs import registration

    if id not in registration.registry:
        registration.register(
            id,
            entry_point="renshu.envs.gymnasium.device_as_gym:make",
            vector_entry_point="renshu.envs.gymnasium.device_as_gym:make_vec",
            max_episode_steps=max_episode_steps,
            reward_threshold=reward_threshold,
            kwargs={"device_env": id},
        )


def device_env(id: str, **kwargs: Any) -> DeviceEnv | None:
    """Make the DeviceEnv behind a Gymnasium id; None when it is neither one of Renshu's nor of gymnax.

    id: as in ENTRIES, with or without "module:" before it, or GYMNAX and a name in gymnax. kwargs: fields of its class,
    in gymnax of its parameters, and `max_episode_steps` as `with_limit` takes it; for a game also `opponent`, which
    makes it one for one player; what `register` has put into the kwargs of Gymnasium's spec is accepted too.
    Raises HyperparameterError for any other argument, naming the fields.
    """
    if id.startswith(GYMNAX):
        from renshu.envs.adapters.gymnax import by_name

        kwargs.pop("device_env", None)
        limit = kwargs.pop("max_episode_steps", None)
        return with_limit(by_name(id.removeprefix(GYMNAX), **kwargs), limit)
    entry = ENTRIES.get(id.rpartition(":")[2])
    if entry is None:
        return None
    module, _, name = entry.path.partition(":")
    cls = getattr(importlib.import_module(module), name)
    limit = kwargs.pop("max_episode_steps", None)
    kwargs.pop("device_env", None)
    opponent = kwargs.pop("opponent", None)
    fields = [field.name for field in dataclasses.fields(cls)]
    if unknown := sorted(kwargs.keys() - set(fields)):
        known = ", ".join([*fields, "max_episode_steps"])
        raise HyperparameterError(f"{id} has no setting {', '.join(unknown)}. Its settings: {known}")
    env = cls(**kwargs)
    if opponent is not None:
        from renshu.envs.seats import Seated

        env = Seated(env, opponent)
    return with_limit(env, limit)


def is_ours(env: DeviceEnv) -> bool:
    """Tell whether `device_env(env.id, **changed_fields(env))` makes the same environment again."""
    entry = ENTRIES.get(env.id or "")
    return entry is not None and entry.path == f"{type(env).__module__}:{type(env).__name__}"


def changed_fields(env: DeviceEnv) -> dict[str, Any]:
    """Return the settings, `max_episode_steps` included, in which an environment differs from what its id makes."""
    usual, changed = type(env)(), {}
    for field in dataclasses.fields(cast(Any, env)):
        if getattr(env, field.name) != getattr(usual, field.name):
            changed[field.name] = getattr(env, field.name)
    if env.max_episode_steps != dataclasses.replace(cast(Any, env)).max_episode_steps:
        changed["max_episode_steps"] = env.max_episode_steps or -1
    return changed


def parted(env: DeviceEnv) -> tuple[DeviceEnv, dict[str, Any]]:
    """Take an environment apart: the game with its time limit, and its `opponent` as an argument; {} where none sits.

    The argument is a name where that makes the same opponent again, else the player itself.
    """
    from renshu.envs.seats import Seated, name_of

    if not isinstance(env, Seated):
        return env, {}
    known = name_of(env.opponent) if env.seat is None else env.opponent
    return with_limit(env.game, env.max_episode_steps or -1), {"opponent": known}


def with_limit(env: DeviceEnv, max_episode_steps: int | None) -> DeviceEnv:
    """Return the environment with a time limit in steps: None for the one it has, -1 for none, as in Gymnasium.

    Raises HyperparameterError for 0 and numbers below -1.
    """
    limit = None if max_episode_steps == -1 else max_episode_steps
    if limit is not None and limit < 1:
        raise HyperparameterError(f"max_episode_steps={limit}: expected at least 1, or -1 for no limit")
    if max_episode_steps is None or limit == env.max_episode_steps:
        return env
    env = copy.copy(env)
    object.__setattr__(env, "max_episode_steps", limit)  # past a frozen dataclass: nothing else holds the copy yet
    return env
