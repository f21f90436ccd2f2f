"""Console games made ready: frames, pictures and buttons beside stable-retro's own, and training by the id alone."""

import importlib.util
import sys

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from PIL import Image

import renshu
from renshu import DQN, PPO
from renshu.envs.gymnasium import retro
from renshu.envs.source import EnvSource
from renshu.errors import EnvironmentFault, HyperparameterError, UnknownNameError

pytestmark = pytest.mark.skipif(importlib.util.find_spec("stable_retro") is None, reason='needs the extra "retro"')
NAME, GAME = "retro/Airstriker-Genesis", "Airstriker-Genesis-v0"


@pytest.fixture
def game():
    """Make a game in this process, which holds one at a time."""
    opened = []

    def make(**options):
        while opened:
            opened.pop().close()
        opened.append(EnvSource.of(NAME, options).single())
        return opened[-1]

    yield make
    while opened:
        opened.pop().close()


def test_frames_and_pictures_are_stable_retros(game):
    import stable_retro

    rng = np.random.default_rng(0)
    chosen = [[], ["LEFT"], ["RIGHT", "B"], ["UP", "B"]]
    order = rng.integers(len(chosen), size=60)
    own = stable_retro.make(GAME, use_restricted_actions=stable_retro.Actions.ALL, render_mode="rgb_array")
    expected = [(own.reset(seed=0)[0], 0.0)]
    for index in order:
        pressed = np.array([name in chosen[index] for name in own.buttons], np.int8)
        frames = [own.step(pressed) for _ in range(4)]
        expected.append((frames[-1][0], sum(frame[1] for frame in frames)))
    own.close()
    env = game(actions=chosen, repeat_action_probability=0.0)
    seen = [(env.reset(seed=0)[0], 0.0)]
    seen += [env.step(index)[:2] for index in order]
    for (obs, reward), (screen, wanted) in zip(seen, expected, strict=True):
        small = Image.fromarray(screen).convert("L").resize((84, 84), Image.Resampling.BOX)
        assert obs.shape == (84, 84, 1)
        np.testing.assert_array_equal(obs[..., 0], np.array(small))
        assert reward == wanted
    assert sum(reward for _, reward in seen) > 0


def test_sticky_actions_are_drawn_by_the_seed(game):
    def played(seed):
        rows = [env.reset(seed=seed)[0]]
        return np.stack([*rows, *(env.step(i % env.action_space.n)[0] for i in range(40))])

    env = game()
    np.testing.assert_array_equal(played(1), played(1))
    assert (played(1) != played(2)).any()


def test_buttons_become_actions(game):
    few = game()
    assert few.action_space == spaces.Discrete(63)  # 9 directions, with A, B, C, X, Y, Z or none
    meanings = few.unwrapped.get_action_meanings()
    assert meanings[0] == ""
    assert len(set(meanings)) == 63
    assert {"UP", "B", "B+RIGHT", "UP+LEFT"} <= set(meanings)
    assert game(actions="all").action_space == spaces.Discrete(126)
    assert game(actions="buttons").action_space == spaces.MultiBinary(12)
    listed = game(actions=[[], ["RIGHT", "B"], ["START"]]).unwrapped
    assert listed.get_action_meanings() == ["", "B+RIGHT", "START"]


def test_pictures_of_other_sizes(game):
    assert game(screen_size=42, grayscale_obs=False).observation_space.shape == (42, 42, 3)
    env = game(screen_size=None, grayscale_obs=False)
    assert env.reset()[0].shape == env.observation_space.shape == (224, 320, 3)


def test_training_evaluation_and_video_in_one_process(tmp_path, capsys):
    settings = PPO(n_steps=16, batch_size=32, n_epochs=1)
    agent = settings.on(NAME, num_envs=2, seed=0, max_episode_steps=20, env_kwargs={"screen_size": 36})
    assert agent.fitted.spec.frame_stack == 4
    agent.summary()
    assert "sticky actions 0.25, 4 frames a step, 36 x 36, grey" in capsys.readouterr().out
    agent.learn(64, progress=False)
    assert agent.evaluate(2).lengths == [20, 20]
    agent.record(tmp_path / "game.gif")
    assert (tmp_path / "game.gif").stat().st_size > 0
    agent.save(tmp_path / "game.safetensors")
    again = renshu.load(tmp_path / "game.safetensors")
    again.learn(32, progress=False)


@pytest.mark.parametrize(
    ("algorithm", "actions"),
    [
        (PPO(n_steps=8, batch_size=8, n_epochs=1), "buttons"),
        (DQN(learning_starts=4, batch_size=4, buffer_size=64), [[], ["LEFT"], ["RIGHT", "B"]]),
    ],
)
def test_single_buttons_and_numbered_ones(algorithm, actions):
    agent = algorithm.on(NAME, seed=0, env_kwargs={"actions": actions, "screen_size": 36})
    assert agent.learn(16, progress=False).steps >= 16


def test_errors_say_what_to_do(game, monkeypatch):
    with pytest.raises(UnknownNameError, match=f"Did you mean {NAME}-v0"):
        EnvSource.of("retro/Airstrike-Genesis")
    with pytest.raises(UnknownNameError, match=f"Did you mean {NAME}-v0"):
        EnvSource.of(GAME)
    with pytest.raises(EnvironmentFault, match=rf"python -m stable_retro.import FOLDER.*{NAME}-v0"):
        EnvSource.of("retro/SonicTheHedgehog-Genesis")
    with pytest.raises(HyperparameterError, match=r"no option 'frameskip'.*frame_skip"):
        PPO().on(NAME, env_kwargs={"frameskip": 4})
    with pytest.raises(HyperparameterError, match=r"expected one of few, all, buttons"):
        PPO().on(NAME, env_kwargs={"actions": "some"})
    with pytest.raises(HyperparameterError, match=r"no state 'Level7'.*Level1"):
        game(state="Level7")
    with pytest.raises(HyperparameterError, match=r"no button 'SELECT'.*START"):
        game(actions=[["SELECT"]])
    game()
    with pytest.raises(EnvironmentFault, match=r"finds another game in this process.*By the id"):
        EnvSource.of(NAME).single()
    for id in [id for id in gymnasium.registry if id.startswith(retro.PREFIX)]:
        monkeypatch.delitem(gymnasium.registry, id)
    monkeypatch.setitem(sys.modules, "stable_retro", None)
    with pytest.raises(UnknownNameError, match=r'pip install "renshu\[retro\]"'):
        EnvSource.of(NAME)


def test_a_function_needs_processes_for_several():
    import stable_retro

    source = EnvSource.of(lambda: stable_retro.make(GAME, render_mode="rgb_array"))
    with pytest.raises(EnvironmentFault, match=r"Cannot create multiple emulator.*processes=True"):
        source.vector(2)
