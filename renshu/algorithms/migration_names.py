"""Names of Stable-Baselines3 and sb3-contrib, and what stands for each here: tables for `renshu.algorithms.migration`.

docs/stable-baselines.md has the same by subject, and more.
"""

from __future__ import annotations

_ON_SEVERAL = 'several environments at once are num_envs: PPO().on("CartPole-v1", num_envs=8)'
_GOALS = (
    "no algorithm replaces goals, and an observation with goals is taken as any Dict; a part for an algorithm of your "
    "own is renshu.replay.relabelling.GoalBuffer"
)
_ATARI = 'a game is made ready by its id: PPO(reward_clipping=True).on("ALE/Breakout-v5", num_envs=8)'
_ATARI_OPTION = 'an Atari game has it by itself, as an option: PPO().on("ALE/Breakout-v5", env_kwargs='
_EPISODES = "episodes are recorded by themselves: agent.recent_returns, or a run folder"
_MASKS = 'masks are info["action_mask"] of reset and step, which a gymnasium.Wrapper may add: PPO().on(env)'
_EVALUATIONS = "write agent.learn(100_000, eval_every=10_000), or renshu.callbacks.Evaluate(10_000)"
_LOGS = 'metrics are logged in the run folder: agent.learn(100_000, run="runs/a")'
_LINEAR = "write PPO(learning_rate=renshu.Linear(1e-3, 1e-4, until=0.5))"
_NUMBER = "a number is taken as it is, and so is a function: PPO(learning_rate=3e-4)"
_NOISE = 'write TD3(action_noise="normal", action_noise_std=0.1)'
_LSTM = 'write PPO(recurrent="lstm", n_steps=128, batch_size=128).on(env)'
_OWN = "a network of your own is a Flax module: PPO(network=MyNet()).on(env)"
_IMAGES = 'images are convolved by themselves, as cnn="nature", "impala" or "minatar" chooses'
_MEMORY = "a memory is the algorithm's own: DQN(buffer_size=100_000).on(env), and agent.dataset() is a copy of it"
_WEIGHTS = "the weights are agent.parameters"

NAMES = {
    # algorithms
    "MaskablePPO": f"PPO takes masks by itself; {_MASKS}",
    "RecurrentPPO": _LSTM,
    "TRPO": "the nearest is PPO(target_kl=0.01).on(env), which ends a rollout's epochs when the policy moved too far",
    **dict.fromkeys(("HER", "HerReplayBuffer", "GoalSelectionStrategy"), _GOALS),
    # vector environments
    "make_vec_env": _ON_SEVERAL,
    "DummyVecEnv": _ON_SEVERAL,
    "SubprocVecEnv": 'each in a worker process: PPO().on("CartPole-v1", num_envs=8, processes=True)',
    "VecNormalize": "PPO and A2C normalise by themselves: PPO(norm_obs=True, norm_reward=True)",
    "sync_envs_normalization": "statistics are part of the agent, and agent.evaluate(20) takes them; leave it out",
    "VecFrameStack": "the last observations at once: DQN().on(env, frame_stack=4)",
    "VecMonitor": _EPISODES,
    "Monitor": _EPISODES,
    "VecVideoRecorder": 'write agent.record("agent.mp4", episodes=3)',
    "VecTransposeImage": "images are taken with channels first, last or none; leave it out",
    "VecCheckNan": "NaN is always looked for, and the error names the environment and the step; leave it out",
    "VecExtractDictObs": (
        "a Dict is taken whole; for one part of it put gymnasium.wrappers.TransformObservation around each environment"
    ),
    # Atari
    "make_atari_env": _ATARI,
    "AtariWrapper": _ATARI,
    "ClipRewardEnv": 'write PPO(reward_clipping=True).on("ALE/Breakout-v5")',
    "NoopResetEnv": f'{_ATARI_OPTION}{{"noop_max": 30}})',
    "FireResetEnv": f'{_ATARI_OPTION}{{"fire": True}})',
    "EpisodicLifeEnv": f'{_ATARI_OPTION}{{"terminal_on_life_loss": True}})',
    "MaxAndSkipEnv": f'{_ATARI_OPTION}{{"frame_skip": 4}})',
    "WarpFrame": f'{_ATARI_OPTION}{{"screen_size": 84}})',
    "StickyActionEnv": f'{_ATARI_OPTION}{{"repeat_action_probability": 0.25}})',
    # masks
    "ActionMasker": _MASKS,
    "get_action_masks": 'the mask is info["action_mask"]: agent.predict(observation, info["action_mask"])',
    "is_masking_supported": 'an environment has masks where info has "action_mask"; agent.summary() says it',
    "MaskableEvalCallback": _EVALUATIONS,
    # evaluation and callbacks
    "evaluate_policy": "write agent.evaluate(20)",
    "set_random_seed": 'write PPO().on("CartPole-v1", seed=0)',
    "BaseCallback": "write renshu.callbacks.Callback, or any function of (agent, metrics)",
    "CallbackList": "write a list: agent.learn(100_000, callbacks=[a, b])",
    "EvalCallback": _EVALUATIONS,
    "CheckpointCallback": "write agent.learn(100_000, run=True, checkpoint_every=10_000)",
    "StopTrainingOnRewardThreshold": (
        "by evaluations, as there, write agent.learn(100_000, callbacks=renshu.callbacks.Evaluate(10_000, "
        "stop_at=475)); by the episodes of training, agent.learn(100_000, stop_at=475)"
    ),
    "StopTrainingOnNoModelImprovement": (
        "write agent.learn(100_000, callbacks=renshu.callbacks.Evaluate(10_000, patience=5))"
    ),
    "StopTrainingOnMaxEpisodes": (
        "write agent.learn(100_000, callbacks=lambda agent, metrics: int(agent.state.counters.episodes) < 500)"
    ),
    "ProgressBarCallback": "a bar is shown by itself; agent.learn(100_000, progress=False) turns it off",
    "EveryNTimesteps": "write a subclass of renshu.callbacks.Every with a method act(agent, metrics)",
    "LogEveryNTimesteps": "about 500 rows of metrics are logged in the run folder: agent.learn(100_000, run=True)",
    # logs and plots
    "configure": _LOGS,
    "Logger": _LOGS,
    "load_results": 'write renshu.tracking.curves.read_episodes("runs/a")',
    **dict.fromkeys(("plot_results", "results_plotter", "ts2xy"), "in a shell: renshu plot runs/a --window 100"),
    "get_system_info": "versions and machine are in settings.json of a run folder",
    # schedules and noise
    "get_linear_fn": _LINEAR,
    "LinearSchedule": _LINEAR,
    "ConstantSchedule": _NUMBER,
    "get_schedule_fn": _NUMBER,
    "NormalActionNoise": _NOISE,
    "OrnsteinUhlenbeckActionNoise": 'write TD3(action_noise="ou", action_noise_std=0.1)',
    "VectorizedActionNoise": f"each environment has noise of its own; {_NOISE}",
    # policies and networks
    "MlpPolicy": 'observations choose the network: PPO().on("CartPole-v1")',
    "CnnPolicy": f"{_IMAGES}: PPO().on(env)",
    "MultiInputPolicy": "observations choose the network: PPO().on(env)",
    **dict.fromkeys(("MlpLstmPolicy", "CnnLstmPolicy", "MultiInputLstmPolicy"), _LSTM),
    "ActorCriticPolicy": f"observations choose the network; {_OWN}",
    "BaseFeaturesExtractor": _OWN,
    "NatureCNN": f'{_IMAGES}: PPO(cnn="nature").on(env)',
    "CombinedExtractor": "of a Dict each part goes its own way by itself; leave it out",
    # memories
    "ReplayBuffer": _MEMORY,
    "DictReplayBuffer": _MEMORY,
    "RolloutBuffer": "rollouts are collected by themselves, of PPO(n_steps=2048); leave it out",
}
"""Names of its modules."""

