"""JAX settings: a compilation cache on disk, and small programs run on the thread that calls them."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path

import jax
from jax._src import xla_bridge  # no public way tells whether a backend has started without starting one

from renshu.errors import HyperparameterError
from renshu.types import Key, PyTree

TOO_LATE = (
    "JAX had been used before the first agent was made, so that small programs are handed to another thread on this "
    "CPU: training in the host loop takes longer. Make an agent first, or set JAX_CPU_ENABLE_ASYNC_DISPATCH=false "
    "before Python starts"
)


_compiled: list[float] = []  # seconds of each


def cache_folder() -> Path:
    """Return the folder of compiled programs: `$RENSHU_CACHE_DIR`, `$XDG_CACHE_HOME/renshu/xla`, or in `~/.cache`."""
    if named := os.environ.get("RENSHU_CACHE_DIR"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "renshu" / "xla"


def compilations() -> int:
    """Count the programs that were compiled, or read from the cache, since `prepare`."""
    return len(_compiled)


def within_memory(init: Callable[[Key], PyTree], key: Key) -> PyTree:
    """Call it. Raises HyperparameterError where what it makes is larger than the machine's memory; see there."""
    check_memory(jax.eval_shape(init, key))
    return init(key)


def check_memory(shapes: PyTree) -> None:
    """Raise HyperparameterError where arrays of these shapes are larger than the machine's memory; of a CPU alone.

    The system would end the process without a word, once it has filled the memory of all others.
    """
    if jax.default_backend() != "cpu" or not hasattr(os, "sysconf"):
        return
    sizes = (math.prod(x.shape) * getattr(x.dtype, "itemsize", 8) for x in jax.tree.leaves(shapes))
    needed, there = sum(sizes) / 2**30, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    if needed > there:
        raise HyperparameterError(
            f"weights and memory would take {needed:,.0f} GB, and this machine has {there:.0f} GB: choose less, as by "
            "a smaller buffer_size"
        )


def _note(event: str, duration_secs: float, **_: str | int) -> None:
    if event.endswith("backend_compile_duration"):
        _compiled.append(duration_secs)


@cache
def prepare() -> None:
    """Set JAX up, once, when the first agent is made; what the user has set by JAX's own variables or config stays.

    The compilation cache keeps every program, however small: starting a second run then costs a tenth. On a CPU, a
    program that takes 20 us should not be handed to another thread, which costs as much again. JAX reads that when its
    CPU client starts: warns where that was before.
    """
    jax.monitoring.register_event_duration_secs_listener(_note)
    if getattr(jax.config, "jax_compilation_cache_dir", None) is None and "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    if "JAX_CPU_ENABLE_ASYNC_DISPATCH" in os.environ:
        return
    if xla_bridge.backends_are_initialized():
        if jax.default_backend() == "cpu":
            warnings.warn(TOO_LATE, stacklevel=2)
        return
    jax.config.update("jax_cpu_enable_async_dispatch", False)
