import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from renshu.envs.adapters import Brax, Pgx, Playground, adapt
from renshu.envs.device import DeviceEnvs
from renshu.envs.seats import Seated
from renshu.errors import HyperparameterError, SpaceError
from tests.envs.stepping import STEPS, assert_same, random_actions, rollout

# Brax


@pytest.fixture
def drift():
    """Without physics: `x` grows by the action; above 3 the episode ends."""
    base = pytest.importorskip("brax.envs.base", reason="Brax is not installed")

    class Drift(base.Env):
        observation_size = {"x": (1,), "up": (2,)}  # noqa: RUF012
        action_size = 1
        backend = "none"

        def reset(self, rng):
            x = jax.random.uniform(rng)
            return base.State(None, self._see(x), jnp.float32(0), jnp.float32(0), {}, {"x": x})

        def step(self, state, action):
            x = state.info["x"] + action[0]
            info = {**state.info, "x": x}
            return state.replace(obs=self._see(x), reward=x, done=(x > 3).astype(jnp.float32), info=info)

        def _see(self, x):
            return {"x": x[None], "up": jnp.stack([x, -x])}

    return Drift()


def test_brax_spaces_and_ends(drift):
    env = Brax(drift)
    box = spaces.Box(-np.inf, np.inf, (1,), np.float32)
    assert env.observation_space == spaces.Dict({"x": box, "up": spaces.Box(-np.inf, np.inf, (2,), np.float32)})
    assert env.action_space == spaces.Box(-1.0, 1.0, (1,), np.float32)
    assert env.max_episode_steps == 1000
    outcome = rollout(env)
    assert outcome.terminated.any()
    assert not outcome.truncated.any()
    assert (outcome.obs["x"][outcome.terminated] > 3).all()  # the true last observation


def test_brax_truncation_is_no_termination(drift):
    from brax.envs.wrappers.training import AutoResetWrapper, EpisodeWrapper, VmapWrapper

    wrapped = AutoResetWrapper(EpisodeWrapper(drift, episode_length=10, action_repeat=1))
    env = Brax(wrapped, max_episode_steps=None)
    assert env.max_episode_steps == 10
    env.max_episode_steps = None  # so that the library's own truncation is what is seen
    outcome = rollout(env)
    assert outcome.truncated.any()
    assert (outcome.obs["x"][outcome.truncated] <= 3).all()
    assert not (outcome.truncated & outcome.terminated).any()
    with pytest.raises(SpaceError, match="VmapWrapper"):
        Brax(VmapWrapper(drift, 3))
    with pytest.raises(HyperparameterError, match="made already"):
        Brax(drift, backend="spring")


def test_brax_equals_the_library():
    envs = pytest.importorskip("brax.envs", reason="Brax is not installed")
    library = envs.get_environment("fast")

    def step(state, action, key):
        after = library.step(state, action)
        return after, after.obs, after.reward, after.done.astype(bool)

    def reset(key):
        state = library.reset(key)
        return state, state.obs

    assert_same(Brax("fast"), reset, step)


# MuJoCo Playground


def test_playground_equals_the_library():
    playground = pytest.importorskip("mujoco_playground", reason="MuJoCo Playground is not installed")
    library = playground.registry.load("CartpoleBalance", config_overrides={"impl": "jax", "episode_length": 60})
    env = adapt(library)
    assert isinstance(env, Playground)
    assert env.observation_space.shape == (5,)
    assert env.action_space == spaces.Box(-1.0, 1.0, (1,), np.float32)
    envs, actions = DeviceEnvs(env, 1), random_actions(env, STEPS, 1)
    begun, obs = jax.jit(envs.reset)(jax.random.key(0))
    assert env.observation_space.contains(np.asarray(obs)[0])
    _, outcome = jax.jit(lambda state, actions: jax.lax.scan(envs.step, state, actions))(begun, actions)
    assert np.flatnonzero(outcome.truncated[:, 0]).tolist() == [59, 120, 181]
    assert not outcome.terminated.any()
    state, step = jax.tree.map(lambda x: x[0], begun.inner), jax.jit(library.step)
    for t in range(20):
        state = step(state, actions[t, 0])
        np.testing.assert_allclose(outcome.obs[t, 0], state.obs, atol=1e-5)
        np.testing.assert_allclose(outcome.reward[t, 0], state.reward, atol=1e-5)


