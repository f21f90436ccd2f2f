"""Backends: Gymnasium environments under the host loop, DeviceEnvs under the compiled one."""

from __future__ import annotations

from collections.abc import Callable, Generator
from itertools import count
from typing import Any

import gymnasium
import jax
import numpy as np

from renshu import runtime
from renshu.algorithms.base import Learner
from renshu.envs.checks import fingerprint
from renshu.envs.device import DeviceEnv, DeviceEnvs, episodes_of
from renshu.envs.gymnasium.vector import HostEnvs
from renshu.envs.players import RandomPlayer
from renshu.envs.seats import opponents_of, replaced, seat
from renshu.envs.source import EnvSource
from renshu.errors import CheckpointError, HyperparameterError, SpaceError
from renshu.files.checkpoint import named
from renshu.loops.compiled import CompiledLoop, LoopState, TrainIteration, check_faults, without_keys
from renshu.loops.evaluation import CompiledEvaluation, Evaluation, evaluate
from renshu.loops.host import HostLoop
from renshu.loops.programs import Programs
from renshu.types import Array, EnvSpec, Key, PyTree, Rollout

LOOPS = ("host", "compiled", "cluster")
ROLLOUT_STEPS = 512
"""Steps of all environments together in a rollout that only records, about."""


def make_backend(
    source: EnvSource,
    num_envs: int | None,
    *,
    loop: str | None,
    processes: bool,
    timeout: float,
    seed: int | None = None,
    default_num_envs: int = 1,
) -> HostBackend | CompiledBackend:
    """Choose the loop for an environment, or take the requested one. seed: of the first reset of training.

    default_num_envs: environments where neither a number is given nor a vector environment, which has its own.
    Raises HyperparameterError for an unknown loop, SpaceError where the environment cannot be compiled.
    """
    runtime.prepare()
    if loop not in (None, *LOOPS):
        raise HyperparameterError(f'loop={loop!r}: expected "host", "compiled" or None, which chooses')
    device = source.device
    if num_envs is None and not isinstance(source.given, gymnasium.vector.VectorEnv):
        num_envs = default_num_envs
    if loop == "compiled" and device is None:
        raise SpaceError(
            f'loop="compiled" needs a DeviceEnv, an environment of pure functions, and {source.name} is none. '
            "`renshu list` shows those that there are"
        )
    if loop == "compiled" and processes:
        raise HyperparameterError('processes=True is for loop="host": a compiled loop has no environments in processes')
    if device is None or loop == "host" or processes:
        return HostBackend(source, num_envs, processes, timeout, seed)
    return CompiledBackend(source, device, num_envs or 1)


def refuse_self_play(source: EnvSource) -> None:
    """Raise SpaceError where opponents are copies of the learner's past, which the compiled loop alone has."""
    if source.device is not None and opponents_of(source.device) is not None:
        raise SpaceError(f'opponent="self" is for loop="compiled", which has the copies to play {source.name} with')


