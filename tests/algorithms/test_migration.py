"""Code written for Stable-Baselines3 is answered with the line to write instead, and that line runs."""

import re

import gymnasium
import numpy as np
import pytest

import renshu
from renshu import DQN, PPO, SAC, TD3, Agent
from renshu.agent.trainer import Trainer
from renshu.algorithms.registry import names
from renshu.errors import HyperparameterError

POLICY = {"net_arch": [32], "activation_fn": type("Tanh", (), {})}


def written(message):
    """The line that a message says to write."""
    return re.search(r"[Ww]rite (.*)$", message, re.DOTALL)[1]


def runs(line, monkeypatch):
    """Run a line, without training: the calls of learn that it makes."""
    called = []
    monkeypatch.setattr(Agent, "learn", lambda self, *args, **options: called.append((args, options)) or self)
    names = {**{name: getattr(renshu, name) for name in ("PPO", "SAC", "TD3", "DQN")}, "renshu": renshu}
    found = eval(line, {**names, "cartpole": gymnasium.make("CartPole-v1")})
    assert isinstance(found, Agent)
    found.close()
    return found, called


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda: PPO("MlpPolicy", "CartPole-v1"), 'PPO().on("CartPole-v1")'),
        (lambda: PPO("CartPole-v1"), 'PPO().on("CartPole-v1")'),
        (lambda: PPO("MlpPolicy", "CartPole-v1", n_steps=64, seed=3), 'PPO(n_steps=64).on("CartPole-v1", seed=3)'),
        (lambda: PPO(policy="MlpPolicy", env="CartPole-v1"), 'PPO().on("CartPole-v1")'),
        (lambda: PPO(policy_kwargs=POLICY), 'PPO(net_arch=[32], activation_fn="tanh").on("CartPole-v1")'),
        (lambda: PPO(verbose=1), 'PPO().on("CartPole-v1").learn(100_000, progress=True)'),
        (lambda: PPO(verbose=0), 'PPO().on("CartPole-v1").learn(100_000, progress=False)'),
        (lambda: PPO(seed=7), 'PPO().on("CartPole-v1", seed=7)'),
        (lambda: PPO(device="cuda"), 'PPO().on("CartPole-v1")'),
        (lambda: PPO(tensorboard_log="logs"), 'PPO().on("CartPole-v1").learn(100_000, run="logs")'),
        (lambda: PPO(n_envs=4), 'PPO().on("CartPole-v1", num_envs=4)'),
        (lambda: DQN(bins=3), 'DQN().on("CartPole-v1", bins=3)'),
        (lambda: SAC("MlpPolicy", "Pendulum-v1", tau=0.1, verbose=1, device="auto"), None),
        (lambda: TD3(seed=1), 'TD3().on("Pendulum-v1", seed=1)'),
    ],
)
def test_a_constructor_is_answered(call, line, monkeypatch):
    with pytest.raises(HyperparameterError) as error:
        call()
    found = written(str(error.value))
    assert line is None or found == line
    runs(found, monkeypatch)


def test_an_object_is_called_env():
    with pytest.raises(HyperparameterError, match=r"Write PPO\(gamma=0\.9\)\.on\(env\)$"):
        PPO("MlpPolicy", gymnasium.make("CartPole-v1"), gamma=0.9)
    with pytest.raises(HyperparameterError, match=r"by name, as in PPO\(learning_rate=1\)"):
        PPO(3e-4)


def test_a_name_that_neither_library_has_is_answered_as_ever():
    with pytest.raises(HyperparameterError, match=r"no hyperparameter 'gama'\. Did you mean gamma"):
        PPO("MlpPolicy", "CartPole-v1", gama=0.9)


