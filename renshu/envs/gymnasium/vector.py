"""Vector environments as the host loop drives them, and the processes that some of them run in.

Whatever an environment does (raise, exit, hang, return nonsense), the loop sees one EnvironmentFault that names it, and
no process is left behind.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.connection import wait
from queue import Empty
from typing import Any, NoReturn

import cloudpickle
import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, VectorEnv

from renshu.envs.checks import CheckedEnv, SeededEnv, seed_globals
from renshu.envs.gymnasium.probing import GRACE, Described, describe, exit_text, worker_context
from renshu.envs.masks import MasksInObservations
from renshu.errors import EnvironmentFault, RenshuError
from renshu.types import LIFE_LOST, MASK, Array, PyTree

_GRACE = GRACE
_REPORT = 10.0  # seconds that a worker which raised has to report it


class HostEnvs:
    """N environments that step together.

    vector_env: any Gymnasium vector environment that resets by the NEXT_STEP rule.
    timeout: seconds that environments in processes of their own have to answer; after that they count as hung. (It has
    no effect where a vector wrapper surrounds the processes, which offers no way to wait for a limited time.)
    name: the environment's name in messages; by default that of its spec or its class. seed: of a reset to see masks.
    infos: of the latest step, as the vector environment gave them.

    After an EnvironmentFault everything is closed, every process ended, and each further call raises again. Ctrl-C
    passes through as KeyboardInterrupt: if it interrupts a step, environments in this process must be reset, and
    environments in worker processes can only be closed and made again.
    """

    def __init__(
        self, vector_env: VectorEnv, timeout: float = 120.0, name: str | None = None, seed: int | None = None
    ) -> None:
        self.name = name or (vector_env.spec.id if vector_env.spec else type(vector_env.unwrapped).__name__)
        self.num_envs: int = vector_env.num_envs
        self.single_action_space: spaces.Space = vector_env.single_action_space
        self.vector_env = vector_env
        self._masks = vector_env if isinstance(vector_env, MasksInObservations) else None
        self._stepped: VectorEnv = vector_env if self._masks is None else self._masks.env
        self._timeout = timeout
        base = vector_env.unwrapped
        self._workers = base if isinstance(base, AsyncVectorEnv) else None
        self._traces = [] if self._workers is None else _listen(self._workers.error_queue)
        self.infos: dict[str, Any] = {}
        self._steps = 0
        self._unusable: str | None = None
        self._half_stepped = False
        self._closed = False
        self._first_fault: EnvironmentFault | None = None
        self._begun: tuple[int | None, Any] | None = (
            None  # seed and result of a reset whose episodes were not stepped yet
        )
        if self._masks is not None and not self._masks.certain:
            self._look_for_masks(self._masks, seed)
        self.single_observation_space: spaces.Space = self.vector_env.single_observation_space

    def _look_for_masks(self, masks: MasksInObservations, seed: int | None) -> None:
        """Reset the environments to see whether they give masks; where none does, observations stay as they are.

        The first `reset` with the same seed is this one: an environment that draws something once draws it by the seed.
        """
        try:
            result = self._call("reset", seed=seed)
            self._begun = seed, result
        except EnvironmentFault as fault:
            self._first_fault, result = fault, None  # raised at the first reset, as without this search
        infos = result[1] if isinstance(result, tuple) and len(result) == 2 else {}
        if not isinstance(infos, dict) or MASK not in infos:
            self.vector_env, self._masks = masks.env, None

    @property
    def state(self) -> PyTree:
        """The environments' own states `[N, ...]`, of a DeviceEnv in this process; None of others."""
        # By name: worker processes import this module, and JAX would cost each a second.
        inner: Any = self.vector_env.unwrapped
        held = getattr(inner, "state", None)
        return inner.env.bare(held.inner) if held is not None and type(held).__name__ == "EnvsState" else None

    @property
    def life_lost(self) -> Array | None:
        """[N] bool: what ended in the latest step was a life only; None where no environment has several."""
        return self.infos.get(LIFE_LOST)

    def reset(self, seed: int | list[int] | None = None) -> PyTree:
        """Begin an episode in every environment. Returns observations [N, ...].

        seed: an int makes the episodes that follow repeatable, a list has one for each; None goes on as it is.
        Raises EnvironmentFault.
        """
        self._steps, self._half_stepped = 0, False
        begun, self._begun = self._begun, None
        if begun is not None and seed is not None and begun[0] == seed:
            result = begun[1]
        else:
            result = self._call("reset", seed=seed if seed is None or isinstance(seed, list) else int(seed))
        if not isinstance(result, tuple) or len(result) != 2:
            self._fail(self._nonsense("reset must return (observations, infos)"))
        self._check_obs(result[0])
        return self._with_masks(*result)

    def step(self, actions: PyTree) -> tuple[PyTree, Array, Array, Array]:
        """Step every environment once. actions: [N, ...], as the action space describes.

        Returns observations [N, ...], rewards [N] (float64 as a rule), terminated and truncated [N] bool. Where the
        previous step ended an episode, this one resets: it ignores the action and its reward is 0.
        Raises EnvironmentFault.
        """
        if self._half_stepped:
            raise EnvironmentFault(f"{self.name} was interrupted in the middle of a step: call reset before step")
        self._steps += 1
        result = self._call("step", actions)
        if not isinstance(result, tuple) or len(result) != 5:
            self._fail(self._nonsense("step must return (observations, rewards, terminated, truncated, infos)"))
        obs, reward, terminated, truncated = result[0], *map(np.asarray, result[1:4])
        infos = result[4]
        self.infos = infos if isinstance(infos, dict) else {}
        self._check_obs(obs)
        shape = (self.num_envs,)
        if reward.shape != shape or reward.dtype.kind not in "biuf":
            self._fail(self._nonsense(f"rewards must be numbers of shape {shape}, not {_about(reward)}"))
        for flag, name in ((terminated, "terminated"), (truncated, "truncated")):
            if flag.shape != shape or flag.dtype != np.bool_:
                self._fail(self._nonsense(f"{name} must be bools of shape {shape}, not {_about(flag)}"))
        return self._with_masks(obs, infos), reward, terminated, truncated

    def close(self) -> None:
        """Close the environments and end their processes, by force where they do not end within seconds.

        A second call does nothing. Raises EnvironmentFault when an environment raises while it closes.
        """
        if self._closed:
            return
        self._unusable = self._unusable or f"{self.name} is closed: make the environments again"
        try:
            self._shut(_GRACE)
        except Exception as error:
            raise EnvironmentFault(f"{self.name} raised while closing: {type(error).__name__}: {error}") from error

    def _call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        if self._first_fault is not None:
            fault, self._first_fault = self._first_fault, None
            raise fault
        if self._unusable:
            raise EnvironmentFault(self._unusable)
        try:
            if self._workers is None or self._workers is not self._stepped:
                return getattr(self._stepped, method)(*args, **kwargs)
            getattr(self._workers, f"{method}_async")(*args, **kwargs)
            _await_answers(self._workers, self._timeout)
            with _quiet():
                return getattr(self._workers, f"{method}_wait")()
        except Exception as error:
            self._fail(error)
        except BaseException:
            if self._workers is None:
                self._half_stepped = True
            else:
                self._unusable = f"{self.name} was interrupted while its processes worked: make the environments again"
            raise

    def _fail(self, error: Exception) -> NoReturn:
        """Close everything and raise what went wrong as an EnvironmentFault."""
        where = f"step {self._steps}" if self._steps else "reset"
        cause: BaseException | None = error
        if isinstance(error, EnvironmentFault):
            # Gymnasium raises what a worker sent as `type(error)(error)`: the fault itself is inside.
            inner = error.args[0] if error.args else None
            fault, cause = (inner, None) if isinstance(inner, EnvironmentFault) else (error, error.__cause__)
        elif self._workers is not None:
            fault = EnvironmentFault(_explain(self._workers, self.name, where, error))
        else:
            fault = EnvironmentFault(f"{self.name} raised in {where}: {type(error).__name__}: {error}")
        for trace in self._traces[-1:]:
            fault.add_note(f"In the process of the environment:\n{trace}")
        self._unusable = f"{self.name} was closed after a fault ({fault}): make the environments again"
        try:
            self._shut(0.0)
        except Exception as second:
            fault.add_note(f"Closing it failed too: {type(second).__name__}: {second}")
        raise fault from cause

    def _shut(self, grace: float) -> None:
        self._closed = True
        if self._workers is not None:
            stop_workers(self._workers, grace)
        self.vector_env.close()

    def _check_obs(self, obs: PyTree) -> None:
        problem = _batch_problem(self._stepped.single_observation_space, self.num_envs, obs, "observations")
        if problem:
            self._fail(self._nonsense(problem))

    def _with_masks(self, obs: PyTree, infos: dict[str, Any]) -> PyTree:
        if self._masks is None:
            return obs
        try:
            return self._masks.joined(obs, infos)
        except EnvironmentFault as fault:
            self._fail(self._nonsense(str(fault)))

    def _nonsense(self, problem: str) -> EnvironmentFault:
        where = f"step {self._steps}" if self._steps else "reset"
        return EnvironmentFault(f"{self.name} returned in {where} what its spaces do not allow: {problem}")


