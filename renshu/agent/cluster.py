"""The backend of the cluster loop: environments that actors hold elsewhere."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import gymnasium
import jax
import numpy as np

from renshu import runtime
from renshu.agent.backends import CompiledBackend, HostBackend, make_backend, refuse_self_play
from renshu.algorithms.base import Algorithm, Learner
from renshu.envs.source import EnvSource
from renshu.errors import HyperparameterError, SpaceError
from renshu.loops import ray_actors
from renshu.loops.actors import ActorSetup
from renshu.loops.cluster import ClusterLoop
from renshu.loops.cluster_settings import Cluster
from renshu.loops.programs import Programs
from renshu.types import EnvSpec, PyTree


class ClusterBackend:
    """Environments in groups of `num_envs`, each with an actor; those for evaluation are made here.

    Raises SpaceError for an environment that is an object, of which there is one only.
    """

    loop_name = "cluster"

    def __init__(
        self, source: EnvSource, num_envs: int | None, settings: Cluster, processes: bool, timeout: float
    ) -> None:
        if isinstance(source.given, gymnasium.Env | gymnasium.vector.VectorEnv):
            raise SpaceError(
                f'loop="cluster" makes environments in other processes, and {source.name} is one that exists here: '
                "pass its id, its class or a function that makes one"
            )
        self.group_envs, self.settings, self.processes, self.timeout = num_envs or 1, settings, processes, timeout
        device = source.device
        self.local: HostBackend | CompiledBackend = (
            HostBackend(source, self.group_envs, processes, timeout)
            if device is None
            else CompiledBackend(source, device, self.group_envs)
        )
        self._actors: Any = None
        self._evaluator: Any = None
        self._loop: ClusterLoop | None = None

    @property
    def source(self) -> EnvSource:
        """The environment."""
        return self.local.source

    @property
    def name(self) -> str:
        """Name of the environment."""
        return self.local.name

    def use_masks(self, masks: bool) -> None:
        """Let environments give masks, or not."""
        self.local.use_masks(masks)

    def spec(self) -> EnvSpec:
        """Describe the environments of all workers for a learner, by one that is made for this alone."""
        local = self.local
        probe = HostBackend(local.source, 1, self.processes, self.timeout) if isinstance(local, HostBackend) else local
        try:
            return dataclasses.replace(probe.spec(), num_envs=self.settings.workers * self.group_envs)
        finally:
            probe.close()

    probe_spec = spec

    def arranged(self, algorithm: Algorithm, spec: EnvSpec) -> EnvSpec:
        """Return a spec with the environments of an update as the mode of an algorithm has them.

        Raises HyperparameterError where the mode that was asked for is not for this algorithm.
        """
        settings, n = self.settings, self.group_envs
        together = dataclasses.replace(spec, num_envs=settings.workers * n, rollout_envs=None)
        some = dataclasses.replace(spec, num_envs=settings.room * n, rollout_envs=settings.batch * n)
        if settings.mode in ("synchronous", "lockstep"):
            return together
        try:
            learner = algorithm.build(together)
        except HyperparameterError:
            # Minibatches, say, of an update of all workers, which an asynchronous one is not.
            learner = algorithm.build(some)
            if learner.needs.max_lag == 0:
                raise
        mode = settings.mode_for(type(algorithm).__name__, learner.needs.max_lag)
        if mode == "synchronous":
            return together
        return dataclasses.replace(some, rollout_envs=n) if hasattr(learner, "observe") else some

    def check(self, learner: Learner) -> None:
        """Raise HyperparameterError or SpaceError where Ray or a learner needs what is not there."""
        ray_actors.check(self.settings.address)
        self.settings.mode_for(type(learner.config).__name__, learner.needs.max_lag)
        refuse_self_play(self.source)
        if learner.spec.players > 1:
            raise SpaceError(
                f"{type(learner.config).__name__} moves for all players of {self.source.name}, and actors have one "
                "seat: leave workers= out, which takes the compiled loop"
            )
        self.local.check(learner)

    def described(self, learner: Learner) -> str:
        """Describe the mode and the workers."""
        needs, settings = learner.needs, self.settings
        mode = settings.mode_for(type(learner.config).__name__, needs.max_lag)
        late = "" if needs.max_lag is None else f", no more than {needs.max_lag} updates late"
        more = f"{late}; room for {settings.room} workers" if mode == "asynchronous" else ""
        return f"cluster, {mode}: {settings.workers} workers with {self.group_envs} environments each{more}"

    def make_loop(
        self,
        programs: Programs,
        state: Any,
        decode_action: Callable,
        *,
        key: Any,
        seed: int,
        iteration: int,
        snapshot: PyTree = None,
        **options: Any,
    ) -> ClusterLoop:
        """Start the actors, on freshly reset environments. snapshot: not used, since those cannot be saved."""
        learner, settings = programs.learner, self.settings
        mode = settings.mode_for(type(learner.config).__name__, learner.needs.max_lag)
        setup = ActorSetup(
            algorithm=learner.config,
            spec=learner.spec,
            source=self.source,
            decode_action=decode_action,
            num_envs=self.group_envs,
            key=np.asarray(jax.random.key_data(key)),
            seed=seed,
            start=iteration,
            alone=learner.spec.rollout_envs is None and settings.workers == 1,
            processes=self.processes,
            timeout=self.timeout,
        )
        self.close_training()
        self._actors = ray_actors.RayActors(setup, settings.address, settings.room)
        how: dict[str, Any] = {"mode": mode, "num_envs": self.group_envs, "key": key, "iteration": iteration}
        self._loop = ClusterLoop(programs, state, self._actors, settings, **how, **options)
        return self._loop

    @property
    def workers(self) -> int:
        """Number of actors, as it is wanted now."""
        return self.settings.workers if self._loop is None else self._loop.workers

    def resize(self, workers: int) -> None:
        """Let actors come or go. Raises HyperparameterError where the mode holds their number, or for lack of room."""
        loop = self._loop
        if loop is not None and loop.mode != "asynchronous":
            raise HyperparameterError(
                f'mode="{loop.mode}" learns from all {loop.workers} workers together: they come and go in '
                'mode="asynchronous" alone'
            )
        if workers > self.settings.room:
            raise HyperparameterError(
                f"workers={workers}: there is room for {self.settings.room}. Give more with "
                f"cluster=Cluster(max_workers={workers})"
            )
        if loop is None:
            raise HyperparameterError("workers come and go during training: call learn, and set them in a callback")
        loop.workers = workers

    def evaluator(self, kind: type) -> Any:
        """Return the actor that evaluates during training; it is made when it is first asked for."""
        if self._evaluator is None:
            import ray

            # No CPU of its own: workers may hold all that there are, for as long as they live.
            self._evaluator = ray.remote(max_restarts=-1, max_task_retries=3, num_cpus=0)(kind).remote()
        return self._evaluator

    def evaluate(self, *args: Any, **options: Any) -> Any:
        """Run whole episodes in environments of this process; see `HostBackend.evaluate`."""
        return self.local.evaluate(*args, **options)

    def close_training(self) -> None:
        """End the actors; the next loop gets new ones."""
        actors, self._actors, self._loop, self._evaluator = self._actors, None, None, None
        if actors is not None:
            actors.close()

    def close(self) -> None:
        """Close everything."""
        self.close_training()
        self.local.close()

    close_own = close


def backend_for(
    source: EnvSource,
    num_envs: int | None,
    *,
    loop: str | None,
    cluster: Cluster | None,
    algorithm: Algorithm | None = None,
    **how: Any,
) -> HostBackend | CompiledBackend | ClusterBackend:
    """Make the backend of a loop; see `make_backend`. num_envs: of each worker, where a cluster trains.

    algorithm: says how many there are of all together where no number is given.
    """
    default_num_envs = 1 if algorithm is None else algorithm.default_num_envs
    if cluster is None:
        return make_backend(source, num_envs, loop=loop, default_num_envs=default_num_envs, **how)
    runtime.prepare()
    count = num_envs or (None if default_num_envs == 1 else -(-default_num_envs // cluster.workers))
    return ClusterBackend(source, count, cluster, how["processes"], how["timeout"])


def backend_again(
    source: EnvSource, spec: EnvSpec, *, cluster: Cluster | None, **how: Any
) -> HostBackend | CompiledBackend | ClusterBackend:
    """Make a backend with as many environments as a spec has; a vector environment has its own number."""
    count = spec.num_envs if cluster is None else group_size(cluster, spec)
    several = isinstance(source.given, gymnasium.vector.VectorEnv)
    return backend_for(source, None if several else count, cluster=cluster, **how)


def settings_for(loop: str | None, workers: int | None, cluster: Cluster | None) -> Cluster | None:
    """Return the settings of the cluster loop that the options of an agent ask for; None where they do not.

    Raises HyperparameterError where they contradict each other.
    """
    if workers is None and cluster is None and loop != "cluster":
        return None
    if loop not in (None, "cluster"):
        raise HyperparameterError(f'workers= and cluster= are for loop="cluster", not for loop={loop!r}')
    if cluster is not None and not isinstance(cluster, Cluster):
        raise HyperparameterError(
            f"cluster={cluster!r}: give renshu.Cluster(...), as in cluster=Cluster(mode='lockstep')"
        )
    found = cluster or Cluster()
    return found if workers is None else dataclasses.replace(found, workers=workers)


def group_size(cluster: Cluster, spec: EnvSpec) -> int:
    """Return the environments of each worker in a spec that `ClusterBackend.arranged` returned."""
    return max(1, spec.num_envs // (cluster.workers if spec.rollout_envs is None else cluster.room))