class HostBackend:
    """Environments that step in Python. They are made when first needed, or to read their spaces."""

    loop_name = "host"

    def __init__(
        self, source: EnvSource, num_envs: int | None, processes: bool, timeout: float, seed: int | None = None
    ) -> None:
        processes = processes or source.console is not None
        self.source, self.num_envs, self.processes, self.timeout = source, num_envs or 1, processes, timeout
        self.seed = seed
        self._envs: HostEnvs | None = None
        self._seen: bytes | None = None
        self._evaluation_envs: dict[int, HostEnvs] = {}
        self._owned = not isinstance(source.given, gymnasium.Env | gymnasium.vector.VectorEnv)
        if isinstance(source.given, gymnasium.vector.VectorEnv):
            self.source = source = source.repeated(num_envs or source.given.num_envs)
            self.num_envs = source.given.num_envs

    @property
    def envs(self) -> HostEnvs:
        """The environments to train in."""
        if self._envs is None:
            vector = self.source.vector(self.num_envs, processes=self.processes, timeout=self.timeout)
            self._envs = HostEnvs(vector, self.timeout, self.source.name, self.seed)
        return self._envs

    def note(self) -> None:
        """Remember how an object that belongs to the user stands, at the end of a training."""
        if not self._owned:
            self._seen = fingerprint(self.source.given)

    def touched(self) -> bool:
        """Tell whether such an object was reset or stepped since, or could have been without a trace."""
        return not self._owned and (self._seen is None or fingerprint(self.source.given) != self._seen)

    @property
    def name(self) -> str:
        """Name of the environment."""
        return self.source.name

    def use_masks(self, masks: bool) -> None:
        """Let the environments that are made from now on give masks, or not."""
        self.source = self.source.with_masks(masks)

    def spec(self) -> EnvSpec:
        """Describe the environments for a learner."""
        return self.source.spec(self.envs.vector_env, self.num_envs)

    def probe_spec(self) -> EnvSpec:
        """Describe them by one environment that is made for this alone, unless they are all made already."""
        if isinstance(self.source.given, gymnasium.vector.VectorEnv):
            return self.spec()
        vector = self.source.vector(1, processes=self.processes, timeout=self.timeout)
        if self._owned:
            vector.close()
        return self.source.spec(vector, self.num_envs)

    def check(self, learner: Learner) -> None:
        """Raise SpaceError where a learner needs what these environments do not give."""
        refuse_self_play(self.source)
        if learner.spec.players > 1:
            raise SpaceError(
                f"{type(learner.config).__name__} moves for all players of {self.source.name}, and "
                'loop="host" has one seat: leave loop= and processes= out, which takes the compiled loop'
            )
        if learner.needs.env_state and (self.source.device is None or self.processes):
            raise SpaceError(
                f"{type(learner.config).__name__} plans in the environment's own state, and {self.source.name} "
                "gives none: put it on a DeviceEnv, without processes=True. `renshu list` shows those that there are"
            )

    def make_loop(
        self, programs: Programs, state: Any, decode_action: Callable, *, snapshot: PyTree = None, **options: Any
    ) -> HostLoop:
        """Make a loop on freshly reset environments. snapshot: not used, since these cannot be saved."""
        return HostLoop(programs, state, self.envs, decode_action, **options)

    def evaluate(
        self, programs: Programs, actor_state: PyTree, decode_action: Callable, *, count: int, **options: Any
    ) -> Evaluation:
        """Run whole episodes in `count` environments apart from those of training; see `loops.evaluation.evaluate`."""
        envs = self._evaluation_envs.pop(count, None)
        envs = envs or self._apart(count)
        limited = self.source.spec(envs.vector_env, count).max_episode_steps is not None
        result = evaluate(programs, actor_state, envs, decode_action, limited=limited, **options)
        if self._owned:
            self._evaluation_envs[count] = envs  # only now: after a fault they would be of no use
        else:
            envs.close()  # copies of an object, which may be another by the next time
        return result

    def rollouts(
        self, programs: Programs, state: Any, decode_action: Callable, *, key: Key, seed: int
    ) -> Generator[Rollout]:
        """Yield rollouts that follow on each other, endlessly, in environments apart from those of training."""
        envs = self._apart(self.num_envs)
        try:
            loop = HostLoop(programs, state, envs, decode_action, key=key, seed=seed)
            while True:
                collected = loop.collect()
                loop.iteration += 1
                loop.episodes.add(*collected.of_episodes)
                yield collected.rollout
        finally:
            envs.close()

    def _apart(self, count: int) -> HostEnvs:
        """Make environments apart from those of training: in processes as they are, which a fault ends alone."""
        made = (
            self.source.vector(count, processes=True, timeout=self.timeout)
            if self.processes
            else self.source.evaluation(count)
        )
        return HostEnvs(made, self.timeout, self.source.name)

    def close_training(self) -> None:
        """Close the environments of training; the next loop gets new ones."""
        envs, self._envs = self._envs, None
        if envs is not None:
            envs.close()

    def close_own(self) -> None:
        """Close everything, unless the environment is an object that belongs to the user."""
        if self._owned:
            self.close()

    def close(self) -> None:
        """Close everything."""
        self.close_training()
        for envs in self._evaluation_envs.values():
            envs.close()
        self._evaluation_envs.clear()


