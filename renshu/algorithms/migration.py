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
_MEMORIES = "prioritized=True and elite_episodes=True choose the memory, and none replaces goals (HER)"
_BY_ANOTHER = {
    "replay_buffer_class": ("prioritized", _MEMORIES),
    "replay_buffer_kwargs": ("prioritized", _MEMORIES),
    "optimize_memory_usage": ("buffer_size", "the memory keeps an observation once anyway; leave it out"),
    "features_extractor_class": ("network", "a Flax module of your own is network=MyNet(), but for CrossQ"),
    "features_extractor_kwargs": ("network", "arguments of a Flax module of your own, network=MyNet()"),
    "lstm_hidden_size": ("recurrent_size", 'it is recurrent_size, with recurrent="lstm"'),
    "n_lstm_layers": ("recurrent", "the memory has one layer; leave it out"),
    "lstm_kwargs": ("recurrent", "the memory has recurrent_size alone; leave it out"),
    "enable_critic_lstm": ("share_features_extractor", "policy and value function have a memory each; leave it out"),
    "shared_lstm": ("share_features_extractor", "it is share_features_extractor=True"),
}
"""Answers to arguments where an algorithm has the hyperparameter that is named first; others do without."""

LEARN = {
    "total_timesteps": "agent.learn({})",
    "callback": "agent.learn(100_000, callbacks={})",
    "progress_bar": "agent.learn(100_000, progress={})",
    "tb_log_name": "agent.learn(100_000, run={})",
    "eval_freq": "agent.learn(100_000, eval_every={})",
    "n_eval_episodes": "agent.learn(100_000, eval_every=10_000, eval_episodes={})",
    "eval_log_path": "agent.learn(100_000, eval_every=10_000, run={})",
    **dict.fromkeys(("reset_num_timesteps", "log_interval", "eval_env", "use_masking")),
}
EVALUATE = {
    "n_eval_episodes": "agent.evaluate({})",
    "n_envs": "agent.evaluate(20, num_envs={})",
    "eval_env": "agent.evaluate(20, env={})",
    **dict.fromkeys(("render", "warn", "return_episode_rewards", "callback", "reward_threshold", "use_masking")),
}
ON = {
    "n_envs": "PPO().on(env, num_envs={})",
    "n_stack": "PPO().on(env, frame_stack={})",
    "wrapper_class": 'PPO().on(lambda: {}(gymnasium.make("CartPole-v1")), num_envs=8)',
    "monitor_dir": "PPO().on(env).learn(100_000, run={})",
    **dict.fromkeys(("vec_env_cls", "vec_env_kwargs", "start_index", "verbose", "device")),
}
PREDICT = {
    "action_masks": "agent.predict(observation, {})",
    **dict.fromkeys(("state", "episode_start", "mask")),
}
SAVE: dict[str, str | None] = dict.fromkeys(("exclude", "include"))
_LOAD = {
    "custom_objects": "hyperparameters are given by name",
    "print_system_info": "versions and machine are in settings.json of a run folder; leave it out",
    "force_reset": "a training that goes on begins where it stood, if it can; leave it out",
}
_CARRY = (
    "state is carry= here, () at first, and episode_start is first=, as in action, carry = agent.predict(observation, "
    "carry=carry, first=first); policy = agent.player() remembers by itself: action = policy(observation, first)"
)
_SAVED = "a file holds all of an agent, and the memory with agent.save(path, memory=True); leave it out"
_WHY = {
    "reset_num_timesteps": (
        "steps count on from call to call, and a new agent begins at 0; schedules, too, go on with "
        "agent.learn(100_000, restart_schedules=False)"
    ),
    "log_interval": "about 500 rows of metrics are logged in the run folder: agent.learn(100_000, run=True)",
    "eval_env": "environments to evaluate in are made by themselves: agent.learn(100_000, eval_every=10_000)",
    "use_masking": "masks are used where the environment has them; without: PPO().on(env, masks=False)",
    "render": "to see episodes: agent.watch(), or agent.record('agent.mp4')",
    **dict.fromkeys(("warn", "vec_env_kwargs", "start_index"), "leave it out"),
    "return_episode_rewards": "it always has them: agent.evaluate(20).returns and agent.evaluate(20).lengths",
    "callback": "none is called; of each episode there are agent.evaluate(20).returns and agent.evaluate(20).lengths",
    "reward_threshold": "compare it with agent.evaluate(20).mean",
    "vec_env_cls": (
        "num_envs are several at once, and processes=True gives each a process: "
        "PPO().on(env, num_envs=8, processes=True)"
    ),
    "verbose": "the progress bar is agent.learn(100_000, progress=True)",
    "device": _LEFT_OUT["device"],
    **dict.fromkeys(("state", "mask", "episode_start"), _CARRY),
    **dict.fromkeys(("exclude", "include"), _SAVED),
}

