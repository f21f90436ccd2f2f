"""Spaces of an environment, read in a process of its own: whatever making or closing it does, this one goes on."""

from __future__ import annotations

import multiprocessing
import pickle
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from typing import Any, cast

import cloudpickle
import gymnasium

from renshu.errors import EnvironmentFault, RenshuError

GRACE = 5.0
"""Seconds that a process has to close its environment before it is ended."""


class Described(gymnasium.Env):
    """Environment that is described and not made: it has spaces and what else a vector environment asks one for."""

    def __init__(self, about: dict[str, Any]) -> None:
        self.observation_space, self.action_space = about["observation_space"], about["action_space"]
        self.metadata, self.render_mode = about["metadata"], about["render_mode"]


def worker_context() -> BaseContext:
    """Return the way to start processes: fresh ones, never forked from this one, whose threads a fork could hang."""
    context = multiprocessing.get_context(
        "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    )
    # Imported once in the server: otherwise each worker would spend a third of a second on it.
    context.set_forkserver_preload(["gymnasium", "renshu.envs.checks"])
    return context


def describe(make: Callable[[], gymnasium.Env], name: str, timeout: float) -> Described:
    """Make one environment in a process of its own, describe it, and close it there.

    make: can be sent by cloudpickle. name: of the environment, in messages. timeout: seconds to make it.
    Raises EnvironmentFault where it cannot be made, dies or hangs, and whatever RenshuError making it raises.
    """
    context = cast(Any, worker_context())
    here, there = context.Pipe()
    process = context.Process(target=_answer, args=(cloudpickle.dumps(make), there), daemon=True)
    patience = 0.0
    try:
        process.start()
        there.close()
        answer = _awaited(here, process, name, timeout)
        patience = GRACE
    finally:
        _end(process, patience)
        here.close()
    about, error, trace = pickle.loads(answer)
    if error is None:
        return Described(about)
    if not isinstance(error, RenshuError):
        error = EnvironmentFault(f"{name} raised in starting: {type(error).__name__}: {error}")
    error.add_note(f"In the process of the environment:\n{trace}")
    raise error


def exit_text(code: int) -> str:
    """Say how a process ended."""
    import signal

    if code >= 0:
        return f"exited with code {code}"
    hint = " (out of memory?)" if -code == getattr(signal, "SIGKILL", 9) else ""
    return f"was ended by {signal.Signals(-code).name}{hint}"


def _answer(make: bytes, pipe: Connection) -> None:
    """Describe an environment to the process that asked, in one message, then close it."""
    env, about, error, trace = None, None, None, ""
    try:
        env = pickle.loads(make)()
        names = ("observation_space", "action_space", "metadata", "render_mode")
        about = {name: getattr(env, name) for name in names}
        cloudpickle.dumps(about)
    except (Exception, SystemExit) as raised:
        about, error, trace = None, raised, traceback.format_exc()
    try:
        message = cloudpickle.dumps((about, error, trace))
        pickle.loads(message)
    except Exception:  # some exceptions cannot travel; their words can
        told = EnvironmentFault(f"making the environment raised {type(error).__name__}: {error}")
        message = cloudpickle.dumps((None, told, trace))
    pipe.send_bytes(message)
    if env is not None:
        env.close()


def _awaited(pipe: Connection, process: Any, name: str, timeout: float) -> bytes:
    """Wait for the answer. Raises EnvironmentFault where the process dies, or does not answer in time."""
    deadline = time.monotonic() + timeout
    while not pipe.poll(max(0.0, min(deadline - time.monotonic(), 1.0))):
        if time.monotonic() > deadline:
            raise EnvironmentFault(
                f"{name} hung in starting: worker 0 did not answer within {timeout:g} seconds. Fix the environment, or "
                "give it more time with a larger timeout"
            )
    try:
        return pipe.recv_bytes()
    except (EOFError, OSError) as error:
        process.join(2.0)  # the exit code comes a moment after the broken pipe
        how = "ended" if process.exitcode is None else exit_text(process.exitcode)
        raise EnvironmentFault(f"{name} died in starting: worker 0 {how}. What it printed last may say why") from error


def _end(process: Any, patience: float) -> None:
    """End the process: let it close its environment, then by force. Its answer counts, whatever closing does."""
    if process.pid is None:
        return
    for end, seconds in ((None, patience), ("terminate", 1.0), ("kill", 1.0)):
        if end and process.is_alive():
            getattr(process, end)()
        process.join(seconds)
