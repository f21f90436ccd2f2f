"""An environment whose observations and actions are of several kinds at once."""

import gymnasium
import numpy as np
from gymnasium import spaces


class Camera(gymnasium.Env):
    """A robot with a camera; the goal says which of the first buttons to press."""

    observation_space = spaces.Dict(
        camera=spaces.Box(0, 255, (12, 12, 3), np.uint8),
        joints=spaces.Box(-1, 1, (3,)),
        goal=spaces.Dict(x=spaces.Discrete(2)),
    )
    action_space = spaces.MultiDiscrete([2, 3])

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps, self.goal = 0, int(self.np_random.integers(2))
        return self.seen(), {}

    def seen(self):
        camera = np.full((12, 12, 3), 255 * self.goal, np.uint8)
        return {"camera": camera, "joints": np.zeros(3, np.float32), "goal": {"x": self.goal}}

    def step(self, action):
        reward = self.rewarded(action)
        self.steps, self.goal = self.steps + 1, int(self.np_random.integers(2))
        return self.seen(), reward, self.steps == 8, False, {}

    def rewarded(self, action):
        return float(action[0] == self.goal)


class MaskedCamera(Camera):
    """The same robot with one row of three buttons, of which the last never may be pressed and costs much."""

    action_space = spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        obs, _ = super().reset(seed=seed)
        return obs, {"action_mask": np.array([1, 1, 0], np.int8)}

    def step(self, action):
        obs, reward, terminated, truncated, _ = super().step(action)
        return obs, reward, terminated, truncated, {"action_mask": np.array([1, 1, 0], np.int8)}

    def rewarded(self, action):
        assert action != 2, "an action that is not allowed"
        return float(action == self.goal)
