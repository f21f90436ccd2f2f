"""Many seeds and settings at once: each row is the agent that would have been trained alone."""

from contextlib import nullcontext
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from examples.own_algorithm import Reinforce, ReinforceLearner
from renshu import A2C, DQN, PPO, QLearning, experiment, load
from renshu.algorithms.hyperparameters import number
from renshu.envs.builtin.classic import Pendulum
from renshu.errors import HyperparameterError, NotFiniteError, SpaceError
from renshu.experiments.vmapped import Row, not_finite_message
from renshu.types import ActorOutput
from tests import probes
from tests.envs.test_device import Counter
from tests.loops.tiny import Faulty

TINY = A2C(net_arch=[8], n_steps=8)
OPTIONS = {"num_envs": 2, "progress": False}
SHORT = {"learning_starts": 16, "batch_size": 8, "buffer_size": 200, "train_freq": 8}


def close(a, b, tolerance=1e-4):
    return jax.tree.all(jax.tree.map(lambda x, y: np.allclose(x, y, rtol=tolerance, atol=tolerance), a, b))


def alone(row, env, steps, iterations):
    """The same agent trained by itself: the schedules of `steps`, and as many updates."""
    agent = row.algorithm.on(env, num_envs=2, seed=row.seed)
    agent.trainer.set_target(steps)
    loop = agent.trainer.start_loop(nullcontext)
    while agent.trainer.iteration < iterations:
        loop.advance((iterations - agent.trainer.iteration) * loop.size)
    return agent


def text(table):
    console = Console(width=200)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


@pytest.fixture(scope="module")
def grid():
    values = {"learning_rate": [1e-3, 1e-2], "gamma": [0.9, 0.99]}
    return experiment(TINY, "renshu/CartPole-v1", seeds=[7, 3], steps=400, grid=values, points=5, **OPTIONS)


def test_rows_and_labels(grid):
    values = [(1e-3, 0.9), (1e-3, 0.99), (1e-2, 0.9), (1e-2, 0.99)]
    assert [(row.values["learning_rate"], row.values["gamma"], row.seed) for row in grid.rows] == [
        (*point, seed) for point in values for seed in (7, 3)
    ]
    assert all((row.algorithm.learning_rate, row.algorithm.gamma) == tuple(row.values.values()) for row in grid.rows)
    assert [curve.label for curve in grid.curves] == [f"A2C learning_rate={a:g}, gamma={b:g}" for a, b in values]
    assert all(curve.seeds == [7, 3] for curve in grid.curves)
    assert len(grid.agents) == 8
    assert grid.seconds > 0 < grid.compile_seconds


def test_each_row_is_the_agent_that_trains_alone(grid):
    for i, (row, agent) in enumerate(zip(grid.rows, grid.agents, strict=True)):
        single = alone(row, "renshu/CartPole-v1", 400, agent.trainer.iteration)
        assert close(agent.parameters, single.parameters), row
        assert agent.steps == single.steps >= 400
        assert int(agent.state.counters.target) == 400
        others = [other for j, other in enumerate(grid.agents) if j != i]
        assert not any(close(agent.parameters, other.parameters) for other in others), row


def test_ppo_with_normalisation_and_a_schedule():
    """Statistics, minibatches and a traced number that is a schedule by default."""
    algorithm = PPO(n_steps=8, batch_size=8, n_epochs=2, net_arch=[8], norm_obs=True, norm_reward=True)
    found = experiment(algorithm, Pendulum(), seeds=2, steps=420, grid={"clip_range": [0.1, 0.3]}, **OPTIONS)
    assert found.curves[0].seeds == [0, 1]
    for i in (0, 3):
        single = alone(found.rows[i], Pendulum(), 420, found.agents[i].trainer.iteration)
        assert close(found.agents[i].state, single.state)
    assert np.isfinite(found.curves[0].returns).any()


