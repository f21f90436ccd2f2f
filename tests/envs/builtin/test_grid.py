import jax
import jax.numpy as jnp
import numpy as np
import pytest

import renshu
from renshu.envs.builtin.grid import Grid, GridState
from renshu.envs.device import DeviceEnvs
from renshu.errors import HyperparameterError

LEFT, DOWN, RIGHT, UP = range(4)
SURE = Grid(move_prob=1.0)
BEST = {(1, 1): RIGHT, (2, 1): RIGHT, (3, 1): RIGHT, (1, 2): UP, (3, 2): UP}
BEST |= {(1, 3): UP, (2, 3): LEFT, (3, 3): LEFT, (4, 3): LEFT}
"""Russell and Norvig, figure 17.2, in our coordinates."""

step = jax.jit(Grid.step, static_argnums=0)


def at(x: int, y: int) -> GridState:
    return GridState(jnp.int32(x), jnp.int32(y))


def walk(env: Grid, state: GridState, action: int):
    return step(env, state, jnp.int32(action), jax.random.key(0))


def test_it_starts_at_the_bottom_left():
    _, obs = Grid().reset(jax.random.key(0))
    assert obs.tolist() == [1, 3]
    assert Grid.observation_space.contains(np.asarray(obs))


def test_layers_are_the_same_world_as_an_image():
    env = Grid(layers=True, move_prob=1.0)
    state, obs = env.reset(jax.random.key(0))
    assert env.observation_space.contains(np.asarray(obs))
    assert np.argwhere(obs[..., 0]).tolist() == [[3, 1]]
    assert np.argwhere(obs[..., 2]).tolist() == [[1, 4]]
    assert np.argwhere(obs[..., 3]).tolist() == [[2, 4]]
    assert np.asarray(obs[..., 1]).sum() == 19
    after, plain = walk(env, state, UP), walk(SURE, state, UP)
    assert np.argwhere(after.obs[..., 0]).tolist() == [[2, 1]]
    np.testing.assert_array_equal(after.obs[..., 1:], obs[..., 1:])
    assert after.state == plain.state
    assert Grid().observation_space == Grid.observation_space


def test_layers_can_be_asked_for_by_name_and_learned_from(tmp_path):
    settings = {"n_steps": 16, "batch_size": 32, "net_arch": [16]}
    agent = renshu.PPO(**settings).on("renshu/Grid-v0", env_kwargs={"layers": True}, num_envs=2, seed=0)
    agent.learn(64, progress=False)
    again = renshu.load(agent.save(tmp_path / "agent.safetensors"))
    assert again.evaluate(2).lengths == agent.evaluate(2).lengths
    assert again.trainer.spec.observation_space.shape == (5, 6, 4)


@pytest.mark.parametrize(
    ("start", "action", "end"),
    [
        ((3, 3), LEFT, (2, 3)),
        ((3, 3), RIGHT, (4, 3)),
        ((3, 3), UP, (3, 2)),
        ((3, 2), DOWN, (3, 3)),
        ((1, 3), LEFT, (1, 3)),
        ((1, 3), DOWN, (1, 3)),
        ((1, 2), RIGHT, (1, 2)),
        ((2, 1), DOWN, (2, 1)),
        ((2, 1), UP, (2, 1)),
    ],
)
def test_moves_and_walls(start, action, end):
    after = walk(SURE, at(*start), action)
    assert tuple(after.obs.tolist()) == end
    assert float(after.reward) == pytest.approx(-0.04)
    assert not after.terminated


@pytest.mark.parametrize(
    ("start", "action", "reward"), [((3, 1), RIGHT, 1.0), ((3, 2), RIGHT, -1.0), ((4, 3), UP, -1.0)]
)
def test_goal_and_pit_end_it(start, action, reward):
    after = walk(SURE, at(*start), action)
    assert float(after.reward) == reward
    assert after.reward.dtype == jnp.float32
    assert after.terminated


@pytest.mark.parametrize(("action", "sides"), [(UP, (LEFT, RIGHT)), (LEFT, (UP, DOWN))])
def test_moves_slip_to_each_side_one_time_in_ten(action, sides):
    keys = jax.random.split(jax.random.key(1), 20_000)
    move = jax.jit(jax.vmap(lambda key: Grid().step(at(3, 2), jnp.int32(action), key).obs))
    ends, counts = np.unique(np.asarray(move(keys)), axis=0, return_counts=True)
    share = {tuple(end): count / 20_000 for end, count in zip(ends.tolist(), counts, strict=True)}
    # The inner wall is left of (3, 2): who goes there stays.
    place = {LEFT: (3, 2), DOWN: (3, 3), RIGHT: (4, 2), UP: (3, 1)}
    assert share == pytest.approx({place[action]: 0.8, place[sides[0]]: 0.1, place[sides[1]]: 0.1}, abs=0.01)


def test_the_best_policy_earns_what_the_book_says():
    table = np.zeros((6, 5), np.int32)
    for cell, action in BEST.items():
        table[cell] = action
    envs = DeviceEnvs(Grid(), 2000)

    def play(carry, _):
        state, obs, open_, total = carry
        state, out = envs.step(state, jnp.asarray(table)[obs[:, 0], obs[:, 1]])
        total += jnp.where(open_, out.reward, 0)
        return (state, out.obs, open_ & ~(out.terminated | out.truncated), total), None

    @jax.jit
    def returns(key):
        state, obs = envs.reset(key)
        start = (state, obs, jnp.ones(2000, jnp.bool_), jnp.zeros(2000))
        (*_, open_, total), _ = jax.lax.scan(play, start, length=50)
        return open_.any(), total.mean()

    still_open, mean = returns(jax.random.key(2))
    assert not still_open
    assert float(mean) == pytest.approx(0.745, abs=0.03)


def test_time_limit_and_reset():
    envs = DeviceEnvs(SURE, 3)
    forward = jax.jit(envs.step)
    state, _ = envs.reset(jax.random.key(0))
    for i in range(50):
        state, out = forward(state, jnp.array([LEFT, DOWN, LEFT]))
        assert bool(out.truncated.all()) == (i == 49)
        assert not out.terminated.any()
    _, out = forward(state, jnp.array([UP, UP, UP]))
    assert out.obs.tolist() == [[1, 3]] * 3
    assert out.reward.tolist() == [0.0] * 3


def test_text_and_picture_show_where_the_agent_is():
    assert Grid().text(at(1, 3)) == "......\n.   G.\n. . X.\n.P   .\n......"
    assert Grid().text(at(4, 1)) == "......\n.   P.\n. . X.\n.S   .\n......"
    one, other = Grid().render(at(1, 3)), Grid().render(at(2, 3))
    assert one.shape == (240, 288, 3)
    assert one.dtype == np.uint8
    assert one[int(3.5 * 48), int(1.5 * 48)].tolist() == [50, 90, 200]
    assert other[int(3.5 * 48), int(2.5 * 48)].tolist() == [50, 90, 200]
    assert (one != other).any()


def test_a_probability_above_one_is_refused():
    with pytest.raises(HyperparameterError, match=r"move_prob .* 0 to 1, not 1\.5"):
        Grid(move_prob=1.5)
