import subprocess
import sys

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.envs.phys2d.cartpole import CartPoleFunctional
from gymnasium.envs.phys2d.pendulum import PendulumFunctional
from gymnasium.envs.tabular.blackjack import BlackjackFunctional
from gymnasium.envs.tabular.cliffwalking import CliffWalkingFunctional

import renshu
from renshu import PPO, PQN
from renshu.envs.adapters import Brax, Functional, Gymnax, Pgx, Playground, adapt
from renshu.envs.source import EnvSource
from renshu.errors import EnvironmentFault, HyperparameterError, SpaceError, UnknownNameError
from renshu.ops.images import layout_of
from tests.envs.stepping import assert_same, random_actions, rollout

# Gymnasium's own


def functional_step(env):
    def step(state, action, key):
        move, look = jax.random.split(key)
        after = env.transition(state, action, move)
        return (
            after,
            env.observation(after, look),
            env.reward(state, action, after, move),
            env.terminal(after, look),
        )

    def reset(key):
        begin, look = jax.random.split(key)
        state = env.initial(begin)
        return state, env.observation(state, look)

    return reset, step


@pytest.mark.parametrize("make", [CartPoleFunctional, PendulumFunctional, BlackjackFunctional])
def test_functional_equals_the_library(make):
    assert_same(Functional(make()), *functional_step(make()))


@pytest.mark.parametrize("make", [CartPoleFunctional, PendulumFunctional, BlackjackFunctional, CliffWalkingFunctional])
def test_functional_rolls_out(make):
    env = Functional(make())
    assert env.observation_space == make.observation_space
    assert env.action_space == make.action_space
    outcome = rollout(env)
    assert not outcome.truncated.any()
    assert outcome.terminated.any() == (make in (CartPoleFunctional, BlackjackFunctional))


def test_functional_equals_gymnasiums_pendulum():
    host = gymnasium.make("phys2d/Pendulum-v0").unwrapped
    env = Functional(host.func_env)
    host.reset(seed=0)
    state, step = jnp.asarray(host.state), jax.jit(env.step)
    for action in random_actions(env, 50):
        obs, reward, terminated, _, _ = host.step(action)
        after = step(state, action, jax.random.key(0))
        state = after.state
        np.testing.assert_allclose(after.obs, obs, atol=1e-4)
        np.testing.assert_allclose(after.reward, reward, atol=1e-3)
        assert bool(after.terminated) == terminated


def test_functional_time_limit_truncates():
    env = Functional(PendulumFunctional(), max_episode_steps=50)
    assert env.spec(2).max_episode_steps == 50
    outcome = rollout(env)
    # An episode is 50 steps and the one that resets.
    assert np.flatnonzero(outcome.truncated[:, 0]).tolist() == [49, 100, 151]
    assert not outcome.terminated.any()


def test_functional_draws():
    env = Functional(CartPoleFunctional())
    images = [env.render(env.reset(jax.random.key(seed))[0]) for seed in (0, 0)]
    assert images[0].dtype == np.uint8
    assert images[0].shape == (400, 600, 3)
    np.testing.assert_array_equal(*images)


def test_states_keep_shape_and_dtype():
    env = Functional(CliffWalkingFunctional())  # whose first state has Python numbers and another shape
    state, _ = env.reset(jax.random.key(0))
    after = env.step(state, jnp.array([0]), jax.random.key(1)).state
    assert jax.tree.map(lambda x: (x.shape, x.dtype), state) == jax.tree.map(lambda x: (x.shape, x.dtype), after)


def test_batched_environments_are_refused():
    batched = CartPoleFunctional()
    batched.transform(jax.vmap)
    with pytest.raises(EnvironmentFault, match="without wrappers that batch"):
        Functional(batched)


def test_wrong_spaces_are_refused():
    class Lying(CartPoleFunctional):
        observation_space = spaces.Box(-np.inf, np.inf, (5,), np.float32)

    with pytest.raises(SpaceError, match=r"shape \(4,\).*says \(5,\)"):
        Functional(Lying())


def test_states_that_change_structure_are_refused():
    class Growing(CartPoleFunctional):
        def transition(self, state, action, rng, params=None):
            return (state, state)

        def observation(self, state, rng, params=None):
            return jnp.zeros(4)

        def terminal(self, state, rng, params=None):
            return False

        def reward(self, state, action, next_state, rng, params=None):
            return 0.0

    with pytest.raises(EnvironmentFault, match="make both the same"):
        Functional(Growing())


# gymnax


def gymnax_functions(name):
    gymnax = pytest.importorskip("gymnax", reason="gymnax is not installed")
    env, params = gymnax.make(name)

    def step(state, action, key):
        obs, state, reward, done, _ = env.step_env(key, state, action, params)
        if hasattr(env, "is_truncated"):
            done |= env.is_truncated(state, params)
        return state, obs, reward, done

    return lambda key: env.reset_env(key, params)[::-1], step


@pytest.mark.parametrize("name", ["CartPole-v1", "Breakout-MinAtar", "DeepSea-bsuite"])
def test_gymnax_equals_the_library(name):
    functions = gymnax_functions(name)
    assert_same(Gymnax(name), *functions)


def test_gymnax_spaces_and_time_limit():
    pytest.importorskip("gymnax", reason="gymnax is not installed")
    env = Gymnax("CartPole-v1")
    assert env.action_space == spaces.Discrete(2)
    assert env.observation_space.shape == (4,)
    assert env.observation_space.dtype == np.float32
    assert env.max_episode_steps == 500
    assert Gymnax("Pendulum-v1").action_space == spaces.Box(-2.0, 2.0, (1,), np.float32)
    assert Gymnax("FourRooms-misc").observation_space.shape == (4,)
    assert env.name == "gymnax:CartPole-v1"
    assert rollout(env).terminated.any()


