import json
import signal
import sys

import gymnasium
import jax
import numpy as np
import pytest
from flax import linen

import renshu
from renshu import A2C, PPO, Agent, load
from renshu.checkpoint import load_tree, named, nested, save_tree
from renshu.envs.classic import CartPole
from renshu.errors import CheckpointError, HyperparameterError, UnknownNameError
from renshu.tracking import Run, read_episodes, read_evaluations, read_metrics
from renshu.training import finish
from tests import probes
from tests.envs.faulty import Counting


class OwnNet(linen.Module):
    @linen.compact
    def __call__(self, obs):
        return linen.tanh(linen.Dense(8)(obs))


class OwnPPO(PPO):
    pass


def half(progress_remaining):
    return 1e-3 * (1 + progress_remaining) / 2


def same(a, b):
    return jax.tree.structure(a) == jax.tree.structure(b) and jax.tree.all(jax.tree.map(np.array_equal, a, b))


def forged(path, agent, **changes):
    """Write the agent's file with another header. What is in it is checked as if it came from a stranger."""
    agent.save(path)
    header, _ = load_tree(path)
    save_tree(path, {"learner": agent.state, "loop": agent.snapshot()}, {**header, **changes})
    return path


# --- files ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"norm_obs": True, "norm_reward": True}, {"net_arch": {"pi": [4], "vf": []}}])
def test_what_is_loaded_is_what_was_saved(tiny, tmp_path, options):
    agent = tiny(seed=7, learning_rate=renshu.Linear(1e-3), **options).learn(200, progress=False)
    other = load(agent.save(tmp_path / "a.safetensors"))
    assert same(agent.state, other.state)
    assert same(agent.parameters, other.parameters)
    assert (other.steps, other.iteration, other.seed, other.algorithm) == (
        agent.steps,
        agent.iteration,
        7,
        agent.algorithm,
    )
    assert other.spec == agent.spec
    observations = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    np.testing.assert_array_equal(agent.predict(observations), other.predict(observations))
    np.testing.assert_array_equal(agent.explain(observations)["value"], other.explain(observations)["value"])
    assert agent.evaluate(3) == other.evaluate(3)
    assert other.learn(100, progress=False).steps >= agent.steps + 100
    assert not same(agent.parameters, other.parameters)


def test_an_own_network_is_passed_again(tiny, tmp_path):
    agent = tiny(network=OwnNet).learn(40, progress=False)
    path = agent.save(tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match=r"'OwnNet'.*load\(path, network=OwnNet\)"):
        load(path)
    assert same(load(path, network=OwnNet).state, agent.state)


def test_an_own_schedule_is_passed_again(tiny, tmp_path):
    agent = tiny(learning_rate=half).learn(40, progress=False)
    path = agent.save(tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match=r"learning_rate: .*half"):
        load(path)
    other = load(path, learning_rate=half)
    assert same(other.state, agent.state)
    assert other.algorithm.learning_rate is half


def test_an_own_algorithm_is_passed_again(tmp_path):
    agent = OwnPPO(n_steps=16, batch_size=32, net_arch=[8]).on("CartPole-v1", num_envs=2)
    path = agent.save(tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match=r"agent of OwnPPO, which Renshu does not know.*algorithm=OwnPPO"):
        load(path)
    with pytest.raises(CheckpointError, match="an agent of OwnPPO, not of A2C"):
        load(path, algorithm=A2C)
    assert type(load(path, algorithm=OwnPPO).algorithm) is OwnPPO


def test_an_own_environment_is_passed_again(tiny, tmp_path):
    agent = tiny(probes.Value).learn(40, progress=False)
    path = agent.save(tmp_path / "a.safetensors")
    assert load(path).predict(np.zeros(1, np.float32)) in (0, 1)
    for use in (lambda agent: agent.learn(40, progress=False), lambda agent: agent.evaluate(2)):
        with pytest.raises(CheckpointError, match=r"load\(path, env=MyEnv\)"):
            use(load(path))
    assert load(path, env=probes.Value).learn(40, progress=False).steps > agent.steps
    assert load(path, env=probes.Value()).evaluate(3).episodes == 3


def test_an_environment_that_does_not_fit(tiny, tmp_path):
    path = tiny().save(tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match=r"a\.safetensors, made for CartPole-v1.*\[6, 8\].*env passed to load"):
        load(path, env="Acrobot-v1")
    with pytest.raises(HyperparameterError, match="batch_size"):
        load(path, env=gymnasium.make_vec("CartPole-v1", num_envs=3))
    other = load(path, env=gymnasium.make_vec("CartPole-v1", num_envs=4))
    assert other.learn(64, progress=False).spec.num_envs == 4