def start_workers(
    make: Callable[[], gymnasium.Env], num_envs: int, name: str, timeout: float, at_once: int | None = None
) -> AsyncVectorEnv:
    """Make `num_envs` environments, each in a CheckedEnv and in a process of its own.

    make: makes one environment. It is sent by cloudpickle, so it may be a lambda or a function of the main script.
    name: the environment's name in messages. timeout: seconds that a worker has to make its environment.
    at_once: most environments that work at the same time, for when there are more of them than cores.
    Raises EnvironmentFault when `make` cannot be sent or an environment cannot be made.

    Processes are started fresh, never forked from this one: JAX has threads, and a fork while one runs can hang.
    The main script is not run again in them, so it needs no `if __name__ == "__main__"`.
    """
    try:
        payload = cloudpickle.dumps(make)
    except Exception as error:
        raise EnvironmentFault(
            f"what makes {name} cannot be sent to another process ({type(error).__name__}: {error}). Pass a function "
            "that makes everything it needs itself, or use processes=False"
        ) from error
    with _hidden_main():
        # Gymnasium would make one in this process, and what closing it does would be done here.
        described = describe(partial(_make_in_worker, payload, 0, name, os.getpid(), None), name, timeout)
        fns = [partial(_make_in_worker, payload, index, name, os.getpid(), described) for index in range(num_envs)]
        return _ProcessVectorEnv(fns, name, timeout, {} if at_once is None else {"max_concurrency": at_once})


