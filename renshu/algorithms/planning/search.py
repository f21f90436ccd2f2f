"""Tree search by mctx, in the environment's own model or in a learned one.

Values are those of the player to move. Where the turn passes to the other player of two, what it may hope for is what
the first has to fear: the discount is negative there.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from renshu.algorithms.planning.backups import backing_up_in_place
from renshu.errors import HyperparameterError
from renshu.ops.masks import FORBIDDEN, uniform_actions
from renshu.ops.rows import choose
from renshu.types import Array, Key, PyTree

if TYPE_CHECKING:
    from renshu.envs.device import DeviceEnv

GUMBEL, PUCT, UCT = "gumbel", "puct", "uct"


class Node(NamedTuple):
    """States in a search tree. One that has ended stays as it is, pays nothing any more, and keeps its value."""

    state: PyTree  # [B, ...]  of the model
    ended: Array  # [B] bool
    worth: Array  # [B]  value of one that has ended: 0, or where it was cut off what it was judged to be


def roots(state: PyTree, count: int) -> Node:
    """Return the nodes of B states to search from."""
    return Node(state, jnp.zeros(count, jnp.bool_), jnp.zeros(count))


class Found(NamedTuple):
    """Result of a search from B roots."""

    action: Array  # [B] int32
    policy: Array  # [B, A]  the improved policy, or visits as shares
    value: Array  # [B]  of the root, for the player to move
    visits: Array  # [B, A] int32
    values: Array  # [B, A]  of the actions; those of unvisited ones mean nothing


Evaluate = Callable[[PyTree, Key, PyTree, Node], tuple[Array, Array]]
"""From parameters, a key, observations and nodes to logits `[B, A]`, those not allowed very low, and values `[B]`."""


def library() -> Any:
    """Import mctx. Raises HyperparameterError, naming the extra, where it is not installed."""
    try:
        return importlib.import_module("mctx")
    except ModuleNotFoundError as error:
        raise HyperparameterError(
            f'search needs mctx, which is not installed ({error}): pip install "renshu[games]"'
        ) from error


def model_step(model: DeviceEnv, evaluate: Evaluate, gamma: float | Array) -> Callable:
    """Make mctx's `recurrent_fn` of an environment's own model. gamma: discount a step."""

    def step(params: PyTree, key: Key, action: Array, node: Node) -> tuple[Any, Node]:
        key_step, key_value = jax.random.split(key)
        after = jax.vmap(model.step)(node.state, action, jax.random.split(key_step, len(action)))
        state = jax.tree.map(lambda new, old: choose(node.ended, old, new), after.state, node.state)
        mover, follower = jax.vmap(model.to_play)(node.state), jax.vmap(model.to_play)(state)
        reward = after.reward
        if model.players > 1:
            reward = jnp.take_along_axis(reward, mover[:, None], axis=1)[:, 0]
        truncated = jnp.broadcast_to(jnp.asarray(after.truncated), after.terminated.shape)
        over = Node(state, node.ended | after.terminated | truncated, node.worth)
        logits, value = evaluate(params, key_value, after.obs, over)
        value = jnp.where(node.ended, node.worth, jnp.where(after.terminated, 0.0, value))
        discount = jnp.where(after.terminated, 0.0, jnp.where(mover == follower, gamma, -gamma))
        return library().RecurrentFnOutput(
            reward=jnp.where(node.ended, 0.0, reward),
            discount=jnp.where(node.ended, 1.0, discount),
            prior_logits=logits,
            value=value,
        ), over._replace(worth=value)

    return step


@backing_up_in_place()
def search(
    kind: str,
    params: PyTree,
    key: Key,
    logits: Array,
    value: Array,
    root: PyTree,
    step: Callable,
    *,
    simulations: int,
    mask: Array | None,
    explore: bool,
    **options: Any,
) -> Found:
    """Search from B roots.

    kind: "gumbel" (Danihelka et al. 2022), "puct" (Silver et al. 2018) or "uct" (Kocsis & Szepesvari 2006). logits,
    value: of the roots, [B, A] and [B]. root: their nodes. step: mctx's `recurrent_fn`. mask: [B, A] bool, the actions
    that are allowed at the roots; None: all. explore: with noise at the root, and a drawn action; otherwise the best
    one. options: for "gumbel" `considered`, the actions compared at the root; for "puct" `dirichlet_alpha`,
    `dirichlet_fraction`, `temperature` and `c_init`; for "uct" `c`.
    """
    mctx = library()
    begin = mctx.RootFnOutput(prior_logits=logits, value=value, embedding=root)
    ways: dict[str, Any] = {"num_simulations": simulations, "invalid_actions": None if mask is None else ~mask}
    if kind == GUMBEL:
        ways |= {"gumbel_scale": 1.0 if explore else 0.0, "max_num_considered_actions": options["considered"]}
        output = mctx.gumbel_muzero_policy(params, key, begin, step, **ways)
    elif kind == PUCT:
        ways |= {"dirichlet_fraction": options["dirichlet_fraction"] if explore else 0.0}
        ways |= {"dirichlet_alpha": options["dirichlet_alpha"], "pb_c_init": options["c_init"]}
        ways |= {"temperature": options["temperature"] if explore else 0.0}
        output = mctx.muzero_policy(params, key, begin, step, **ways)
        if not explore:  # mctx draws among those that were visited as often
            return _found_by_visits(output.search_tree, mask)
    else:
        return _found_by_visits(_uct(mctx, params, key, begin, step, mask, simulations, options["c"]), mask)
    summary = output.search_tree.summary()
    return Found(
        output.action.astype(jnp.int32), output.action_weights, summary.value, summary.visit_counts, summary.qvalues
    )


def _uct(mctx: Any, params: PyTree, key: Key, root: Any, step: Callable, mask: Any, simulations: int, c: float) -> Any:
    def select(key: Key, tree: Any, node: Array, depth: Array) -> Array:
        visits = tree.children_visits[node]
        total = jnp.maximum(visits.sum(), 1)
        bonus = c * jnp.sqrt(jnp.log(total) / jnp.maximum(visits, 1))
        score = jnp.where(visits > 0, tree.qvalues(node) + bonus, jnp.inf)
        score = jnp.where(tree.children_prior_logits[node] > FORBIDDEN / 2, score, -jnp.inf)
        # Of several best ones any: the first would be all that small searches ever look at.
        return jnp.argmax(jnp.where(score == score.max(), jax.random.uniform(key, score.shape), -1.0))

    def at_root(key: Key, tree: Any, node: Array) -> Array:
        return select(key, tree, node, jnp.int32(0))

    return mctx.search(
        params,
        key,
        root=root,
        recurrent_fn=step,
        root_action_selection_fn=at_root,
        interior_action_selection_fn=select,
        num_simulations=simulations,
        invalid_actions=None if mask is None else ~mask,
    )


def _found_by_visits(tree: Any, mask: Array | None) -> Found:
    summary = tree.summary()
    # Among the most visited the one of the highest value.
    best = summary.visit_counts + jax.nn.sigmoid(summary.qvalues)
    best = best if mask is None else jnp.where(mask, best, -1.0)
    action = jnp.argmax(best, axis=-1).astype(jnp.int32)
    return Found(action, summary.visit_probs, summary.value, summary.visit_counts, summary.qvalues)


def playout(
    model: DeviceEnv,
    node: Node,
    legal: Array,
    legal_in: Callable[[PyTree], Array],
    key: Key,
    gamma: float,
    most: int,
) -> Array:
    """Play from B nodes to the end at random, at most `most` steps: returns of the players to move there, [B].

    legal: [B, A] bool, the actions that are allowed at the nodes. legal_in: from observations to the same.
    """
    count = len(node.ended)
    seat = jax.vmap(model.to_play)(node.state)

    def going(at: tuple[Node, Array, Array, Array, Array]) -> Array:
        return (~at[0].ended).any() & (at[4] < most)

    def step(at: tuple[Node, Array, Array, Array, Array]) -> tuple[Node, Array, Array, Array, Array]:
        node, legal, total, discount, i = at
        key_action, key_step = jax.random.split(jax.random.fold_in(key, i))
        action = uniform_actions(key_action, count, legal.shape[-1], legal)
        after = jax.vmap(model.step)(node.state, action, jax.random.split(key_step, count))
        paid = after.reward
        if model.players > 1:
            paid = jnp.take_along_axis(paid, seat[:, None], axis=1)[:, 0]
        total = total + jnp.where(node.ended, 0.0, discount * paid)
        state = jax.tree.map(lambda new, old: choose(node.ended, old, new), after.state, node.state)
        over = node.ended | after.terminated | after.truncated
        return Node(state, over, node.worth), legal_in(after.obs), total, discount * gamma, i + 1

    begin = (node, legal, jnp.zeros(count), jnp.float32(1.0), jnp.int32(0))
    return jax.lax.while_loop(going, step, begin)[2]
