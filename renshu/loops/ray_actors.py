"""Actors as Ray's: started, asked, waited for, and cleaned up behind."""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic, sleep
from typing import Any

import jax
import numpy as np

from renshu.envs.sending import pickled
from renshu.errors import EnvironmentFault, HyperparameterError, RenshuError
from renshu.loops.actors import Actor, ActorSetup, Sent, versions
from renshu.loops.cluster import Answer
from renshu.types import PyTree

PATIENCE = 10.0
"""Seconds to wait for an address, and between two looks at what is awaited."""
RETRY = 1.0
"""Seconds after which an actor that cannot be reached is asked again."""
NOTICE = 30.0
"""Seconds without any answer after which it is said."""


class ActorLost(EnvironmentFault):
    """The process or the machine of an actor is gone; Ray starts another one."""


class ActorAway(ActorLost):
    """An actor cannot be reached, because it is being started again somewhere."""


class Unprepared(RenshuError):
    """An actor was asked for a rollout and does not know how, because it was started anew."""


class RemoteActor:
    """An actor in its own process. It is made when it is first asked for a rollout: a fault there is an answer."""

    def __init__(self, group: int) -> None:
        self._group, self._how, self._actor = group, None, None

    def prepare(self, wanted: dict[str, str], setup: bytes) -> None:
        """Take the driver's versions and the pickled setup, which a restarted actor lacks."""
        self._how = wanted, setup

    def collect(self, published: tuple[int, PyTree], iteration: int) -> Sent:
        """Collect a rollout; see `Actor.collect`. Raises Unprepared, before anything else, where it is."""
        if self._how is None:
            raise Unprepared("this actor was not prepared")
        if self._actor is None:
            import cloudpickle

            (wanted, setup), here = self._how, versions()
            if differing := [name for name in here if here[name] != wanted.get(name)]:
                told = ", ".join(f"{name} {here[name]} here and {wanted.get(name)} there" for name in differing)
                raise RenshuError(
                    f"the versions on {socket.gethostname()} are not those of the driver: {told}. Install the same"
                )
            on_cpu_without_gpu()
            self._actor = Actor(cloudpickle.loads(setup), self._group)
        return self._actor.collect(published, iteration)


