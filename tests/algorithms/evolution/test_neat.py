"""NEAT: networks that grow where they have to, remember where they may, and are refused where they cannot be."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from matplotlib.figure import Figure

from bench.neat import XOR
from renshu import NEAT, PPO, load
from renshu.algorithms.evolution.drawing import draw_species
from renshu.envs.device import DeviceEnv, Step
from renshu.errors import HyperparameterError, RenshuError
from renshu.networks.graph import NONE

pytestmark = pytest.mark.usefixtures("compiled_fast")
TINY = {"population_size": 6, "max_species": 2, "max_hidden": 4}


class Told(DeviceEnv):
    """A sign is shown in the first of three steps and asked for in the last."""

    observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = spaces.Discrete(2)
    max_episode_steps = 3

    def reset(self, key):
        sign = jax.random.rademacher(key, (), jnp.float32)
        return (sign, jnp.int32(0)), jnp.stack([sign, 1.0])

    def step(self, state, action, key):
        sign, step = state
        right = (action == (sign > 0)).astype(jnp.float32)
        return Step((sign, step + 1), jnp.array([0.0, 0.0]), jnp.where(step == 2, right, 0.0), jnp.bool_(False))


def test_grows_to_solve_what_linear_networks_cannot():
    agent = NEAT(population_size=150, max_hidden=6, compatibility_threshold=2.0).on(XOR(), seed=0)
    agent.learn(150 * 4 * 120, progress=False, stop_at=None)
    wired = agent.state.params
    assert agent.evaluate(1).mean > 3.8
    assert 1 <= (wired.hidden != NONE).sum() <= 6
    alone = NEAT(population_size=150, node_add_prob=0.0).on(XOR(), seed=0)
    alone.learn(150 * 4 * 40, progress=False)
    assert alone.evaluate(1).mean < 3.1


def test_recurrent_networks_remember():
    hyperparameters = {"population_size": 60, "max_species": 4, "max_hidden": 4, "n_eval_episodes": 6}
    agent = NEAT(**hyperparameters, recurrent=True, node_add_prob=0.3).on(Told(), seed=0)
    agent.learn(60 * 6 * 3 * 40, progress=False)
    assert agent.evaluate(40).mean > 0.9
    without = NEAT(**hyperparameters).on(Told(), seed=0)
    without.learn(60 * 6 * 3 * 20, progress=False)
    assert without.evaluate(40).mean < 0.75


def test_an_agent_is_kept_and_goes_on_to_the_bit(tmp_path):
    agent = NEAT(**TINY, node_add_prob=0.5).on("renshu/CartPole-v1", seed=0)
    agent.learn(2_000, progress=False)
    again = load(agent.save(tmp_path / "neat"))
    obs = agent.spec.observation_space.sample()
    np.testing.assert_array_equal(agent.predict(obs), again.predict(obs))
    assert agent.explain(obs)["probabilities"].sum() == pytest.approx(1)


@pytest.mark.parametrize("loop", ["host", "compiled"])
def test_discrete_observations_and_all_actions(loop):
    agent = NEAT(**TINY).on("FrozenLake-v1" if loop == "host" else "renshu/OneRoad-v0", loop=loop)
    agent.learn(100, progress=False)
    assert agent.steps >= 100


def test_metrics_tell_how_networks_grow():
    agent = NEAT(**TINY, node_add_prob=1.0).on("renshu/CartPole-v1", seed=0)
    seen = []
    agent.learn(1_500, progress=False, callbacks=lambda _, metrics: seen.append(metrics))
    assert {"species", "hidden_mean", "connections_mean", "hidden_best", "connections_best"} <= set(seen[-1])
    assert seen[-1]["hidden_mean"] > 1


def test_pictures_of_the_best_network_and_of_species(tmp_path):
    agent = NEAT(**TINY, recurrent=True, node_add_prob=0.9, conn_add_prob=0.9).on("renshu/CartPole-v1", seed=0)
    begun = agent.pictures(tmp_path / "begun")
    assert [path.name for path in begun] == ["network.png", "species.png"]
    agent.learn(1_000, progress=False, run=tmp_path / "run")
    for path in (*begun, tmp_path / "run" / "network.png", tmp_path / "run" / "species.png"):
        assert path.read_bytes()[:4] == b"\x89PNG"
    assert (tmp_path / "run" / "network.png").read_bytes() != begun[0].read_bytes()
    assert PPO().on("renshu/CartPole-v1").pictures(tmp_path) == []


def test_history_is_drawn_from_its_first_generation():
    figure = Figure()
    axes = figure.subplots()
    keys, counts = np.array([[0, NONE], [0, 3], [3, NONE]]), np.array([[6, 9], [4, 2], [6, 0]])
    draw_species(axes, ["red", "blue"], keys, counts, first=40)
    assert axes.get_title() == "2 species"
    low, high = axes.get_xlim()
    assert (round(low), round(high)) == (40, 42)
    assert axes.get_ylim()[1] == 6  # what stands in an empty place does not count


def test_what_cannot_be():
    env = "renshu/CartPole-v1"
    with pytest.raises(HyperparameterError, match="more than population_size=10"):
        NEAT(population_size=10)
    with pytest.raises(HyperparameterError, match="together more than 1"):
        NEAT(weight_mutate_rate=0.9, weight_replace_rate=0.2)
    with pytest.raises(HyperparameterError, match="max_connections=7, but 4 inputs and 2 outputs make 8"):
        NEAT(max_connections=7).on(env)
    with pytest.raises(HyperparameterError, match="cannot begin at the weights"):
        NEAT(**TINY).on(env).start_from(PPO().on(env))
    with pytest.raises(RenshuError, match="image"):
        NEAT(**TINY).on(
            lambda: gymnasium.wrappers.AddRenderObservation(gymnasium.make("CartPole-v1", render_mode="rgb_array"))
        )
