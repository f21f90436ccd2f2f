"""Code written for Stable-Baselines3 is answered with the line to write instead, and that line runs."""

import copy
import re
from dataclasses import dataclass

import gymnasium
import numpy as np
import pytest

import renshu
from renshu import A2C, DQN, PPO, SAC, TD3, Agent
from renshu.agent.trainer import Trainer
from renshu.algorithms.migration_names import ATTRIBUTES, NAMES
from renshu.algorithms.registry import names
from renshu.errors import CheckpointError, HyperparameterError, SpaceError

POLICY = {"net_arch": [32], "activation_fn": type("Tanh", (), {})}
LSTM = 'PPO(recurrent="lstm", recurrent_size=32, n_steps=128, batch_size=128).on("CartPole-v1")'


class NormalActionNoise:
    """Noise as Stable-Baselines3 holds it."""

    def __init__(self, mean, sigma):
        self._mu, self._sigma = mean, sigma


class OrnsteinUhlenbeckActionNoise(NormalActionNoise):
    """Noise that is correlated."""


class VectorizedActionNoise:
    """Noise of several environments."""

    def __init__(self, base_noise):
        self.base_noise = base_noise


NORMAL, CORRELATED = NormalActionNoise(np.zeros(1), 0.2 * np.ones(1)), OrnsteinUhlenbeckActionNoise(0, 0.3)


def make_env():
    """Make one environment."""
    return gymnasium.make("CartPole-v1")


def written(message):
    """The line that a message says to write."""
    return re.search(r"[Ww]rite (.*)$", message, re.DOTALL)[1]


def runs(line, monkeypatch):
    """Run a line, without training: the calls of learn that it makes."""
    called = []
    monkeypatch.setattr(Agent, "learn", lambda self, *args, **options: called.append((args, options)) or self)
    names = {**{name: getattr(renshu, name) for name in ("PPO", "SAC", "TD3", "DQN")}, "renshu": renshu}
    found = eval(line, {**names, "make_env": make_env, "learning_rate": lambda progress: progress})
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
        (lambda: PPO(learning_rate=lambda x: x, seed=1), 'PPO(learning_rate=learning_rate).on("CartPole-v1", seed=1)'),
        (lambda: PPO("MlpPolicy", [make_env] * 3), "PPO().on(make_env, num_envs=3)"),
        (lambda: PPO("MlpLstmPolicy", "CartPole-v1", policy_kwargs={"lstm_hidden_size": 32}), LSTM),
        (lambda: PPO(lstm_hidden_size=32), LSTM),
        (lambda: PPO(policy_kwargs={"shared_lstm": True}), 'PPO(share_features_extractor=True).on("CartPole-v1")'),
        (lambda: PPO(policy_kwargs={"net_arch": [{"pi": [8], "vf": [8]}]}), None),
        (lambda: PPO(activation_fn=POLICY["activation_fn"]), 'PPO(activation_fn="tanh").on("CartPole-v1")'),
        (lambda: DQN(train_freq=(4, "step")), 'DQN(train_freq=4).on("CartPole-v1")'),
        (lambda: DQN(train_freq=(1, "episode"), gamma=0.9), 'DQN(gamma=0.9).on("CartPole-v1")'),
        (
            lambda: TD3(action_noise=NORMAL),
            'TD3(action_noise="normal", action_noise_std=0.2).on("Pendulum-v1")',
        ),
        (
            lambda: TD3("MlpPolicy", "Pendulum-v1", action_noise=VectorizedActionNoise(CORRELATED)),
            'TD3(action_noise="ou", action_noise_std=0.3).on("Pendulum-v1")',
        ),
        (lambda: SAC(action_noise=NORMAL, tau=0.1), 'SAC(tau=0.1).on("Pendulum-v1")'),
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
    with pytest.raises(SpaceError, match=r"Write PPO\(\)\.on\(make_env, num_envs=2\)$"):
        PPO().on([make_env, make_env])
    with pytest.raises(SpaceError, match="expected a Gymnasium id"):
        PPO().on(["CartPole-v1"])


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("features_extractor_class", "a Flax module of your own is network=MyNet()"),
        ("features_extractor_kwargs", "arguments of a Flax module"),
        ("normalize_images", "images are always scaled"),
        ("optimizer_class", "optimisers are the algorithm's own"),
        ("optimizer_kwargs", "DQN and QRDQN adam_eps"),
        ("n_lstm_layers", "the memory has one layer"),
        ("enable_critic_lstm", "have a memory each"),
        ("lstm_kwargs", "recurrent_size alone"),
        ("support_multi_env", "every algorithm takes several environments"),
        ("n_sampled_goal", "no algorithm replaces goals"),
        ("goal_selection_strategy", "no algorithm replaces goals"),
        ("replay_buffer_class", "leave it out"),
    ],
)
def test_arguments_that_are_left_out(name, answer):
    for given in ({name: {}}, {"policy_kwargs": {name: {}, "net_arch": [8]}}):
        with pytest.raises(HyperparameterError, match=rf"{name}.*{re.escape(answer)}.* Write PPO\("):
            PPO(**given)