def stop_workers(workers: AsyncVectorEnv, grace: float) -> None:
    """End every process of `workers`: on request for `grace` seconds, then by force. Returns within seconds."""
    started = [process for process in getattr(workers, "processes", []) if process.pid is not None]
    pipes = [pipe for pipe in getattr(workers, "parent_pipes", []) if pipe is not None and not pipe.closed]
    if grace > 0:
        for pipe in pipes:
            with contextlib.suppress(OSError):  # a worker that is already gone needs no request
                pipe.send(("close", None))
    for end, patience in ((None, grace), ("terminate", 1.0), ("kill", 1.0)):
        for process in started:
            if end and process.is_alive():
                getattr(process, end)()
        deadline = time.monotonic() + patience
        for process in started:
            process.join(max(0.0, deadline - time.monotonic()))
    for pipe in pipes:
        pipe.close()
    workers.closed = True


class _ProcessVectorEnv(AsyncVectorEnv):
    """AsyncVectorEnv that, when it cannot start, says why within the timeout and leaves nothing behind."""

    def __init__(self, fns: list[Callable[[], gymnasium.Env]], name: str, timeout: float, options: dict) -> None:
        self._timeout = timeout
        try:
            super().__init__(fns, context=worker_context().get_start_method(), **options)
        except BaseException as error:
            explained = None
            if isinstance(error, Exception) and not isinstance(error, RenshuError):
                explained = _explain(self, name, "starting", error)
            stop_workers(self, 0.0)
            if explained is None:
                raise
            raise EnvironmentFault(explained) from error

    def _check_spaces(self) -> None:
        # The first request of all: its answer shows that the environment was made. Gymnasium would wait forever.
        for pipe in self.parent_pipes:
            pipe.send(("_call", ("render_mode", (), {})))
        _await_answers(self, self._timeout)
        for pipe in self.parent_pipes:
            pipe.recv()
        super()._check_spaces()


class _NoAnswer(Exception):
    """Some workers did not answer in time. The message says which."""