def test_hyperparameters_that_do_not_fit(tiny, tmp_path):
    path = tiny().save(tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match=r"net_arch passed to load"):
        load(path, net_arch=[16])
    with pytest.raises(CheckpointError, match=r"no hyperparameter 'learning_rat'.*learning_rate"):
        load(path, learning_rat=1.0)
    assert load(path, learning_rate=0.5).algorithm.learning_rate == 0.5


def test_a_file_never_decides_what_is_imported(tiny, tmp_path, monkeypatch):
    (tmp_path / "evil_module.py").write_text("import sys\nsys.evil_was_here = True\n")
    monkeypatch.syspath_prepend(tmp_path)
    agent = tiny()
    agent.save(tmp_path / "good.safetensors")
    spec = load_tree(tmp_path / "good.safetensors")[0]["spec"]
    path = forged(tmp_path / "a.safetensors", agent, spec={**spec, "id": "evil_module:Env-v0"})
    for use in (
        lambda agent: agent.learn(40, progress=False),
        lambda agent: agent.evaluate(2),
        lambda agent: agent.record(tmp_path / "a.gif"),
    ):
        with pytest.raises(CheckpointError, match="does not say how to make its environment"):
            use(load(path))
    for header in ({"algorithm": "evil_module"}, {"algorithm": "evil_module:PPO"}, {"algorithm": "../evil_module"}):
        with pytest.raises(CheckpointError, match="which Renshu does not know"):
            load(forged(tmp_path / "b.safetensors", agent, **header))
    assert not hasattr(sys, "evil_was_here")
    assert "evil_module" not in sys.modules
    with pytest.raises(UnknownNameError):
        load(path, env="evil_module:Env-v0")  # a user may name the module, and then it is imported
    assert sys.modules.pop("evil_module") is not None
    del sys.evil_was_here


@pytest.mark.parametrize(
    "changes",
    [
        {"algorithm": 3},
        {"algorithm": "Hyperparameters"},
        {"hyperparameters": [1]},
        {"hyperparameters": "x"},
        {"hyperparameters": {"learning_rate": {"__import__": "os"}}},
        {"hyperparameters": {"n_steps": -1}},
        {"spec": None},
        {"spec": {}},
        {"seed": "x"},
        {"seed": None},
        {"steps": [1]},
        {"loop": "nonsense"},
        {"loop": 3},
    ],
    ids=repr,
)
def test_wrong_headers(tiny, tmp_path, changes):
    with pytest.raises(CheckpointError):
        load(forged(tmp_path / "a.safetensors", tiny(), **changes))


def test_a_header_without_an_entry(tmp_path):
    save_tree(tmp_path / "a.safetensors", {"x": np.zeros(3)}, {"algorithm": "PPO"})
    with pytest.raises(CheckpointError, match="holds no agent"):
        load(tmp_path / "a.safetensors")


def test_damaged_files(tiny, tmp_path):
    path = tiny().save(tmp_path / "a.safetensors")
    content = path.read_bytes()
    for damaged in (
        content[:-1],
        content[: len(content) // 2],
        b"",
        content[:-9] + bytes([content[-9] ^ 1]) + b"12345678",
    ):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError):
            load(path)
    with pytest.raises(CheckpointError, match="there is no file"):
        load(tmp_path / "none.safetensors")


# --- environments of the compiled loop ------------------------------------------------------------------------------


def test_a_file_holds_the_environments_of_the_compiled_loop(tiny, tmp_path):
    agent = tiny("renshu/CartPole-v1").learn(60, progress=False)
    path = agent.save(tmp_path / "a.safetensors")
    _, leaves = load_tree(path)
    (x,) = [leaf for name, leaf in leaves.items() if name == "loop/envs/inner/x"]
    assert x.shape == (2,)
    again = load(path)
    assert again.ground.loop_name == "compiled"
    assert same(named(again.snapshot()), named(agent.snapshot()))
    second = load(again.save(tmp_path / "b.safetensors"))
    assert same(named(second.snapshot()), named(agent.snapshot())), "saved again before it has learned"
    fresh = load(tiny("renshu/CartPole-v1").save(tmp_path / "c.safetensors"))
    assert fresh.snapshot() is None
    assert fresh.learn(30, progress=False).steps >= 30


def test_a_loaded_agent_keeps_the_loop_that_was_asked_for(tmp_path):
    algorithm = PPO(n_steps=16, batch_size=16, n_epochs=1, net_arch=[8])
    agent = algorithm.on("renshu/CartPole-v1", seed=0, loop="host").learn(30, progress=False)
    again = load(agent.save(tmp_path / "a.safetensors"))
    assert again.ground.loop_name == "host"
    assert again.snapshot() is None
    assert again.learn(30, progress=False).steps >= 60


