"""Stone taking: a heap of stones, of which whoever takes the last has lost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from renshu.envs.builtin.boards import PAPER, paid, standing
from renshu.envs.builtin.drawing import Colour, canvas, disc
from renshu.envs.games import Game
from renshu.errors import HyperparameterError
from renshu.types import Array, Key

CELL, ACROSS = 40, 10  # pixels; stones in a row of the picture
STONE: Colour = (110, 115, 125)


class StoneTakingState(NamedTuple):
    """Stones that are left, and the seat of the player to move."""

    stones: Array  # [] int32
    seat: Array  # [] int32


@dataclass(frozen=True)
class StoneTaking(Game):
    """Take some stones of a heap in turn; whoever takes the last one has lost.

    Observation: Discrete(stones + 1), the stones that are left.
    Action: Discrete(max_stones), 0 to take one stone, and so on. Their names are the numbers of stones. No more can be
    taken than there are.
    Reward: 1 for the winner and -1 for the loser, at the end.
    With the best play the player to move loses where the stones leave a remainder of 1 by max_stones + 1.

    stones: of the heap at first, 1 or more. max_stones: the most that can be taken at once, 1 or more.

    Raises HyperparameterError when either is not such a number.
    Source: SimpleDistributedRL's StoneTaking, in which a player may also take more stones than there are, and loses.
    """

    stones: int = 10
    max_stones: int = 3

    id = "renshu/StoneTaking-v0"

    def __post_init__(self) -> None:
        for name, value in (("stones", self.stones), ("max_stones", self.max_stones)):
            if not isinstance(value, int) or value < 1:
                raise HyperparameterError(f"{name} is a number of stones, 1 or more, not {value!r}")
        set_ = object.__setattr__  # the dataclass is frozen
        set_(self, "observation_space", spaces.Discrete(self.stones + 1))
        set_(self, "action_space", spaces.Discrete(self.max_stones))

    def begin(self, key: Key) -> StoneTakingState:
        """Set up the heap; seat 0 begins."""
        return StoneTakingState(jnp.int32(self.stones), jnp.int32(0))

    def move(self, state: StoneTakingState, action: Array, key: Key) -> tuple[StoneTakingState, Array, Array]:
        """Take stones."""
        left = (state.stones - action - 1).astype(jnp.int32)
        over = left <= 0
        return StoneTakingState(left, 1 - state.seat), paid(state.seat, jnp.where(over, -1, 0)), over

    def observe(self, state: StoneTakingState) -> Array:
        """Return the stones that are left, [] int32."""
        return state.stones

    def to_play(self, state: StoneTakingState) -> Array:
        """Return the seat of the player to move: [] int32."""
        return state.seat

    def action_mask(self, state: StoneTakingState) -> Array:
        """Return which numbers of stones there are: [max_stones] bool."""
        return jnp.arange(self.max_stones) < state.stones

    def action_name(self, action: int) -> str:
        """Name the number of stones: "1", "2", ..."""
        return str(action + 1)

    def render(self, state: StoneTakingState) -> np.ndarray:
        """Draw the stones that are left, ten in a row, [40 * rows, 400, 3] uint8 with the rows of the first heap."""
        image = canvas(CELL * -(-self.stones // ACROSS), CELL * ACROSS)
        image[:] = PAPER
        for i in range(int(state.stones)):
            disc(image, (i % ACROSS + 0.5) * CELL, (i // ACROSS + 0.5) * CELL, 0.4 * CELL, STONE)
        return image

    def text(self, state: StoneTakingState) -> str:
        """Show the stones in one line, their number first; X, seat 0, or O is to move, or has won, in a second line."""
        left = int(state.stones)
        return f"{left}: {'o' * left}".rstrip() + f"\n{standing(state.seat, None if left else 1)}"
