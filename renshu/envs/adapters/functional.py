"""Gymnasium's own functional environments."""

from __future__ import annotations

import functools
from typing import Any

import jax
import numpy as np

from renshu.envs.adapters.base import Adapter
from renshu.envs.device import Step
from renshu.types import Array, PyTree


class Functional(Adapter):
    """One of Gymnasium's functional environments, such as `gymnasium.envs.phys2d.cartpole.CartPoleFunctional()`.

    env: the FuncEnv; its own defaults are its parameters. max_episode_steps: the time limit; a FuncEnv has none.
    Raises EnvironmentFault when it was vectorised by `transform(jax.vmap)` or cannot be compiled, SpaceError when its
    values do not have the shapes of its spaces.
    """

    def __init__(self, env: Any, *, max_episode_steps: int | None = None) -> None:
        super().__init__("gymnasium", env, env.observation_space, env.action_space, max_episode_steps)

    def render(self, state: PyTree) -> np.ndarray:
        """Draw a state: [H, W, 3] uint8."""
        self._canvas, image = self.env.render_image(state, self._canvas)
        return np.array(image)

    @functools.cached_property
    def _canvas(self) -> Any:
        return self.env.render_init()

    def _reset(self, key: Array) -> tuple[PyTree, PyTree]:
        begin, look = jax.random.split(key)
        state = self.env.initial(begin)
        return state, self.env.observation(state, look)

    def _step(self, state: PyTree, action: PyTree, key: Array) -> Step:
        # By position: some of Gymnasium's environments have no `rng` here and would refuse it by name.
        move, look = jax.random.split(key)
        after = self.env.transition(state, action, move)
        reward = self.env.reward(state, action, after, move)
        return Step(after, self.env.observation(after, look), reward, self.env.terminal(after, look))
