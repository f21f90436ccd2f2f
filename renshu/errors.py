"""Errors that say what to do. Every error that Renshu raises on purpose is a `RenshuError`."""

import difflib
from collections.abc import Sequence


class RenshuError(Exception):
    """Base of all errors raised by Renshu."""


class HyperparameterError(RenshuError, ValueError):
    """A hyperparameter is unknown, of the wrong type, or out of range. Raised before anything is built."""


class SpaceError(RenshuError, TypeError):
    """An environment's observation or action space does not fit the algorithm. The message names what would."""


class UnknownNameError(RenshuError, LookupError):
    """No environment, algorithm, preset or run has that name. The message lists near matches."""


class EnvironmentFault(RenshuError, RuntimeError):
    """An environment raised, died, hung, or returned something that its own spaces do not allow."""


class NotFiniteError(RenshuError, FloatingPointError):
    """NaN or infinity in an observation, a reward, an action or a loss. The message names where it came from."""


class CheckpointError(RenshuError, ValueError):
    """A file cannot be loaded: not Renshu's, cut short, changed, made by a newer version, or in need of an argument."""


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """Hint to append after a wrong name: the nearest matches, or all known names where none is near."""
    matches = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if matches:
        return f" Did you mean {' or '.join(matches)}?"
    return f" It has: {', '.join(known)}."
