"""Two picks: the smallest game in which the players are paid before its end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from renshu.envs.builtin.boards import INK, PAPER, paid
from renshu.envs.builtin.drawing import Colour, box, canvas
from renshu.envs.games import Game
from renshu.types import Array, Key

CELL = 80  # pixels
COLOURS: tuple[Colour, ...] = ((225, 225, 225), (110, 200, 110))


class TwoPicksState(NamedTuple):
    """Number of picks made, and what was picked."""

    picks: Array  # [] int32  0 to 2
    chosen: Array  # [2] int8  by each seat; 0 before its pick


@dataclass(frozen=True)
class TwoPicks(Game):
    """Pick 0 or 1, seat 0 first and then seat 1; whoever picks 1 is paid 1 by the other, at that moment.

    It tests that rewards reach the player whose they are: with the best play seat 0 gets 1 for its own pick and -1 for
    that of seat 1, after it has moved for the last time.
    Observation: MultiBinary(2): whether one pick has been made, and whether the other player picked 1.
    Action: Discrete(2), what to pick.
    Reward: 1 for whoever picks 1 and -1 for the other, 0 for both after a pick of 0. Two picks are a game.
    """

    id = "renshu/TwoPicks-v0"
    observation_space = spaces.MultiBinary(2)
    action_space = spaces.Discrete(2)

    def begin(self, key: Key) -> TwoPicksState:
        """Set up a game without picks."""
        return TwoPicksState(jnp.int32(0), jnp.zeros(2, jnp.int8))

    def move(self, state: TwoPicksState, action: Array, key: Key) -> tuple[TwoPicksState, Array, Array]:
        """Pick, and be paid for it."""
        chosen = jnp.where(jnp.arange(2) == state.picks, action, state.chosen).astype(jnp.int8)
        return TwoPicksState(state.picks + 1, chosen), paid(state.picks, action), state.picks >= 1

    def observe(self, state: TwoPicksState) -> Array:
        """Return the progress of the game and the pick of the other, [2] int8."""
        return jnp.stack([state.picks > 0, (state.picks > 0) & (state.chosen[0] == 1)]).astype(jnp.int8)

    def to_play(self, state: TwoPicksState) -> Array:
        """Return the seat of the player to move: [] int32."""
        return jnp.minimum(state.picks, 1)

    def action_mask(self, state: TwoPicksState) -> Array:
        """Return that both picks are allowed: [2] bool."""
        return jnp.ones(2, jnp.bool_)

    def render(self, state: TwoPicksState) -> np.ndarray:
        """Draw a box for each seat, [80, 160, 3] uint8: white before its pick, grey after a 0, green after a 1."""
        image = canvas(CELL, 2 * CELL)
        image[:] = INK
        for seat in range(2):
            colour = COLOURS[int(state.chosen[seat])] if seat < int(state.picks) else PAPER
            box(image, seat * CELL + 4, 4, (seat + 1) * CELL - 4, CELL - 4, colour)
        return image

    def text(self, state: TwoPicksState) -> str:
        """Show the picks in one line, '.' for one that has not been made."""
        return " ".join(str(int(state.chosen[seat])) if seat < int(state.picks) else "." for seat in range(2))