_WITHOUT_AGENT = ("learn", "predict", "save", "evaluate", "explain", "record", "watch", "summary", "set_env", "get_env")
_CONTINUOUS = ("DDPG", "TD3", "SAC", "TQC", "CrossQ")


def constructor(algorithm: str, known: Mapping[str, Kind], args: Sequence[Any], given: Mapping[str, Any]) -> str | None:
    """Answer arguments of a constructor that are those of Stable-Baselines3; None where all are hyperparameters.

    algorithm: name of the class. known: its hyperparameters. args, given: the arguments. A name that neither library
    has is left to others.
    """
    foreign = [name for name in given if name not in known]
    settings, remarks = _settings(algorithm, known, given)
    if any(_reason(name, known) is None for name in foreign) or not (args or foreign or remarks):
        return None
    if any(isinstance(arg, int | float) for arg in args):
        return f"{algorithm} takes its hyperparameters by name, as in {algorithm}({next(iter(known))}=1)"
    policy = _short(args[0]) if args and isinstance(args[0], type | str) and _short(args[0]).endswith("Policy") else ""
    envs = list(args[1:] if policy else args)[:1]
    reasons = [str(_reason(name, known)) for name in foreign if name not in ("env", "policy")]
    if args or {"env", "policy"} & set(foreign):
        first = f"{algorithm} holds hyperparameters alone, by name; the environment is given to on(...)"
        reasons.insert(0, first + (", and its observations choose the network" if policy else ""))
    elif foreign:
        reasons[0] = f"{algorithm} has no hyperparameter {foreign[0]!r}: {reasons[0].removeprefix(f'{foreign[0]}: ')}"
    else:
        remarks[0] = f"{algorithm}: {remarks[0]}"
    if "Lstm" in (policy or _short(given.get("policy", ""))) and "recurrent" in known:
        settings.setdefault("recurrent", "lstm")
    if "recurrent" in settings and "recurrent" not in given and {"n_epochs", "batch_size"} <= known.keys():
        # As in RecurrentPPO. Those of PPO would be refused: a minibatch is of whole environments.
        settings.setdefault("batch_size", settings.setdefault("n_steps", 128))
    return f"{'; '.join(reasons + remarks)}. Write {_line(algorithm, settings, envs, given)}"


def overridden(algorithm: str, known: Container[str], given: Mapping[str, Any]) -> str | None:
    """Answer arguments of Stable-Baselines3's `load` that would replace hyperparameters; None where there are none."""
    for name, value in given.items():
        reason = None if name in known else _LOAD.get(name) or _reason(name, known)
        if reason is not None:
            objects = value if name == "custom_objects" and isinstance(value, Mapping) else {}
            replaced = {own: here for own, here in objects.items() if own in known}
            line = f". Write renshu.load(path, {_arguments(replaced)})" if replaced else ""
            return f"{algorithm} has no hyperparameter {name!r}: {reason.removeprefix(f'{name}: ')}{line}"
    return None


def environment(algorithm: str, env: Any) -> str | None:
    """Answer a list of functions that each make an environment, as DummyVecEnv takes it; None for all else."""
    if not _is_list_of_functions(env):
        return None
    return f"several environments are one function and a number. Write {algorithm}().on(make_env, num_envs={len(env)})"


def _is_list_of_functions(env: Any) -> bool:
    return isinstance(env, list | tuple) and len(env) > 0 and all(map(callable, env))


def _reason(name: str, known: Container[str]) -> str | None:
    """Say what is instead of an argument; None where it is none of Stable-Baselines3's."""
    if name in _ELSEWHERE:
        return f"{name} {_ELSEWHERE[name]}"
    if name in _BY_ANOTHER:
        needed, text = _BY_ANOTHER[name]
        return f"{name}: {text if needed in known else 'leave it out'}"
    return f"{name}: {_LEFT_OUT[name]}" if name in _LEFT_OUT else None


