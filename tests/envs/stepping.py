"""Random steps of an environment under jit, and beside those of the library that it comes from."""

import jax
import jax.numpy as jnp
import numpy as np

from renshu.envs.device import DeviceEnvs

STEPS = 200


def random_actions(env, *shape):
    env.action_space.seed(0)
    drawn = [env.action_space.sample() for _ in range(int(np.prod(shape)))]
    return np.stack(drawn).reshape(*shape, *np.shape(drawn[0]))


def rollout(env, num_envs=2):
    """200 random steps under jit; checks observations against the space, and returns what every step gave."""
    envs = DeviceEnvs(env, num_envs)

    @jax.jit
    def run(key, actions):
        state, obs = envs.reset(key)
        _, outcome = jax.lax.scan(envs.step, state, actions)
        return obs, outcome

    first, outcome = jax.tree.map(np.asarray, run(jax.random.key(0), random_actions(env, STEPS, num_envs)))
    assert env.observation_space.contains(jax.tree.map(lambda x: x[0], first))
    for t in range(0, STEPS, 20):
        assert env.observation_space.contains(jax.tree.map(lambda x, t=t: x[t, 0], outcome.obs))
    assert np.isfinite(outcome.reward).all()
    return outcome


def assert_same(env, reset, step):
    """200 random steps of the adapter beside 200 of the library itself, with the same keys; both reset at an end.

    reset: key -> (state, obs). step: (state, action, key) -> (state, obs, reward, ended). Keys are raw.
    """

    def ours(state, action, key):
        after = env.step(state, action, jax.random.wrap_key_data(key))
        return after.state, after.obs, after.reward, after.terminated | after.truncated

    def trajectory(reset, step, keys, actions):
        def advance(state, now):
            action, key = now
            state, obs, reward, ended = step(state, action, key)
            begun, _ = reset(key)
            state = jax.tree.map(lambda new, old: jnp.where(ended, new, old), begun, state)
            return state, (obs, reward, ended)

        state, obs = reset(keys[0])
        # One step first: from then on the library's states have the dtypes that they keep.
        state, *_ = step(state, actions[0], keys[0])
        return obs, jax.lax.scan(advance, state, (actions, keys))[1]

    keys = jax.vmap(jax.random.key_data)(jax.random.split(jax.random.key(1), STEPS))
    actions = random_actions(env, STEPS)
    mine = jax.jit(lambda k, a: trajectory(lambda key: env.reset(jax.random.wrap_key_data(key)), ours, k, a))
    theirs = jax.jit(lambda k, a: trajectory(reset, step, k, a))
    for a, b in zip(jax.tree.leaves(mine(keys, actions)), jax.tree.leaves(theirs(keys, actions)), strict=True):
        np.testing.assert_allclose(np.asarray(a, float), np.asarray(b, float), rtol=1e-5, atol=1e-5)
