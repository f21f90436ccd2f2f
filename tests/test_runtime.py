"""JAX's settings: changed when the first agent is made, not before, and not against the user."""

import os
import subprocess
import sys

import pytest

SETTINGS = "jax.config.values['jax_cpu_enable_async_dispatch'], jax.config.jax_compilation_cache_dir"
AGENT = "PPO(learning_rate=Linear(1e-3)).on('renshu/CartPole-v1', loop='compiled', num_envs=8)"
IMPORTS = "import jax; from renshu import DQN, PPO, Agent, Linear, experiment"


def printed(code: str, **variables: str) -> tuple[str, str]:
    """What a fresh Python on a CPU writes on stdout and on stderr."""
    variables = {"JAX_PLATFORMS": "cpu", **variables}
    plain = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**plain, **variables}
    )
    return done.stdout.strip(), done.stderr


def test_imports_leave_jax_alone():
    before, _ = printed(f"import jax; print({SETTINGS})")
    after, _ = printed(f"{IMPORTS}; PPO(learning_rate=Linear(1e-3)); print({SETTINGS})")
    assert after == before == "True None"


def test_the_first_agent_sets_jax_up(tmp_path):
    out, err = printed(f"{IMPORTS}; {AGENT}; {AGENT}; print({SETTINGS})", RENSHU_CACHE_DIR=str(tmp_path))
    assert out == f"False {tmp_path}"
    assert "JAX had been used" not in err


@pytest.mark.parametrize("before", [True, False])
def test_too_late_is_said_once(before):
    used = "jax.numpy.zeros(3); " if before else ""
    _, err = printed(f"{IMPORTS}; {used}{AGENT}; {AGENT}")
    assert err.count("JAX had been used before the first agent was made") == before


def test_what_the_user_has_set_stays(tmp_path):
    code = f"{IMPORTS}; jax.config.update('jax_compilation_cache_dir', '{tmp_path}'); jax.numpy.zeros(3)"
    out, err = printed(f"{code}; {AGENT}; print({SETTINGS})", JAX_CPU_ENABLE_ASYNC_DISPATCH="true")
    assert out == f"True {tmp_path}"
    assert "JAX had been used" not in err
