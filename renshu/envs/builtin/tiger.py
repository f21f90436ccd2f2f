"""The tiger problem: two doors, a tiger behind one of them, and ears that are not always right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from renshu.envs.builtin.boards import PAPER
from renshu.envs.builtin.drawing import Colour, box, canvas, disc
from renshu.envs.device import DeviceEnv, Step
from renshu.errors import HyperparameterError
from renshu.types import Array, Key

NAMES = ("listen", "left", "right")
SIDES = ("left", "right")
LISTENING, TIGER, PRIZE = -0.01, -1.0, 0.1
"""Rewards of listening, of the door with the tiger and of the other door."""
DOOR: Colour = (150, 105, 65)
OPEN: Colour = (60, 50, 45)
STRIPES: Colour = (235, 140, 40)
GOLD: Colour = (110, 200, 110)
SOUND: Colour = (50, 90, 200)


class TigerState(NamedTuple):
    """Place of the tiger, and progress of the episode. Sides are 0 left, 1 right."""

    tiger: Array  # [] int32  side of the tiger
    heard: Array  # [] int32  side on which it was heard last
    opened: Array  # [] int32  side of the door that was opened; -1 before that


@dataclass(frozen=True)
class Tiger(DeviceEnv):
    """Listen for the tiger until it is clear enough behind which door it is, and open the other.

    Observation: Discrete(2), the side on which the tiger is heard, 0 left, 1 right. The first is drawn at random and
    says nothing; after listening it is right with probability `prob`; after opening a door it is where the tiger is.
    Only an agent with a memory can count what it has heard.
    Action: Discrete(3), 0 listen, 1 open the left door, 2 open the right door.
    Reward: -0.01 for listening; for opening, which ends the episode, -1 with the tiger behind the door and 0.1 without.
    The best policy, which opens once one side is three ahead, earns 0.052 on average; opening at once earns -0.45.

    prob: the probability of hearing the tiger on its side.

    Raises HyperparameterError where prob is not a probability.
    Source: the tiger problem of Kaelbling, Littman and Cassandra, Planning and Acting in Partially Observable
    Stochastic Domains (1998), with the rewards, first observation, time limit and threshold of SimpleDistributedRL's
    Tiger.
    """

    prob: float = 0.85

    id = "renshu/Tiger-v0"
    max_episode_steps = 50
    reward_threshold = 0.0
    observation_space = spaces.Discrete(2)
    action_space = spaces.Discrete(3)

    def __post_init__(self) -> None:
        if not 0 <= self.prob <= 1:
            raise HyperparameterError(f"prob is a probability, 0 to 1, not {self.prob!r}")

    def reset(self, key: Key) -> tuple[TigerState, Array]:
        """Begin with the tiger behind either door; the observation is [] int32."""
        tiger, heard = jax.random.bernoulli(key, shape=(2,)).astype(jnp.int32)
        return TigerState(tiger, heard, jnp.int32(-1)), heard

    def step(self, state: TigerState, action: Array, key: Key) -> Step:
        """Listen, or open a door, which ends the episode."""
        opens = action > 0
        right = opens | jax.random.bernoulli(key, self.prob)
        heard = jnp.where(right, state.tiger, 1 - state.tiger)
        reward = jnp.where(opens, jnp.where(action - 1 == state.tiger, TIGER, PRIZE), LISTENING)
        state = TigerState(state.tiger, heard, jnp.where(opens, action - 1, -1).astype(jnp.int32))
        return Step(state, heard, reward.astype(jnp.float32), opens)

    def action_name(self, action: int) -> str:
        """Name an action: "listen", "left" or "right"."""
        return NAMES[action]

    def render(self, state: TigerState) -> np.ndarray:
        """Draw the doors, [160, 200, 3] uint8: a blue dot where the tiger was heard, and what an open door shows.

        That is an orange disc for the tiger and a green one for the prize.
        """
        image = canvas(160, 200)
        image[:] = PAPER
        for side in range(2):
            x, opened = 100 * side + 50, int(state.opened) == side
            box(image, x - 35, 40, x + 35, 160, OPEN if opened else DOOR)
            if opened:
                disc(image, x, 105, 24, STRIPES if int(state.tiger) == side else GOLD)
            else:
                disc(image, x + 24, 100, 4, OPEN)
            if int(state.heard) == side:
                disc(image, x, 20, 10, SOUND)
        return image

    def text(self, state: TigerState) -> str:
        """Show in one line behind which door the tiger T is, and the side on which it was heard or that was opened."""
        doors = "T ." if int(state.tiger) == 0 else ". T"
        opened = int(state.opened)
        return f"{doors}  heard {SIDES[int(state.heard)]}" if opened < 0 else f"{doors}  opened {SIDES[opened]}"
