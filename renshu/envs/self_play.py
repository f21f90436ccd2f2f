"""Self-play: the opponents of a learner are copies of what it was before, which are kept and never change."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from renshu.envs.players import SELF, Player, Sight
from renshu.errors import HyperparameterError
from renshu.types import MASK, OBSERVATION, Array, Key, PyTree, TimeStep


class Past(NamedTuple):
    """Copies of a learner, shared by all its games."""

    copies: PyTree  # [K, ...]  its actor states, in K slots
    count: Array  # [] int32  copies taken so far
    since: Array  # [] int32  rollouts since the last one


class PastMemory(NamedTuple):
    """Memory of a copy in a game."""

    slot: Array  # [] int32  of the copy that plays; -1: none yet, and moves are random
    carry: PyTree  # of its network, [1, ...]


class SelfPlay(Player):
    """Copies of the learner as it was before, of which one is drawn for each game and plays it to the end.

    size: copies that are kept, a uniform sample of all that were taken (reservoir sampling, Vitter 1985): against the
    newest alone a learner forgets how to beat older ones, and goes round in circles (Bansal et al. 2018, section 4.2).
    every: rollouts between two copies; one waits until nobody plays any more against the copy that has to go. Before
    the first copy opponents move at random. Returns are filed by who played: "past_0" to "past_K-1" in the `info` of a
    game's last step, K the `size`.

    The compiled loop alone has the copies; elsewhere, as in evaluations and videos, moves are random. Raises
    HyperparameterError for numbers out of range.
    """

    name = SELF

    def __init__(self, size: int = 8, every: int = 20) -> None:
        if size < 2 or every < 1:
            raise HyperparameterError(f"size={size}, every={every}: expected a size of at least 2, every of at least 1")
        self.size, self.every = size, every
        self._learner: Any = None
        self._past: Past | None = None

    def of(self, learner: Any) -> SelfPlay:
        """Return these opponents with a learner's way to act."""
        made = copy.copy(self)
        made._learner = learner
        return made

    def sharing(self, past: Past) -> SelfPlay:
        """Return these opponents with the copies that they play by."""
        made = copy.copy(self)
        made._past = past
        return made

    def start(self) -> Past:
        """Return room for the copies, which are none yet."""
        learner = self._learner
        shapes = jax.eval_shape(lambda key: learner.actor_state(learner.init(key)), jax.random.key(0))
        copies = jax.tree.map(lambda s: jnp.zeros((self.size, *s.shape), s.dtype), shapes)
        return Past(copies, jnp.int32(0), jnp.int32(0))

    def renewed(self, past: Past, actor_state: PyTree, playing: Array) -> Past:
        """Take a copy of an actor state where one is due, after a rollout.

        playing: [...] int32, slots of the copies that are in a game.
        """
        slot = self._next(past.count)
        past = past._replace(since=past.since + 1)
        due = (past.since >= self.every) & ~(playing == slot).any()

        def take() -> Past:
            copies = jax.tree.map(lambda all_, one: all_.at[slot].set(one, mode="drop"), past.copies, actor_state)
            return Past(copies, past.count + 1, jnp.int32(0))

        return jax.lax.cond(due, take, lambda: past)

    def begin(self, key: Key) -> PastMemory:
        """Draw a copy, each as likely as any other."""
        if self._learner is None:
            return PastMemory(jnp.int32(-1), ())
        past = self._shared()
        known, leaving = jnp.minimum(past.count, self.size), self._next(past.count)
        # The copy that has to go next begins no game, so that it can go.
        goes = leaving < known
        drawn = jax.random.randint(key, (), 0, jnp.maximum(known - goes, 1))
        slot = drawn + (goes & (drawn >= leaving))
        return PastMemory(jnp.where(known > 0, slot, -1).astype(jnp.int32), self._learner.initial_carry(1))

    def move(self, memory: PastMemory, sight: Sight, key: Key) -> tuple[Array, PastMemory]:
        """Act as the copy does in training; without a learner, at random."""
        key_act, key_random = jax.random.split(key)
        at_random = jax.random.categorical(key_random, jnp.where(sight.legal, 0.0, -jnp.inf)).astype(jnp.int32)
        if self._learner is None:
            return at_random, memory
        past = self._shared()

        def act(actor_state: PyTree) -> tuple[Array, PyTree]:
            return moved(self._learner, actor_state, memory.carry, sight, key_act)

        # All copies act, and one counts: a network for each game would be one product for each.
        slot = jnp.maximum(memory.slot, 0)
        chosen, carry = jax.tree.map(lambda x: x[slot], jax.vmap(act)(past.copies))
        action = jnp.where(memory.slot < 0, at_random, chosen).astype(jnp.int32)
        return action, PastMemory(memory.slot, carry)

    def filed(self, memory: PastMemory) -> dict[str, Array]:
        """Name who plays: a flag for each slot, [] bool."""
        return {f"past_{i}": memory.slot == i for i in range(self.size)}

    def _next(self, count: Array) -> Array:
        """Return the slot of the next copy, [] int32; none where it is not below `size`: that copy is left out."""
        drawn = jax.random.randint(jax.random.fold_in(jax.random.key(0), count), (), 0, count + 1)
        return jnp.where(count < self.size, count, drawn)

    def _shared(self) -> Past:
        return self.start() if self._past is None else self._past


class Frozen(Player):
    """A learner as it is now, which never changes, as an opponent.

    learner: a `renshu.Learner`. actor_state: what acting needs of its state. name: in messages. explore: it acts as in
    training; otherwise greedily.
    """

    def __init__(self, learner: Any, actor_state: PyTree, name: str, explore: bool = True) -> None:
        self._learner, self._actor_state, self.name, self._explore = learner, actor_state, name, explore

    def begin(self, key: Key) -> PyTree:
        """Return the network's memory at the start of a game."""
        return self._learner.initial_carry(1)

    def move(self, memory: PyTree, sight: Sight, key: Key) -> tuple[Array, PyTree]:
        """Act as the learner does."""
        return moved(self._learner, self._actor_state, memory, sight, key, self._explore)


def moved(
    learner: Any, actor_state: PyTree, carry: PyTree, sight: Sight, key: Key, explore: bool = True
) -> tuple[Array, PyTree]:
    """Let a learner act in one game: an action, [] int32, and its carry after it."""
    obs = {MASK: sight.legal.astype(jnp.int8), OBSERVATION: sight.obs} if learner.spec.masks else sight.obs
    obs, first, state = jax.tree.map(lambda x: x[None], (obs, sight.first, sight.state))
    timestep = TimeStep(obs, first, env_state=state if learner.needs.env_state else ())
    done = learner.act(learner.prepare(actor_state, jnp.arange(1)), carry, timestep, key, explore=explore)
    return done.action[0].astype(jnp.int32), done.carry
