"""The environment that a user gave, and further ones made like it: to train in, to evaluate in, to watch."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, cast

import gymnasium
from gymnasium.envs.registration import EnvSpec as GymSpec
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv, VectorEnv, VectorWrapper
from gymnasium.wrappers import TimeLimit

from renshu.envs.checks import CheckedEnv, no_env_hint
from renshu.envs.gymnasium import atari, retro
from renshu.envs.gymnasium.lookup import explained, find, portable, registered_as
from renshu.envs.gymnasium.making import at_once, copied, limit_in, make_one, next_step, takes
from renshu.envs.gymnasium.registration import changed_fields, device_env, is_ours, parted, with_limit
from renshu.envs.gymnasium.vector import start_workers
from renshu.envs.masks import MaskInObservation, MasksInObservations, may_take_mask
from renshu.envs.sending import Made
from renshu.errors import EnvironmentFault, HyperparameterError, SpaceError
from renshu.types import EnvSpec

if TYPE_CHECKING:
    from renshu.envs.device import DeviceEnv

_VECTOR_ONLY = ("num_envs", "vectorization_mode", "vector_kwargs", "wrappers", "render_mode")
_ADAPTERS = "renshu.envs.adapters."
_WANTED = (
    "a Gymnasium id such as 'CartPole-v1', a gymnasium.Env, a class that is one, a function that makes one, "
    "a gymnasium.vector.VectorEnv, or a renshu.DeviceEnv"
)


@dataclass(frozen=True, eq=False)
class EnvSource:
    """An environment as the user gave it. Make one with `EnvSource.of`.

    given: an id, an environment, a class or function that makes one, a vector environment, or a DeviceEnv.
    name: a short text for messages and folder names. kwargs: arguments for an id, class or function.
    gym_spec: the spec by which Gymnasium made it or would make it, or None. masks: see `with_masks`. limit: steps of an
    episode that are asked for, of what a class or function makes. made: what it made so far.

    Further ones of an object are copies of it, as it is then: its spec need not say what was done to it since.
    """

    given: Any
    name: str
    kwargs: dict[str, Any] = field(default_factory=dict)
    gym_spec: GymSpec | None = None
    masks: bool | None = False
    limit: int | None = None
    made: Made = field(default_factory=Made)

    @classmethod
    def of(cls, env: Any, kwargs: Mapping[str, Any] | None = None, max_episode_steps: int | None = None) -> EnvSource:
        """Wrap what a user gave as an environment.

        env: a Gymnasium id ("module:Name-v0" imports the module first, "Name" means the newest version), a
        gymnasium.Env, a class or function that makes one, a gymnasium.vector.VectorEnv, a DeviceEnv, or an environment
        that `renshu.envs.adapters` knows. kwargs: arguments to make it with, for ids, classes and functions.
        max_episode_steps: a time limit, counted around it; None for its own.
        Raises SpaceError when `env` is none of these, UnknownNameError for an id that is not registered.
        """
        kwargs = dict(kwargs or {})
        env = _adapted(env)
        if _is_device(env):
            if kwargs:
                raise SpaceError(f"{env} is made already: give it {', '.join(kwargs)} where you make it")
            return cls(env if max_episode_steps is None else with_limit(env, max_episode_steps), _short(env.name))
        if isinstance(env, str):
            kwargs |= {} if max_episode_steps is None else {"max_episode_steps": max_episode_steps}
            spec = portable(find(env))
            return cls(env, _short(spec.id), kwargs, spec)
        if isinstance(env, gymnasium.Env | VectorEnv):
            if kwargs:
                raise SpaceError(f"{env} is made already: give it {', '.join(kwargs)} where you make it")
            spec = portable(env.spec) if env.spec else None
            base: Any = env.unwrapped
            made = base.name if type(base).__module__.startswith(_ADAPTERS) else type(base).__name__
            name = spec.id if spec and registered_as(spec) else made
            if max_episode_steps is not None:
                if isinstance(env, VectorEnv):
                    raise SpaceError(f"{env} is made already: give it max_episode_steps where you make it")
                env = TimeLimit(env, max_episode_steps)
                spec = portable(env.spec) if env.spec else None
            return cls(env, _short(name), kwargs, spec, limit=max_episode_steps)
        if callable(env):
            function = env
            while isinstance(function, partial):
                function = function.func
            name = _short(getattr(function, "__name__", type(function).__name__))
            return cls(env, name, kwargs, limit=max_episode_steps)
        hint = no_env_hint(env)
        raise SpaceError(f"expected {_WANTED}; this is a {type(env).__module__}.{type(env).__qualname__}{hint}")

    def repeated(self, num_envs: int) -> EnvSource:
        """Return a copy whose vector environment has so many rows. Raises HyperparameterError where it cannot have."""
        if num_envs == self.given.num_envs:
            return self
        if not hasattr(self.given, "repeated"):
            raise HyperparameterError(f"num_envs={num_envs}, but {self.name} has {self.given.num_envs} already")
        return replace(self, given=self.given.repeated(num_envs))

    def with_masks(self, masks: bool | None) -> EnvSource:
        """Return a copy that puts the environments' action masks into observations: {MASK: [n], OBSERVATION: ...}.

        masks: True, False, or None to find out whether they give any, which `HostEnvs` does. Nothing changes where
        actions are not Discrete or the environment's own observations already have this form.
        """
        return replace(self, masks=masks)

    @cached_property
    def device(self) -> DeviceEnv | None:
        """The environment as pure functions, for the compiled loop; None where it has no such form."""
        env = self.plain_device
        return _masked_device(env) if env is not None and self.masks is not False else env

    @cached_property
    def atari(self) -> atari.Preparation | None:
        """Options by which an Atari game is made ready that was named by its id; None for all else."""
        prepared = isinstance(self.given, str) and atari.is_prepared(self.gym_spec, self.kwargs)
        return atari.Preparation.of(cast(GymSpec, self.gym_spec), self.kwargs) if prepared else None

    @property
    def frame_stack(self) -> int:
        """Observations that a learner sees at once where it can and no number was asked for."""
        if self.console is not None:
            return retro.FRAME_STACK
        return 1 if self.atari is None else atari.FRAME_STACK

    @cached_property
    def console(self) -> retro.Preparation | None:
        """Options of a console game that was named by its id, which needs a process of its own; None for all else."""
        named = isinstance(self.given, str) and retro.is_console(self.gym_spec)
        return retro.Preparation.of(cast(GymSpec, self.gym_spec), self.kwargs) if named else None

    @cached_property
    def plain_device(self) -> DeviceEnv | None:
        """The environment as pure functions, without masks in its observations; None where it has no such form."""
        if _is_device(self.given):
            return self.given
        return device_env(self.gym_spec.id, **self.kwargs) if isinstance(self.given, str) and self.gym_spec else None

    def device_spec(self, num_envs: int) -> EnvSpec:
        """Describe `device` for a learner. The id is None where it would not make the same environment again."""
        env, spec = cast("DeviceEnv", self.plain_device), cast("DeviceEnv", self.device).spec(num_envs)
        if isinstance(self.given, str):
            return replace(spec, id=cast(GymSpec, self.gym_spec).id, kwargs=self.kwargs)
        env, kwargs = parted(env)
        known = changed_fields(env) if is_ours(env) else None
        return replace(spec, id=None if known is None else env.id, kwargs={**(known or {}), **kwargs})

    def vector(self, num_envs: int, processes: int | bool = False, timeout: float = 120.0) -> VectorEnv:
        """Make the vector environment to train in. Its arrays belong to the caller.

        num_envs: number of environments, N. A vector environment that was given is used as it is, with its own N.
        processes: False steps all in this process, True gives each a process of its own; a number below `num_envs` does
        so too, but lets only that many work at once. Console games always get processes. timeout: seconds that a
        process has to make its environment.

        Raises HyperparameterError for numbers out of range, SpaceError when `num_envs` of them cannot be made or it
        does not reset by the NEXT_STEP rule, EnvironmentFault when making it fails.
        """
        return self._masked(self._vector(num_envs, processes, timeout))

    def _vector(self, num_envs: int, processes: int | bool, timeout: float) -> VectorEnv:
        if num_envs < 1 or int(processes) < 0:
            raise HyperparameterError(
                f"num_envs={num_envs}, processes={processes}: expected num_envs >= 1, processes >= 0"
            )
        if isinstance(self.given, VectorEnv):
            if processes:
                raise SpaceError(
                    f"{self.name} is a vector environment, which has its own processes: use processes=False"
                )
            return next_step(self.given)
        if _is_device(self.given) and not processes:
            return _device_vector(self.given, num_envs)
        how, processes = self._how(), processes or self.console is not None
        if processes:
            # A process gets its copy of an object as it is sent there.
            made = (
                partial(_itself, self.given)
                if how is None
                else partial(make_one, how, self.name, self.kwargs, self.limit)
            )
            return start_workers(made, num_envs, self.name, timeout, at_once(processes, num_envs))
        if isinstance(self.given, gymnasium.Env):
            return self._sync([self.given, *(self._fresh() for _ in range(num_envs - 1))])
        return self._in_process(num_envs)

    def evaluation(self, num_envs: int) -> VectorEnv:
        """Make a vector environment that shares nothing with the one to train in. Reset it with a seed.

        Raises SpaceError when that is impossible; the user must then pass an environment to evaluate in.
        """
        return self._masked(self._evaluation(num_envs))

    def _evaluation(self, num_envs: int) -> VectorEnv:
        if _is_device(self.given):
            return _device_vector(self.given, num_envs)
        if self.console is not None:
            return self._vector(num_envs, True, 120.0)
        if not isinstance(self.given, VectorEnv):
            return self._in_process(num_envs)
        if isinstance(self.given.unwrapped, AsyncVectorEnv):
            return self._sync([self._part(index, "evaluate", "evaluate(env=...)") for index in range(num_envs)])
        return self._copy("evaluate", "evaluate(env=...)")

    def single(self, render_mode: str | None = None) -> gymnasium.Env:
        """Make one separate environment, to record or to watch. render_mode: one of Gymnasium's names.

        Raises EnvironmentFault when it cannot be made or does not render that way, SpaceError when it is unknown how to
        make one.
        """
        options: dict[str, Any] = {} if render_mode is None else {"render_mode": render_mode}
        if self.atari is not None:
            options["terminal_on_life_loss"] = False
        if isinstance(self.given, VectorEnv):
            env = _rendering(self._part(0, "record", "record(env=...)", **options), render_mode)
        elif isinstance(self.given, gymnasium.Env):
            env = _rendering(self._copy("record", "record(env=...)"), render_mode)
        elif callable(self.given) and self._how() is self.given and not takes(self.given, "render_mode"):
            env = self._fresh()
        else:
            env = self._fresh(**options)
        if render_mode is not None and env.render_mode != render_mode:
            made_with = env.render_mode
            env.close()
            raise EnvironmentFault(
                f"{self.name} does not render as {render_mode!r}: it was made with render_mode={made_with!r}. Pass a "
                "function that hands it on: lambda render_mode=None: MyEnv(render_mode=render_mode)"
            )
        masked = self.masks and may_take_mask(env.observation_space, env.action_space)
        return MaskInObservation(env) if masked else env

    def spec(self, vector_env: VectorEnv, num_envs: int) -> EnvSpec:
        """Describe one of the environments in `vector_env` for a learner of `num_envs`.

        The id is None where the name and the kwargs alone would not make the same environment again.
        """
        shapes = (vector_env.single_observation_space, vector_env.single_action_space, num_envs)
        if _is_device(self.given):
            return self.device_spec(num_envs)
        spec = self.gym_spec
        if spec is None:
            return EnvSpec(*shapes, kwargs=self.kwargs, max_episode_steps=self.limit or limit_in(vector_env))
        limit = self.kwargs.get("max_episode_steps", spec.max_episode_steps)
        limit = limit if self.atari is None else self.atari.max_episode_steps
        known = {"max_episode_steps": limit if limit and limit > 0 else None, "reward_threshold": spec.reward_threshold}
        known |= {} if self.device is None else {"players": self.device.players, "model": self.device.model}
        registered = registered_as(spec)
        changed = isinstance(self.given, VectorWrapper) or {"wrappers", "vector_kwargs"} & spec.kwargs.keys()
        if registered is None or changed:
            return EnvSpec(*shapes, **known)
        kwargs = self.kwargs if isinstance(self.given, str) else dict(spec.kwargs)
        if spec.max_episode_steps != registered.max_episode_steps:
            kwargs["max_episode_steps"] = spec.max_episode_steps or -1
        kwargs = {name: value for name, value in kwargs.items() if name not in _VECTOR_ONLY}
        name = self.given if isinstance(self.given, str) and ":" in self.given else spec.id
        return EnvSpec(*shapes, id=name, kwargs=kwargs, **known)

    def _masked(self, env: VectorEnv) -> VectorEnv:
        if self.masks is False or not may_take_mask(env.single_observation_space, env.single_action_space):
            return env
        return MasksInObservations(env, certain=bool(self.masks))

    def _how(self) -> GymSpec | Callable[..., Any] | None:
        """Return what makes a new environment: a Gymnasium spec, or the user's class or function; None for neither."""
        if _is_device(self.given):
            from renshu.envs.gymnasium.device_as_gym import GymEnv

            return partial(GymEnv, self.given, time_limit=True)
        if isinstance(self.given, gymnasium.Env | VectorEnv):
            return None
        return self.gym_spec or self.given

    def _fresh(self, **options: Any) -> gymnasium.Env:
        how = self._how()
        if how is None:
            return self._copy("copy", "evaluate(env=...)")
        env = make_one(how, self.name, {**self.kwargs, **options}, self.limit)
        if env.unwrapped in self.made:
            raise SpaceError(f"{self.name} gave the same environment again: it must make a new one at each call")
        self.made.add(env.unwrapped)
        return env

    def _copy(self, what: str, instead: str) -> Any:
        """Copy the object that was given, as it is now: with all that was set in it, and the statistics of wrappers."""
        try:
            return copied(self.given)
        except Exception as error:
            reason = f" ({type(error).__name__}: {error})"
            raise SpaceError(self._cannot(what, instead) + reason) from error

    def _in_process(self, num_envs: int) -> VectorEnv:
        spec = self.gym_spec
        if (game := self.atari) is not None and spec and game.engine != "gymnasium":
            return explained(self.name, spec, partial(atari.vector, spec, game, num_envs))
        known = isinstance(self.given, str) and spec and spec.vector_entry_point and not spec.additional_wrappers
        if known and not atari.is_atari(spec):
            make = partial(gymnasium.make_vec, cast(GymSpec, spec), num_envs, **self.kwargs)
            return next_step(explained(self.name, spec, make))
        return self._sync([self._fresh() for _ in range(num_envs)])

    def _sync(self, envs: list[gymnasium.Env]) -> VectorEnv:
        if len({id(env.unwrapped) for env in envs}) < len(envs):
            raise SpaceError(f"{self.name} gave the same environment twice: it must make a new one at each call")
        guards = [CheckedEnv(env, index, self.name) for index, env in enumerate(envs)]
        try:
            return SyncVectorEnv([lambda guard=guard: guard for guard in guards])
        except (AssertionError, RuntimeError) as error:
            raise SpaceError(f"the environments of {self.name} must all have the same spaces: {error}") from error

    def _part(self, index: int, what: str, instead: str, **options: Any) -> gymnasium.Env:
        """Make one environment like those in the given vector environment: a copy, where they are in this process."""
        spec, fns, envs = self.gym_spec, getattr(self.given, "env_fns", None), getattr(self.given, "envs", None)
        if type(self.given).__module__.startswith(_ADAPTERS):
            raise SpaceError(
                f"cannot {what} {self.name}: its rows are agents of one game, which end at different times"
            )
        if not isinstance(self.given, VectorWrapper):
            if isinstance(envs, Sequence) and envs:
                return EnvSource(envs[index % len(envs)], self.name)._copy(what, instead)
            if spec and spec.entry_point and "wrappers" not in spec.kwargs:
                warnings.warn(
                    f"{self.name} is made anew to {what} it, as it is registered: what was changed in the vector "
                    f"environment is not in it. To have it there call {instead}",
                    stacklevel=4,
                )
                kwargs = {name: value for name, value in spec.kwargs.items() if name not in _VECTOR_ONLY}
                spec = copy.copy(spec)
                spec.kwargs = {}  # all go to gymnasium.make, which alone knows max_episode_steps
                return make_one(spec, self.name, {**kwargs, **options}, None)
            if isinstance(fns, Sequence) and fns:
                return make_one(fns[index % len(fns)], self.name, {}, None)
        raise SpaceError(self._cannot(what, instead))

    def _cannot(self, what: str, instead: str) -> str:
        return (
            f"cannot {what} {self.name} apart from the one that trains, because it cannot be copied. Pass a function "
            f"that makes one instead of the object, or call {instead}"
        )