ATTRIBUTES = {
    "set_env": "write agent = agent.on(env)",
    **dict.fromkeys(("get_env", "env"), "the environments belong to the agent; agent.spec describes them"),
    "observation_space": "write agent.spec.observation_space",
    "action_space": "write agent.spec.action_space",
    "n_envs": "write agent.spec.num_envs",
    "num_timesteps": "write agent.steps",
    "_n_updates": "write int(agent.state.counters.updates)",
    "device": "JAX takes the accelerator whose package is installed: jax.devices()",
    "policy": f"{_WEIGHTS}, and a policy is agent.player()",
    "policy_class": f"observations choose the network: agent.summary() prints it, and {_WEIGHTS}",
    "actor": f"{_WEIGHTS}, and a policy is agent.player()",
    "critic": f'{_WEIGHTS}, and a value is agent.explain(observation)["value"]',
    "q_net": f'{_WEIGHTS}, and values are agent.explain(observation)["action_values"]',
    "get_parameters": "write agent.parameters",
    "set_parameters": (
        "PPO, A2C and evolution take over another agent's weights by agent.start_from(other); a file is loaded by "
        "renshu.load(path)"
    ),
    "ep_info_buffer": "write agent.recent_returns and agent.recent_lengths",
    "ep_success_buffer": 'write agent.recent_info["is_success"], where info of an episode\'s last step has it',
    "exploration_rate": 'it is metrics["exploration"] in a callback, and in metrics.csv of a run folder',
    "replay_buffer": "write agent.dataset()",
    "rollout_buffer": 'no rollout is kept; agent.collect(1_000, "data") writes steps to a data set',
    "collect_rollouts": (
        'agent.collect(1_000, "data") writes steps to a data set; agent.collect(1_000) adds them to a replay memory'
    ),
    "train": "agent.learn(100_000) collects and learns; a learner's own learn(...) learns from one rollout",
    "save_replay_buffer": 'agent.save(path, memory=True) holds the memory; or agent.dataset().save("data")',
    "load_replay_buffer": "renshu.load(path) brings the memory back",
    "logger": _LOGS,
    "set_logger": _LOGS,
    "set_random_seed": 'write PPO().on("CartPole-v1", seed=0), or agent = agent.on(env, seed=0)',
    "verbose": "the progress bar is agent.learn(100_000, progress=True)",
    "get_vec_normalize_env": "norm_obs=True and norm_reward=True are hyperparameters, and saved with the agent",
}
"""Names of a model's attributes and methods."""
