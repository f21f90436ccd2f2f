import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renshu.envs.builtin.rocket import Rocket, RocketState, can_be_caught
from renshu.envs.device import DeviceEnvs
from renshu.errors import HyperparameterError

step = jax.jit(Rocket.step, static_argnums=0)


def fly(x: float, v: float, thrust: float, **options):
    state = RocketState(jnp.float32(x), jnp.float32(v), jnp.float32(0))
    return step(Rocket(**options), state, jnp.array([thrust], jnp.float32), jax.random.key(0))


def brake(x, v):
    """Thrust [N, 1] that brings the rocket to rest in the least time."""
    where = x + v * abs(v) / 2
    near = (abs(x) < 0.02) & (abs(v) < 0.02)
    return jnp.where(near, -v - x, -jnp.sign(where + 1e-6 * v)).clip(-1, 1)[:, None]


@pytest.mark.parametrize("thrust", [-1.0, 0.3])
def test_runge_kutta_is_the_closed_form(thrust):
    x, v, dt = 0.7, -0.6, 0.1
    state = fly(x, v, thrust, dt=dt).state
    assert float(state.x) == pytest.approx(x + v * dt + thrust * dt**2 / 2, abs=1e-6)
    assert float(state.v) == pytest.approx(v + thrust * dt, abs=1e-6)


def test_fifty_steps_are_the_closed_form():
    env = Rocket(x=1.0, v=-0.5)
    state, _ = env.reset(jax.random.key(0))
    for _ in range(50):
        state = step(env, state, jnp.array([0.8]), jax.random.key(0)).state
    assert float(state.x) == pytest.approx(1 - 0.5 * 0.5 + 0.4 * 0.25, abs=1e-5)
    assert float(state.v) == pytest.approx(-0.5 + 0.4, abs=1e-5)


def test_thrust_is_clipped():
    assert float(fly(1, 0, 5).state.v) == pytest.approx(0.01)
    assert float(fly(1, 0, -5).state.thrust) == -1


@pytest.mark.parametrize(
    ("x", "v", "extra"),
    [(1.0, 0.5, -5.0), (-1.0, -0.5, -5.0), (1.0, -0.5, 1 / 1.25), (-1.0, 0.5, 1 / 1.25), (1.0, 0.0, 0.0)],
)
def test_article_reward(x, v, extra):
    after = fly(x, v, 0)
    assert float(after.reward) == pytest.approx(1 / ((x + 0.01 * v) ** 2 + 1) + extra, abs=1e-5)
    assert after.reward.dtype == jnp.float32
    assert not after.terminated


def test_rest_reward():
    after = fly(1, 0.5, -0.5, reward="rest")
    x, v = 1 + 0.005 - 0.000025, 0.495
    assert float(after.reward) == pytest.approx(-(x**2 + 0.1 * v**2 + 0.001 * 0.25), abs=1e-5)


@pytest.mark.parametrize(("x", "v"), [(1.995, 1.0), (-1.995, -1.0), (0.5, 1.995), (0.5, -1.995)])
def test_passing_a_limit_ends_it(x, v):
    after = fly(x, v, np.sign(v))
    assert after.terminated
    assert float(after.reward) < -498
    assert Rocket.observation_space.contains(np.asarray(after.obs))


def test_the_goal_ends_it_unless_it_is_off():
    there = fly(0.02, 0.02, 0)
    assert there.terminated
    assert float(there.reward) == pytest.approx(500 + 1 - 0.2, abs=0.01)
    on = fly(0.02, 0.02, 0, goal=False)
    assert not on.terminated
    assert float(on.reward) == pytest.approx(1 - 0.2, abs=0.01)
    assert not fly(0.02, 0.2, 0).terminated
    assert not fly(0.2, 0.02, 0).terminated
    assert not fly(0.02, 0.02, 0, tolerance=0.001).terminated


def test_starts():
    keys = jax.random.split(jax.random.key(0), 400)
    _, obs = jax.vmap(Rocket().reset)(keys)
    size = np.abs(np.asarray(obs))
    assert size.min() >= 0.5
    assert size.max() <= 1
    assert size.max() - size.min() > 0.45
    signs = {tuple(row) for row in np.sign(np.asarray(obs)).tolist()}
    assert signs == {(-1, -1), (-1, 1), (1, -1), (1, 1)}
    assert can_be_caught(obs[:, 0], obs[:, 1]).all()
    _, given = jax.vmap(Rocket(x=1.0, v=0.0).reset)(keys[:2])
    assert given.tolist() == [[1, 0], [1, 0]]
    _, mixed = jax.vmap(Rocket(x=-0.5).reset)(keys)
    assert set(mixed[:, 0].tolist()) == {-0.5}
    assert (abs(mixed[:, 1]) >= 0.5).all()


def test_can_be_caught():
    x = np.array([1, 1, 1.9, -1.9, 1.9, 0, 0, 2.1, 0])
    v = np.array([0, 1, 1, -1, -1, 1.99, -2, 0, 2.1])
    assert can_be_caught(x, v).tolist() == [True, True, False, False, True, True, True, False, False]


def test_braking_brings_it_to_rest_within_the_time():
    envs = DeviceEnvs(Rocket(goal=False, reward="rest"), 20)

    def play(carry, _):
        state, obs = carry
        state, out = envs.step(state, brake(obs[:, 0], obs[:, 1]))
        return (state, out.obs), (out.obs, out.terminated, out.truncated)

    start = jax.jit(envs.reset)(jax.random.key(4))
    _, (obs, terminated, truncated) = jax.jit(lambda start: jax.lax.scan(play, start, length=500))(start)
    assert not terminated.any()
    assert truncated[-1].all()
    assert not truncated[:-1].any()
    assert (abs(obs[-100:]) < 0.05).all()


def test_text_and_picture():
    env = Rocket()
    states = [
        RocketState(*map(jnp.float32, s)) for s in ((1, 0, 0), (1, 0, 0.5), (1, 0, -0.5), (0.5, 0, 0), (0.5, -1, 0))
    ]
    pictures = [env.render(s) for s in states]
    assert {p.shape for p in pictures} == {(120, 600, 3)}
    assert len({p.tobytes() for p in pictures}) == 5
    assert pictures[0][70, 440].tolist() == [50, 90, 200]
    assert pictures[3][70, 370].tolist() == [50, 90, 200]
    lines = env.text(states[1]).split("\n")
    assert lines == ["|--------------------+-------->O----------|", "x +1.000  v +0.000  thrust +0.50"]
    for x in (-2.02, 2.02):
        edge = RocketState(jnp.float32(x), jnp.float32(0), jnp.float32(np.sign(x)))
        assert len(env.text(edge).split("\n")[0]) == 43


@pytest.mark.parametrize(
    "options", [{"reward": "much"}, {"x": 2.5}, {"v": float("nan")}, {"tolerance": 0}, {"dt": -1.0}]
)
def test_bad_options_are_refused(options):
    with pytest.raises(HyperparameterError, match=next(iter(options))):
        Rocket(**options)