# Worker processes import this module, and JAX would cost each a second and 100 MB: it is imported only when needed.


def _adapted(env: Any) -> Any:
    """Adapt another library's environment where that is possible; return anything else as it is."""
    if isinstance(env, str | gymnasium.Env | VectorEnv):
        return env
    from renshu.envs.adapters import adapt

    return adapt(env) or env


def _is_device(env: Any) -> bool:
    if isinstance(env, str | gymnasium.Env | VectorEnv):
        return False
    from renshu.envs.device import DeviceEnv

    return isinstance(env, DeviceEnv)


def _masked_device(env: DeviceEnv) -> DeviceEnv:
    from renshu.envs.device import MaskedDeviceEnv

    takes = env.gives_masks and may_take_mask(env.observation_space, env.action_space)
    return MaskedDeviceEnv(env) if takes else env


def _device_vector(env: DeviceEnv, num_envs: int) -> VectorEnv:
    from renshu.envs.gymnasium.device_as_gym import GymVectorEnv

    return GymVectorEnv(env, num_envs)


def _itself(env: gymnasium.Env) -> gymnasium.Env:
    return env


def _rendering(env: gymnasium.Env, render_mode: str | None) -> gymnasium.Env:
    """Let a copy render in another mode than its original was made with, if it knows it."""
    base = env.unwrapped
    if render_mode is not None and render_mode in base.metadata.get("render_modes", ()):
        base.render_mode = render_mode
    return env


def _short(name: str) -> str:
    return re.sub(r"[^\w.-]", "", re.split("[/:]", name)[-1]) or "environment"