def test_an_argument_is_answered_by_what_the_algorithm_has():
    with pytest.raises(HyperparameterError, match="prioritized=True and elite_episodes=True choose the memory"):
        DQN(replay_buffer_class=dict)
    with pytest.raises(HyperparameterError, match=r"'shared_lstm': it is share_features_extractor=True\. Write PPO"):
        PPO(shared_lstm=True)
    with pytest.raises(HyperparameterError, match=r"'lstm_hidden_size': leave it out\. Write DQN\(\)\.on"):
        DQN(lstm_hidden_size=32)
    with pytest.raises(
        HyperparameterError, match=r"no hyperparameter 'verbose': verbose is progress.*; device: JAX takes"
    ):
        PPO(verbose=1, device="cpu")


def test_a_value_without_a_like_is_refused_as_ever():
    with pytest.raises(
        HyperparameterError, match="activation_fn must be one of None, tanh, relu, elu, silu, not"
    ) as error:
        PPO(activation_fn=type("LeakyReLU", (), {}))
    assert "Write" not in str(error.value)


def test_policy_kwargs_that_mean_nothing_here_are_said():
    given = {"activation_fn": type("LeakyReLU", (), {}), "n_critics": 2, "net_arch": [8], "ortho_init": False}
    with pytest.raises(HyperparameterError) as error:
        A2C(policy_kwargs=given)
    message = str(error.value)
    assert "activation_fn must be one of None, tanh, relu, elu, silu, not <class" in message
    assert "n_critics: A2C has none; leave it out" in message
    assert written(message) == 'A2C(net_arch=[8], ortho_init=False).on("CartPole-v1")'


def test_an_own_algorithm_may_have_values_of_its_own():
    @dataclass(frozen=True, kw_only=True)
    class Own(PPO):
        train_freq: tuple = (1, "episode")
        device: str = "here"

    assert Own(train_freq=(4, "step"), device="there").train_freq == (4, "step")
    assert Own.from_json(Own().to_json(), device="there").device == "there"


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
        ({"reset_num_timesteps": False}, r"agent\.learn\(100_000, restart_schedules=False\)$"),
        ({"log_interval": 4}, "about 500 rows of metrics are logged in the run folder"),
        ({"use_masking": False}, r"PPO\(\)\.on\(env, masks=False\)$"),
        ({"callback": NORMAL}, r"Write agent\.learn\(100_000, callbacks=callback\)$"),
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
    with pytest.raises(HyperparameterError, match=r"agent\.predict\(observation, carry=carry, first=first\)"):
        agent.predict(np.zeros(4, np.float32), episode_start=np.ones(1, bool))
    for name in ("exclude", "include"):
        with pytest.raises(HyperparameterError, match=r"no option '[a-z]*': a file holds all of an agent"):
            agent.save("a", **{name: ["policy"]})


@pytest.mark.parametrize(
    ("name", "value", "answer"),
    [
        ("return_episode_rewards", True, "agent.evaluate(20).returns and agent.evaluate(20).lengths"),
        ("callback", print, "none is called"),
        ("reward_threshold", 100, "compare it with agent.evaluate(20).mean"),
        ("use_masking", True, "masks are used where the environment has them"),
    ],
)
def test_options_of_evaluate(tiny, name, value, answer):
    with pytest.raises(HyperparameterError, match=f"evaluate.* has no option '{name}': .*{re.escape(answer)}"):
        tiny().evaluate(**{name: value})