def test_curves(grid):
    for curve in grid.curves:
        assert curve.returns.shape == (2, len(curve.steps))
        assert 5 <= len(curve.steps) <= 10
        assert (np.diff(curve.steps) > 0).all()
        assert 400 <= curve.steps[-1] < 600
        known = curve.returns[np.isfinite(curve.returns)]
        assert len(known)
        assert ((known >= 8) & (known <= 500)).all(), "returns of CartPole"


def test_files_and_table(grid, tmp_path):
    rows = grid.save(tmp_path / "curves.csv").read_text().splitlines()
    assert rows[0] == "label,seed,step,return"
    assert len(rows) >= 1 + 8 * 5
    assert grid.plot(tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    shown = text(grid.table())
    for row in grid.rows:
        assert any(all(f" {value:g} " in line for value in row.values.values()) for line in shown.splitlines())
    assert all(np.isfinite(curve.returns[:, -1]).all() for curve in grid.curves)


def test_agents_are_like_others(grid, tmp_path):
    agent = grid.agents[2]
    assert grid.agents[2] is agent
    assert grid.agents[-1] is grid.agents[7]
    assert grid.agents[1:3] == [grid.agents[1], agent]
    assert agent.evaluate(3).episodes == 3
    again = load(agent.save(tmp_path / "a.safetensors"))
    assert again.algorithm == grid.rows[2].algorithm
    assert (again.seed, again.steps, again.trainer.iteration) == (7, agent.steps, agent.trainer.iteration)
    assert again.evaluate(3).returns == agent.evaluate(3).returns
    before = jax.tree.map(np.array, grid.agents[3].parameters)
    assert again.learn(32, progress=False).steps > agent.learn(16, progress=False).steps
    assert jax.tree.all(jax.tree.map(np.array_equal, before, grid.agents[3].parameters))


def test_slices_are_the_same_as_all_at_once():
    def trained(at_once):
        return experiment(TINY, Pendulum(), seeds=3, steps=420, at_once=at_once, points=3, **OPTIONS)

    whole, sliced, again = trained(None), trained(2), trained(None)
    assert len(whole.agents) == len(sliced.agents) == 3
    for a, b, c in zip(whole.agents, sliced.agents, again.agents, strict=True):
        assert a.trainer.iteration == b.trainer.iteration
        assert close(a.state, b.state)
        assert jax.tree.all(jax.tree.map(np.array_equal, a.state, c.state)), "the same seeds, to the bit"
    np.testing.assert_allclose(whole.curves[0].returns, sliced.curves[0].returns, rtol=1e-4)
    np.testing.assert_array_equal(whole.curves[0].returns, again.curves[0].returns)


def test_an_own_algorithm():
    found = experiment(
        Reinforce(n_steps=8), "renshu/CartPole-v1", seeds=2, steps=64, grid={"learning_rate": [1e-3]}, **OPTIONS
    )
    single = alone(found.rows[1], "renshu/CartPole-v1", 64, found.agents[1].trainer.iteration)
    assert close(found.agents[1].parameters, single.parameters)


def test_host_environments_in_turn(capsys):
    found = experiment(
        {"small": TINY, "PPO": PPO(n_steps=8, batch_size=8, n_epochs=1, net_arch=[4])},
        probes.TimeLimit,
        seeds=2,
        steps=64,
        num_envs=2,
        points=4,
    )
    assert [curve.label for curve in found.curves] == ["small", "PPO"]
    assert [(row.label, row.seed) for row in found.rows] == [
        (name, seed) for name in ("small", "PPO") for seed in (0, 1)
    ]
    assert found.curves[0].steps.tolist() == [16, 32, 48, 64]
    assert (found.curves[0].returns == 5).all(), "episodes of five steps that pay 1 each"
    single = TINY.on(probes.TimeLimit, num_envs=2, seed=1).learn(64, progress=False)
    assert jax.tree.all(jax.tree.map(np.array_equal, single.parameters, found.agents[1].parameters))
    assert found.agents[1].evaluate(2).returns == [5.0, 5.0]
    assert "steps" in capsys.readouterr().err


def test_the_host_loop_on_a_device_env_is_the_compiled_one():
    """The same rows whichever loop is asked for; also what the environment is made with."""
    found = experiment(TINY, "renshu/CartPole-v1", seeds=1, steps=64, loop="host", points=4, **OPTIONS)
    assert found.agents[0].trainer.backend.loop_name == "host"
    single = alone(found.rows[0], "renshu/CartPole-v1", 64, found.agents[0].trainer.iteration)
    assert jax.tree.all(jax.tree.map(np.array_equal, found.agents[0].parameters, single.parameters))


@pytest.mark.parametrize("loop", ["host", "compiled"])
def test_what_the_environment_is_made_with(loop):
    options = {"env_kwargs": {"max_episode_steps": 4}, "loop": loop, "points": 4, **OPTIONS}
    found = experiment(TINY, "renshu/CartPole-v1", seeds=1, steps=64, **options)
    assert found.agents[0].spec.max_episode_steps == 4
    assert np.nanmax(found.curves[0].returns) <= 4


@pytest.mark.parametrize("loop", ["host", "compiled"])
def test_fewer_steps_than_points(loop):
    """One environment that ends all the time, and rollouts of one step: some of them hold no step at all."""
    algorithm = A2C(net_arch=[4], n_steps=1)
    env_kwargs = {"max_episode_steps": 1}
    found = experiment(
        algorithm, "renshu/CartPole-v1", seeds=1, steps=9, loop=loop, env_kwargs=env_kwargs, progress=False
    )
    assert found.agents[0].steps >= 9
    assert np.nanmax(found.curves[0].returns) == 1


@dataclass(frozen=True, kw_only=True)
class Stubborn(Reinforce):
    """Does always the same, which is a hyperparameter."""

    side: float = number(0.0, "the action", least=0, most=1)

    def build(self, spec):
        return StubbornLearner(self, spec)


class StubbornLearner(ReinforceLearner):
    def act(self, acting, carry, timestep, key, *, explore):
        return ActorOutput(jnp.full(timestep.first.shape, self.config.side).astype(jnp.int32), carry)


def test_agents_of_a_grid_act_by_their_own_values():
    """Where what an agent does depends on a value of the grid: trained so, and evaluated so."""
    found = experiment(Stubborn(n_steps=8), Counter(1), seeds=1, steps=16, grid={"side": [0.0, 1.0]}, **OPTIONS)
    assert [np.nanmean(curve.returns) for curve in found.curves] == [10.0, 11.0]
    assert [agent.evaluate(2).returns for agent in found.agents] == [[10.0, 10.0], [11.0, 11.0]]


@pytest.mark.parametrize(
    ("algorithm", "values"),
    [
        (DQN(distributional="c51", v_min=-2.0, n_atoms=5, net_arch=[8], **SHORT), {"v_max": [1.0, 20.0]}),
        (QLearning(n_steps=8, obs_bins=3, obs_high=2.0), {"obs_low": [-1.0, -2.0], "gamma": [0.9, 0.5]}),
    ],
)
def test_a_value_that_is_built_in_trains_a_program_of_its_own(algorithm, values):
    """Bounds of a histogram and of bins are read when a learner is made: traced numbers would not do."""
    found = experiment(algorithm, "renshu/CartPole-v1", seeds=[5, 2], steps=320, grid=values, points=2, **OPTIONS)
    assert len({row.label for row in found.rows}) == len(found.curves) == np.prod([len(v) for v in values.values()])
    for row, agent in zip(found.rows, found.agents, strict=True):
        assert agent.algorithm == row.algorithm
        other = alone(row, "renshu/CartPole-v1", 320, agent.trainer.iteration)
        assert close(agent.parameters, other.parameters)


@pytest.mark.parametrize(
    ("algorithms", "options", "match"),
    [
        (TINY, {"grid": {"learning_rat": [1e-3]}}, "has no 'learning_rat'.*learning_rate"),
        (TINY, {"grid": {"n_steps": [4, 8]}}, "n_steps must vary over different plain numbers that shape no array"),
        (TINY, {"grid": {"norm_obs": [True, False]}}, "norm_obs must vary"),
        (TINY, {"grid": {"gamma": []}}, "gamma must vary"),
        (TINY, {"grid": {"gamma": [0.9, True]}}, "gamma must vary"),
        (TINY, {"grid": {"gamma": [0.9, 1.5]}}, "gamma must be"),
        (TINY, {"grid": {"gamma": [0.9, float("nan")]}}, "gamma must be"),
        ([TINY, A2C()], {}, "two algorithms have one name .A2C, A2C.: give a dict"),
        ({"a": TINY, "b": PPO()}, {"grid": {"clip_range": [0.1]}}, "A2C has no 'clip_range'"),
        (TINY, {"seeds": [1, 1]}, "seeds=.1, 1."),
        (TINY, {"seeds": 0}, "seeds=0"),
        (TINY, {"seeds": [1.5, 2]}, "seeds"),
        (TINY, {"seeds": [-1]}, "seeds"),
        (TINY, {"seeds": [2**32]}, "seeds"),
        (TINY, {"steps": 0}, "steps"),
        (TINY, {"points": 0}, "points"),
        (TINY, {"at_once": 0}, "at_once"),
        (TINY, {"at_once": -1}, "at_once"),
        (TINY, {"loop": "nonsense"}, "loop='nonsense'"),
        (TINY, {"num_envs": 0}, "num_envs"),
    ],
    ids=lambda x: str(x)[:40] if isinstance(x, dict) else "",
)
def test_what_cannot_be_is_refused(algorithms, options, match):
    with pytest.raises(HyperparameterError, match=match):
        experiment(algorithms, "renshu/CartPole-v1", **{"seeds": 1, "steps": 16, "progress": False, **options})


@pytest.mark.parametrize("kwargs", [{}, {"opponent": "self"}], ids=["random", "self"])
def test_games_get_opponents_as_in_training_alone(kwargs):
    found = experiment(TINY, "renshu/StoneTaking-v0", seeds=[3, 4], steps=96, points=3, env_kwargs=kwargs, **OPTIONS)
    assert np.isfinite(found.curves[0].returns[:, -1]).all()
    agent = TINY.on("renshu/StoneTaking-v0", num_envs=2, seed=4, **kwargs)
    assert found.agents[1].spec.kwargs == agent.spec.kwargs == {"opponent": "random", **kwargs}
    agent.trainer.set_target(96)
    loop = agent.trainer.start_loop(nullcontext)
    iterations = found.agents[1].trainer.iteration
    while agent.trainer.iteration < iterations:
        loop.advance((iterations - agent.trainer.iteration) * loop.size)
    assert close(found.agents[1].trainer.state.params, agent.trainer.state.params)


def test_compiled_needs_a_device_env():
    with pytest.raises(SpaceError, match="needs a DeviceEnv"):
        experiment(TINY, "CartPole-v1", seeds=1, steps=16, loop="compiled", progress=False)


def test_nan_names_the_rows():
    with pytest.raises(NotFiniteError, match=r"A2C gamma=0.99? with seed \d.* after \d+ steps"):
        experiment(TINY, Faulty("reward"), seeds=2, steps=200, grid={"gamma": [0.9, 0.99]}, **OPTIONS)


def test_only_the_first_bad_rows_are_named():
    rows = [Row("A2C", TINY, {}, seed) for seed in range(6)]
    finite = np.array([True, False, False, False, False, True])
    assert "A2C with seed 1, A2C with seed 2, A2C with seed 3 and 1 more after 48 steps" in not_finite_message(
        rows, finite, 48
    )


def test_programs_that_need_more_rollouts_than_others():
    """Rows in programs of their own end at different rollouts: their curves have the same points all the same."""
    found = experiment(TINY, "renshu/CartPole-v1", seeds=6, steps=4000, num_envs=2, at_once=1, progress=False)
    assert found.curves[0].returns.shape == (6, len(found.curves[0].steps))
    assert all(agent.steps >= 4000 for agent in found.agents)
    assert len({agent.trainer.iteration for agent in found.agents}) > 1
