"""Whatever a user gives as environment, more of the same can be made of it, or an error says what to give instead."""

from __future__ import annotations

import subprocess
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.classic_control import CartPoleEnv
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.wrappers import ClipReward, NormalizeObservation
from gymnasium.wrappers.vector import ClipReward as ClipRewards

from renshu.envs.builtin.classic import Pendulum
from renshu.envs.gymnasium.vector import HostEnvs
from renshu.envs.source import EnvSource
from renshu.errors import EnvironmentFault, HyperparameterError, SpaceError, UnknownNameError
from tests.envs.faulty import Batch, Counting, Noisy

ROOT = Path(__file__).parents[2]


class Plain(gymnasium.Wrapper):
    """A wrapper that does not say how it was made, as most that users write."""


def stepped(vector: VectorEnv) -> np.ndarray:
    envs = HostEnvs(vector)
    obs = envs.reset(0)
    for _ in range(3):
        obs, *_ = envs.step(np.zeros((envs.num_envs, *(envs.single_action_space.shape or ())), int))
    return obs


@pytest.mark.parametrize(
    ("env", "name", "kind"),
    [
        ("CartPole-v1", "CartPole-v1", "CartPoleVectorEnv"),
        ("CartPole", "CartPole-v1", "CartPoleVectorEnv"),
        ("Taxi-v4", "Taxi-v4", "SyncVectorEnv"),
        ("gymnasium:Pendulum-v1", "Pendulum-v1", "SyncVectorEnv"),
        (CartPoleEnv, "CartPoleEnv", "SyncVectorEnv"),
        (lambda: Counting(), "lambda", "SyncVectorEnv"),
        (partial(Counting, length=3), "Counting", "SyncVectorEnv"),
        (gymnasium.make("Pendulum-v1"), "Pendulum-v1", "SyncVectorEnv"),
    ],
)
def test_what_can_be_given(env: Any, name: str, kind: str) -> None:
    source = EnvSource.of(env)
    vector = source.vector(3)
    assert (source.name, type(vector).__name__, vector.num_envs) == (name, kind, 3)
    assert len(stepped(vector)) == 3
    assert len(stepped(source.evaluation(2))) == 2
    assert source.spec(vector, 3).observation_space == vector.single_observation_space


def test_names_are_fit_for_folders() -> None:
    assert EnvSource.of("phys2d/CartPole-v1").name == "CartPole-v1"
    assert EnvSource.of(Noisy()).name == "Noisy"
    assert EnvSource.of(Plain(gymnasium.make("CartPole-v1"))).name == "CartPoleEnv"
    assert EnvSource.of(Batch()).name == "Batch"


@pytest.mark.parametrize("env", [3, None, {}, ["CartPole-v1"]])
def test_anything_else_is_refused(env: Any) -> None:
    with pytest.raises(
        SpaceError,
        match=r"a Gymnasium id .* a class .* a function .*VectorEnv, or a renshu.DeviceEnv; this is a builtins",
    ):
        EnvSource.of(env)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("CartPole-v7", "'CartPole-v7'. Did you mean CartPole-v1 or"),
        ("cartpole-v1", "Did you mean CartPole-v1 or"),
        ("HalfCheeta-v5", "Did you mean HalfCheetah-v5 or"),
        ("LunarLandr", "Did you mean LunarLander-v3"),
        ("qqqq", "No registered name is like it"),
        ("json:CartPole-v8", "'CartPole-v8'. Did you mean CartPole-v1"),
        ("no_such_module:CartPole-v1", "cannot import 'no_such_module'.*No module named"),
        ("../x:CartPole-v1", "cannot import"),
    ],
)
def test_unknown_names(name: str, message: str) -> None:
    with pytest.raises(UnknownNameError, match=message):
        EnvSource.of(name)


def test_missing_packages_name_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name, extra in (
        ("Box2D", "LunarLander-v3", "box2d"),
        ("mujoco", "HalfCheetah-v5", "mujoco"),
        ("ale_py", "ALE/Pong-v5", "atari"),
    ):
        for loaded in [key for key in sys.modules if key.startswith(("gymnasium.envs.box2d", "gymnasium.envs.mujoco"))]:
            monkeypatch.delitem(sys.modules, loaded)
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises((EnvironmentFault, UnknownNameError), match=rf'pip install "renshu\[{extra}\]"'):
            EnvSource.of(name).vector(1)


