"""Answers to code written for Stable-Baselines3: for each name that is its own, the line to write instead."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from renshu.algorithms.migration_names import ATTRIBUTES, NAMES
from renshu.errors import HyperparameterError

if TYPE_CHECKING:
    from renshu.algorithms.hyperparameters import Kind

_OPTIONS_OF_ON = ("num_envs", "seed", "loop", "processes", "timeout", "bins", "frame_stack", "masks", "env_kwargs")
_ELSEWHERE = {
    "env": "is given to on(...)",
    "n_envs": "is num_envs of on(...)",
    **dict.fromkeys(_OPTIONS_OF_ON, "is an option of on(...)"),
    "verbose": "is progress of learn(...)",
    "tensorboard_log": "is run of learn(...), a folder for TensorBoard and everything else",
    "policy_kwargs": "are hyperparameters of their own",
}
_LEFT_OUT = {
    "device": "JAX takes the accelerator whose package is installed, or none with JAX_PLATFORMS=cpu; leave it out",
    "policy": "observations choose the network; leave it out",
    "stats_window_size": "means are of the recent episodes, 20 to 100; leave it out",
    "monitor_wrapper": "episodes are always recorded; leave it out",
    "support_multi_env": "every algorithm takes several environments; leave it out",
    "use_sde": "PPO, A2C, SAC and TQC have it; leave it out",
    "sde_sample_freq": "PPO, A2C, SAC and TQC have it; leave it out",
    "use_sde_at_warmup": "actions before learning_starts are uniform; leave it out",
    "action_noise": "the policy explores by itself; leave it out",
    "n_sampled_goal": "no algorithm replaces goals (HER); leave it out",
    "goal_selection_strategy": "no algorithm replaces goals (HER); leave it out",
    "normalize_images": "images are always scaled, by the upper bound of their space; leave it out",
    "optimizer_class": "optimisers are the algorithm's own, and A2C has use_rms_prop; leave it out",
    "optimizer_kwargs": "A2C has rms_prop_eps, DQN and QRDQN adam_eps; leave it out",
    **dict.fromkeys(
        ("_init_setup_model", "supported_action_spaces", "rollout_buffer_class", "rollout_buffer_kwargs"),
        "leave it out",
    ),
}
_BY_ANOTHER = {
    "replay_buffer_class": ("prioritized", "prioritized=True and elite_episodes=True choose the memory, without HER"),
    "replay_buffer_kwargs": ("prioritized", "prioritized=True and elite_episodes=True choose the memory, without HER"),
    "optimize_memory_usage": ("buffer_size", "the memory keeps an observation once anyway; leave it out"),
    "features_extractor_class": ("network", "a Flax module of your own is network=MyNet()"),
    "features_extractor_kwargs": ("network", "arguments of a Flax module of your own, network=MyNet()"),
    "lstm_hidden_size": ("recurrent_size", 'recurrent_size, with recurrent="lstm"'),
    "n_lstm_layers": ("recurrent", "the memory has one layer; leave it out"),
    "lstm_kwargs": ("recurrent", "the memory has recurrent_size alone; leave it out"),
    "enable_critic_lstm": ("recurrent", "policy and value function have a memory each; leave it out"),
    "shared_lstm": ("share_features_extractor", "share_features_extractor=True"),
}
"""What stands for an argument, where an algorithm has the hyperparameter before it; others do without."""

LEARN = {
    "total_timesteps": "agent.learn({})",
    "callback": "agent.learn(100_000, callbacks={})",
    "progress_bar": "agent.learn(100_000, progress={})",
    "tb_log_name": "agent.learn(100_000, run={})",
    "eval_freq": "agent.learn(100_000, eval_every={})",
    "n_eval_episodes": "agent.learn(100_000, eval_every=10_000, eval_episodes={})",
    "eval_log_path": "agent.learn(100_000, eval_every=10_000, run={})",
    "reset_num_timesteps": None,
    "log_interval": None,
    "eval_env": None,
}
EVALUATE = {
    "n_eval_episodes": "agent.evaluate({})",
    "n_envs": "agent.evaluate(20, num_envs={})",
    "eval_env": "agent.evaluate(20, env={})",
    "render": None,
    "warn": None,
}
ON = {
    "n_envs": "PPO().on(env, num_envs={})",
    "vec_env_cls": "PPO().on(env, num_envs=8, processes=True)",
    "verbose": None,
    "device": None,
}
PREDICT = {
    "action_masks": "agent.predict(observation, {})",
    "state": None,
    "episode_start": None,
    "mask": None,
}
_PLAYER = "a policy that remembers its episode is policy = agent.player(); action = policy(observation, first)"
_WHY = {
    "reset_num_timesteps": "steps count on from call to call, and a new agent begins at 0",
    "log_interval": "metrics are logged in the run folder: agent.learn(100_000, run=True)",
    "eval_env": "environments to evaluate in are made by themselves: agent.learn(100_000, eval_every=10_000)",
    "render": "to see episodes: agent.watch(), or agent.record('agent.mp4')",
    "warn": "leave it out",
    "verbose": "the progress bar is agent.learn(100_000, progress=True)",
    "device": _LEFT_OUT["device"],
    "state": _PLAYER,
    "mask": _PLAYER,
    "episode_start": _PLAYER,
}

_WITHOUT_AGENT = ("learn", "predict", "save", "evaluate", "explain", "record", "watch", "summary", "set_env", "get_env")
_OF_AGENTS = {
    "set_env": "write agent = agent.on(env)",
    "get_env": "the environments belong to the agent; agent.spec describes them",
    "env": "the environments belong to the agent; agent.spec describes them",
    "num_timesteps": "write agent.steps",
    "policy": "the weights are agent.parameters, and a policy is agent.player()",
    "get_parameters": "write agent.parameters",
    "set_parameters": "a file is loaded by renshu.load(path)",
    "replay_buffer": "write agent.dataset()",
    "save_replay_buffer": 'agent.save(path, memory=True) holds the memory; or agent.dataset().save("data")',
    "load_replay_buffer": "renshu.load(path) brings the memory back",
    "logger": 'metrics are logged in the run folder: agent.learn(100_000, run="runs/a")',
    "get_vec_normalize_env": "norm_obs=True and norm_reward=True are hyperparameters, and saved with the agent",
}
_ON_SEVERAL = 'PPO().on("CartPole-v1", num_envs=8)'
_NAMES = {
    "make_vec_env": f"several environments at once are num_envs: {_ON_SEVERAL}",
    "DummyVecEnv": f"several environments at once are num_envs: {_ON_SEVERAL}",
    "SubprocVecEnv": 'each in a worker process: PPO().on("CartPole-v1", num_envs=8, processes=True)',
    "VecNormalize": "PPO and A2C normalise by themselves: PPO(norm_obs=True, norm_reward=True)",
    "VecFrameStack": "the last observations at once: DQN().on(env, frame_stack=4)",
    "VecMonitor": "episodes are recorded by themselves: agent.recent_returns, or a run folder",
    "Monitor": "episodes are recorded by themselves: agent.recent_returns, or a run folder",
    "evaluate_policy": "write agent.evaluate(20)",
    "set_random_seed": 'write PPO().on("CartPole-v1", seed=0)',
    "MlpPolicy": 'observations choose the network: PPO().on("CartPole-v1")',
    "CnnPolicy": "for images pass a Flax module of your own: PPO(network=MyConvolutions()).on(env)",
    "MultiInputPolicy": "observations choose the network: PPO().on(env)",
    "BaseCallback": "write renshu.callbacks.Callback, or any function of (agent, metrics)",
    "EvalCallback": "write agent.learn(100_000, eval_every=10_000), or renshu.callbacks.Evaluate(10_000)",
    "CheckpointCallback": "write agent.learn(100_000, run=True, checkpoint_every=10_000)",
    "StopTrainingOnRewardThreshold": "write agent.learn(100_000, stop_at=475)",
    "NormalActionNoise": 'write TD3(action_noise="normal", action_noise_std=0.1)',
    "OrnsteinUhlenbeckActionNoise": 'write TD3(action_noise="ou", action_noise_std=0.1)',
    "MaskablePPO": "PPO takes masks by itself: PPO().on(env)",
    "RecurrentPPO": "there is none yet: PPO().on(env) sees one observation at a time",
}


def constructor(algorithm: str, known: Sequence[str], args: Sequence[Any], given: Mapping[str, Any]) -> str | None:
    """Answer arguments of a constructor that are those of Stable-Baselines3; None where all are hyperparameters.

    algorithm: name of the class. known: its hyperparameters. args, given: the arguments. A name that neither library
    has is left to others.
    """
    foreign = {name: value for name, value in given.items() if name not in known}
    if not all(name in _ELSEWHERE or name in _LEFT_OUT for name in foreign) or not (args or foreign):
        return None
    if any(isinstance(arg, int | float) for arg in args):
        return f"{algorithm} takes its hyperparameters by name, as in {algorithm}({known[0]}=1)"
    policy = bool(args) and isinstance(args[0], type | str) and _short(args[0]).endswith("Policy")
    envs = list(args[1:] if policy else args)[:1]
    reasons = [f"{name} {_ELSEWHERE[name]}" for name in foreign if name in _ELSEWHERE and name != "env"]
    reasons += [f"{name}: {_LEFT_OUT[name]}" for name in foreign if name not in _ELSEWHERE and name != "policy"]
    if args or {"env", "policy"} & foreign.keys():
        first = f"{algorithm} holds hyperparameters alone, by name; the environment is given to on(...)"
        reasons.insert(0, first + (", and its observations choose the network" if policy else ""))
    else:
        reasons[0] = f"{algorithm} has no hyperparameter {next(iter(foreign))!r}: {reasons[0]}"
    return f"{'; '.join(reasons)}. Write {_line(algorithm, known, envs, given)}"


def _line(algorithm: str, known: Sequence[str], envs: Sequence[Any], given: Mapping[str, Any]) -> str:
    """Write the line that does what the arguments ask for."""
    settings = {name: value for name, value in given.items() if name in known} | _of_policy(known, given)
    env = given.get("env", envs[0] if envs else "CartPole-v1" if algorithm not in _CONTINUOUS else "Pendulum-v1")
    on = {"num_envs": given.get("n_envs"), **{name: given[name] for name in _OPTIONS_OF_ON if name in given}}
    learn = {"run": given.get("tensorboard_log")}
    if "verbose" in given:
        learn["progress"] = bool(given["verbose"])
    line = f"{algorithm}({_arguments(settings)}).on({_arguments({'': env, **_some(on)})})"
    return line + (f".learn(100_000, {_arguments(_some(learn))})" if _some(learn) else "")


_CONTINUOUS = ("DDPG", "TD3", "SAC", "TQC", "CrossQ")


def _of_policy(known: Sequence[str], given: Mapping[str, Any]) -> dict[str, Any]:
    kwargs = given.get("policy_kwargs")
    found = {name: value for name, value in kwargs.items() if name in known} if isinstance(kwargs, Mapping) else {}
    if "activation_fn" in found and not isinstance(found["activation_fn"], str):
        found["activation_fn"] = _short(found["activation_fn"]).lower()
    return found


def option(function: str, name: str, value: Any, table: Mapping[str, str | None]) -> str | None:
    """Answer an option of Stable-Baselines3 given to a method; None where it is not in `table`, one of the above."""
    if name not in table:
        return None
    line = table[name]
    instead = f": {_WHY[name]}" if line is None else f". Write {line.format(_text(value))}"
    return f"{function} has no option {name!r}{instead}"


def without_agent(algorithm: str, name: str) -> str:
    """Answer an attribute that an algorithm has not, but an agent has, there or here."""
    if name in ("load", "resume"):
        line = 'renshu.load("agent.safetensors")' if name == "load" else 'renshu.Agent.resume("runs/a")'
        return f"{algorithm} has no {name!r}: a file says itself which algorithm it is of. Write agent = {line}"
    if name in _WITHOUT_AGENT:
        env = "Pendulum-v1" if algorithm in _CONTINUOUS else "CartPole-v1"
        return (
            f"{algorithm} holds hyperparameters alone and has no {name!r}; on an environment it is an agent, which "
            f'has. Write agent = {algorithm}().on("{env}").learn(100_000)'
        )
    return f"{algorithm} has no attribute {name!r}"


def attribute(name: str) -> str:
    """Answer an attribute that an agent has not."""
    return f"an agent has no {name!r}" + (f": {_OF_AGENTS[name]}" if name in _OF_AGENTS else "")


def name_of_module(name: str) -> str | None:
    """Answer a name of Stable-Baselines3's modules that is looked for in `renshu`; None for others."""
    return f"renshu has no {name!r}: {_NAMES[name]}" if name in _NAMES else None


def _some(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _arguments(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={_text(value)}" if name else _text(value) for name, value in options.items())


def _text(value: Any) -> str:
    """Write a value as source code: strings in double quotes, the name of a class or function, "env" for the rest."""
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, type):
        return value.__name__
    plain = isinstance(value, bool | int | float | list | tuple | dict | None)
    name = getattr(value, "__name__", "")
    return repr(value) if plain and len(repr(value)) < 60 else name if name.isidentifier() else "env"


def _short(value: Any) -> str:
    return value if isinstance(value, str) else getattr(value, "__name__", type(value).__name__)


def refuse_unpacking(self: Any) -> NoReturn:
    """Say that `predict` returns one thing; the `__iter__` of the single numbers that it returns."""
    raise TypeError("predict returns the action alone. Write action = agent.predict(observation)")