# pgx


def test_pgx_spaces_and_rewards():
    pytest.importorskip("pgx", reason="pgx is not installed")
    env = Pgx("tic_tac_toe")
    assert env.observation_space == spaces.MultiBinary((3, 3, 2))
    assert env.action_space == spaces.Discrete(9)
    outcome = rollout(env, num_envs=4)
    assert outcome.terminated.any()
    assert set(np.unique(outcome.reward)) <= {-1.0, 0.0, 1.0}
    assert (outcome.reward[~outcome.terminated] == 0).all()
    assert not outcome.truncated.any()


def play_games(env, choose, count=64):
    """The rewards of `count` games at once: [count] float32. choose: (mask, key) -> action."""

    def play(key):
        state, _ = env.reset(key)

        def move(carry, t):
            state, ended, total = carry
            now = jax.random.fold_in(key, t)
            after = env.step(state, choose(env.action_mask(state), now), now)
            return (after.state, ended | after.terminated, total + jnp.where(ended, 0, after.reward)), ended

        carry, _ = jax.lax.scan(move, (state, jnp.bool_(False), jnp.float32(0)), jnp.arange(5))
        return carry[1], carry[2], state.seat, state.game._step_count

    return jax.tree.map(np.asarray, jax.jit(jax.vmap(play))(jax.random.split(jax.random.key(0), count)))


def random_legal(mask, key):
    return jax.random.categorical(key, jnp.where(mask, 0.0, -jnp.inf))


def test_pgx_plays_whole_games_from_both_seats():
    pytest.importorskip("pgx", reason="pgx is not installed")
    ended, reward, seat, moved = play_games(Seated(Pgx("tic_tac_toe")), random_legal)
    assert ended.all()  # five moves of ours fill the board
    assert set(np.unique(reward)) == {-1.0, 0.0, 1.0}
    assert set(np.unique(seat)) == {0, 1}
    assert set(np.unique(moved)) == {0, 1}  # the opponent has moved first, or not


def test_pgx_opponent_sees_what_it_needs():
    pytest.importorskip("pgx", reason="pgx is not installed")

    def careless(key, observation, legal):
        assert observation.shape == (3, 3, 2)
        return jnp.argmin(legal)  # not legal but on an empty board: the game is ours

    _, reward, _, moved = play_games(Seated(Pgx("tic_tac_toe"), careless), random_legal)
    assert (reward == 1.0).all()
    assert set(np.unique(moved)) == {0, 1}


def test_pgx_illegal_move_loses():
    pytest.importorskip("pgx", reason="pgx is not installed")
    env = Pgx("tic_tac_toe")
    state, _ = env.reset(jax.random.key(0))
    state = env.step(state, jnp.argmax(env.action_mask(state)), jax.random.key(1)).state
    seat = int(env.to_play(state))
    after = env.step(state, jnp.argmin(env.action_mask(state)), jax.random.key(2))
    assert bool(after.terminated)
    assert np.asarray(after.reward).tolist() == [[-1.0, 1.0], [1.0, -1.0]][seat]
    assert bool(env.action_mask(after.state).all())


def test_pgx_equals_the_library_where_one_plays():
    pgx = pytest.importorskip("pgx", reason="pgx is not installed")
    library = pgx.make("2048")

    def step(state, action, key):
        after = library.step(state, action, key)
        return after, after.observation, after.rewards[0], after.terminated

    def reset(key):
        state = library.init(key)
        return state, state.observation

    assert_same(Pgx("2048"), reset, step)


def test_adapt_knows_brax_and_pgx(drift):
    pgx = pytest.importorskip("pgx", reason="pgx is not installed")
    assert isinstance(adapt(drift), Brax)
    assert isinstance(adapt(pgx.make("kuhn_poker")), Pgx)