class RayActors:
    """Actors of one training. address: of a Ray cluster, or None for one on this machine, which ends with `close`.

    Raises HyperparameterError without Ray or where nothing answers, SpaceError for what cannot be sent.
    """

    def __init__(self, setup: ActorSetup, address: str | None, room: int) -> None:
        self.ray = _ray()
        content = pickled(setup, setup.source.given, setup.source.name)
        self._limit = 2 * setup.timeout
        self._typical = 0.0
        self._temporary = connect(address, room)
        self._remote = self.ray.remote(max_restarts=-1, max_task_retries=0, num_cpus=1)(RemoteActor)
        self._how: Any = versions(), self.ray.put(content)  # held here, for actors that are restarted
        self._published: Any = None
        self._handles: dict[int, Any] = {}
        self._awaited: dict[Any, tuple[int, int, float]] = {}
        self._later: list[tuple[float, int, int]] = []
        self._away: set[int] = set()

    def start(self, group: int) -> None:
        """Add an actor."""
        self._handles[group] = self._remote.remote(group)
        self._handles[group].prepare.remote(*self._how)

    def stop(self, group: int) -> None:
        """Remove an actor."""
        self.ray.kill(self._handles.pop(group))

    def publish(self, version: int, actor_state: PyTree) -> None:
        """Put an actor state into Ray's store; the one before leaves it when no request holds it any more."""
        self._published = self.ray.put((version, jax.tree.map(np.asarray, actor_state)))

    def request(self, group: int, iteration: int) -> None:
        """Ask for a rollout by the newest state. A restarted actor so gets it, too."""
        reference = self._handles[group].collect.remote(self._published, iteration)
        self._awaited[reference] = group, iteration, monotonic()

    def answers(self, timeout: float | None = None) -> list[Answer]:
        """Return the answers that are there; wait for one, at most `timeout` seconds, where there is none."""
        began, noticed = monotonic(), False
        while self._awaited or self._later:
            self._ask_again()
            patience = RETRY if self._later else PATIENCE
            left = patience if timeout is None else min(patience, timeout - (monotonic() - began))
            ready = self._ready(max(0.0, left))
            if found := [answer for reference in ready if (answer := self._answer(reference)) is not None]:
                return found
            if timeout is not None and monotonic() - began >= timeout:
                break
            self._end_those_that_hang()
            if monotonic() - began > NOTICE and not noticed:
                noticed = True
                count = len(self._awaited) + len(self._later)
                told = f"waiting for {count} rollouts of {len(self._handles)} workers; none for {NOTICE:g} s"
                print(f"{told}. Training goes on when a worker answers", file=sys.stderr)
        return []

    def _ready(self, seconds: float) -> list[Any]:
        """Return all that is there; wait for something, but no longer than that."""
        awaited = list(self._awaited)
        if not awaited:  # all actors are away
            sleep(seconds)
            return []
        found = self.ray.wait(awaited, num_returns=len(awaited), timeout=0)[0]
        return found or self.ray.wait(awaited, num_returns=1, timeout=seconds)[0]

    def _ask_again(self) -> None:
        """Ask actors once more that could not be reached a while ago."""
        due = [one for one in self._later if one[0] <= monotonic()]
        self._later = [one for one in self._later if one not in due]
        for _, group, iteration in due:
            if group in self._handles:
                self.request(group, iteration)

    def close(self) -> None:
        """End all actors, and Ray itself where it was started here."""
        if not self.ray.is_initialized():
            return
        for handle in self._handles.values():
            self.ray.kill(handle)
        self._handles, self._awaited, self._published, self._how = {}, {}, None, None
        temporary, self._temporary = self._temporary, None
        disconnect(temporary)

    def _answer(self, reference: Any) -> Answer | None:
        (group, iteration, _), tick = self._awaited.pop(reference), monotonic()
        try:
            sent = fetch(reference, f"worker {group}")
        except Unprepared:
            self._handles[group].prepare.remote(*self._how)
            self.request(group, iteration)
            return None
        except ActorAway as fault:
            # Once what it was at is lost; from then on it is asked again and again until it is there.
            if group not in self._away:
                self._away.add(group)
                return Answer(group, None, fault)
            self._later.append((monotonic() + RETRY, group, iteration))
            return None
        except Exception as fault:
            return Answer(group, None, fault)
        self._away.discard(group)
        self._typical += 0.1 * (sent.seconds[2] - self._typical)
        return Answer(group, sent, transfer=monotonic() - tick)

    def _end_those_that_hang(self) -> None:
        """End actors that do not answer, as those that hang outside of Python; their requests are lost."""
        limit = self._limit + 20 * self._typical + (0.0 if self._typical else 300.0)
        for group, _, asked in list(self._awaited.values()):
            if monotonic() - asked > limit and group in self._handles:
                self.ray.kill(self._handles[group], no_restart=False)


def is_ready(reference: Any) -> bool:
    """Tell whether the result of a remote call is there."""
    return bool(_ray().wait([reference], timeout=0)[0])


def fetch(reference: Any, what: str) -> Any:
    """Return the result of a remote call; wait for it where it is not there.

    Raises what it raised there, with a note of where, and ActorLost where its process or machine is gone.
    """
    ray = _ray()
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause if isinstance(getattr(error, "cause", None), Exception) else error
        cause.add_note(f"In {what}:\n{error}")
        raise cause from None
    except ray.exceptions.ActorUnavailableError as error:
        raise ActorAway(f"{what} was lost: {' '.join(str(error).split())}") from None
    except ray.exceptions.RayError as error:
        raise ActorLost(f"{what} was lost: {' '.join(str(error).split())}") from None


