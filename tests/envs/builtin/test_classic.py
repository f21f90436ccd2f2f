from math import pi

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renshu.envs.builtin.classic import (
    Acrobot,
    AcrobotState,
    CartPole,
    CartPoleState,
    MountainCar,
    MountainCarContinuous,
    MountainCarState,
    Pendulum,
    PendulumState,
)
from renshu.envs.device import DeviceEnvs
from renshu.errors import HyperparameterError

ENVS = (CartPole(), Pendulum(), Acrobot(), MountainCar(), MountainCarContinuous())
KEY = jax.random.key(0)
STEPS = 1000

# Where states are drawn from for single steps: beyond every limit, so that all clips, walls and ends are met.
WIDE = {
    CartPole: (CartPoleState, [2.6, 3, 0.25, 3], [0, 0, 0, 0]),
    Pendulum: (PendulumState, [pi, 8, 2], [0, 0, 0]),
    Acrobot: (AcrobotState, [pi, pi, 2 * pi, 4.5 * pi], [0, 0, 0, 0]),
    MountainCar: (MountainCarState, [0.9, 0.07], [-0.3, 0]),
    MountainCarContinuous: (MountainCarState, [0.9, 0.07], [-0.3, 0]),
}

step = jax.jit(lambda env, state, action: env.step(state, action, KEY), static_argnums=0)
reset = jax.jit(lambda env, key: env.reset(key), static_argnums=0)
each = pytest.mark.parametrize("env", ENVS, ids=lambda env: type(env).__name__)


def original(env):
    """Gymnasium's environment of the same name, without its wrappers."""
    made = gymnasium.make(env.id.removeprefix("renshu/")).unwrapped
    made.action_space.seed(0)
    return made


def synchronise(theirs, state):
    """Put Gymnasium's environment into our state, as if just reset."""
    theirs.reset()
    theirs.state = physical(state)


def physical(state):
    """Our state as Gymnasium has it: float64, without the torque that we keep for Pendulum's picture."""
    return np.array(state[:2] if isinstance(state, PendulumState) else state, np.float64)


def assert_same_state(env, ours, theirs, tolerance=1e-5):
    difference = physical(ours) - np.asarray(theirs, np.float64)
    # Gymnasium lets Pendulum's angle grow; and Acrobot's may be wrapped to either end of the same turn.
    turning = {Pendulum: 1, Acrobot: 2}.get(type(env), 0)
    difference[:turning] -= 2 * pi * np.round(difference[:turning] / (2 * pi))
    assert abs(difference).max() < tolerance


def assert_same_step(ours, theirs):
    obs, reward, terminated, truncated, _ = theirs
    np.testing.assert_allclose(ours.obs, obs, rtol=0, atol=1e-5)
    assert float(ours.reward) == pytest.approx(float(reward), abs=1e-5)
    assert (bool(ours.terminated), bool(ours.truncated)) == (terminated, truncated)


@each
def test_names_and_spaces_are_gymnasiums(env):
    spec = gymnasium.spec(env.id.removeprefix("renshu/"))
    assert (env.max_episode_steps, env.reward_threshold) == (spec.max_episode_steps, spec.reward_threshold)
    theirs = original(env)
    assert env.observation_space == theirs.observation_space
    assert env.action_space == theirs.action_space


@each
def test_a_thousand_random_steps(env):
    """Each step from the same state: Gymnasium is put back into ours, as pendulums multiply any rounding."""
    theirs = original(env)
    state, _ = env.reset(KEY)
    ends = 0
    for i in range(STEPS):
        action = theirs.action_space.sample()
        synchronise(theirs, state)
        ours = step(env, state, action)
        assert_same_step(ours, theirs.step(action))
        assert_same_state(env, ours.state, theirs.state)
        state, ends = ours.state, ends + bool(ours.terminated)
        if ours.terminated:
            state, _ = reset(env, jax.random.key(i))
    assert ends > 20 if isinstance(env, CartPole) else ends >= 0


@pytest.mark.parametrize("env", [ENVS[0], *ENVS[3:]], ids=lambda env: type(env).__name__)
def test_a_thousand_random_steps_without_putting_back(env):
    """Whole episodes, up to the time limit: the same start, then Gymnasium goes its own way.

    Not Pendulum and Acrobot: near upright they multiply rounding, so that float32 and float64 part within an episode.
    """
    theirs, state, age = original(env), None, 0
    for i in range(STEPS):
        if state is None:
            state, _ = reset(env, jax.random.key(i))
            synchronise(theirs, state)
            age = 0
        action = theirs.action_space.sample()
        ours = step(env, state, action)
        assert_same_step(ours, theirs.step(action))
        assert_same_state(env, ours.state, theirs.state)
        age += 1
        state = None if ours.terminated or age == env.max_episode_steps else ours.state