class CompiledBackend:
    """Environments on the device: nothing to open, nothing to close."""

    loop_name = "compiled"
    processes = False

    def __init__(self, source: EnvSource, env: DeviceEnv, num_envs: int) -> None:
        self.source, self.env, self.num_envs = source, env, num_envs
        self._evaluations: dict[tuple[int, Learner], CompiledEvaluation] = {}

    name, use_masks = HostBackend.name, HostBackend.use_masks

    def spec(self) -> EnvSpec:
        """Describe the environments for a learner."""
        return self.source.device_spec(self.num_envs)

    probe_spec = spec

    def check(self, learner: Learner) -> None:
        """Do nothing: a DeviceEnv gives all that a learner may need."""

    def make_loop(
        self, programs: Programs, state: Any, decode_action: Callable, *, snapshot: PyTree = None, **options: Any
    ) -> CompiledLoop:
        """Make a loop on freshly reset environments, or on those of a `snapshot`.

        Raises CheckpointError where the snapshot does not fit.
        """
        if snapshot is not None and (differing := self.mismatches(programs.learner, snapshot)):
            raise CheckpointError(
                f"where {self.source.name} stood when the agent was saved does not fit {self.source.name} as it is now "
                f"({', '.join(differing[:3])}). To begin in new environments name it, as in load(path, env=...)"
            )
        envs = self._envs(programs.learner)
        return CompiledLoop(programs, state, envs, decode_action, snapshot=snapshot, **options)

    def _envs(self, learner: Learner) -> DeviceEnvs:
        return DeviceEnvs(self.env, self.num_envs, episodes_of(learner.needs.common_seeds, self.num_envs))

    def mismatches(self, learner: Learner, snapshot: PyTree) -> list[str]:
        """Names of the arrays in a loop's snapshot that are missing, too many, or of another shape or dtype."""
        start = TrainIteration(learner, DeviceEnvs(self.env, self.num_envs), lambda action: action).start
        wanted = named(jax.eval_shape(lambda key: without_keys(start(key)), jax.random.key(0)))
        found = named(snapshot)
        kinds = [{name: (x.shape, x.dtype) for name, x in leaves.items()} for leaves in (wanted, found)]
        return sorted(name for name in {**wanted, **found} if kinds[0].get(name) != kinds[1].get(name))

    def evaluate(
        self,
        programs: Programs,
        actor_state: PyTree,
        decode_action: Callable,
        *,
        count: int,
        episodes: int,
        deterministic: bool,
        seed: int,
        key: Key,
    ) -> Evaluation:
        """Run whole episodes in `count` environments apart from those of training."""
        known = count, programs.learner
        if known not in self._evaluations:
            env = seat(self.env)
            if opponents_of(env) is not None:  # copies that never were would be no measure
                env = replaced(env, RandomPlayer())
            self._evaluations[known] = CompiledEvaluation(programs.learner, DeviceEnvs(env, count), decode_action)
        return self._evaluations[known](actor_state, episodes=episodes, deterministic=deterministic, seed=seed, key=key)

    def rollouts(
        self, programs: Programs, state: Any, decode_action: Callable, *, key: Key, seed: int
    ) -> Generator[Rollout]:
        """Yield rollouts that follow on each other, endlessly, in environments apart from those of training."""
        envs = self._envs(programs.learner)
        iteration = TrainIteration(programs.learner, envs, decode_action)
        steps = programs.learner.needs.steps
        # Where whole episodes are asked for, these are the rollout; of others, long ones are cheaper.
        length = steps if programs.learner.needs.fresh else max(steps, ROLLOUT_STEPS // self.num_envs)

        def collect(loop_state: LoopState, i: Array) -> tuple[LoopState, Rollout, Array]:
            keys = jax.random.split(jax.random.fold_in(key, i), length)
            after, rollout, stats = iteration.collect(programs.learner.actor_state(state), loop_state, keys)
            return after, rollout, stats.faults

        loop_state, collect = jax.jit(iteration.start)(jax.random.key(np.uint32(seed))), jax.jit(collect)
        for i in count():
            loop_state, rollout, faults = collect(loop_state, np.int32(i))
            check_faults(faults, self.source.name)
            yield rollout

    def close_training(self) -> None:
        """Do nothing: there is nothing to close."""

    close_own = close = close_training
