"""Actors of the cluster loop: each holds some of the environments, and collects when it is asked to."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from time import perf_counter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from renshu import runtime
from renshu.algorithms.base import Algorithm
from renshu.envs.device import DeviceEnv, DeviceEnvs, episodes_of
from renshu.envs.gymnasium.alarm import LimitedEnvs, limited
from renshu.envs.gymnasium.vector import HostEnvs
from renshu.envs.source import EnvSource
from renshu.loops.collector import Collected, Collector
from renshu.loops.compiled import TrainIteration, check_faults
from renshu.loops.programs import Programs, compiler_options
from renshu.types import Array, EnvSpec, Key, PyTree


@dataclass(frozen=True)
class ActorSetup:
    """Everything that an actor is made from.

    spec: of the learner, for the environments of all actors. source, decode_action: its environments, and the way from
    the learner's actions to theirs. num_envs: of each actor. key: data of the root key of acting. seed: of the
    environments. start: the iteration at which training begins. alone: one actor has all environments.
    """

    algorithm: Algorithm
    spec: EnvSpec
    source: EnvSource
    decode_action: Callable[[Any], Any]
    num_envs: int
    key: np.ndarray
    seed: int
    start: int
    alone: bool
    processes: bool = False
    timeout: float = 120.0


class Sent(NamedTuple):
    """A rollout on its way to the learner.

    version: number of the published actor state that acted. number: how many the same environments gave before, since
    they were made. seconds: choosing actions, stepping, and the whole. place: host and process.
    """

    collected: Collected
    version: int
    number: int
    seconds: tuple[float, float, float]
    place: tuple[str, int]


def versions() -> dict[str, str]:
    """Versions that a driver and its actors must have in common."""
    found = {name: version(name) for name in ("renshu", "jax", "gymnasium", "numpy")}
    return {"python": ".".join(platform.python_version_tuple()[:2]), **found}


def group_key(key: Key, first: int) -> Key:
    """Return the root key of the environments that begin at number `first`; those from 0 have the root itself."""
    return key if first == 0 else jax.random.fold_in(key, first)


def group_seed(seed: int, first: int, begun_late: int) -> int:
    """Return the seed of the environments from number `first`: as if all were reset at once.

    begun_late: 0 at the start of training; otherwise a number of the rollout before which they are made anew.
    """
    if not begun_late:
        return (seed + first) % 2**31
    return int(np.random.SeedSequence([seed, first, begun_late]).generate_state(1)[0] % 2**31)


class Actor:
    """Environments `group * num_envs` and so on. They are made by the first `collect`, and anew after a fault."""

    def __init__(self, setup: ActorSetup, group: int) -> None:
        runtime.prepare()
        self.setup, self.first = setup, group * setup.num_envs
        self.programs = Programs(setup.algorithm.build(setup.spec))
        self.env_id = () if setup.alone else np.arange(self.first, self.first + setup.num_envs, dtype=np.int32)
        self.key = group_key(jax.random.wrap_key_data(jnp.asarray(setup.key)), self.first)
        self.place = platform.node(), os.getpid()
        self._collector: Collector | DeviceCollector | None = None
        self._acting: tuple[int, PyTree] = (-1, None)
        self._number = 0

    def collect(self, published: tuple[int, PyTree], iteration: int) -> Sent:
        """Collect a rollout. published: number and contents of an actor state. iteration: names its random numbers.

        Raises EnvironmentFault, NotFiniteError: the environments are closed then, and made anew by the next call.
        """
        began = perf_counter()
        if published[0] != self._acting[0]:
            self._acting = published[0], jax.tree.map(jnp.asarray, published[1])
        try:
            with limited(self.setup.source.name, self.setup.timeout) as alarmed:
                if self._collector is None:
                    self._collector, self._number = self._begin(iteration, alarmed), 0
                clock = self._collector.clock
                before = clock.act, clock.env
                keys = self.programs.keys(self.key, iteration)
                collected = self._collector.collect(self._acting[1], keys, iteration=iteration)
        except BaseException:
            self.close()
            raise
        self._number += 1
        seconds = clock.act - before[0], clock.env - before[1], perf_counter() - began
        return Sent(_on_host(collected), published[0], self._number - 1, seconds, self.place)

    def close(self) -> None:
        """Close the environments."""
        collector, self._collector = self._collector, None
        if isinstance(collector, Collector):
            collector.envs.close()

    def _begin(self, iteration: int, alarmed: bool) -> Collector | DeviceCollector:
        setup = self.setup
        shared = self.programs.learner.needs.common_seeds > 1
        # Episodes that members of a population share are drawn alike everywhere, also after a fault.
        seed = setup.seed if shared else group_seed(setup.seed, self.first, iteration - setup.start)
        how: dict[str, Any] = {"seed": seed, "env_id": self.env_id}
        if setup.source.device is not None:
            made = DeviceCollector(self.programs, setup.source.device, setup.num_envs, setup.decode_action, **how)
            made.catch_up(iteration if shared else 0)
            return made
        vector = setup.source.vector(setup.num_envs, processes=setup.processes, timeout=setup.timeout)
        envs = (LimitedEnvs if alarmed else HostEnvs)(vector, setup.timeout, setup.source.name, seed)
        return Collector(self.programs, envs, setup.decode_action, **how)


class DeviceCollector:
    """Environments that are pure functions, with the actor's memory in them: a rollout is one program."""

    def __init__(
        self,
        programs: Programs,
        env: DeviceEnv,
        num_envs: int,
        decode_action: Callable[[Any], Any],
        *,
        seed: int,
        env_id: Array = (),
    ) -> None:
        from renshu.loops.report import Clock

        self.clock, self.name = Clock(), env.name
        self.steps = programs.learner.needs.steps
        self._envs = DeviceEnvs(env, num_envs, episodes_of(programs.learner.needs.common_seeds, num_envs, env_id))
        iteration = TrainIteration(programs.learner, self._envs, decode_action, env_id=env_id)
        options = compiler_options(programs.learner)
        self._collect = jax.jit(iteration.collect, donate_argnums=1, compiler_options=options)
        self._loop_state = jax.jit(iteration.start)(jax.random.key(np.uint32(seed)))

    def catch_up(self, rollouts: int) -> None:
        """Come to where the root of the environments' randomness is after so many fresh rollouts."""
        envs = self._loop_state.envs
        key = self._envs.root_later(envs.key, np.int32(rollouts))
        self._loop_state = self._loop_state._replace(envs=envs._replace(key=key))

    def collect(self, actor_state: PyTree, keys: Key, began: int = 0, iteration: int = 0) -> Collected:
        """Step the environments as often as the learner needs. Raises NotFiniteError for NaN and infinity."""
        tick = perf_counter()
        self._loop_state, rollout, stats = self._collect(actor_state, self._loop_state, keys[: self.steps])
        ended = np.asarray(stats.ended)
        self.clock.env += perf_counter() - tick
        check_faults(stats.faults, self.name, " in a rollout. Nothing was learned from it")
        info = {name: np.asarray(numbers) for name, numbers in stats.info.items()}
        infos = {(t, n): {name: float(x[t, n]) for name, x in info.items()} for t, n in np.argwhere(ended).tolist()}
        return Collected(rollout, np.asarray(rollout.reward), ended, infos if info else {})


def _on_host(collected: Collected) -> Collected:
    """Return a rollout as NumPy arrays, which any process can read."""
    return collected._replace(rollout=jax.tree.map(np.asarray, collected.rollout))