@each
def test_single_steps_from_anywhere(env):
    cls, half, middle = WIDE[type(env)]
    rng = np.random.default_rng(0)
    drawn = rng.uniform(-1, 1, (STEPS, len(half))) * half + middle
    if isinstance(env, MountainCar | MountainCarContinuous):
        drawn = drawn.clip(-1.2, None)  # at the wall, or between there and the top
    states = cls(*jnp.asarray(drawn.T, jnp.float32))
    env.action_space.seed(0)
    actions = np.stack([env.action_space.sample() for _ in range(STEPS)])
    batch = jax.tree.map(np.asarray, jax.jit(jax.vmap(lambda s, a: env.step(s, a, KEY)))(states, actions))
    theirs, seen = original(env), set()
    for i in range(STEPS):
        before, ours = jax.tree.map(lambda x, i=i: x[i], (states, batch))
        synchronise(theirs, before)
        after = theirs.step(actions[i])
        assert_same_step(ours, after)
        assert_same_state(env, ours.state, theirs.state)
        seen.add(bool(ours.terminated))
    assert seen == ({False} if isinstance(env, Pendulum) else {False, True})


def test_acrobot_at_full_speed_in_float64():
    """There accelerations are in the hundreds, and float32 has no digits left for 1e-5: the equations are the same."""
    env, rng = Acrobot(), np.random.default_rng(0)
    theirs, seen = original(env), set()
    with jax.enable_x64(True):
        for before in rng.uniform(-1, 1, (200, 4)) * [pi, pi, 4 * pi, 9 * pi]:
            state, action = AcrobotState(*map(jnp.float64, before)), int(rng.integers(3))
            synchronise(theirs, state)
            ours, after = step(env, state, action), theirs.step(action)
            assert_same_state(env, ours.state, theirs.state, 1e-9)
            assert bool(ours.terminated) == after[2]
            seen.add(after[2])
    assert seen == {False, True}


@each
def test_float32_stays_where_float64_is_enabled(env):
    with jax.enable_x64(True):
        state, obs = env.reset(KEY)
        after = env.step(state, jnp.asarray(env.action_space.sample()), KEY)
    kinds = [leaf.dtype for leaf in jax.tree.leaves((state, obs, after.state, after.obs, after.reward))]
    assert set(kinds) == {jnp.dtype("float32")}


@each
def test_starts_are_distributed_as_gymnasiums(env):
    states, obs = jax.jit(jax.vmap(env.reset))(jax.random.split(KEY, 4000))
    ours = np.stack(states[:2] if isinstance(env, Pendulum) else states, 1)
    theirs, drawn = original(env), []
    theirs.reset(seed=0)
    for _ in range(1000):
        theirs.reset()
        drawn.append(np.array(theirs.state))
    width = np.ptp(drawn, axis=0)
    for ask in (np.min, np.max):
        assert (abs(ask(ours, axis=0) - ask(drawn, axis=0)) <= 0.02 * width).all()
    assert (abs(ours.mean(0) - np.mean(drawn, 0)) <= 0.05 * width).all()
    assert (abs(ours.std(0) - np.std(drawn, 0)) <= 0.03 * width).all()
    # Drawn each on its own: no two numbers that vary go together.
    together = np.corrcoef(ours[:, width > 0].T).reshape(-1)
    assert np.sort(abs(together))[: -(width > 0).sum()].max(initial=0) < 0.06
    assert all(env.observation_space.contains(row) for row in np.asarray(obs)[:100])


@each
def test_dtypes_stay_and_observations_are_in_their_space(env):
    envs = DeviceEnvs(env, 4)
    state, _ = envs.reset(KEY)
    kinds = jax.tree.map(lambda x: (x.shape, str(x.dtype)), state.inner)
    after = jax.jit(envs.step)
    env.action_space.seed(1)
    for _ in range(60):
        state, out = after(state, np.stack([env.action_space.sample() for _ in range(4)]))
        assert all(env.observation_space.contains(row) for row in np.asarray(out.obs))
        assert out.reward.dtype == jnp.float32
    assert jax.tree.map(lambda x: (x.shape, str(x.dtype)), state.inner) == kinds
    assert {x.dtype for x in jax.tree.leaves(state.inner)} == {jnp.dtype("float32")}


def test_pendulum_takes_an_angle_of_many_turns():
    near, far = (
        step(Pendulum(), PendulumState(jnp.float32(a), jnp.float32(1), jnp.float32(0)), jnp.ones(1))
        for a in (2, 2 + 20 * pi)
    )
    np.testing.assert_allclose(near.obs, far.obs, atol=2e-5)
    assert float(near.reward) == pytest.approx(float(far.reward), abs=5e-5)


def test_actions_out_of_range_are_clipped_as_gymnasiums():
    for env, cls in ((Pendulum(), PendulumState), (MountainCarContinuous(), MountainCarState)):
        theirs, state = original(env), cls(*(jnp.float32(0.3),) * len(cls._fields))
        for push in (-5.0, 5.0):
            action = np.array([push], np.float32)
            synchronise(theirs, state)
            assert_same_step(step(env, state, action), theirs.step(action))