@pytest.mark.parametrize("name", ["Pendulum-v1", "Freeway-MinAtar"])
def test_gymnax_time_limit_is_no_termination(name):
    gymnax = pytest.importorskip("gymnax", reason="gymnax is not installed")
    library, params = gymnax.make(name)
    env = Gymnax(library, params.replace(max_steps_in_episode=50))
    outcome = rollout(env)
    assert np.flatnonzero(outcome.truncated[:, 0]).tolist() == [49, 100, 151]
    assert not outcome.terminated.any()


@pytest.mark.parametrize("game", ["Asterix", "Breakout", "Freeway", "Seaquest", "SpaceInvaders"])
def test_minatars_boards_are_images(game):
    pytest.importorskip("gymnax", reason="gymnax is not installed")
    env = Gymnax(f"{game}-MinAtar")
    space = env.observation_space
    assert isinstance(space, spaces.Box)
    assert space.dtype == np.uint8
    assert space.high.max() == 1
    layout = layout_of(space)
    assert layout is not None
    assert layout.shape == space.shape == (10, 10, space.shape[2])
    _, obs = env.reset(jax.random.key(0))
    assert obs.dtype == np.uint8
    assert set(np.unique(obs)) == {0, 1}


def test_gymnax_by_id():
    """In both loops: the time limit is counted by Renshu, and settings are gymnax's parameters."""
    pytest.importorskip("gymnax", reason="gymnax is not installed")
    id = "gymnax/CartPole-v1"
    assert EnvSource.of(id).name == "CartPole-v1"
    outcomes = []
    for limit in (20, 700):
        source = EnvSource.of(id, {"force_mag": 0.0, "max_episode_steps": limit})
        env = source.device
        assert isinstance(env, Gymnax)
        assert env.max_episode_steps == source.device_spec(1).max_episode_steps == limit
        assert env.params.force_mag == 0.0
        outcomes.append(rollout(env))
    assert outcomes[0].truncated.any()
    assert not outcomes[1].truncated.any()
    env = EnvSource.of("gymnax/Pendulum-v1", {"max_episode_steps": 250}).single()  # gymnax's limit is 200
    env.reset(seed=0)
    lengths = [step for step in range(1, 251) if env.step(env.action_space.sample())[3]]
    assert lengths == [250]
    with pytest.raises(HyperparameterError, match=r"no setting 'force'.*force_mag"):
        EnvSource.of(id, {"force": 1.0}).device  # noqa: B018
    with pytest.raises(UnknownNameError, match="Did you mean Breakout-MinAtar"):
        EnvSource.of("gymnax/Brakout-MinAtar")
    with pytest.raises(UnknownNameError, match="Did you mean gymnax/Breakout-MinAtar"):
        EnvSource.of("Breakout-MinAtar")


@pytest.mark.parametrize(
    "algorithm",
    [PPO(n_steps=8, batch_size=32, n_epochs=1), PQN(n_steps=8, batch_size=32)],
)
def test_minatar_is_learned_in_the_compiled_loop(algorithm, tmp_path):
    pytest.importorskip("gymnax", reason="gymnax is not installed")
    agent = algorithm.on("gymnax/Breakout-MinAtar", num_envs=8, seed=0)
    assert agent.trainer.loop_name == "compiled"
    assert any("convolved" in note for note in agent.fitted.notes)
    agent.learn(64, progress=False)
    agent.save(tmp_path / "agent.safetensors")
    assert renshu.load(tmp_path / "agent.safetensors").evaluate(2).episodes == 2


# What is what


def test_adapt_knows_environments_by_their_class():
    env = Functional(CartPoleFunctional())
    assert adapt(env) is env
    assert isinstance(adapt(CartPoleFunctional()), Functional)
    assert adapt(object()) is None
    assert adapt(gymnasium.make("CartPole-v1")) is None


def test_adapt_knows_gymnax_and_subclasses():
    pytest.importorskip("gymnax", reason="gymnax is not installed")
    from gymnax.environments.classic_control.cartpole import CartPole

    class Mine(CartPole):
        pass

    assert isinstance(adapt(CartPole()), Gymnax)
    assert isinstance(adapt(Mine()), Gymnax)


def test_importing_the_adapters_imports_no_library():
    code = (
        "import sys, renshu.envs.adapters; "
        "print([m for m in ('gymnax', 'brax', 'mujoco_playground', 'pgx', 'pygame') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("adapter", "module", "extra"),
    [
        (Gymnax, "gymnax", "jax-envs"),
        (Brax, "brax.envs", "jax-envs"),
        (Playground, "mujoco_playground", "playground"),
        (Pgx, "pgx", "games"),
    ],
)
def test_a_missing_library_names_the_extra(adapter, module, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(EnvironmentFault, match=rf'pip install "renshu\[{extra}\]"'):
        adapter("anything")


@pytest.mark.parametrize(
    ("adapter", "module", "name", "near"),
    [
        (Gymnax, "gymnax", "Cartpole-v1", "CartPole-v1"),
        (Brax, "brax", "halfcheeta", "halfcheetah"),
        (Playground, "mujoco_playground", "CartpoleBalanc", "CartpoleBalance"),
        (Pgx, "pgx", "tictactoe", "tic_tac_toe"),
    ],
)
def test_an_unknown_name_gets_near_matches(adapter, module, name, near):
    pytest.importorskip(module, reason=f"{module} is not installed")
    with pytest.raises(UnknownNameError, match=near):
        adapter(name)