@pytest.mark.parametrize(
    ("name", "value", "answer"),
    [
        ("monitor_dir", "logs", 'PPO().on(env).learn(100_000, run="logs")'),
        ("wrapper_class", gymnasium.wrappers.FlattenObservation, 'lambda: FlattenObservation(gymnasium.make("CartPole'),
        ("n_stack", 4, "PPO().on(env, frame_stack=4)"),
        ("vec_env_cls", dict, "PPO().on(env, num_envs=8, processes=True)"),
    ],
)
def test_options_of_on(name, value, answer):
    with pytest.raises(HyperparameterError, match=re.escape(answer)):
        PPO().on("CartPole-v1", **{name: value})


@pytest.mark.parametrize(
    ("name", "value", "answer"),
    [
        ("device", "cpu", "'device': JAX takes the accelerator"),
        ("custom_objects", {"learning_rate": 0.1, "lr_schedule": 1}, "Write renshu.load(path, learning_rate=0.1)"),
        ("print_system_info", True, "settings.json"),
        ("force_reset", False, "begins where it stood"),
        ("seed", 3, "seed is an option of on(...)"),
        ("gama", 3, "Did you mean gamma"),
    ],
)
def test_options_of_load(tiny, tmp_path, name, value, answer):
    path = tiny().save(tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match=re.escape(answer)) as error:
        renshu.load(path, **{name: value})
    assert "n_epochs" not in str(error.value)  # a line of all hyperparameters


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("set_env", "agent = agent.on(env)"),
        ("num_timesteps", "agent.steps"),
        ("policy", "agent.player()"),
        ("logger", 'run="runs/a"'),
        ("learning_rate", "agent.algorithm.learning_rate"),
        ("gamma", "agent.algorithm.gamma"),
        ("observation_space", "agent.spec.observation_space"),
        ("action_space", "agent.spec.action_space"),
        ("n_envs", "agent.spec.num_envs"),
        ("device", "jax.devices()"),
        ("ep_info_buffer", "agent.recent_returns and agent.recent_lengths"),
        ("ep_success_buffer", 'agent.recent_info["is_success"]'),
        ("rollout_buffer", 'agent.collect(1_000, "data")'),
        ("set_logger", 'run="runs/a"'),
        ("set_random_seed", "agent = agent.on(env, seed=0)"),
        ("set_parameters", "agent.start_from(other)"),
        ("actor", "agent.player()"),
        ("critic", 'agent.explain(observation)["value"]'),
        ("q_net", 'agent.explain(observation)["action_values"]'),
        ("exploration_rate", 'metrics["exploration"]'),
        ("collect_rollouts", "agent.collect(1_000)"),
        ("train", "agent.learn(100_000)"),
        ("policy_class", "agent.summary()"),
        ("_n_updates", "agent.state.counters.updates"),
    ],
)
def test_attributes_of_an_agent(tiny, name, answer):
    with pytest.raises(AttributeError, match=f"an agent has no '{name}': .*{re.escape(answer)}"):
        getattr(tiny(), name)


