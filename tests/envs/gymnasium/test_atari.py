"""Atari games made ready: equal pictures from each engine, lives as episodes, FIRE pressed, scores of whole games."""

import importlib.util

import gymnasium
import numpy as np
import pytest

import renshu
from renshu import A2C, DQN
from renshu.envs.gymnasium import atari
from renshu.envs.gymnasium.lookup import find
from renshu.envs.gymnasium.vector import HostEnvs
from renshu.envs.source import EnvSource
from renshu.errors import EnvironmentFault, HyperparameterError, UnknownNameError
from renshu.types import LIFE_LOST

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("ale_py") is None, reason='needs the extra "atari", whose licence is the GPL'
)
ENGINES = [
    "ale",
    "gymnasium",
    pytest.param(
        "envpool", marks=pytest.mark.skipif(not importlib.util.find_spec("envpool"), reason="needs the extra envpool")
    ),
]
BREAKOUT = "BreakoutNoFrameskip-v4"
NOOP, FIRE, RIGHT = 0, 1, 2


def made(id=BREAKOUT, num_envs=1, **options):
    return HostEnvs(EnvSource.of(id, options).vector(num_envs))


@pytest.fixture
def envs(request):
    opened = []

    def make(*args, **options):
        opened.append(made(*args, **options))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


def played(envs, actions):
    """Observations, rewards, ends and lost lives of a game without no-ops."""
    rows = []
    obs = envs.reset(0)
    for action in actions:
        rows.append((obs, *envs.step(np.full(envs.num_envs, action))[1:], envs.life_lost))
        obs = rows[-1][0]
    return rows


@pytest.mark.parametrize("engine", ENGINES)
def test_pictures_are_those_of_the_classic_wrappers(envs, engine):
    """Within +-2 in at most 25 pixels: OpenCV is compiled differently for each."""
    classic = gymnasium.make(find(BREAKOUT), frameskip=1)
    noop_max = int(engine == "envpool")  # which cannot do without
    classic = gymnasium.wrappers.AtariPreprocessing(classic, noop_max=noop_max, grayscale_newaxis=True)
    mine = envs(engine=engine, noop_max=noop_max, fire=False, terminal_on_life_loss=False)
    rng, (expected, _) = np.random.default_rng(0), classic.reset(seed=0)
    got = mine.reset(0)
    for _ in range(120):
        assert got.shape == (1, 84, 84, 1)
        assert got.dtype == np.uint8
        different = np.abs(got[0].astype(int) - expected.astype(int))
        assert different.max() <= 2
        assert (different > 0).sum() <= 25
        action = rng.integers(4)
        got, reward, terminated, _ = mine.step(np.array([action]))
        expected, wanted, ended, _, _ = classic.step(action)
        assert reward[0] == wanted
        assert terminated[0] == ended
        if ended:
            break
    classic.close()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_lost_life_ends_an_episode_and_the_game_goes_on_by_fire(envs, engine):
    """Who stands still loses five lives, one after the other, without pressing FIRE once."""
    game = envs(engine=engine, num_envs=2, noop_max=1)
    game.reset(3)
    lost = ended = resets = 0
    was_over = np.zeros(2, bool)
    for _ in range(1_500):
        _, reward, terminated, truncated = game.step(np.full(2, RIGHT))
        over = terminated | truncated
        assert not (over & was_over).any()
        assert (reward[was_over] == 0).all()  # the step that resets
        resets += was_over[0]
        lost += bool(game.life_lost is not None and game.life_lost[0])
        ended += over[0]
        was_over = over
        if ended - lost == 2:
            break
    assert (lost, ended, resets) == (8, 10, 9)  # two games of five lives


@pytest.mark.parametrize("engine", ENGINES)
def test_the_picture_after_fire_is_the_one_that_is_seen(envs, engine):
    """The ball is in the air at the first step of each life: without FIRE there would be none."""
    game = envs(engine=engine, noop_max=1)
    obs = [game.reset(1)]
    was_over, firsts = False, 1
    for _ in range(150):
        seen, _, terminated, _ = game.step(np.array([NOOP]))
        obs.append(seen)
        if was_over:
            firsts += 1
            later, *_ = game.step(np.array([NOOP]))
            assert (later != seen).any()  # something moves that is not the agent
        was_over = bool(terminated[0])
    assert firsts >= 3


@pytest.mark.parametrize("engine", ENGINES)
def test_the_same_seed_is_the_same_game(envs, engine):
    actions = np.random.default_rng(0).integers(4, size=60)
    runs = [played(envs(engine=engine, num_envs=2), actions) for _ in range(2)]
    for a, b in zip(*runs, strict=True):
        for x, y in zip(a[:4], b[:4], strict=True):
            np.testing.assert_array_equal(x, y)
    other = envs(engine=engine, num_envs=2)
    assert any((other.reset(seed) != runs[0][0][0]).any() for seed in (1, 2, 3))


