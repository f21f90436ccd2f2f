"""Targets of learners that unroll a model of their own, from stored sequences that may cross the ends of episodes."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from renshu.ops.returns import n_step_returns
from renshu.types import Array, Rollout


class Targets(NamedTuple):
    """Rewards and values to learn in K unrolled steps from each of B first observations.

    An episode that ended for good stays where it is: reward and value are 0 there, and any policy will do. Of one that
    was cut off nothing is known beyond.
    """

    value: Array  # [K+1, B]
    reward: Array  # [K, B]  of the step from k to k + 1
    going: Array  # [K+1, B] bool  the episode goes on at k: policy and value are known
    over: Array  # [K+1, B] bool  it has ended for good before

    @property
    def known(self) -> Array:
        """[K+1, B] bool: there is a value to learn, and for the step from there a reward."""
        return self.going | self.over


def unroll_targets(rollout: Rollout, value: Array, gamma: float | Array, n: int, steps: int) -> Targets:
    """Make the targets of sequences (Schrittwieser et al. 2020, appendix G).

    rollout: sequences of at least steps + n steps. value: [T+1, B] with T = steps + n, of the observations there, for
    the player to move. gamma: discount a step; [T, B] where it is negative in some, as where the turn passes to the
    other player of two. n: rewards summed up before a value. steps: K.
    """
    length = steps + n
    reward, terminated, valid = (x[:length] for x in (rollout.reward, rollout.terminated, rollout.valid))
    returns = n_step_returns(reward, value, terminated, valid, gamma, n)[: steps + 1]
    going = jnp.cumprod(valid[: steps + 1], axis=0).astype(jnp.bool_)
    ended = jnp.cumsum(going & terminated[: steps + 1], axis=0)[:-1] > 0
    over = jnp.concatenate([jnp.zeros_like(ended[:1]), ended])
    going &= ~over
    return Targets(jnp.where(going, returns, 0.0), jnp.where(going[:-1], reward[:steps], 0.0), going, over)
