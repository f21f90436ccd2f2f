"""A learner in training: its environments, the loop that runs there, and how far it has come."""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from renshu import runtime
from renshu.algorithms.base import Algorithm
from renshu.algorithms.hyperparameters import Number
from renshu.envs.adapt import Fitted, Fitting, fit
from renshu.envs.source import EnvSource
from renshu.errors import CheckpointError, HyperparameterError
from renshu.grounds import CompiledGround, HostGround, ground
from renshu.loops.programs import Programs
from renshu.loops.report import Clock
from renshu.types import EnvSpec, PyTree

if TYPE_CHECKING:
    from renshu.loops.compiled import CompiledLoop
    from renshu.loops.host import HostLoop
    from renshu.tracking.run import Run

runtime.prepare()

Ground = HostGround | CompiledGround

COUNT = Number("a number of things", integer=True, least=1)
SEED = Number("the root of all randomness", integer=True, least=0, most=2**32 - 1)
TIMEOUT = 120.0


@partial(jax.jit, static_argnums=1)
def streams(seed: int, count: int) -> list[jax.Array]:
    """Keys of one root: initialisation, training, predictions, evaluation."""
    return [jax.random.fold_in(jax.random.key(seed), i) for i in range(count)]


def fitted_to(algorithm: Algorithm, spec: EnvSpec, fitting: Fitting) -> Fitted:
    """Fit an environment to an algorithm; see `envs.adapt.fit`."""
    own = getattr(algorithm, "network", None) is not None
    return fit(spec, algorithm.accepts, algorithm=type(algorithm).__name__, own_network=own, fitting=fitting)