def test_numbers_are_gymnasiums_arguments():
    pendulum, theirs = Pendulum(g=9.81), gymnasium.make("Pendulum-v1", g=9.81).unwrapped
    state, _ = pendulum.reset(KEY)
    synchronise(theirs, state)
    action = np.array([0.5], np.float32)
    assert_same_step(step(pendulum, state, action), theirs.step(action))
    car, theirs = MountainCar(goal_velocity=0.05), gymnasium.make("MountainCar-v0", goal_velocity=0.05).unwrapped
    for velocity, ends in ((0.04, False), (0.06, True)):
        state = MountainCarState(jnp.float32(0.49), jnp.float32(velocity))
        synchronise(theirs, state)
        ours = step(car, state, 2)
        assert_same_step(ours, theirs.step(2))
        assert bool(ours.terminated) is ends


def test_heavier_links_follow_the_equations_of_gymnasium():
    env = Acrobot(gravity=9.8, link_length=1.5, link_com=0.6, link_mass=2.0, link_moi=0.7, dt=0.1)
    theirs = original(env)
    theirs.dt, theirs.LINK_LENGTH_1, theirs.LINK_MOI = 0.1, 1.5, 0.7
    theirs.LINK_MASS_1 = theirs.LINK_MASS_2 = 2.0
    theirs.LINK_COM_POS_1 = theirs.LINK_COM_POS_2 = 0.6
    state = AcrobotState(*map(jnp.float32, (0.5, -0.8, 1.0, -2.0)))
    synchronise(theirs, state)
    ours = step(env, state, 2)
    assert_same_step(ours, theirs.step(2))
    assert_same_state(env, ours.state, theirs.state)


@pytest.mark.parametrize(
    ("cls", "options", "words"),
    [
        (CartPole, {"length": 0}, "CartPole: length is a finite number above 0, not 0"),
        (CartPole, {"gravity": float("nan")}, "gravity is a finite number, not nan"),
        (Pendulum, {"dt": -0.05}, "Pendulum: dt is"),
        (Acrobot, {"link_mass": "heavy"}, "link_mass is a finite number above 0, not 'heavy'"),
        (MountainCarContinuous, {"goal_velocity": float("inf")}, "goal_velocity is a finite number, not inf"),
    ],
)
def test_bad_numbers_are_refused(cls, options, words):
    with pytest.raises(HyperparameterError, match=words):
        cls(**options)


@each
def test_pictures_show_the_state(env):
    state, _ = env.reset(KEY)
    image = env.render(state)
    assert image.dtype == np.uint8
    assert image.shape in ((400, 600, 3), (400, 400, 3))
    assert np.array_equal(image, env.render(jax.tree.map(np.asarray, state)))
    for name in state._fields[:1] if not isinstance(env, Acrobot) else ("theta1", "theta2"):
        moved = env.render(state._replace(**{name: getattr(state, name) + 0.3}))
        assert (moved != image).any()


def test_pictures_have_things_where_they_belong():
    # Pole tilted to the right from a cart at the middle; its tip is 1 m away, at 125 pixels a metre.
    image = CartPole().render(CartPoleState(*map(np.float32, (0, 0, pi / 6, 0))))
    assert tuple(image[round(292 - 115 * np.cos(pi / 6)), round(300 + 115 * np.sin(pi / 6))]) == (202, 152, 101)
    # A quarter turn counter-clockwise from upright points left; the torque's arc begins at the top.
    image = Pendulum().render(PendulumState(*map(np.float32, (pi / 2, 0, 2))))
    assert tuple(image[200, 130]) == (204, 77, 77)
    assert tuple(image[200, 270]) == (255, 255, 255)
    assert tuple(image[165, 200]) == (128, 128, 128)
    # Links to the right, then straight up.
    image = Acrobot().render(AcrobotState(*map(np.float32, (pi / 2, pi / 2, 0, 0))))
    assert tuple(image[200, 245]) == tuple(image[155, 291]) == (0, 204, 204)
    # A car at the bottom of the valley stands level on the ground, at 1/3 of the width or so.
    image = MountainCar().render(MountainCarState(np.float32(-pi / 6), np.float32(0)))
    column, row = round((1.2 - pi / 6) * 600 / 1.8), round(400 - 0.1 * 600 / 1.8)
    assert tuple(image[row - 18, column]) == (50, 90, 200)
    assert image[row, column].max() < 60


@pytest.mark.parametrize(
    ("env", "state", "words"),
    [
        (CartPole(), (0.5, -1, pi / 18, 0), ["+0.500 m", "-1.000 m/s", "+10.0°", "+0.0°/s"]),
        (Pendulum(), (pi / 6 + 2 * pi, pi, -1.5), ["angle +30.0°", "+180.0°/s", "-1.50 N m"]),
        (Acrobot(), (pi / 2, pi / 2, 0, pi), ["+90.0° +90.0°", "tip +1.00", "+0.0°/s +180.0°/s"]),
        (MountainCar(), (-0.4, 0.01), ["-0.400", "+0.50", "+0.0100"]),
        (MountainCarContinuous(), (-0.4, 0.01), ["-0.400", "+0.45", "+0.0100"]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_text_names_the_numbers(env, state, words):
    cls = WIDE[type(env)][0]
    text = env.text(cls(*map(jnp.float32, state)))
    assert [word for word in words if word not in text] == []
    assert len(text.splitlines()) <= 2
