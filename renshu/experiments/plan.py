"""The plan of a search for hyperparameters: what every trial of it has in common, checked, and kept in its folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import gymnasium
from gymnasium.vector import VectorEnv

from renshu.agent.agent import Agent
from renshu.agent.backends import CompiledBackend
from renshu.agent.options import COUNT, SEED
from renshu.algorithms.base import Algorithm
from renshu.algorithms.hyperparameters import kind_of
from renshu.algorithms.registry import algorithm as by_name
from renshu.envs.source import EnvSource
from renshu.envs.spec import kwargs_from_json, kwargs_to_json
from renshu.errors import CheckpointError, HyperparameterError, UnknownNameError
from renshu.experiments.ranges import Searched, Space, check_ranges, peak, written
from renshu.experiments.study import check_names
from renshu.presets import OPTIONS, Preset, preset, preset_name
from renshu.tracking.provenance import read_settings

DEFAULTS: dict[str, Any] = {"trials": 100, "seeds": 3, "eval_episodes": 20, "sampler": "tpe", "pruner": "median"}
STEPS = 100_000
EVALUATION = 1_000_000
"""Added to the seed of a training: that of the episodes which judge it."""


@dataclass(frozen=True)
class Plan:
    """A search.

    start: the algorithm as it is before. env: as given, made anew for each training; environment: its name. options: of
    an Agent, as bins. steps: of each training. seeds: of the trainings of a trial. batch: trials that train together.
    """

    start: Algorithm
    env: Any
    environment: str
    num_envs: int | None
    options: dict[str, Any]
    env_kwargs: dict[str, Any]
    ranges: dict[str, Searched]
    steps: int
    seeds: list[int]
    eval_episodes: int
    sampler: str
    pruner: str
    trials: int
    batch: int | None = None

    @property
    def title(self) -> str:
        """Name of the algorithm and the environment."""
        return f"{type(self.start).__name__} on {self.environment}"

    @property
    def space(self) -> Space:
        """The ranges about the algorithm."""
        return Space(self.start, self.ranges)

    @property
    def traceable(self) -> list[str]:
        """Names of what is searched that can be a traced number, so that one program trains trials of any value."""
        kinds = {one.name: kind_of(one) for one in fields(self.start)}
        values = {name: (*searched, getattr(self.start, name)) for name, searched in self.ranges.items()}
        numbers = {name for name, known in values.items() if all(peak(value) is not None for value in known)}
        return [name for name in self.ranges if name in numbers and getattr(kinds[name], "traceable", False)]

    @property
    def fresh_seeds(self) -> list[int]:
        """As many other seeds as there are: nothing is chosen by their scores."""
        return [max(self.seeds) + 1 + i for i in range(len(self.seeds))]

    def agent(self, algorithm: Algorithm, seed: int) -> Agent:
        """Make an agent, with environments of its own."""
        how: dict[str, Any] = {"num_envs": self.num_envs, "env_kwargs": self.env_kwargs, **self.options}
        return Agent(algorithm, self.env, seed=seed, **how)

    def to_json(self) -> dict[str, Any]:
        """Return all but the environment as plain data."""
        names = ("num_envs", "options", "env_kwargs", "steps", "seeds", "eval_episodes", "sampler", "pruner", "trials")
        names += ("batch",)
        ranges = {name: written(searched) for name, searched in self.ranges.items()}
        data = {name: getattr(self, name) for name in names} | {"ranges": ranges}
        return json.loads(json.dumps(data | {"env_kwargs": kwargs_to_json(self.env_kwargs)[0]}))

    def settings(self) -> dict[str, Any]:
        """Return the settings that its folder keeps."""
        return {
            "algorithm": type(self.start).__name__,
            "hyperparameters": self.start.to_json(),
            "environment": self.environment,
            "environment_id": self.env if isinstance(self.env, str) else None,
            "tune": self.to_json(),
        }


def _base(algorithm: str | Algorithm | Preset, source: EnvSource) -> Preset:
    """Return the algorithm as it is before the search: of a name the preset, else with its defaults."""
    if isinstance(algorithm, Preset):
        return algorithm
    if isinstance(algorithm, str):
        name = preset_name(algorithm, source.gym_spec.id if source.gym_spec is not None else source.name)
        if name is not None:
            return preset(algorithm, name)
        algorithm = by_name(algorithm)()
    if not isinstance(algorithm, Algorithm):
        raise HyperparameterError(f"tune takes an algorithm, as PPO(), or its name, not {algorithm!r}")
    return Preset(algorithm, source.name, algorithm.default_num_envs, STEPS)


def begun(algorithm: str | Algorithm | Preset, env: Any, given: Mapping[str, Any]) -> Plan:
    """Make the plan of a new search. given: options of `tune`, None for the default.

    Raises UnknownNameError, HyperparameterError, SpaceError before anything is trained.
    """
    source = EnvSource.of(env, given["env_kwargs"])
    if isinstance(source.given, gymnasium.Env | VectorEnv):
        raise HyperparameterError(
            f"tune makes environments for each training: give it an id, a class or a function, not {env!r}"
        )
    base = _base(algorithm, source)
    if given["batch"] is not None:
        if given["pruner"] not in (None, "halving"):
            raise HyperparameterError("tune: batch= gives trials up by halving them; leave pruner out")
        given = {**given, "pruner": "halving"}
    chosen = {name: default if given[name] is None else given[name] for name, default in DEFAULTS.items()}
    check_names(chosen["sampler"], chosen["pruner"])
    ranges = check_ranges(base.algorithm, given["ranges"])
    for name, searched in ranges.items():
        for value in searched:
            _check_writable(replace(base.algorithm, **{name: value}))
    _check_writable(base.algorithm)
    if lost := kwargs_to_json(given["env_kwargs"] or {})[1]:
        raise HyperparameterError(
            f"tune: env_kwargs {', '.join(lost)} cannot be written down for the folder of the search: give numbers, "
            "texts, lists, tuples and dicts of those"
        )
    options = base.options | {name: given[name] for name in OPTIONS if given[name] is not None}
    num_envs = base.asked_envs if given["num_envs"] is None else COUNT.check("num_envs", given["num_envs"])
    plan = Plan(
        start=base.algorithm,
        env=env,
        environment=source.name,
        num_envs=num_envs,
        options=options,
        env_kwargs=dict(given["env_kwargs"] or {}),
        ranges=ranges,
        steps=COUNT.check("steps", base.total_steps if given["steps"] is None else given["steps"]),
        seeds=_seeds(chosen["seeds"]),
        eval_episodes=COUNT.check("eval_episodes", chosen["eval_episodes"]),
        sampler=chosen["sampler"],
        pruner=chosen["pruner"],
        trials=COUNT.check("trials", chosen["trials"]),
        batch=None if given["batch"] is None else COUNT.check("batch", given["batch"]),
    )
    if plan.batch is not None and not plan.traceable:
        raise HyperparameterError(
            f"tune: batch= trains trials in one program, which can vary none of {', '.join(ranges)}: leave it out"
        )
    with plan.agent(plan.start, plan.seeds[0]) as agent:  # what cannot work is refused before there is a folder
        agent.trainer.set_target(plan.steps)
        if plan.batch is not None and not isinstance(agent.trainer.backend, CompiledBackend):
            raise HyperparameterError(
                f"tune: batch= trains trials in one program, and {source.name} steps in Python: leave it out, or take "
                "a DeviceEnv, as renshu/CartPole-v1 (see `renshu list environments`)"
            )
    return plan


def _seeds(seeds: Any) -> list[int]:
    chosen = list(range(COUNT.check("seeds", seeds))) if isinstance(seeds, int) else list(seeds)
    chosen = [SEED.check("seeds", seed) for seed in chosen]
    if not chosen or len(set(chosen)) < len(chosen):
        raise HyperparameterError(f"seeds={seeds!r}: expected how many, at least 1, or different numbers")
    SEED.check("seeds, and those that follow them,", max(chosen) + len(chosen) + EVALUATION)
    return chosen


def _check_writable(algorithm: Algorithm) -> None:
    """Raise HyperparameterError for what neither the folder nor a preset can hold."""
    name = type(algorithm).__name__
    if unsaved := list(algorithm.unsaved()):
        raise HyperparameterError(f"tune: {', '.join(unsaved)} of {name} is a Python object, which no file can hold")
    if none := [field for field, value in algorithm.changed().items() if value is None]:
        raise HyperparameterError(f"tune: {', '.join(none)}=None of {name} cannot stand in a preset: TOML has no None")


def resumed(folder: Path, algorithm: str | Algorithm | Preset | None, env: Any, given: Mapping[str, Any]) -> Plan:
    """Return the plan in a folder. What is given must agree with it, but for the number of trials.

    Raises UnknownNameError where the folder holds no search, CheckpointError where the environment must be named again,
    HyperparameterError for other settings than it was begun with.
    """
    settings = read_settings(folder)
    if "tune" not in settings:
        raise UnknownNameError(f"{folder} holds a training, and no search: renshu train --resume {folder}")
    kept, id = settings["tune"], settings["environment_id"]
    if env is None and (id is None or ":" in id):
        raise CheckpointError(
            f"{folder} is a search on {settings['environment']}, which no file can make: name the environment again"
        )
    env = id if env is None else env
    kept = {**kept, "env_kwargs": kwargs_from_json(kept["env_kwargs"])}
    source = EnvSource.of(env, kept["env_kwargs"])
    own = algorithm.algorithm if isinstance(algorithm, Preset) else algorithm
    kind = type(own) if isinstance(own, Algorithm) else by_name(settings["algorithm"])
    start = kind.from_json(settings["hyperparameters"])
    ranges = check_ranges(start, kept["ranges"])
    plan = Plan(start=start, env=env, environment=source.name, **{**kept, "ranges": ranges})
    _check_agreement(folder, plan, settings["environment"], algorithm, given)
    return replace(plan, trials=plan.trials if given["trials"] is None else COUNT.check("trials", given["trials"]))


def _check_agreement(
    folder: Path, plan: Plan, environment: str, algorithm: str | Algorithm | Preset | None, given: Mapping[str, Any]
) -> None:
    kept = plan.to_json()
    kept |= {**dict.fromkeys(OPTIONS), **kept["options"], "algorithm": type(plan.start).__name__.lower()}
    asked = {name: value for name, value in given.items() if value is not None and name != "trials"}
    if "seeds" in asked:
        asked["seeds"] = _seeds(asked["seeds"])
    if "ranges" in asked:
        asked["ranges"] = {name: written(one) for name, one in check_ranges(plan.start, asked["ranges"]).items()}
    if isinstance(algorithm, str):
        asked["algorithm"] = algorithm.lower()
    elif algorithm is not None:
        asked["algorithm"] = algorithm.algorithm if isinstance(algorithm, Preset) else algorithm
        kept["algorithm"] = plan.start
    if plan.environment != environment:
        raise HyperparameterError(f"{folder} is a search on {environment}, not on {plan.environment}")
    for name, value in asked.items():
        plain = value if name == "algorithm" else json.loads(json.dumps(value))
        if plain != kept[name]:
            raise HyperparameterError(
                f"{folder} was begun with {name}={kept[name]!r}, not {value!r}: leave it out, or begin a new search"
            )