def test_kwargs_reach_what_makes_it() -> None:
    assert stepped(EnvSource.of(Counting, {"length": 3}).vector(1))[0, 0] == 3
    env = EnvSource.of("Pendulum-v1", {"g": 3.0}).single()
    assert env.get_wrapper_attr("g") == 3.0
    with pytest.raises(EnvironmentFault, match=r"Counting raised while it was made: TypeError: .*'size'"):
        EnvSource.of(Counting, {"size": 3}).vector(1)
    with pytest.raises(SpaceError, match="is made already: give it length where you make it"):
        EnvSource.of(Counting(), {"length": 3})


def test_numbers_out_of_range() -> None:
    for bad in ({"num_envs": 0}, {"num_envs": 1, "processes": -1}):
        with pytest.raises(HyperparameterError, match="expected num_envs >= 1, processes >= 0"):
            EnvSource.of("Taxi-v4").vector(**bad)


def test_functions_that_make_something_else() -> None:
    for function, message in (
        (lambda: 3, "lambda made a builtins.int, not a gymnasium.Env"),
        (lambda: Batch(), "not a gymnasium.Env. Pass the vector environment itself"),
        (gymnasium.Env, "Env has no observation_space: set it in __init__"),
    ):
        with pytest.raises(SpaceError, match=message):
            EnvSource.of(function).vector(1)
    once = Counting()
    with pytest.raises(SpaceError, match="gave the same environment again: it must make a new one"):
        EnvSource.of(lambda: once).vector(2)
    source = EnvSource.of(lambda: once)
    source.vector(1)
    for other in (lambda: source.evaluation(1), source.single):
        with pytest.raises(SpaceError, match="gave the same environment again"):
            other()
    shapes = iter([(2,), (3,)])
    with pytest.raises(SpaceError, match="must all have the same spaces"):
        EnvSource.of(lambda: Counting(observation_space=gymnasium.spaces.Box(0, 1, next(shapes)))).vector(2)


def test_an_instance_trains_itself_and_evaluation_is_apart_from_it() -> None:
    env = Noisy()
    source = EnvSource.of(env)
    vector = source.vector(1)
    assert isinstance(vector, SyncVectorEnv)
    assert vector.envs[0].unwrapped is env
    envs = HostEnvs(vector)
    envs.reset(0)
    state = env.np_random.bit_generator.state
    evaluation = source.evaluation(3)
    assert np.unique(stepped(evaluation)[:, 0]).size == 3
    evaluation.close()
    assert env.np_random.bit_generator.state == state
    assert not env.closed
    both = source.vector(2)
    assert isinstance(both, SyncVectorEnv)
    assert both.envs[0].unwrapped is env
    assert both.envs[1].unwrapped is not env
    workers = source.vector(2, processes=True)
    assert np.unique(stepped(workers)[:, 0]).size == 2
    workers.close()


def test_what_was_changed_in_an_instance_is_in_its_copies() -> None:
    env = gymnasium.make("Pendulum-v1", render_mode="rgb_array")
    env.unwrapped.g = 0.5  # type: ignore[attr-defined]
    source = EnvSource.of(env)
    for vector in (source.vector(2), source.evaluation(2)):
        assert isinstance(vector, SyncVectorEnv)
        assert [one.get_wrapper_attr("g") for one in vector.envs] == [0.5, 0.5]
    assert source.single("rgb_array").get_wrapper_attr("g") == 0.5
    several = gymnasium.make_vec("Pendulum-v1", 2)
    for one in several.envs:  # type: ignore[attr-defined]
        one.unwrapped.g = 0.5
    assert [one.get_wrapper_attr("g") for one in EnvSource.of(several).evaluation(2).envs] == [0.5, 0.5]  # type: ignore[attr-defined]
    assert EnvSource.of(several).single().get_wrapper_attr("g") == 0.5


def test_copies_have_the_statistics_of_wrappers_as_they_are_then() -> None:
    env = NormalizeObservation(gymnasium.make("Pendulum-v1"))
    source = EnvSource.of(env)
    stepped(source.vector(1))
    for _ in range(2):
        (copy,) = source.evaluation(1).envs  # type: ignore[attr-defined]
        np.testing.assert_array_equal(copy.get_wrapper_attr("obs_rms").mean, env.obs_rms.mean)
        env.step(env.action_space.sample())


