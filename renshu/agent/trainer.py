"""Trainer: a learner, its environments, the loop that runs there, and the progress made."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import jax
import numpy as np

from renshu import runtime
from renshu.agent.backends import CompiledBackend, HostBackend
from renshu.agent.cluster import ClusterBackend, backend_again, backend_for, settings_for
from renshu.agent.offline import OfflineBackend
from renshu.agent.opponents import seated, seated_again
from renshu.agent.options import COUNT, OPTIONS, SEED, refuse_unknown
from renshu.agent.sharing import ActingState, Copy, Shared
from renshu.algorithms import migration
from renshu.algorithms.base import Algorithm
from renshu.envs.adapt import DEFAULT_SPACES, FittedSpaces, SpaceConfig, fit_spaces
from renshu.envs.masks import has_mask
from renshu.envs.source import EnvSource
from renshu.errors import CheckpointError, HyperparameterError
from renshu.files.datasets import Dataset
from renshu.loops.programs import Programs
from renshu.loops.report import Clock, Finished, Pace
from renshu.tracking.recent import Recent
from renshu.types import EnvSpec, PyTree

if TYPE_CHECKING:
    from renshu.loops.cluster import ClusterLoop
    from renshu.loops.cluster_settings import Cluster
    from renshu.loops.compiled import CompiledLoop
    from renshu.loops.host import HostLoop
    from renshu.loops.offline import OfflineLoop
    from renshu.tracking.run import Run

Backend = HostBackend | CompiledBackend | OfflineBackend | ClusterBackend
Loop: TypeAlias = "HostLoop | CompiledLoop | OfflineLoop | ClusterLoop"

TIMEOUT = 120.0
MOST_STEPS = 2**31 - 1
"""Steps that an agent can count: compiled programs do so in 32 bits."""
FIRST = (0, 0, 0)
"""Use of the seed of the first episodes of training: environments of training, no restarts, no steps."""


@partial(jax.jit, static_argnums=1)
def root_keys(seed: int, count: int) -> list[jax.Array]:
    """Keys folded from one seed: of initialisation, training, predictions, evaluation."""
    return [jax.random.fold_in(jax.random.key(seed), i) for i in range(count)]


def derived_seed(seed: int, *stream: int) -> int:
    """Derive a seed for the use that the numbers name: far from those of neighbours, which would share environments."""
    return int(np.random.SeedSequence([seed, *stream]).generate_state(1)[0] % 2**31)


def fit_spaces_for(algorithm: Algorithm, spec: EnvSpec, config: SpaceConfig) -> FittedSpaces:
    """Fit an environment to an algorithm; see `envs.adapt.fit_spaces`."""
    return fit_spaces(
        spec,
        algorithm.accepts,
        algorithm=type(algorithm).__name__,
        own_network=getattr(algorithm, "network", None) is not None,
        cnn=getattr(algorithm, "cnn", None),
        squashed=getattr(algorithm, "squash_output", False),
        config=config,
    )


class Trainer:
    """A learner in its environments, as `agent.learn` trains it; held by an Agent.

    spec: of the environments. seed: None draws one. space_config: how they are fitted to the algorithm. backend: where
    they are; None makes them as the spec says when they are first needed. loop, processes, timeout: as for Agent.

    It has no state yet: give it one by `init_state` or `restore`. Raises SpaceError, HyperparameterError.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        spec: EnvSpec,
        seed: int | None,
        space_config: SpaceConfig,
        backend: Backend | None,
        *,
        loop: str | None = None,
        processes: bool = False,
        timeout: float = TIMEOUT,
        cluster: Cluster | None = None,
    ) -> None:
        runtime.prepare()
        self.algorithm, self.space_config = algorithm, space_config
        self.requested_loop, self.processes, self.timeout, self.cluster = loop, processes, timeout, cluster
        self.backend_options = {"loop": loop, "processes": processes, "timeout": timeout, "cluster": cluster}
        self.seed = secrets.randbelow(2**31) if seed is None else SEED.check("seed", seed)
        self.keys = root_keys(np.uint32(self.seed), 4)
        if isinstance(backend, ClusterBackend):
            arranged = backend.arranged(algorithm, fit_spaces_for(algorithm, spec, space_config).spec)
            spec = replace(spec, num_envs=arranged.num_envs, rollout_envs=arranged.rollout_envs)
        self.spec = spec
        self.fitted = fit_spaces_for(algorithm, spec, space_config)
        built = backend.sized(algorithm) if isinstance(backend, OfflineBackend) else algorithm
        self.learner = built.build(self.fitted.spec)
        self.programs = Programs(self.learner)
        self.prediction_keys = Shared(self.programs.key_stream(self.keys[2]))
        self.acting = ActingState(lambda: Copy(int(self.held.counters.steps), self.actor_state))
        self.recorded_name = "environment"  # in the file that it comes from
        self.run: Run | None = None
        self.last_run: Run | None = None
        self.recent_returns, self.recent_lengths = (Recent(self.learner.needs.fresh * spec.num_envs) for _ in range(2))
        self.recent_info: dict[str, Recent] = {}
        self.target: int | None = None  # steps at which the latest call of learn ends, or was to end
        self.pace, self.outcome = Pace(0), ""  # of the latest call of learn, and why it ended
        self.failure: type[BaseException] | None = None  # with which it ended
        self._backend = backend
        self._loop: Loop | None = None
        self._state: Any = None
        self._snapshot: PyTree = None  # where a compiled loop stood
        self._iteration = self._steps = self.restarts = 0

    @classmethod
    def on(
        cls,
        algorithm: Algorithm,
        env: Any,
        *,
        num_envs: int | None,
        seed: int | None,
        loop: str | None,
        processes: bool,
        timeout: float,
        bins: int | Sequence[int] | None,
        frame_stack: int | None,
        masks: bool | None,
        max_episode_steps: int | None,
        env_kwargs: dict[str, Any] | None,
        workers: int | None = None,
        cluster: Cluster | None = None,
        opponent: Any = None,
        **unknown: Any,
    ) -> Trainer:
        """Make the trainer of an algorithm on an environment, with new parameters. Arguments: those of Agent.

        Raises UnknownNameError, SpaceError, HyperparameterError; what was opened is closed then.
        """
        refuse_unknown("on(...)", unknown, OPTIONS, migration.ON)
        takes_masks = algorithm.accepts.masks and masks is not False
        count = None if num_envs is None else COUNT.check("num_envs", num_envs)
        limit = None if max_episode_steps is None else COUNT.check("max_episode_steps", max_episode_steps)
        settings = settings_for(loop, workers, cluster)
        how: dict[str, Any] = {"loop": loop or (settings and "cluster"), "processes": processes, "timeout": timeout}
        root = secrets.randbelow(2**31) if seed is None else SEED.check("seed", seed)
        backend: Backend
        if isinstance(env, Dataset):
            if opponent is not None:
                raise HyperparameterError(f"opponent={opponent!r}: nobody plays in a data set; leave it out")
            backend = OfflineBackend(env, count, **how)
            how["loop"] = None
        else:
            how["cluster"] = settings
            source = seated(EnvSource.of(env, env_kwargs, limit), algorithm, opponent)
            source = source.with_masks(None if takes_masks else False)
            if frame_stack is None and algorithm.accepts.frame_stack:
                frame_stack = source.frame_stack
            backend = backend_for(source, count, **how, seed=derived_seed(root, *FIRST), algorithm=algorithm)
        try:
            config = DEFAULT_SPACES.override(bins, frame_stack, masks)
            spec = backend.spec()
            if masks is None:
                config = config.override(masks=takes_masks and has_mask(spec.observation_space, spec.action_space))
            backend.use_masks(config.masks)
            trainer = cls(algorithm, spec, root, config, backend, **how)
            backend.check(trainer.learner)
        except BaseException:
            backend.close_own()
            raise
        trainer.init_state()
        return trainer

    def init_state(self) -> None:
        """Begin with new parameters."""
        self._state = runtime.within_memory(self.programs.init, self.keys[0])

    def restore(self, state: Any, *, steps: int, iteration: int, snapshot: PyTree = None) -> None:
        """Go on from a state that was learned elsewhere: in an experiment, or by the agent of a file."""
        self._state, self._steps, self._iteration, self._snapshot = state, steps, iteration, snapshot
        self.target, self.restarts = int(state.counters.target), self.restarts + 1

    def transfer(self, other: Trainer) -> None:
        """Take over a copy of the state of another trainer, whose environments have the same spaces."""
        self._state = self.learner.resize(jax.tree.map(jax.numpy.copy, other.held))
        self._steps, self._iteration = other.steps, other.iteration

    # --- progress ---------------------------------------------------------------------------------------------------

    @property
    def held(self) -> Any:
        """The learner's state as it is held: a memory that a file left out is () until learning begins."""
        return self._loop.state if self._loop is not None else self._state

    @property
    def state(self) -> Any:
        """The learner's whole state, a pytree of arrays."""
        if self._loop is None and getattr(self._state, "memory", None) == ():
            made = runtime.within_memory(self.programs.init, self.keys[0])
            self._state = self._state._replace(memory=made.memory)
        return self.held

    @state.setter
    def state(self, state: Any) -> None:
        if self._loop is not None:
            self._loop.state = state
        else:
            self._state = state

    @property
    def actor_state(self) -> PyTree:
        """The part of the state that acting needs."""
        return self.learner.actor_state(self.held)

    @property
    def steps(self) -> int:
        """Environment steps learned from, over all calls of learn."""
        return self._loop.episodes.steps if self._loop is not None else self._steps

    @property
    def iteration(self) -> int:
        """Rollouts learned from."""
        return self._loop.iteration if self._loop is not None else self._iteration

    def note(self, finished: Finished) -> None:
        """Count the episodes that ended in the latest rollouts among the recent ones."""
        if not len(finished.steps):  # most rollouts end no episode, and what is recent is asked for when some do
            return
        ended, now = finished.steps.tolist(), self.steps
        self.recent_returns.add(finished.returns, ended, now)
        self.recent_lengths.add(finished.lengths, ended, now)
        for name, numbers in finished.info.items():
            known = ~np.isnan(numbers)
            recent = self.recent_info.setdefault(name, Recent(self.recent_returns.together))
            recent.add(numbers[known], finished.steps[known].tolist(), now)

    @property
    def clock(self) -> Clock:
        """Seconds spent acting, stepping environments and learning, since the loop began."""
        return self._loop.clock if self._loop is not None else Clock()

    def target_after(self, total_steps: int | None) -> int:
        """Return the steps to reach by `total_steps` more than there are, or by the earlier target for None.

        Raises HyperparameterError where there is no target, or nothing would be learned until then.
        """
        if total_steps is not None:
            target = self.steps + COUNT.check("total_steps", total_steps)
            if target > MOST_STEPS:
                raise HyperparameterError(
                    f"total_steps={total_steps:,} ends at step {target:,}, and steps are counted to {MOST_STEPS:,} only"
                )
        elif self.target is None or self.target <= self.steps:
            ended = "" if self.target is None else f"the training has come to its {self.target:,} steps: "
            raise HyperparameterError(f"{ended}learn needs the number of environment steps, as in learn(100_000)")
        else:
            target = self.target
        if not isinstance(self._backend, OfflineBackend):
            self.learner.check_steps(self.steps, target)
        return target

    def set_target(self, total_steps: int | None, restart: bool = True) -> int:
        """Set the target that `target_after` returns; schedules end there. With None they go on as they were.

        restart: schedules begin here; otherwise where they began before.
        """
        target = self.target_after(total_steps)
        if total_steps is not None:
            counters = self.state.counters._replace(target=jax.numpy.int32(target))
            if restart:
                counters = counters._replace(start=jax.numpy.int32(self.steps))
            self.state, self.target = self.state._replace(counters=counters), target
        return target

    # --- environments -----------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """Name of the environment."""
        return self._backend.name if self._backend is not None else self.spec.id or self.recorded_name

    @property
    def loop_name(self) -> str | None:
        """The loop that trains, "host", "compiled" or "offline"; None after loading, until there is an environment."""
        return None if self._backend is None else self._backend.loop_name

    @property
    def envs_at_once(self) -> int:
        """Environments that step now; a cluster's learner may have room for more."""
        backend = self._backend
        return backend.workers * backend.group_envs if isinstance(backend, ClusterBackend) else self.spec.num_envs

    def loop_described(self) -> str:
        """Describe the loop for a summary."""
        backend = self._backend
        return backend.described(self.learner) if isinstance(backend, ClusterBackend) else str(self.loop_name)

    @property
    def backend(self) -> Backend:
        """The environments. After loading they are made when first needed."""
        if self._backend is None:
            if self.spec.id is None or ":" in self.spec.id:
                raise CheckpointError(
                    "this agent was loaded from a file, which does not say how to make its environment: "
                    "pass it, as in load(path, env=MyEnv)"
                )
            source = seated_again(EnvSource.of(self.spec.id, dict(self.spec.kwargs)), self.algorithm, self.spec)
            self._backend = backend_again(source.with_masks(self.space_config.masks), self.spec, **self.backend_options)
        return self._backend

    @property
    def dataset(self) -> Dataset | None:
        """The data set that it learns from; None where it learns in environments."""
        return self._backend.dataset if isinstance(self._backend, OfflineBackend) else None

    def env_seed(self, *stream: int) -> int:
        """Seed of the environments for the use that the numbers name."""
        return derived_seed(self.seed, *stream)

    # --- the loop ---------------------------------------------------------------------------------------------------

    def start_loop(self, uninterrupted: Callable) -> Loop:
        """Return the loop of the last call of learn, or a new one on fresh environments."""
        if self._loop is None:
            ways = {"encode_action": self.fitted.encode_action} if isinstance(self.backend, OfflineBackend) else {}
            self._loop = self.backend.make_loop(
                self.programs,
                self.state,
                self.fitted.decode_action,
                **ways,
                key=self.keys[1],
                seed=self.env_seed(0, self.restarts, self._steps),
                iteration=self._iteration,
                steps=self._steps,
                snapshot=self._snapshot,
            )
        elif isinstance(self._backend, HostBackend) and self._backend.touched():
            self._loop.begin_anew()  # type: ignore[union-attr]  a host backend has a host loop
        self._loop.uninterrupted = uninterrupted
        return self._loop

    def note_environments(self) -> None:
        """Note how environments of the user's stand at the end of a training."""
        if isinstance(self._backend, HostBackend):
            self._backend.note()

    def loop_snapshot(self) -> PyTree:
        """State of the environments of training, as arrays; None in the host loop, whose cannot be saved."""
        return self._loop.snapshot() if self._loop is not None else self._snapshot

    @property
    def workers(self) -> int:
        """Number of actors in the cluster loop; 0 in others."""
        return self._backend.workers if isinstance(self._backend, ClusterBackend) else 0

    def resize_cluster(self, workers: int) -> None:
        """Let actors of the cluster loop come or go."""
        if not isinstance(self._backend, ClusterBackend):
            raise HyperparameterError(f'workers={workers} is for loop="cluster"; this agent learns in another')
        self._backend.resize(COUNT.check("workers", workers))

    @property
    def cluster_loop(self) -> Any:
        """The loop that knows a cluster's workers and its account; None before training, and in other loops."""
        return self._loop if isinstance(self._backend, ClusterBackend) else None

    def settle(self) -> dict[str, float]:
        """Let what is under way arrive, where that is not waited for. Returns metrics that are newer by that."""
        return self.cluster_loop.finish() if self.cluster_loop is not None else {}

    def pause(self) -> None:
        """Leave the loop, with all that was learned; the next call of learn begins new episodes."""
        self._state, self._iteration, self._steps = self.held, self.iteration, self.steps
        self._loop = self._snapshot = None
        self.restarts += 1

    def reset_environments(self) -> None:
        """Forget the environments of training, as after a fault; the next call of learn starts with new ones."""
        self.pause()
        if self._backend is not None:
            self._backend.close_training()

    def close(self) -> None:
        """Close all environments. The agent can still act; new ones are made when they are needed."""
        self.reset_environments()
        if self._backend is not None:
            self._backend.close()
