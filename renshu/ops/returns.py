"""Advantages and returns of a rollout, time-major and cut where episodes end.

All functions here take the same arrays, for T steps of N environments:

- `reward` [T, N] float32, `terminated` [T, N] bool, `valid` [T, N] bool (`Rollout.valid`);
- `value` [T+1, N] float32: the value of each observation, the one after the last step included.

A step that is not valid only resets its environment. It gets 0, whatever stands in its row, and no sum runs across it.
The step before it therefore ends its episode: if `terminated`, there is no value beyond; if not, the episode was
truncated and bootstraps from `value[t + 1]`, the value of its true last observation.

No gradient is stopped here. All raise AssertionError, when traced, if shapes do not agree or the flags are not bool.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp

from renshu.errors import HyperparameterError
from renshu.types import Array


def gae(
    reward: Array, value: Array, terminated: Array, valid: Array, gamma: float | Array, gae_lambda: float | Array
) -> jax.Array:
    """Estimate advantages, generalised (Schulman et al. 2016, "High-Dimensional Continuous Control ...", eq. 11-16).

    gamma: discount a step, in [0, 1]. gae_lambda: 0 gives the one-step TD error, 1 the return minus the value.
    Returns the advantage, [T, N]. The target of the value is `advantage + value[:-1]`, where valid.
    """
    _check(reward, value, terminated, valid)
    delta = reward + gamma * jnp.where(terminated, 0.0, value[1:]) - value[:-1]
    decay = jnp.where(terminated, 0.0, gamma * gae_lambda)

    def step(advantage_tp1: jax.Array, row: tuple[Array, Array, Array]) -> tuple[jax.Array, jax.Array]:
        delta_t, decay_t, valid_t = row
        advantage = jnp.where(valid_t, delta_t + decay_t * advantage_tp1, 0.0)
        return advantage, advantage

    return jax.lax.scan(step, jnp.zeros_like(delta[0]), (delta, decay, valid), reverse=True)[1]


def vtrace(
    reward: Array,
    value: Array,
    terminated: Array,
    valid: Array,
    log_ratio: Array,
    gamma: float | Array,
    gae_lambda: float | Array = 1.0,
    rho_bar: float | Array = 1.0,
    c_bar: float | Array = 1.0,
) -> tuple[jax.Array, jax.Array]:
    """Estimate advantages and targets of the value from the steps of another policy, V-trace.

    Espeholt et al. 2018, "IMPALA", equation 1 and section 4.2; with `gae_lambda` of its remark 2. log_ratio: [T, N],
    log pi(a|s) - log mu(a|s), of the policy that learns and the one that acted. rho_bar, c_bar: bounds of the ratios
    in the errors, which say what policy's value is learned, and in the trace, which say how fast.
    Where both policies are one the advantage is that of `gae`, and the target `advantage + value[:-1]`.
    Returns advantages, weighted by their ratio, and targets, both [T, N]; advantages are 0 where not valid.
    """
    _check(reward, value, terminated, valid)
    chex.assert_equal_shape([reward, log_ratio])
    ratio = jnp.exp(log_ratio)
    rho, c = jnp.minimum(ratio, rho_bar), jnp.minimum(ratio, c_bar)
    goes_on = jnp.where(terminated, 0.0, gamma)
    delta = reward + goes_on * value[1:] - value[:-1]

    def step(beyond: jax.Array, row: tuple[Array, ...]) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        delta_t, goes_on_t, rho_t, c_t, valid_t = row
        # beyond: v_{t+1} - V(s_{t+1}), as the paper calls them.
        advantage = jnp.where(valid_t, rho_t * (delta_t + goes_on_t * gae_lambda * beyond), 0.0)
        correction = jnp.where(valid_t, rho_t * delta_t + goes_on_t * gae_lambda * c_t * beyond, 0.0)
        return correction, (advantage, correction)

    rows = (delta, goes_on, rho, c, valid)
    advantage, correction = jax.lax.scan(step, jnp.zeros_like(delta[0]), rows, reverse=True)[1]
    return advantage, correction + value[:-1]


def discounted_returns(reward: Array, value: Array, terminated: Array, valid: Array, gamma: float | Array) -> jax.Array:
    """Sum discounted rewards to the end of each step's episode (Sutton & Barto 2018, eq. 3.8).

    Where the episode goes on beyond the rollout, or was truncated, the value of the last observation stands for the
    rest. gamma: discount a step, in [0, 1]. Returns [T, N]; 0 where not valid.
    """
    _check(reward, value, terminated, valid)

    def step(beyond: jax.Array, row: tuple[Array, Array, Array, Array]) -> tuple[jax.Array, jax.Array]:
        reward_t, value_t, terminated_t, valid_t = row
        total = reward_t + gamma * jnp.where(terminated_t, 0.0, beyond)
        return jnp.where(valid_t, total, value_t), jnp.where(valid_t, total, 0.0)

    return jax.lax.scan(step, jnp.asarray(value[-1]), (reward, value[:-1], terminated, valid), reverse=True)[1]


def n_step_returns(
    reward: Array, value: Array, terminated: Array, valid: Array, gamma: float | Array, n: int
) -> jax.Array:
    """Compute targets from n rewards and the value after them (Sutton & Barto 2018, eq. 7.1).

    Fewer than n where the episode or the rollout ends first: then the value of the last observation reached is taken,
    or none if the episode terminated. gamma: discount a step, in [0, 1]. n: a Python int, at least 1; the cost is
    O(T n). Returns [T, N]; 0 where not valid. Raises HyperparameterError if n is below 1.
    """
    _check(reward, value, terminated, valid)
    if n < 1:
        raise HyperparameterError(f"n_step_returns got n={n}; it needs at least one reward: give n >= 1.")

    def backup(target: jax.Array, _: None) -> tuple[jax.Array, None]:
        one_more = reward + gamma * jnp.where(terminated, 0.0, target[1:])
        # A reset row keeps its value: from it the truncated step before bootstraps, however often this backs up.
        return target.at[:-1].set(jnp.where(valid, one_more, value[:-1])), None

    target, _ = jax.lax.scan(backup, jnp.asarray(value), length=min(n, reward.shape[0]))
    return jnp.where(valid, target[:-1], 0.0)


def _check(reward: Array, value: Array, terminated: Array, valid: Array) -> None:
    chex.assert_rank(reward, 2)
    steps, num_envs = reward.shape
    chex.assert_shape(value, (steps + 1, num_envs))
    chex.assert_shape([terminated, valid], (steps, num_envs))
    chex.assert_type([terminated, valid], bool)
