"""An environment of your own: anything that follows Gymnasium's interface, given as the class itself.

A rocket on a line is to come to rest at the origin. Its engine pushes to the left or to the right, and there is no
friction, so it has to brake in time.
"""

from typing import Any

import gymnasium
import numpy as np

import renshu

LIMIT = 2.0


class Rocket(gymnasium.Env):
    """Position x and velocity v, x' = v and v' = thrust in [-1, 1]. Beyond |x| or |v| of 2 it is lost.

    An episode lasts 100 steps of `dt`; `is_success` in its last `info` tells whether the rocket is at rest by then.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012
    observation_space = gymnasium.spaces.Box(-3.0, 3.0, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, dt: float = 0.05, render_mode: str | None = None) -> None:
        self.dt, self.render_mode = dt, render_mode

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """Begin away from the origin, moving toward it or away from it."""
        super().reset(seed=seed)  # makes self.np_random
        self.x, self.v = self.np_random.uniform(0.5, 1.0, 2) * self.np_random.choice([-1.0, 1.0], 2)
        self.thrust, self.t = 0.0, 0
        return np.array([self.x, self.v], np.float32), {}

    def step(self, action: np.ndarray):
        """Fly for `dt` under constant thrust. The reward counts distance, speed and, a little, fuel."""
        self.thrust, self.t = float(np.clip(action[0], -1, 1)), self.t + 1
        self.x += self.v * self.dt + self.thrust * self.dt**2 / 2
        self.v += self.thrust * self.dt
        lost = max(abs(self.x), abs(self.v)) > LIMIT
        reward = -(self.x**2) - 0.1 * self.v**2 - 0.001 * self.thrust**2 - (500.0 if lost else 0.0)
        info = {"is_success": bool(max(abs(self.x), abs(self.v)) < 0.1)}
        return np.array([self.x, self.v], np.float32), float(reward), lost, self.t >= 100, info

    def render(self) -> np.ndarray:
        """Draw the track, the origin in green, the rocket in blue, and its flame at the back, 240 x 60 pixels."""
        frame = np.full((60, 240, 3), 255, np.uint8)
        place, flame = (round(120 + 55 * at) for at in (self.x, self.x - 0.4 * self.thrust))
        frame[44:46] = 0
        frame[20:46, 119:121] = (60, 160, 60)
        frame[30:36, max(0, min(place, flame)) : max(0, place, flame)] = (240, 140, 30)
        frame[26:40, max(0, place - 6) : max(0, place + 6)] = (50, 90, 200)
        return frame


def main(steps: int = 100_000, video: str = "rocket.gif") -> renshu.Agent:
    """Train eight rockets at once, evaluate, and record a few flights."""
    agent = renshu.PPO(n_steps=128, batch_size=256, learning_rate=1e-3, gamma=0.95, norm_reward=True).on(
        Rocket, num_envs=8, env_kwargs={"dt": 0.05}, seed=0
    )
    agent.learn(steps)
    print("mean return of 100 flights, and how many came to rest:", agent.evaluate(100))
    print("three flights:", agent.record(video, episodes=3))
    return agent


if __name__ == "__main__":
    main()
