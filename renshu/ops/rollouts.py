"""Rollouts of NumPy arrays, put together and cut anew."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import numpy as np

from renshu.types import PyTree, Rollout


def joined(parts: list[Rollout]) -> Rollout:
    """Put rollouts that follow on each other together as one."""
    if len(parts) == 1:
        return parts[0]

    def put(field: str) -> PyTree:
        return jax.tree.map(lambda *x: np.concatenate(x), *(getattr(part, field) for part in parts))

    def put_with_last(field: str) -> PyTree:
        *most, last = (getattr(part, field) for part in parts)
        return jax.tree.map(
            lambda *x: np.concatenate(x), *(jax.tree.map(lambda x: x[:-1], part) for part in most), last
        )

    return Rollout(put_with_last("obs"), put_with_last("first"), put("action"), put("reward"), put("terminated"))


def side_by_side(parts: list[Rollout]) -> Rollout:
    """Put rollouts of other environments, of the same number of steps, together as one."""
    if len(parts) == 1:
        return parts[0]

    def put(field: str, axis: int) -> PyTree:
        return jax.tree.map(lambda *x: np.concatenate(x, axis), *(getattr(part, field) for part in parts))

    of_environments = ("carry", "env_id", "continues", "version")
    return Rollout(**{field: put(field, 0 if field in of_environments else 1) for field in Rollout._fields})


def blocks(chunks: Iterator[Rollout], rows: int) -> Iterator[Rollout]:
    """Cut rollouts that follow on each other anew, into such of `rows` steps; the last may be shorter."""
    parts: list[Rollout] = []
    held = 0
    for chunk in chunks:
        parts.append(chunk)
        held += len(chunk.reward)
        if held < rows:
            continue
        whole = joined(parts)
        for start in range(0, held - rows + 1, rows):
            yield _part(whole, start, start + rows)
        left = held % rows
        parts, held = ([_part(whole, held - left, held)], left) if left else ([], 0)
    if parts:
        yield joined(parts)


def begun_anew(rollout: Rollout) -> Rollout:
    """Return a rollout that follows on nothing."""
    return rollout._replace(first=np.concatenate([np.ones_like(rollout.first[:1]), rollout.first[1:]]))


def _part(rollout: Rollout, start: int, end: int) -> Rollout:
    def cut(tree: PyTree, more: int = 0) -> PyTree:
        return jax.tree.map(lambda x: x[start : end + more], tree)

    others = (cut(part) for part in (rollout.action, rollout.reward, rollout.terminated))
    return Rollout(cut(rollout.obs, 1), cut(rollout.first, 1), *others)