def test_one_environment_in_several_places_is_refused() -> None:
    one = Counting()
    with pytest.raises(SpaceError, match="steps one environment in several places"):
        EnvSource.of(SyncVectorEnv([lambda: one] * 4)).vector(4)


def test_a_time_limit_around_anything() -> None:
    for given in ("Pendulum-v1", lambda: Counting(), Counting, Counting(), Pendulum()):
        source = EnvSource.of(given, max_episode_steps=3)
        vector = source.vector(1)
        assert source.spec(vector, 1).max_episode_steps == 3
        for env in (vector, source.evaluation(1)):
            env.reset(seed=0)
            truncated = [bool(env.step(env.action_space.sample())[3][0]) for _ in range(3)]
            assert truncated == [False, False, True]
    with pytest.raises(SpaceError, match="give it max_episode_steps where you make it"):
        EnvSource.of(gymnasium.make_vec("CartPole-v1", 2), max_episode_steps=3)


def test_an_instance_that_cannot_be_copied() -> None:
    env = Counting()
    env.stream = (step for step in range(3))  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(SpaceError, match=r"Pass a function .* or call evaluate\(env=...\) \(TypeError: .*generator"):
        EnvSource.of(env).evaluation(1)


def test_an_instance_is_copied_with_its_wrappers() -> None:
    env = ClipReward(gymnasium.make("Pendulum-v1", g=3.0, max_episode_steps=7, render_mode="rgb_array"), -1, 0)
    source = EnvSource.of(env)
    vector = source.vector(2)
    assert isinstance(vector, SyncVectorEnv)
    assert vector.envs[0].get_wrapper_attr("env") is env
    evaluation = source.evaluation(2)
    assert isinstance(evaluation, SyncVectorEnv)
    for other in (vector.envs[1], *evaluation.envs):
        assert isinstance(other.get_wrapper_attr("env"), ClipReward)
        assert (other.get_wrapper_attr("g"), other.render_mode) == (3.0, "rgb_array")
    spec = source.spec(vector, 2)
    assert (spec.id, spec.max_episode_steps) == (None, 7)


def test_specs() -> None:
    def spec(env: Any, **kwargs: Any) -> tuple:
        source = EnvSource.of(env, kwargs)
        found = source.spec(source.vector(2), 2)
        return found.id, dict(found.kwargs), found.max_episode_steps, found.reward_threshold, found.num_envs

    assert spec("CartPole-v1") == ("CartPole-v1", {}, 500, 475.0, 2)
    assert spec("CartPole-v1", max_episode_steps=7, render_mode=None) == (
        "CartPole-v1",
        {"max_episode_steps": 7},
        7,
        475.0,
        2,
    )
    assert spec("gymnasium:Pendulum-v1", g=2.0) == ("gymnasium:Pendulum-v1", {"g": 2.0}, 200, None, 2)
    assert spec(gymnasium.make("Pendulum-v1", g=2.0)) == ("Pendulum-v1", {"g": 2.0}, 200, None, 2)
    limited = gymnasium.make("Pendulum-v1", max_episode_steps=9)
    assert spec(limited) == ("Pendulum-v1", {"max_episode_steps": 9}, 9, None, 2)
    unlimited = gymnasium.make("Pendulum-v1", max_episode_steps=-1)
    assert spec(unlimited) == ("Pendulum-v1", {"max_episode_steps": -1}, None, None, 2)
    assert spec(gymnasium.make_vec("Pendulum-v1", 2, g=2.0)) == ("Pendulum-v1", {"g": 2.0}, 200, None, 2)
    assert spec(ClipRewards(gymnasium.make_vec("Pendulum-v1", 2), 0, 1)) == (None, {}, 200, None, 2)
    assert spec(Counting) == (None, {}, None, None, 2)