def _settings(algorithm: str, known: Mapping[str, Kind], given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Find the hyperparameters that arguments mean, and say what is not taken as it was given."""
    settings: dict[str, Any] = {}
    remarks: list[str] = []
    kwargs = given.get("policy_kwargs")
    inside = dict(kwargs) if isinstance(kwargs, Mapping) else {}
    for name, value in [*given.items(), *inside.items()]:
        looked_at = name in known and (name in inside or name in _MEANT)
        wrong = _refused(known[name], name, value) if looked_at else None
        meant = {name: value} if name in known and wrong is None else _translated(known, name, value)
        if meant is not None:
            settings |= meant
            remarks += [wrong] if wrong and name not in inside else []
        elif name in inside:
            remarks.append(wrong or _reason(name, known) or f"{name}: {algorithm} has none; leave it out")
        elif name in known:
            settings[name] = value  # refused when the rest is right
    return settings, remarks


def _translated(known: Mapping[str, Kind], name: str, value: Any) -> dict[str, Any] | None:
    meant = _MEANT[name](value) if name in _MEANT else None
    if meant is None or any(own not in known or _refused(known[own], own, here) for own, here in meant.items()):
        return None
    return meant


def _refused(kind: Kind, name: str, value: Any) -> str | None:
    try:
        kind.check(name, value)
    except HyperparameterError as error:
        return str(error).split(". Did you mean")[0]
    return None


def _train_freq(value: Any) -> dict[str, Any] | None:
    if not (isinstance(value, tuple | list) and len(value) == 2):
        return None
    return {"train_freq": value[0]} if value[1] == "step" else {}


def _action_noise(value: Any) -> dict[str, Any] | None:
    value = getattr(value, "base_noise", value)  # of a VectorizedActionNoise
    kind = type(value).__name__
    if not kind.endswith("ActionNoise"):
        return None
    sigma = getattr(value, "_sigma", 0.1)
    sizes = getattr(sigma, "tolist", lambda: sigma)()
    std = max(sizes) if isinstance(sizes, list | tuple) and sizes else sizes  # of all parts of an action
    return {"action_noise": "ou" if kind.startswith("Ornstein") else "normal", "action_noise_std": std}


def _net_arch(value: Any) -> dict[str, Any] | None:
    alone = isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict)  # as it was written once
    return {"net_arch": value[0]} if alone else None


_MEANT: dict[str, Callable[[Any], dict[str, Any] | None]] = {
    "train_freq": _train_freq,
    "action_noise": _action_noise,
    "activation_fn": lambda value: None if isinstance(value, str) else {"activation_fn": _short(value).lower()},
    "net_arch": _net_arch,
    "lstm_hidden_size": lambda value: {"recurrent": "lstm", "recurrent_size": value},
    "shared_lstm": lambda value: {"share_features_extractor": True} if value else {},
}
"""Hyperparameters here that a value there means, where it cannot be one itself; None: there are none."""


def _line(algorithm: str, settings: Mapping[str, Any], envs: Sequence[Any], given: Mapping[str, Any]) -> str:
    """Write the line that does what the arguments ask for."""
    env = given.get("env", envs[0] if envs else "CartPole-v1" if algorithm not in _CONTINUOUS else "Pendulum-v1")
    on = {"num_envs": given.get("n_envs"), **{name: given[name] for name in _OPTIONS_OF_ON if name in given}}
    if _is_list_of_functions(env):
        env, on["num_envs"] = env[0], len(env)
    learn = {"run": given.get("tensorboard_log")}
    if "verbose" in given:
        learn["progress"] = bool(given["verbose"])
    line = f"{algorithm}({_arguments(settings)}).on({_arguments({'': env, **_some(on)})})"
    return line + (f".learn(100_000, {_arguments(_some(learn))})" if _some(learn) else "")


def option(function: str, name: str, value: Any, table: Mapping[str, str | None]) -> str | None:
    """Answer an option of Stable-Baselines3 given to a method; None where it is not in `table`, one of the above."""
    if name not in table:
        return None
    line = table[name]
    instead = f": {_WHY[name]}" if line is None else f". Write {line.format(_text(value, name))}"
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


def attribute(name: str, algorithm: Any = None) -> str:
    """Answer an attribute that an agent of an algorithm has not."""
    if name in getattr(algorithm, "__dataclass_fields__", ()):
        return f"an agent has no {name!r}: it is a hyperparameter, agent.algorithm.{name}"
    return f"an agent has no {name!r}" + (f": {ATTRIBUTES[name]}" if name in ATTRIBUTES else "")


def name_of_module(name: str) -> str | None:
    """Answer a name of Stable-Baselines3's modules that is looked for in `renshu`; None for others."""
    return f"renshu has no {name!r}: {NAMES[name]}" if name in NAMES else None


def _some(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _arguments(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={_text(value, name)}" if name else _text(value, "env") for name, value in options.items())


def _text(value: Any, name: str) -> str:
    """Write a value as source code: strings in double quotes, the name of a class or function, or else `name`."""
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, type):
        return value.__name__
    plain = isinstance(value, bool | int | float | list | tuple | dict | None) and "<" not in repr(value)
    own = getattr(value, "__name__", "")
    return repr(value) if plain and len(repr(value)) < 60 else own if own.isidentifier() else name


def _short(value: Any) -> str:
    return value if isinstance(value, str) else getattr(value, "__name__", type(value).__name__)


def refuse_unpacking(self: Any) -> NoReturn:
    """Say that `predict` returns one thing; the `__iter__` of the single numbers that it returns."""
    raise TypeError("predict returns the action alone. Write action = agent.predict(observation)")
