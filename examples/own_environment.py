"""An environment of your own: anything that follows Gymnasium's interface, given as the class itself."""

import gymnasium
import numpy as np

import renshu


class Thermostat(gymnasium.Env):
    """Keep a room at 20 degrees: heat or cool with a power in [-1, 1]; it is colder outside. 100 steps an episode."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012

    def __init__(self, outside: float = 5.0, render_mode: str | None = None) -> None:
        self.outside, self.render_mode = outside, render_mode
        self.observation_space = gymnasium.spaces.Box(-50.0, 60.0, (1,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        """Begin at a random temperature."""
        super().reset(seed=seed)
        self.temperature, self.t = float(self.np_random.uniform(10.0, 30.0)), 0
        return np.array([self.temperature], np.float32), {}

    def step(self, action):
        """Heat or cool. The reward is minus the distance from 20 degrees, less a little for the energy."""
        power = float(action[0])
        self.temperature += 2.0 * power + 0.05 * (self.outside - self.temperature)
        self.t += 1
        reward = -abs(self.temperature - 20.0) - 0.1 * abs(power)
        return np.array([self.temperature], np.float32), reward, False, self.t >= 100, {}

    def render(self):
        """Draw a column as high as it is warm, and a line at 20 degrees."""
        frame = np.full((160, 80, 3), 255, np.uint8)
        frame[160 - int(np.clip(self.temperature, 0, 39) * 4) :, 20:60] = (210, 80, 60)
        frame[160 - 80, :] = 0
        return frame


def main(steps: int = 60_000) -> renshu.Agent:
    """Train in eight rooms at once, then look at one."""
    agent = renshu.PPO(n_steps=100, batch_size=200, gamma=0.95, norm_obs=True, norm_reward=True).on(
        Thermostat, num_envs=8, env_kwargs={"outside": 0.0}, seed=0
    )
    agent.learn(steps)
    print("mean return of 20 episodes:", agent.evaluate(20))
    for temperature in (10.0, 20.0, 30.0):
        power = agent.predict(np.array([temperature], np.float32))
        print(f"at {temperature:.0f} degrees the power is {power[0]:+.2f}")
    return agent


if __name__ == "__main__":
    main().record("thermostat.gif")
