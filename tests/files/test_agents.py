import sys
import warnings

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen
from safetensors.numpy import save_file

import renshu
from renshu import A2C, PPO, load
from renshu.envs.builtin.classic import CartPole
from renshu.errors import CheckpointError, HyperparameterError, UnknownNameError
from renshu.files import checkpoint
from renshu.files.checkpoint import load_tree, named, nested, save_tree
from tests import probes

pytestmark = pytest.mark.usefixtures("compiled_fast")


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
    save_tree(path, {"learner": agent.state, "loop": agent.trainer.loop_snapshot()}, {**header, **changes})
    return path


# --- files ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"norm_obs": True, "norm_reward": True}, {"net_arch": {"pi": [4], "vf": []}}])
def test_what_is_loaded_is_what_was_saved(tiny, tmp_path, options):
    agent = tiny(seed=7, learning_rate=renshu.Linear(1e-3), **options).learn(200, progress=False)
    other = load(agent.save(tmp_path / "a.safetensors"))
    assert same(agent.state, other.state)
    assert same(agent.parameters, other.parameters)
    assert (other.steps, other.trainer.iteration, other.seed, other.algorithm) == (
        agent.steps,
        agent.trainer.iteration,
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
        {"seed": 2**40},
        {"seed": float("inf")},
        {"steps": 1e400},
        {"iteration": 2**40},
        {"processes": "yes"},
        {"environment": None},
        {"spaces": {"frame_stack": 10**12}},
        {"spaces": {"bins": float("nan")}},
        {"hyperparameters": {"self": 1}},
        {"hyperparameters": {"net_arch": [8] * 3000}},
        {"hyperparameters": {"net_arch": {"pi": float("inf")}}},
        {"hyperparameters": {"n_steps": 10**400}},
        {"hyperparameters": {"n_steps": 10**12, "batch_size": 7 * 10**9}},
    ],
    ids=repr,
)
def test_wrong_headers(tiny, tmp_path, changes):
    with pytest.raises(CheckpointError):
        load(forged(tmp_path / "a.safetensors", tiny(), **changes))


def test_a_memory_larger_than_the_machines_is_refused_before_it_is_filled(tmp_path):
    small = {"batch_size": 8, "net_arch": [8], "learning_starts": 8}
    with pytest.raises(HyperparameterError, match=r"this machine has .* a smaller buffer_size"):
        renshu.DQN(**small, buffer_size=10**11).on("CartPole-v1")
    agent = renshu.DQN(**small, buffer_size=64).on("CartPole-v1", seed=0)
    huge = {"hyperparameters": {**small, "buffer_size": 10**11}}
    with pytest.raises(CheckpointError, match=r"a\.safetensors.*this machine has"):
        load(forged(tmp_path / "a.safetensors", agent, **huge, memory="inside"))
    path = agent.save(tmp_path / "without.safetensors")
    header, arrays = load_tree(path)
    save_tree(path, nested(arrays), {**header, **huge})
    player = load(path)  # which needs no memory to play
    with pytest.raises(HyperparameterError, match=r"this machine has .* a smaller buffer_size"):
        player.learn(100, progress=False)


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
    assert again.trainer.backend.loop_name == "compiled"
    assert same(named(again.trainer.loop_snapshot()), named(agent.trainer.loop_snapshot()))
    second = load(again.save(tmp_path / "b.safetensors"))
    kept = second.trainer.loop_snapshot()
    assert same(named(kept), named(agent.trainer.loop_snapshot())), "saved again before it has learned"
    fresh = load(tiny("renshu/CartPole-v1").save(tmp_path / "c.safetensors"))
    assert fresh.trainer.loop_snapshot() is None
    assert fresh.learn(30, progress=False).steps >= 30


def test_a_loaded_agent_keeps_the_loop_that_was_asked_for(tmp_path):
    algorithm = PPO(n_steps=16, batch_size=16, n_epochs=1, net_arch=[8])
    agent = algorithm.on("renshu/CartPole-v1", seed=0, loop="host").learn(30, progress=False)
    again = load(agent.save(tmp_path / "a.safetensors"))
    assert again.trainer.backend.loop_name == "host"
    assert again.trainer.loop_snapshot() is None
    assert again.learn(30, progress=False).steps >= 60


