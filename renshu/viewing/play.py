"""Episodes played in a window."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from renshu.viewing.recording import Policy

if TYPE_CHECKING:
    import gymnasium

    from renshu.envs.source import EnvSource


def watch(source: EnvSource, policy: Policy, episodes: int, seed: int | None) -> list[tuple[float, int]]:
    """Play episodes in a window; return (return, length) of each. Arguments as for `record`."""
    env = source.single(render_mode="human")
    try:
        return list(play(env, policy, episodes, seed))
    finally:
        env.close()


def play(env: gymnasium.Env, policy: Policy, episodes: int, seed: int | None) -> Iterator[tuple[float, int]]:
    """Play episodes in an environment that shows them itself, in a window; yield return and length of each.

    Arguments as for `episode_frames`.
    """
    for episode in range(episodes):
        obs, _ = env.reset(seed=seed if episode == 0 else None)
        total, length, ended = 0.0, 0, False
        while not ended:
            obs, reward, terminated, truncated, _ = env.step(policy(obs, length == 0))
            total, length, ended = total + float(reward), length + 1, terminated or truncated
        yield total, length