class Trainee:
    """What of an agent concerns its training. What a user does with it stands in `Agent`.

    spec: of the environments. seed: None draws one. fitting: how they are fitted to the algorithm. place: where they
    are; None makes them as the spec says when they are first needed. loop, processes, timeout: as for Agent.

    It has no state yet: give it one by `init_state` or `take_up`. Raises SpaceError, HyperparameterError.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        spec: EnvSpec,
        seed: int | None,
        fitting: Fitting,
        place: Ground | None,
        *,
        loop: str | None = None,
        processes: bool = False,
        timeout: float = TIMEOUT,
    ) -> None:
        self.algorithm, self.spec, self.fitting = algorithm, spec, fitting
        self.loop_wanted, self.processes, self.timeout = loop, processes, timeout
        self.seed = secrets.randbelow(2**31) if seed is None else SEED.check("seed", seed)
        self.keys = streams(np.uint32(self.seed), 4)
        self.fitted = fitted_to(algorithm, spec, fitting)
        self.learner = algorithm.build(self.fitted.spec)
        self.programs = Programs(self.learner)
        self.run: Run | None = None
        self.last_run: Run | None = None
        self.recent_returns: deque[float] = deque(maxlen=100)
        self.recent_lengths: deque[int] = deque(maxlen=100)
        self._prediction_keys = self.programs.key_stream(self.keys[2])
        self.target: int | None = None  # steps at which the latest call of learn ends, or was to end
        self._ground = place
        self._loop: HostLoop | CompiledLoop | None = None
        self._state: Any = None
        self._snapshot: PyTree = None  # where a compiled loop stood
        self._iteration = self._steps = self._restarts = 0

    def init_state(self) -> None:
        """Begin with new parameters."""
        self._state = self.programs.init(self.keys[0])

    def take_up(self, state: Any, *, steps: int, iteration: int, snapshot: PyTree = None) -> None:
        """Go on from a state that was learned elsewhere, in an experiment or by the agent that a file holds."""
        self._state, self._steps, self._iteration, self._snapshot = state, steps, iteration, snapshot
        self.target, self._restarts = int(state.counters.target), 1

    # --- how far it is ----------------------------------------------------------------------------------------------

    @property
    def state(self) -> Any:
        """The learner's whole state, a pytree of arrays."""
        return self._loop.state if self._loop is not None else self._state

    @state.setter
    def state(self, state: Any) -> None:
        if self._loop is not None:
            self._loop.state = state
        else:
            self._state = state

    @property
    def parameters(self) -> PyTree:
        """The weights, a pytree of arrays. They are replaced, not changed, when the agent learns."""
        return self.state.params

    @property
    def steps(self) -> int:
        """Environment steps learned from, over all calls of learn."""
        return self._loop.episodes.steps if self._loop is not None else self._steps

    @property
    def iteration(self) -> int:
        """Rollouts learned from."""
        return self._loop.iteration if self._loop is not None else self._iteration

    @property
    def clock(self) -> Clock:
        """Seconds that training spent acting, stepping environments and learning, since the loop began."""
        return self._loop.clock if self._loop is not None else Clock()

    def target_after(self, total_steps: int | None) -> int:
        """The steps to reach by `total_steps` more than there are, or by the earlier aim for None. Changes nothing.

        Raises HyperparameterError where there is nothing to aim at, or nothing would be learned until then.
        """
        if total_steps is not None:
            target = self.steps + COUNT.check("total_steps", total_steps)
        elif self.target is None or self.target <= self.steps:
            raise HyperparameterError("learn needs the number of environment steps, as in learn(100_000)")
        else:
            target = self.target
        self.learner.check_steps(self.steps, target)
        return target

    def set_target(self, total_steps: int | None) -> int:
        """Aim at what `target_after` says, and return it; schedules end there. With None they go on as they were."""
        target = self.target_after(total_steps)
        if total_steps is not None:
            counters = self.state.counters._replace(start=jax.numpy.int32(self.steps), target=jax.numpy.int32(target))
            self.state, self.target = self.state._replace(counters=counters), target
        return target

    # --- where it is ------------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The environment's name."""
        return self._ground.source.name if self._ground is not None else self.spec.id or "environment"

    @property
    def loop_name(self) -> str | None:
        """The loop that trains it, "host" or "compiled"; None for one that was loaded and has no environment yet."""
        return None if self._ground is None else self._ground.loop_name

    @property
    def ground(self) -> Ground:
        """The environments. An agent that was loaded makes them when it first needs them."""
        if self._ground is None:
            if self.spec.id is None or ":" in self.spec.id:
                raise CheckpointError(
                    "this agent was loaded from a file, which does not say how to make its environment: "
                    "pass it, as in load(path, env=MyEnv)"
                )
            source = EnvSource.of(self.spec.id, dict(self.spec.kwargs)).with_masks(self.fitting.masks)
            how = {"loop": self.loop_wanted, "processes": self.processes, "timeout": self.timeout}
            self._ground = ground(source, self.spec.num_envs, **how)
        return self._ground

    def env_seed(self, *stream: int) -> int:
        """The seed of environments for a use that the numbers name; the agent's own for zeros."""
        if not any(stream):
            return self.seed
        return int(np.random.SeedSequence([self.seed, *stream]).generate_state(1)[0] % 2**31)

    # --- the loop ---------------------------------------------------------------------------------------------------

    def start_loop(self, uninterrupted: Callable) -> HostLoop | CompiledLoop:
        """The loop that trains this agent: the one of the last call of learn, or a new one on fresh environments."""
        if self._loop is None:
            self._loop = self.ground.loop(
                self.programs,
                self._state,
                self.fitted.decode_action,
                key=self.keys[1],
                seed=self.env_seed(0, self._restarts, self._steps),
                iteration=self._iteration,
                steps=self._steps,
                snapshot=self._snapshot,
            )
        self._loop.uninterrupted = uninterrupted
        return self._loop

    def snapshot(self) -> PyTree:
        """Where the environments of training stand, as arrays; None in the host loop, whose cannot be saved."""
        return self._loop.snapshot() if self._loop is not None else self._snapshot

    def drop_loop(self) -> None:
        """Forget the environments of training, as after a fault; the next call of learn starts with new ones."""
        if self._loop is not None:
            self._state, self._iteration, self._steps = self.state, self.iteration, self.steps
            self._loop = None
        self._snapshot = None
        self._restarts += 1
        if self._ground is not None:
            self._ground.drop()

    def close(self) -> None:
        """Close all environments. The agent can still act, and makes new ones when it needs them."""
        self.drop_loop()
        if self._ground is not None:
            self._ground.close()