def test_a_compiled_agent_goes_on_in_another_environment(tiny, tmp_path):
    """From a DeviceEnv to Gymnasium's and to a DeviceEnv with other numbers; one with other states begins anew."""
    path = tiny("renshu/CartPole-v1").learn(60, progress=False).save(tmp_path / "a.safetensors")
    for env, loop in (("CartPole-v1", "host"), (CartPole(gravity=5.0), "compiled")):
        agent = load(path, env=env)
        assert agent.trainer.backend.loop_name == loop
        steps = agent.steps
        assert agent.learn(30, progress=False).steps >= steps + 30


class Windy(CartPole):
    """The same to look at, with more in its state."""

    def reset(self, key):
        state, obs = super().reset(key)
        return (state, jnp.zeros(2)), obs

    def step(self, state, action, key):
        found = super().step(state[0], action, key)
        return found._replace(state=(found.state, state[1]))


def test_environments_with_other_states_begin_anew_with_a_warning(tiny, tmp_path):
    agent = tiny("renshu/CartPole-v1").learn(60, progress=False)
    path = agent.save(tmp_path / "a.safetensors")
    with pytest.warns(UserWarning, match=r"not like CartPole-v1 \(envs/inner/.*training begins in new ones"):
        again = load(path, env=Windy())
    assert again.trainer.loop_snapshot() is None
    assert same(again.state, agent.state)
    steps = again.steps
    assert again.learn(30, progress=False).steps >= steps + 30
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load(path, env="renshu/CartPole-v1").trainer.loop_snapshot() is not None
        load(again.save(tmp_path / "b.safetensors"), env=Windy()).learn(30, progress=False)


def test_environments_in_a_file_that_do_not_fit(tiny, tmp_path):
    agent = tiny("renshu/CartPole-v1").learn(60, progress=False)
    path = agent.save(tmp_path / "a.safetensors")
    header, leaves = load_tree(path)
    for name, leaf in (("x", np.zeros(3, np.float32)), ("x", np.zeros(2, np.int32)), ("y", np.zeros(2, np.float32))):
        changed = {**leaves, f"loop/envs/inner/{name}": leaf}
        save_tree(path, nested(changed), header)
        match = rf"does not fit CartPole-v1 as it is now \(.*envs/inner/{name}.*new environments name it, as in load"
        with pytest.raises(CheckpointError, match=match):
            load(path).learn(30, progress=False)


def test_arrays_inside_an_array_are_refused(tiny, tmp_path):
    agent = tiny("renshu/CartPole-v1").learn(60, progress=False)
    path = agent.save(tmp_path / "a.safetensors")
    header, leaves = load_tree(path)
    leaves = {**leaves, "loop/a": np.zeros(2), "loop/a/b": np.zeros(2)}
    save_file(leaves, path, checkpoint._metadata(header, leaves))
    with pytest.raises(CheckpointError, match="'loop/a/b' is both an array and a folder"):
        load(path)


@pytest.mark.parametrize(
    "loop",
    [{"read": np.zeros(3), "owed": np.int64(0)}, {"read": np.int64(5), "owed": np.int64(2**62)}],
    ids=["read", "owed"],
)
def test_a_place_in_a_data_set_that_cannot_be_is_refused(loop, tmp_path):
    small = {"buffer_size": 64, "batch_size": 8, "net_arch": [8], "learning_starts": 8}
    data = renshu.DQN(**small).on("CartPole-v1", seed=0).collect(40, to=tmp_path / "data")
    agent = renshu.DQN(**small).on(data, seed=0).learn(8, progress=False)
    path = agent.save(tmp_path / "a.safetensors", memory=True)
    save_tree(path, {"learner": agent.state, "loop": loop}, load_tree(path)[0])
    with pytest.raises(CheckpointError, match="where in its data set"):
        load(path, env=data).learn(8, progress=False)