@pytest.mark.parametrize("engine", ENGINES)
def test_statistics_are_of_whole_games(engine):
    """The learner's episodes are lives; returns and lengths are those of games, in training and evaluation."""
    agent = A2C(reward_clipping=True, net_arch=[16]).on(BREAKOUT, num_envs=2, seed=0, env_kwargs={"engine": engine})
    agent.learn(1_500, progress=False)
    assert int(agent.state.counters.episodes) >= 4 * len(agent.recent_lengths) > 0
    assert min(agent.recent_lengths) > 100  # a life of a beginner has 25 steps
    found = agent.evaluate(2)
    assert min(found.lengths) > 100
    assert not agent.recent_info, "lives and numbers of frames are no measures of an agent"
    assert not found.info
    agent.close()


def test_what_was_chosen_stands_in_the_summary(capsys):
    agent = A2C(net_arch=[16]).on("ALE/Breakout-v5", env_kwargs={"full_action_space": True, "engine": "gymnasium"})
    agent.summary()
    told = " ".join(capsys.readouterr().out.split())
    for words in ("sticky actions 0.25", "all 18 actions", "up to 30 no-ops", "84 x 84 grey", "engine gymnasium"):
        assert words in told
    assert "the last 4 observations at once" in told
    assert agent.spec.action_space.n == 18
    assert agent.spec.max_episode_steps == 27_000
    assert A2C(net_arch=[16]).on(BREAKOUT, frame_stack=2).fitted.spec.frame_stack == 2


def test_an_agent_in_a_file_has_the_same_game(tmp_path):
    options = {"engine": "gymnasium", "repeat_action_probability": 0.1, "screen_size": 48}
    agent = A2C(net_arch=[16]).on(BREAKOUT, env_kwargs=options, seed=0)
    again = renshu.load(agent.save(tmp_path / "a.safetensors"))
    assert again.spec.observation_space.shape == (48, 48, 1)
    assert dict(again.spec.kwargs) == options
    assert again.evaluate(1).lengths == agent.evaluate(1).lengths


def test_a_video_is_of_a_whole_game(tmp_path):
    agent = A2C(net_arch=[16]).on(BREAKOUT, seed=0)
    env = agent.trainer.backend.source.single("rgb_array")
    obs, _ = env.reset(seed=0)
    assert obs.shape == (84, 84, 1)
    assert env.render().shape == (210, 160, 3)
    lives, ended, info = 0, False, {}
    while not ended:
        _, _, terminated, truncated, info = env.step(RIGHT)
        ended = terminated or truncated
        assert LIFE_LOST not in info
        lives = env.unwrapped.ale.lives()
    assert lives == 0
    env.close()


def test_the_game_as_ale_py_makes_it():
    agent = DQN(buffer_size=64, learning_starts=8, net_arch=[16]).on(
        BREAKOUT, env_kwargs={"preprocessing": False}, frame_stack=1
    )
    assert agent.spec.observation_space.shape == (210, 160, 3)
    ram = EnvSource.of("ALE/Pong-v5", {"obs_type": "ram"})
    assert ram.atari is None
    assert ram.single().observation_space.shape == (128,)


@pytest.mark.parametrize("engine", ENGINES)
def test_an_action_that_the_game_lacks_is_refused(envs, engine):
    """AtariVectorEnv would wait for ever."""
    game = envs(engine=engine)
    game.reset(0)
    with pytest.raises(EnvironmentFault, match=r"0 to 3"):
        game.step(np.array([4]))


def test_bad_input():
    with pytest.raises(HyperparameterError, match=r"no option 'nop_max'.*Did you mean noop_max"):
        A2C(net_arch=[16]).on(BREAKOUT, env_kwargs={"nop_max": 3})
    with pytest.raises(HyperparameterError, match="engine='ALE': expected one of ale, envpool, gymnasium"):
        A2C(net_arch=[16]).on(BREAKOUT, env_kwargs={"engine": "ALE"})
    with pytest.raises(HyperparameterError, match='noop_max=0: engine="envpool" wants at least 1'):
        A2C(net_arch=[16]).on(BREAKOUT, env_kwargs={"engine": "envpool", "noop_max": 0})
    with pytest.raises(UnknownNameError, match="ALE/Breakout-v5"):
        A2C(net_arch=[16]).on("ALE/Brekout-v5")
    with pytest.raises(HyperparameterError, match=r'cnn="nature" takes images of at least 36 x 36.*has 20 x 20'):
        A2C(cnn="nature", net_arch=[16]).on(BREAKOUT, env_kwargs={"screen_size": 20})


def test_games_without_fire_go_on_too():
    meanings = ["NOOP", "UP", "RIGHT"]
    assert atari.fire_action(meanings) is None
    assert atari.fire_action([*meanings, "FIRE"]) == 3
