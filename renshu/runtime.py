"""JAX settings: a compilation cache on disk, and small programs run on the thread that calls them."""

from __future__ import annotations

import os
from pathlib import Path

import jax


def cache_folder() -> Path:
    """Return the folder of compiled programs: `$RENSHU_CACHE_DIR`, `$XDG_CACHE_HOME/renshu/xla`, or in `~/.cache`."""
    if named := os.environ.get("RENSHU_CACHE_DIR"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "renshu" / "xla"


def prepare() -> None:
    """Set JAX up for Renshu; what the user has set through JAX's own variables or config stays as it is.

    The compilation cache keeps every program, however small: starting a second run then costs a tenth. On a CPU, a
    program that takes 20 us should not be handed to another thread, which costs as much again.
    """
    if getattr(jax.config, "jax_compilation_cache_dir", None) is None and "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    if "JAX_CPU_ENABLE_ASYNC_DISPATCH" not in os.environ:
        jax.config.update("jax_cpu_enable_async_dispatch", False)
