"""Episodes played in a window, or step by step in the terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

from renshu.errors import RenshuError
from renshu.viewing.recording import Policy, chosen

if TYPE_CHECKING:
    import gymnasium

    from renshu.envs.source import EnvSource

_SCREENS = ("DISPLAY", "WAYLAND_DISPLAY")


class Player(Protocol):
    """The part of an agent that plays."""

    def player(self, *, deterministic: bool) -> Policy:
        """Make a policy for one environment."""
        ...


def has_screen() -> bool:
    """Tell whether a window can be opened: on Linux a display, or a driver that SDL was told to use."""
    driver = os.environ.get("SDL_VIDEODRIVER")
    if sys.platform != "linux" or any(os.environ.get(name) for name in _SCREENS):
        return driver != "dummy"
    return bool(driver) and driver != "dummy"


def check_screen(advice: str) -> None:
    """Raise RenshuError, with advice, where a window would play into nothing."""
    if not has_screen():
        dummy = ' (SDL_VIDEODRIVER is "dummy")' if os.environ.get("SDL_VIDEODRIVER") == "dummy" else ""
        raise RenshuError(f"there is no screen here{dummy}. {advice}")


def watch(
    agent: Player, source: EnvSource, episodes: int, seed: int | None, deterministic: bool
) -> list[tuple[float, int]]:
    """Play episodes in a window; return (return, length) of each.

    source: makes the environment. episodes, seed: as for `episode_frames`. deterministic: greedy actions.
    Raises RenshuError where there is no screen, EnvironmentFault when the environment cannot be made.
    """
    check_screen('Make a video: agent.record("agent.mp4"), or step through in the terminal: agent.watch(terminal=True)')
    env = source.single(render_mode="human")
    try:
        return list(play(env, agent.player(deterministic=deterministic), episodes, seed))
    finally:
        env.close()


def step_through(agent: Any, *args: Any) -> list[tuple[float, int]]:
    """Play episodes in the terminal; see `terminal.step_through`, which is imported only when it is needed."""
    from renshu.viewing import terminal

    return terminal.step_through(agent, *args)


def play(env: gymnasium.Env, policy: Policy, episodes: int, seed: int | None) -> Iterator[tuple[float, int]]:
    """Play episodes in an environment that shows them itself, in a window; yield return and length of each.

    Arguments as for `episode_frames`.
    """
    for episode in range(episodes):
        obs, _ = env.reset(seed=seed if episode == 0 else None)
        total, length, ended = 0.0, 0, False
        while not ended:
            obs, reward, terminated, truncated, _ = env.step(chosen(policy, env, obs, length == 0))
            total, length, ended = total + float(reward), length + 1, terminated or truncated
        yield total, length