def test_a_compiled_agent_goes_on_in_another_environment(tiny, tmp_path):
    """From a DeviceEnv to Gymnasium's and to a DeviceEnv with other numbers; one with other states begins anew."""
    path = tiny("renshu/CartPole-v1").learn(60, progress=False).save(tmp_path / "a.safetensors")
    for env, loop in (("CartPole-v1", "host"), (CartPole(gravity=5.0), "compiled")):
        agent = load(path, env=env)
        assert agent.ground.loop_name == loop
        steps = agent.steps
        assert agent.learn(30, progress=False).steps >= steps + 30


def test_environments_in_a_file_that_do_not_fit(tiny, tmp_path):
    agent = tiny("renshu/CartPole-v1").learn(60, progress=False)
    path = agent.save(tmp_path / "a.safetensors")
    header, leaves = load_tree(path)
    for name, leaf in (("x", np.zeros(3, np.float32)), ("x", np.zeros(2, np.int32)), ("y", np.zeros(2, np.float32))):
        changed = {**leaves, f"loop/envs/inner/{name}": leaf}
        save_tree(path, nested(changed), header)
        with pytest.raises(CheckpointError, match=f"loop/envs/inner/{name}|envs/inner/{name}"):
            load(path).learn(30, progress=False)


# --- the same again -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("env", ["CartPole-v1", probes.TimeLimit], ids=str)
def test_the_same_seed_gives_the_same_agent_to_the_bit(tiny, env):
    first, second, other = (tiny(env, seed=seed).learn(200, progress=False) for seed in (3, 3, 4))
    assert same(first.state, second.state)
    assert first.steps == second.steps
    assert not same(first.parameters, other.parameters)


def test_learning_twice_counts_as_once(tiny):
    env = lambda: Counting(length=10**9)  # noqa: E731
    once, twice = tiny(env), tiny(env)
    once.learn(128, progress=False)
    twice.learn(64, progress=False).learn(64, progress=False)
    assert once.steps == twice.steps == 128
    assert once.iteration == twice.iteration == 4
    assert int(twice.state.counters.steps) == 128
    assert same(once.parameters, twice.parameters), "a constant learning rate, so nothing depends on the target"


# --- run folders ----------------------------------------------------------------------------------------------------


def test_a_run_folder_holds_everything(tiny, tmp_path):
    agent = tiny(seed=5, learning_rate=renshu.Linear(1e-3))
    ended = []
    agent.learn(
        400,
        progress=False,
        run=tmp_path / "run",
        eval_every=100,
        eval_episodes=2,
        checkpoint_every=100,
        callbacks=lambda agent, metrics: ended.append((agent.steps, len(agent.recent_returns))),
    )
    run = Run.open(tmp_path / "run")
    assert agent.run is None
    assert agent.last_run.path == run.path
    settings = json.loads((run.path / "settings.json").read_text())
    expected = {
        "algorithm": "PPO",
        "environment": "CartPole-v1",
        "num_envs": 2,
        "seed": 5,
        "total_steps": 400,
        "eval_every": 100,
    }
    assert expected.items() <= settings.items()
    assert settings["hyperparameters"] == agent.algorithm.to_json()
    assert {"python", "renshu", "jax", "flax", "gymnasium", "numpy"} <= settings["versions"].keys()
    assert "git" in settings
    episodes = read_episodes(run.path)
    assert (np.diff(episodes["step"]) >= 0).all()
    np.testing.assert_array_equal(episodes["return"], agent.recent_returns)
    np.testing.assert_array_equal(episodes["length"], agent.recent_lengths)
    assert episodes["step"][-1] <= agent.steps
    assert (episodes["return"] == episodes["length"]).all(), "CartPole pays 1 a step"
    metrics = read_metrics(run.path)
    assert metrics["step"].tolist() == [steps for steps, _ in ended]
    assert np.isfinite(metrics["policy_loss"]).all()
    evaluations = read_evaluations(run.path)
    assert evaluations["step"].size == 4
    assert (evaluations["episodes"] == 2).all()
    assert [path.name for path in run.checkpoints][-1] == f"step_{agent.steps:09d}.safetensors"
    assert len(run.checkpoints) == 3
    assert same(load(run.agent_path).state, agent.state)
    assert load(run.best_path).steps == evaluations["step"][evaluations["mean"].argmax()]
    assert run.curve_path.read_bytes().startswith(b"\x89PNG")
    assert list(run.path.glob("events.out.tfevents.*"))
    assert not list(run.path.rglob(".*")), "no temporary file stays"