def on_cpu_without_gpu() -> None:
    """Keep JAX in this process of Ray's on the CPU, unless it was given a GPU."""
    if not _ray().get_gpu_ids():
        jax.config.update("jax_platforms", "cpu")


def connect(address: str | None, room: int) -> str | None:
    """Connect to Ray, if that is not done yet; returns the folder of a session that was started here.

    Raises HyperparameterError where nothing answers at the address.
    """
    ray = _ray()
    if ray.is_initialized():
        return _joined(address)
    _USERS.clear()
    quiet: dict[str, Any] = {"logging_level": "error"}
    if address is not None:
        _reach(address)
        try:
            _init(address=address, **quiet)
        except (ConnectionError, RuntimeError) as error:
            raise HyperparameterError(_no_cluster(address, error)) from error
        return None
    folder = tempfile.mkdtemp(prefix="renshu-ray-")
    # A CPU for each actor and one that evaluates, however many: those that wait for an environment need none.
    # "local": without it Ray would take the cluster that RAY_ADDRESS names.
    _init(
        address="local", num_cpus=max(os.cpu_count() or 1, room + 1), include_dashboard=False, _temp_dir=folder, **quiet
    )
    _USERS[folder] = 1
    return folder


_USERS: dict[str, int] = {}
"""Agents that use the session of Ray that was started here, by its folder."""


def _joined(address: str | None) -> str | None:
    """Join the session that is there. Raises HyperparameterError where it is our own, and another is asked for."""
    for folder in _USERS:
        if address not in (None, _ray().get_runtime_context().gcs_address):
            raise HyperparameterError(
                f"this process has a session of Ray of its own, and is not connected to {address}: close the agents "
                "that use it, or call ray.shutdown()"
            )
        _USERS[folder] += 1
        return folder
    return None


def _init(**options: Any) -> None:
    """Call `ray.init`, without the signal handlers that it puts in place of those that save the agent."""
    ends = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(end) for end in ends]
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r"os\.fork\(\) was called", category=RuntimeWarning)
            _ray().init(**options)
    finally:
        if threading.current_thread() is threading.main_thread():
            for end, handler in zip(ends, before, strict=True):
                signal.signal(end, handler)


@contextmanager
def session(address: str | None, workers: int) -> Iterator[Any]:
    """Enter a block with Ray, which ends behind it where it was started here. Yields the module."""
    temporary = connect(address, workers)
    try:
        yield _ray()
    finally:
        disconnect(temporary)


def disconnect(temporary: str | None) -> None:
    """End the session of Ray that `connect` started in a folder; None for one that is not ours."""
    if temporary is None or temporary not in _USERS:
        return
    _USERS[temporary] -= 1
    if not _USERS[temporary]:
        del _USERS[temporary]
        _ray().shutdown()
        shutil.rmtree(temporary, ignore_errors=True)


def check(address: str | None) -> None:
    """Raise HyperparameterError without Ray, or where nothing answers at an address."""
    if importlib.util.find_spec("ray") is None:
        raise HyperparameterError('loop="cluster" needs Ray, which is not installed: pip install "renshu[cluster]"')
    if address is not None:
        _reach(address)


def _reach(address: str) -> None:
    """Raise HyperparameterError where no socket answers at HOST:PORT within seconds."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not (host and port.isdigit()):
        return
    try:
        socket.create_connection((host, int(port)), PATIENCE).close()
    except OSError as error:
        raise HyperparameterError(_no_cluster(address, error)) from error


def _no_cluster(address: str, error: Exception) -> str:
    return (
        f"no Ray cluster answers at {address!r} ({error}): start one with `ray start --head`, or leave the address "
        "out, for workers on this machine"
    )


def _ray() -> Any:
    check(None)
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # or else Ray warns of a change to come
    os.environ.setdefault("RAY_TQDM_PATCH_PRINT", "0")  # or else Ray puts its own in the place of `print`
    ray = importlib.import_module("ray")
    importlib.import_module("ray.exceptions")
    return ray
