"""Which loop runs where, and who closes what."""

import os

import gymnasium
import numpy as np
import pytest

from renshu import A2C, PPO, load
from renshu.agent.backends import CompiledBackend, HostBackend, make_backend
from renshu.envs.builtin.classic import CartPole
from renshu.envs.source import EnvSource
from renshu.errors import EnvironmentFault, HyperparameterError, SpaceError
from tests import probes
from tests.envs.faulty import Counting, Noisy

TINY = A2C(net_arch=[4])


def backend_of(env, num_envs=None, loop=None, processes=False):
    return make_backend(EnvSource.of(env), num_envs, loop=loop, processes=processes, timeout=30.0)


@pytest.mark.parametrize(
    ("env", "options", "kind"),
    [
        ("CartPole-v1", {}, HostBackend),
        (probes.Value, {}, HostBackend),
        ("renshu/CartPole-v1", {}, CompiledBackend),
        (CartPole(), {}, CompiledBackend),
        (CartPole(), {"loop": "compiled"}, CompiledBackend),
        (CartPole(), {"loop": "host"}, HostBackend),
        ("renshu/CartPole-v1", {"processes": True}, HostBackend),
        ("CartPole-v1", {"loop": "host"}, HostBackend),
    ],
)
def test_the_environment_chooses_unless_told(env, options, kind):
    backend = backend_of(env, **options)
    assert type(backend) is kind
    assert backend.loop_name == ("host" if kind is HostBackend else "compiled")
    assert backend.num_envs == 1
    assert backend_of(env, 3, **options).num_envs == 3


def test_what_cannot_be_is_refused():
    with pytest.raises(HyperparameterError, match='loop=\'nonsense\': expected "host", "compiled" or None'):
        backend_of("CartPole-v1", loop="nonsense")
    for env in ("CartPole-v1", probes.Value, gymnasium.make("CartPole-v1")):
        with pytest.raises(SpaceError, match=r"needs a DeviceEnv.* is none.*renshu list"):
            backend_of(env, loop="compiled")
    with pytest.raises(HyperparameterError, match='processes=True is for loop="host"'):
        backend_of("renshu/CartPole-v1", loop="compiled", processes=True)
    with pytest.raises(HyperparameterError, match=r"num_envs=2, but .* has 3"):
        backend_of(gymnasium.make_vec("CartPole-v1", 3, vectorization_mode="sync"), 2)
    with pytest.raises(SpaceError, match="needs a DeviceEnv"):
        TINY.on("CartPole-v1", loop="compiled")
    with pytest.raises(HyperparameterError, match="loop='x'"):
        TINY.on("renshu/CartPole-v1", loop="x")


@pytest.mark.parametrize("loop", ["host", "compiled"])
def test_both_tell_a_learner_the_same(loop):
    backend = backend_of("renshu/CartPole-v1", 2, loop)
    for spec in (backend.probe_spec(), backend.spec()):
        assert (spec.id, spec.num_envs, spec.max_episode_steps) == ("renshu/CartPole-v1", 2, 500)
        assert spec.observation_space == CartPole().observation_space
        assert spec.reward_threshold == 475
    backend.close()


def test_a_look_opens_nothing_that_stays():
    closed = []

    class Closing(probes.Value):
        def close(self):
            closed.append(True)

    backend = backend_of(Closing, 4)
    assert backend.probe_spec().num_envs == 4
    assert closed == [True]
    mine = Closing()
    backend_of(mine).probe_spec()
    assert closed == [True], "what its owner made stays open"
    backend_of(mine).close_own()
    assert closed == [True]
    vector = gymnasium.vector.SyncVectorEnv([Closing] * 3)
    assert backend_of(vector).probe_spec().num_envs == 3
    assert closed == [True]


def test_environments_of_evaluation_are_kept_until_one_breaks():
    made, hot = [], []

    class Breaks(probes.Value):
        def __init__(self):
            super().__init__()
            made.append(self)

        def step(self, action):
            if hot:
                raise RuntimeError("the motor is hot")
            return super().step(action)

    agent = TINY.on(Breaks, seed=0)
    for _ in range(3):
        agent.evaluate(2, num_envs=1)
    assert len(made) == 2, "one to train in and one to evaluate in"
    hot.append(True)
    with pytest.raises(EnvironmentFault, match="the motor is hot"):
        agent.evaluate(2, num_envs=1)
    hot.clear()
    assert agent.evaluate(2, num_envs=1).episodes == 2
    assert len(made) == 3


@pytest.mark.parametrize("loop", ["host", "compiled"])
def test_closing_is_not_the_end(loop):
    agent = TINY.on("renshu/CartPole-v1", num_envs=2, seed=0, loop=loop).learn(20, progress=False)
    steps = agent.steps
    agent.close()
    assert agent.steps == steps
    assert agent.evaluate(1).episodes == 1
    assert agent.learn(20, progress=False).steps >= steps + 20
    assert agent.predict(np.zeros(4)) in (0, 1)
    agent.close()


def test_with_processes_no_environment_runs_in_the_process_of_training(tmp_path):
    """Not one to read spaces from, none to evaluate in, none for a file that is loaded: faults there end workers."""

    class Noted(Counting):
        def __init__(self):
            super().__init__()
            (tmp_path / f"{os.getpid()}").touch()

    options = {"num_envs": 2, "processes": True, "seed": 0}
    with PPO(n_steps=16, batch_size=32, n_epochs=1, net_arch=[8]).on(Noted, **options) as agent:
        agent.learn(32, progress=False)
        assert agent.evaluate(2).episodes == 2
        agent.collect(32, to=tmp_path / "data")
        path = agent.save(tmp_path / "a.safetensors")
    with load(path, env=Noted) as again:
        assert again.evaluate(1).episodes == 1
    assert f"{os.getpid()}" not in {path.name for path in tmp_path.iterdir()}


def test_evaluation_in_processes_is_the_same_as_in_this_one():
    make = lambda: PPO(n_steps=16, batch_size=16, n_epochs=1, net_arch=[8])  # noqa: E731
    with make().on(Noisy, seed=0, processes=True) as there, make().on(Noisy, seed=0) as here:
        assert there.evaluate(3) == here.evaluate(3)
