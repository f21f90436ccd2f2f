"""An environment of your own as pure functions: it is compiled with the algorithm, and many seeds train at once.

A boat on a river wants to reach the far bank; the current carries it away.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import rich
from gymnasium import spaces

import renshu
from renshu import PPO, DeviceEnv, Step
from renshu.experiments.experiment import Experiment


class Boat(NamedTuple):
    """The state: any pytree of arrays."""

    x: jax.Array  # across, 0 to 1
    y: jax.Array  # down the river


@dataclass(frozen=True)
class River(DeviceEnv):
    """Rudder in [-1, 1]. +1 for landing near y = 0, less further away; it takes at most 50 steps."""

    current: float = 0.5
    max_episode_steps = 50
    observation_space = spaces.Box(-10, 10, (2,))
    action_space = spaces.Box(-1, 1, (1,))

    def reset(self, key):
        """Begin on the near bank."""
        boat = Boat(jnp.float32(0), jax.random.uniform(key, minval=-0.5, maxval=0.5))
        return boat, jnp.stack(boat)

    def step(self, boat, action, key):
        """Advance by one action; the key is for chance, of which there is little here."""
        flow = self.current * 4 * boat.x * (1 - boat.x) + 0.1 * jax.random.normal(key)
        boat = Boat(boat.x + 0.05, boat.y + 0.1 * (flow + action[0]))
        landed = boat.x >= 1
        return Step(boat, jnp.stack(boat), jnp.where(landed, 1 - jnp.abs(boat.y), 0.0), landed)

    def text(self, boat):
        """Show the boat as text, for `renshu watch --terminal`."""
        return f"{boat.x:.2f} across, {boat.y:+.2f} down the river"


def main(steps: int = 30_000, seeds: int = 16) -> tuple[renshu.Agent, Experiment]:
    """Train one agent, then many seeds at once."""
    settings = PPO(n_steps=64, batch_size=128)
    agent = settings.on(River(), num_envs=8, seed=0).learn(steps)
    return agent, renshu.experiment(settings, River(), seeds=seeds, steps=steps, num_envs=8)


if __name__ == "__main__":
    agent, experiment = main()
    print("one agent:", agent.evaluate(100))
    rich.print(experiment.table())
    print("picture:", experiment.plot("river.png"))