def test_learning_and_loading_without_an_agent(monkeypatch):
    for call in (
        lambda: PPO().learn(1000),
        lambda: PPO.learn(1000),
        lambda: PPO().predict([0]),
        lambda: PPO().save("a"),
    ):
        with pytest.raises(AttributeError, match="on an environment it is an agent") as error:
            call()
        _, called = runs(written(str(error.value)).removeprefix("agent = "), monkeypatch)
        assert called == [((100_000,), {})]
    for load in (lambda: PPO.load("x"), lambda: PPO().load("x")):
        with pytest.raises(AttributeError, match=r'Write agent = renshu\.load\("agent\.safetensors"\)'):
            load()
    assert not hasattr(PPO, "nothing")
    assert not hasattr(PPO(), "nothing")


@pytest.mark.parametrize(
    ("options", "answer"),
    [
        ({"total_timesteps": 1000}, r"Write agent\.learn\(1000\)$"),
        ({"callback": print}, r"Write agent\.learn\(100_000, callbacks=print\)$"),
        ({"progress_bar": True}, r"Write agent\.learn\(100_000, progress=True\)$"),
        ({"reset_num_timesteps": False}, "steps count on from call to call"),
        ({"tb_log_name": "a"}, r'run="a"'),
        ({"eval_freq": 500}, "eval_every=500"),
        ({"n_eval_episodes": 5}, "eval_episodes=5"),
        ({"log_interval": 4}, "run folder"),
        ({"progres": True}, "Did you mean progress"),
    ],
)
def test_options_of_learn(tiny, options, answer):
    with pytest.raises(HyperparameterError, match=answer):
        tiny().learn(**options)


def test_options_of_the_other_methods(tiny):
    agent = tiny()
    with pytest.raises(HyperparameterError, match=r"Write agent\.evaluate\(5\)$"):
        agent.evaluate(n_eval_episodes=5)
    with pytest.raises(HyperparameterError, match=r"Write PPO\(\)\.on\(env, num_envs=4\)$"):
        PPO().on("CartPole-v1", n_envs=4)
    with pytest.raises(HyperparameterError, match=r"agent\.player\(\)"):
        agent.predict(np.zeros(4, np.float32), state=None)


@pytest.mark.parametrize("name", ["set_env", "num_timesteps", "policy", "logger"])
def test_attributes_of_an_agent(tiny, name):
    with pytest.raises(AttributeError, match=f"an agent has no '{name}': "):
        getattr(tiny(), name)
    assert not hasattr(tiny(), "nothing")


def test_a_property_that_fails_keeps_its_own_error(tiny, monkeypatch):
    monkeypatch.setattr(Trainer, "steps", property(lambda self: self.missing))
    with pytest.raises(AttributeError, match="'Trainer' object has no attribute"):
        _ = tiny().steps


def test_unpacking_an_action(tiny):
    agent, obs = tiny(), np.zeros(4, np.float32)
    with pytest.raises(TypeError, match=r"Write action = agent\.predict\(observation\)$"):
        action, _ = agent.predict(obs)
    action = agent.predict(obs)
    assert isinstance(action, np.integer)
    assert agent.spec.action_space.contains(action)
    assert repr(action) == f"np.int64({action})" or repr(action) == f"np.int32({action})"
    assert (action + 1).dtype == action.dtype
    assert agent.predict(np.stack([obs, obs])).shape == (2,)


def test_names_of_its_modules():
    with pytest.raises(ImportError, match="several environments at once are num_envs"):
        from renshu import make_vec_env  # noqa: F401
    with pytest.raises(ImportError, match=r"num_envs=8"):
        _ = renshu.make_vec_env
    with pytest.raises(ImportError, match=r"agent\.evaluate\(20\)"):
        from renshu import evaluate_policy  # noqa: F401


def test_no_name_of_renshu_is_taken_for_one_of_theirs():
    from renshu.algorithms.migration import _NAMES, _OF_AGENTS

    assert not set(_NAMES) & set(names())
    assert not [name for name in _OF_AGENTS if hasattr(Agent, name)]


def test_dir_shows_what_a_user_may_touch(tiny):
    found = {name for name in dir(tiny()) if not name.startswith("_")}
    assert {"learn", "predict", "evaluate", "save", "recent_returns"} <= found
    assert not {"trainer", "of_trainer"} & found