def test_vector_environments_are_used_as_they_are_and_made_again_where_that_is_known() -> None:
    for given, kind in (
        (gymnasium.make_vec("CartPole-v1", 3), "CartPoleVectorEnv"),
        (gymnasium.make_vec("Pendulum-v1", 3), "SyncVectorEnv"),
        (
            gymnasium.make_vec("Pendulum-v1", 3, vectorization_mode="async", vector_kwargs={"context": "spawn"}),
            "SyncVectorEnv",
        ),
        (SyncVectorEnv([Counting] * 3), "SyncVectorEnv"),
    ):
        source = EnvSource.of(given)
        assert source.vector(8) is given
        evaluation = source.evaluation(2)
        # A copy has the environments of the original; of those in processes there is none.
        count = 2 if hasattr(given, "processes") else 3
        assert (type(evaluation).__name__, evaluation.num_envs) == (kind, count)
        assert len(stepped(evaluation)) == count
        with nullcontext() if hasattr(given, "envs") else pytest.warns(UserWarning, match="made anew"):
            assert isinstance(source.single(), gymnasium.Env)
        given.close()
    with pytest.raises(SpaceError, match="use processes=False"):
        source.vector(3, processes=True)
    for given in (Batch(), ClipRewards(gymnasium.make_vec("Pendulum-v1", 2), 0, 1)):
        copy = EnvSource.of(given).evaluation(1)
        assert type(copy) is type(given)
        assert copy is not given
        with pytest.raises(SpaceError, match=r"cannot record .* or call record\(env=...\)"):
            EnvSource.of(given).single()


def test_other_ways_to_reset_are_refused() -> None:
    wrong = SyncVectorEnv([Counting], autoreset_mode=AutoresetMode.SAME_STEP)
    silent = Batch()
    silent.metadata = {}
    for given in (wrong, silent):
        with pytest.raises(SpaceError, match=r"expected AutoresetMode.NEXT_STEP: .* Make it with autoreset_mode="):
            EnvSource.of(given).vector(1)


@pytest.mark.parametrize(
    "env",
    [
        "CartPole-v1",
        gymnasium.make("CartPole-v1"),
        gymnasium.make_vec("CartPole-v1", 2),
        gymnasium.make_vec("Pendulum-v1", 2),
        CartPoleEnv,
        lambda **options: CartPoleEnv(**options),
        CartPoleEnv(render_mode="rgb_array"),
    ],
)
def test_one_to_watch(env: Any) -> None:
    single = EnvSource.of(env).single("rgb_array")
    single.reset(seed=0)
    frame = single.render()
    single.close()
    assert isinstance(frame, np.ndarray)
    assert (frame.ndim, frame.shape[2], frame.dtype) == (3, 3, np.uint8)


@pytest.mark.parametrize("env", [CartPoleEnv(), SyncVectorEnv([CartPoleEnv])])
def test_a_copy_renders_though_it_was_made_without(env: Any) -> None:
    single = EnvSource.of(env).single("rgb_array")
    single.reset(seed=0)
    assert np.asarray(single.render()).ndim == 3
    assert EnvSource.of(env).single().render_mode is None


def test_one_that_cannot_be_watched() -> None:
    source = EnvSource.of(lambda: CartPoleEnv())
    with pytest.raises(EnvironmentFault, match=r"'rgb_array': it was made with render_mode=None\. Pass a function"):
        source.single("rgb_array")
    assert source.single().render_mode is None


SCRIPT = """
import sys
import gymnasium, numpy as np
from pathlib import Path
from renshu.envs.builtin.classic import Pendulum
from renshu.envs.gymnasium.vector import HostEnvs
from renshu.envs.source import EnvSource

print("the script runs")
HERE = Path(__file__).name

class Mine(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1, 1, (2,))
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        return np.zeros(2, np.float32), {}

    def step(self, action):
        assert HERE == Path(__file__).name == "script.py"
        return np.ones(2, np.float32), 1.0, "jax" in sys.modules, False, {}

gymnasium.register("Mine-v0", entry_point=f"{__name__}:Mine")
for env in (Mine, lambda: Mine(), "Mine-v0"):
    envs = HostEnvs(EnvSource.of(env).vector(2, processes=True, timeout=30), 30)
    envs.reset(0)
    obs, reward, terminated, _ = envs.step(np.zeros(2, int))
    print(obs.sum(), reward.sum(), terminated.any(), hasattr(sys.modules["__main__"], "__file__"))
    envs.close()
"""


@pytest.mark.parametrize("how", [["script.py"], ["-m", "script"]])
def test_a_script_without_a_main_guard(tmp_path: Path, how: list[str]) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    run = subprocess.run(
        [sys.executable, *how], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60
    )
    assert run.stderr == ""
    assert run.stdout.splitlines() == ["the script runs"] + ["4.0 2.0 False True"] * 3