def _await_answers(workers: AsyncVectorEnv, timeout: float) -> None:
    """Wait until every worker has answered or died. Raises _NoAnswer after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    for pipe in workers.parent_pipes:
        while not pipe.poll(max(0.0, min(deadline - time.monotonic(), 1.0))):
            # A worker that died while it held its turn (`at_once`) makes the others wait forever.
            died = any(process.exitcode is not None for process in workers.processes)
            if died or time.monotonic() > deadline:
                pipes = enumerate(workers.parent_pipes)
                silent = ", ".join(str(index) for index, pipe in pipes if not pipe.poll())
                raise _NoAnswer(f"worker {silent} did not answer within {timeout:g} seconds")


def _explain(workers: AsyncVectorEnv, name: str, where: str, error: Exception) -> str:
    """Say which workers died or hung, and how."""
    processes = list(getattr(workers, "processes", []))
    if isinstance(error, EOFError | OSError | Empty) and processes:
        wait([process.sentinel for process in processes], 2.0)  # the exit code comes a moment after the broken pipe
    codes = {i: process.exitcode for i, process in enumerate(processes) if process.exitcode is not None}
    # A worker that raised and reported it has ended in good order: where others died, it is not to blame.
    codes = {i: code for i, code in codes.items() if code} or codes
    if codes:
        how = ", ".join(f"worker {i} {exit_text(code)}" for i, code in codes.items())
        return f"{name} died in {where}: {how}. What it printed last may say why"
    if isinstance(error, _NoAnswer):
        return f"{name} hung in {where}: {error}. Fix the environment, or give it more time with a larger timeout"
    return f"{name} raised in {where}: {type(error).__name__}: {error}"


def _make_in_worker(payload: bytes, index: int, name: str, parent: int, described: Described | None) -> gymnasium.Env:
    if os.getpid() == parent:
        assert described is not None
        return described
    # Ctrl-C reaches every process of a terminal. The parent saves first, then it ends the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Workers are forks of one server, whose global random numbers all of them would go on with.
    seed_globals(None)
    return SeededEnv(CheckedEnv(pickle.loads(payload)(), index, name))


def _listen(queue: Any) -> list[str]:
    """Limit the wait for error reports, which a dying worker may never send; return a list for their tracebacks."""
    original, traces = queue.get, []

    def get(block: bool = True, timeout: float | None = None) -> Any:
        report = original(timeout=_REPORT)
        traces.append(report[3])
        return report

    queue.get = get
    return traces


@contextlib.contextmanager
def _hidden_main() -> Iterator[None]:
    """Hide where the main script is: a new process would run it again, and nothing needs that."""
    main = sys.modules["__main__"]
    hidden = {name: vars(main)[name] for name in ("__file__", "__spec__") if name in vars(main)}
    vars(main).pop("__file__", None)
    main.__spec__ = None
    try:
        yield
    finally:
        vars(main).update(hidden)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Gymnasium from printing what is raised anyway, and from failing on a % in it."""
    level = gymnasium.logger.min_level
    gymnasium.logger.min_level = gymnasium.logger.ERROR + 1
    try:
        yield
    finally:
        gymnasium.logger.min_level = level


def _batch_problem(space: spaces.Space, n: int, obs: Any, name: str) -> str | None:
    """Return one sentence on the part of a batch of observations that has the wrong shape, or None."""
    if isinstance(space, spaces.Dict):
        if not isinstance(obs, dict) or any(key not in obs for key in space.spaces):
            return f"{name} must be a dict with the keys {list(space.spaces)}"
        parts = [(part, n, obs[key], f"{name}[{key!r}]") for key, part in space.spaces.items()]
        return next((problem for part in parts if (problem := _batch_problem(*part))), None)
    if isinstance(space, spaces.Tuple):
        if not isinstance(obs, tuple) or len(obs) != len(space.spaces):
            return f"{name} must be a tuple of {len(space.spaces)} arrays"
        parts = [(part, n, obs[i], f"{name}[{i}]") for i, part in enumerate(space.spaces)]
        return next((problem for part in parts if (problem := _batch_problem(*part))), None)
    if space.shape is None or getattr(obs, "shape", None) == (n, *space.shape):
        return None
    return f"{name} must be an array of shape {(n, *space.shape)}, not {_about(obs)}"


def _about(value: Any) -> str:
    shape = getattr(value, "shape", None)
    return f"a {type(value).__name__}" if shape is None else f"{getattr(value, 'dtype', '')} of shape {tuple(shape)}"