def test_run_true_counts_folders_up(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    agent = tiny()
    for _ in range(2):
        agent.learn(30, progress=False, run=True)
    agent.learn(30, progress=False, run=False)
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["ppo-CartPole-v1-1", "ppo-CartPole-v1-2"]
    assert agent.last_run.path.name == "ppo-CartPole-v1-2"


def test_a_folder_that_holds_a_run_is_refused(tiny, tmp_path):
    agent = tiny().learn(30, progress=False, run=tmp_path / "run")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(renshu.errors.RenshuError, match="already holds a run"):
        agent.learn(30, progress=False, run=tmp_path / "run")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def interrupted(agent, run, at, total=640, **options):
    """Train in a run folder until Ctrl-C arrives after `at` steps."""

    def interrupt(agent, metrics):
        if agent.steps >= at:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        agent.learn(total, progress=False, run=run, callbacks=interrupt, **options)


def test_resume_goes_on_to_the_original_target(tiny, tmp_path):
    agent = tiny(learning_rate=renshu.Linear(1e-3))
    interrupted(agent, tmp_path / "run", 200, checkpoint_every=64)
    again = Agent.resume(tmp_path / "run")
    assert (again.steps, again.target, again.seed) == (agent.steps, 640, 0)
    assert same(again.state, agent.state)
    before = (tmp_path / "run" / "episodes.csv").read_text()
    again.learn(progress=False, checkpoint_every=64)
    assert 640 <= again.steps < 640 + 32
    text = (tmp_path / "run" / "episodes.csv").read_text()
    assert text.startswith(before)
    assert text.count("step,env") == 1
    for table in (read_episodes(tmp_path / "run"), read_metrics(tmp_path / "run")):
        assert (np.diff(table["step"]) >= 0).all()
    steps = read_metrics(tmp_path / "run")["step"]
    assert len(set(steps)) == len(steps)
    assert Run.open(tmp_path / "run").agent_path.exists()
    assert load(Run.open(tmp_path / "run").agent_path).steps == again.steps


def test_a_damaged_checkpoint_is_passed_over(tiny, tmp_path):
    agent = tiny()
    interrupted(agent, tmp_path / "run", 200, checkpoint_every=64)
    run = Run.open(tmp_path / "run")
    *_, older, newest = run.checkpoints
    newest.write_bytes(newest.read_bytes()[:-100])
    again = Agent.resume(run.path)
    assert again.steps == int(older.stem[5:]) < agent.steps
    assert read_episodes(run.path)["step"].max(initial=0) <= again.steps
    assert read_metrics(run.path)["step"].max() <= again.steps
    again.learn(progress=False)
    assert (np.diff(read_episodes(run.path)["step"]) >= 0).all()

    for path in run.checkpoints:
        path.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"is empty.*older ones"):
        Agent.resume(run.path)


def test_resume_without_a_checkpoint_or_a_run(tmp_path):
    Run.create(tmp_path / "run", {})
    with pytest.raises(CheckpointError, match="no checkpoint to go on from"):
        Agent.resume(tmp_path / "run")
    with pytest.raises(UnknownNameError, match=r"is not a run.*Did you mean run"):
        Agent.resume(tmp_path / "runn")


def test_resume_a_finished_run(tiny, tmp_path):
    agent = tiny().learn(60, progress=False, run=tmp_path / "run")
    again = Agent.resume(tmp_path / "run")
    assert same(again.state, agent.state)
    with pytest.raises(HyperparameterError, match=r"learn\(100_000\)"):
        again.learn(progress=False)
    again.learn(60, progress=False)
    assert again.steps >= agent.steps + 60
    assert [int(path.stem[5:]) for path in Run.open(tmp_path / "run").checkpoints] == [agent.steps, again.steps]
    assert not (tmp_path / "runs").exists()


def test_resume_with_an_own_environment_and_network(tiny, tmp_path):
    agent = tiny(probes.Value, network=OwnNet)
    interrupted(agent, tmp_path / "run", 100)
    with pytest.raises(CheckpointError, match="network=OwnNet"):
        Agent.resume(tmp_path / "run", env=probes.Value)
    again = Agent.resume(tmp_path / "run", env=probes.Value, network=OwnNet)
    assert 640 <= again.learn(progress=False).steps < 672


def test_finish_draws_the_curve(tmp_path):
    run = Run.create(tmp_path / "run", {})
    finish(run)
    assert run.curve_path.exists()