def test_other_attributes_of_an_agent(tiny):
    assert not hasattr(tiny(), "nothing")
    assert not hasattr(tiny(), "buffer_size")  # of other algorithms
    assert copy.copy(agent := tiny()).trainer is agent.trainer


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


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        ("HER HerReplayBuffer GoalSelectionStrategy", "renshu.replay.relabelling.GoalBuffer"),
        ("TRPO", "PPO(target_kl=0.01)"),
        ("MaskablePPO ActionMasker", 'info["action_mask"] of reset and step'),
        ("RecurrentPPO MlpLstmPolicy CnnLstmPolicy MultiInputLstmPolicy", 'PPO(recurrent="lstm", n_steps=128'),
        ("VecVideoRecorder", 'agent.record("agent.mp4", episodes=3)'),
        ("VecTransposeImage", "channels first, last or none"),
        ("VecCheckNan", "names the environment and the step"),
        ("VecExtractDictObs", "gymnasium.wrappers.TransformObservation"),
        ("sync_envs_normalization", "statistics are part of the agent"),
        ("make_atari_env AtariWrapper", 'PPO(reward_clipping=True).on("ALE/Breakout-v5", num_envs=8)'),
        ("ClipRewardEnv", "reward_clipping=True"),
        ("NoopResetEnv", "noop_max"),
        ("FireResetEnv", "fire"),
        ("EpisodicLifeEnv", "terminal_on_life_loss"),
        ("MaxAndSkipEnv", "frame_skip"),
        ("WarpFrame", "screen_size"),
        ("StickyActionEnv", "repeat_action_probability"),
        ("get_action_masks", 'agent.predict(observation, info["action_mask"])'),
        ("is_masking_supported", "agent.summary()"),
        ("EvalCallback MaskableEvalCallback", "renshu.callbacks.Evaluate(10_000)"),
        ("StopTrainingOnRewardThreshold", "callbacks=renshu.callbacks.Evaluate(10_000, stop_at=475))"),
        ("StopTrainingOnNoModelImprovement", "callbacks=renshu.callbacks.Evaluate(10_000, patience=5))"),
        ("StopTrainingOnMaxEpisodes", "int(agent.state.counters.episodes) < 500"),
        ("ProgressBarCallback", "progress=False"),
        ("EveryNTimesteps", "renshu.callbacks.Every"),
        ("LogEveryNTimesteps", "about 500 rows"),
        ("CallbackList", "callbacks=[a, b]"),
        ("configure Logger", 'run="runs/a"'),
        ("load_results", 'read_episodes("runs/a")'),
        ("plot_results results_plotter ts2xy", "renshu plot runs/a --window 100"),
        ("get_linear_fn LinearSchedule", "renshu.Linear(1e-3, 1e-4, until=0.5)"),
        ("ConstantSchedule get_schedule_fn", "a number is taken as it is"),
        ("NormalActionNoise VectorizedActionNoise", 'TD3(action_noise="normal", action_noise_std=0.1)'),
        ("CnnPolicy", 'cnn="nature"'),
        ("NatureCNN", 'PPO(cnn="nature")'),
        ("ActorCriticPolicy BaseFeaturesExtractor", "PPO(network=MyNet())"),
        ("CombinedExtractor", "each part goes its own way"),
        ("ReplayBuffer DictReplayBuffer", "agent.dataset()"),
        ("RolloutBuffer", "rollouts are collected by themselves"),
        ("get_system_info", "settings.json"),
    ],
)
def test_what_names_of_its_modules_are_here(asked, answer):
    for name in asked.split():
        with pytest.raises(ImportError, match=f"renshu has no '{name}': .*{re.escape(answer)}"):
            getattr(renshu, name)


@pytest.mark.parametrize("name", ["RecurrentPPO", "TRPO", "LinearSchedule", "VectorizedActionNoise", "NatureCNN"])
def test_lines_for_names_of_its_modules_run(name):
    line = re.search(r"(PPO|TD3)\(.*\)", NAMES[name])[0]
    found = eval(line, {"PPO": PPO, "TD3": TD3, "renshu": renshu, "env": "CartPole-v1"})
    assert isinstance(found, PPO | TD3 | Agent)
    if isinstance(found, Agent):
        found.close()


def test_callbacks_for_names_of_its_modules_are_taken(tiny):
    for name in ("StopTrainingOnNoModelImprovement", "StopTrainingOnMaxEpisodes", "StopTrainingOnRewardThreshold"):
        line = re.search(r"agent\.learn\(.*?\)\)?(?=;|$)", NAMES[name])[0].replace("100_000", "32, progress=False")
        agent = tiny()
        assert eval(line, {"agent": agent, "renshu": renshu}) is agent
        assert agent.steps >= 32


def test_no_name_of_renshu_is_taken_for_one_of_theirs():
    assert not set(NAMES) & set(names())
    assert not [name for name in ATTRIBUTES if hasattr(Agent, name)]


def test_a_hyperparameter_cannot_be_set(tiny):
    agent = tiny()
    before = agent.algorithm
    with pytest.raises(AttributeError, match=r"learning_rate is a hyperparameter.*load.*learning_rate=0\.1"):
        agent.learning_rate = 0.1
    assert agent.algorithm == before
    agent.remark = "anything else may be"
    assert agent.remark == "anything else may be"


def test_dir_shows_what_a_user_may_touch(tiny):
    found = {name for name in dir(tiny()) if not name.startswith("_")}
    assert {"learn", "predict", "evaluate", "save", "recent_returns"} <= found
    assert not {"trainer", "of_trainer"} & found
