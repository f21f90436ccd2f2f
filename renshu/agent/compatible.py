"""Checks that what an agent has learned is of use somewhere else."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from renshu.envs.device import DeviceEnv, MaskedDeviceEnv
from renshu.errors import SpaceError
from renshu.ops.spaces import same_structure
from renshu.types import EnvSpec

if TYPE_CHECKING:
    from renshu.agent.trainer import Trainer


def check_compatible(name: str, ours: EnvSpec, theirs: EnvSpec) -> None:
    """Raise SpaceError where what was learned by one spec is of no use by the other, that of the environment `name`."""
    spaces = (ours.observation_space, theirs.observation_space), (ours.action_space, theirs.action_space)
    if not all(same_structure(a, b) for a, b in spaces) or ours.frame_stack != theirs.frame_stack:
        raise SpaceError(f"the agent learned {_in_words(ours)}; {name} has {_in_words(theirs)}, which do not fit")


def check_game(trainer: Trainer, name: str, game: DeviceEnv) -> None:
    """Raise SpaceError where a game is not the one that an agent, called `name`, has learned."""
    own, masked = trainer.spec, trainer.space_config.masks
    learned = own.id or (own.model.name if own.model is not None else trainer.name)
    named = own.id is not None or own.model is not None
    if named and learned not in (game.id, game.name):
        raise SpaceError(f"{name} has learned {learned}; this is {game.name}, another game")
    if masked and not game.gives_masks:
        raise SpaceError(f"{name} has learned {learned} with action masks; {game.name} gives none")
    theirs = (MaskedDeviceEnv(game) if masked else game).spec(1)
    try:
        check_compatible(game.name, own, dataclasses.replace(theirs, frame_stack=own.frame_stack))
    except SpaceError as error:
        raise SpaceError(f"{name} has learned {learned}, not this {game.name}: {error}") from None


def _in_words(spec: EnvSpec) -> str:
    several = f" ({spec.frame_stack} at once)" if spec.frame_stack > 1 else ""
    return f"observations of {spec.observation_space}{several} and actions of {spec.action_space}"
