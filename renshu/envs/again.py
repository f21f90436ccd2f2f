"""The environment of a file, named again by the user: made as it was made then."""

from __future__ import annotations

from functools import partial
from typing import Any

import gymnasium
from gymnasium.vector import VectorEnv

from renshu.envs.source import EnvSource
from renshu.errors import CheckpointError
from renshu.types import EnvSpec


def named_again(env: Any, spec: EnvSpec, name: str | None = None) -> EnvSource:
    """Wrap an environment that a user names for a file which describes one.

    env: as for `EnvSource.of`. spec: what the file says of its environment. name: the file's name for it, None if it
    has none. The id of the file, or the class or function of that name, is made with the arguments and the time limit
    of the file; an object, a `functools.partial`, and anything of another name are taken as they are.

    Raises CheckpointError where arguments are needed which no file can hold.
    """
    if isinstance(env, str) and env == spec.id:
        return EnvSource.of(env, spec.kwargs)
    source = EnvSource.of(env)
    if isinstance(env, str) and not (spec.id is None and spec.unsaved and name in (env, source.name)):
        return source
    made = isinstance(source.given, gymnasium.Env | VectorEnv | partial) or source.device is not None
    if made or spec.id is not None or name not in (None, source.name):
        return source
    if spec.unsaved:
        known = ", ".join(f"{key}={value!r}" for key, value in spec.kwargs.items())
        told = ", ".join(f"{key}=..." for key in spec.unsaved)
        maker = f'gymnasium.make, "{env}"' if isinstance(env, str) else source.name
        raise CheckpointError(
            f"{source.name} was made with {told}, which a file cannot hold: pass all its arguments, as in "
            f"env=functools.partial({maker}, {', '.join(filter(None, (known, told)))})"
        )
    return EnvSource.of(env, spec.kwargs, spec.max_episode_steps)
