"""What TD3 and SAC have in common: an actor, critics that value its actions, and late copies of them to learn from."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from renshu.algorithms.base import OBSERVATIONS
from renshu.algorithms.hyperparameters import NetArch, choice, module, whole, widths
from renshu.algorithms.off_policy import Core, OffPolicyAlgorithm, OffPolicyLearner
from renshu.networks.actor_critic import ACTIVATIONS, check_own
from renshu.networks.continuous import STATISTICS, Critic, Hidden, Torso, each, ensemble
from renshu.ops.descent import gradient_step
from renshu.ops.spaces import dummy
from renshu.replay.ring import Samples
from renshu.types import Accepts, Array, EnvSpec, Key, Metrics, PyTree


@dataclass(frozen=True, kw_only=True)
class ReplayActorCritic(OffPolicyAlgorithm):
    """Hyperparameters that TD3 and SAC share; names and meaning as in Stable-Baselines3."""

    accepts: ClassVar[Accepts] = Accepts(observations=OBSERVATIONS, actions=frozenset({"box"}), history=True)

    n_critics: int = whole(2, "critics: networks that each say the value of an action", least=1)
    policy_delay: int = whole(1, "updates of the critics for one of the policy", least=1)
    net_arch: NetArch = widths(
        (256, 256), 'widths of the hidden layers: a list, or {"pi": [...], "qf": [...]}', qf=True
    )
    activation_fn: str = choice("relu", "activation of the hidden layers", tuple(ACTIVATIONS))
    network: Any = module(
        "a Flax module of your own, obs [B, ...] -> features [B, F]: in place of the policy's hidden layers, and "
        "before those of the critics"
    )


class Extra(NamedTuple):
    """What the state has beside networks."""

    metrics: Metrics  # of the latest update of the policy
    noise: PyTree = ()  # what exploration keeps


class ReplayActorCriticLearner(OffPolicyLearner):
    """One update: critics towards a target, the policy towards what the critics value, late copies behind both.

    A subclass makes `actor` and `critic` in its constructor. The parameters are a dict of "actor", "critics" (a tuple)
    and what else there is; `params` below is such a dict, with the networks themselves or late copies of them.
    """

    actor: nn.Module
    critic: nn.Module
    targets: tuple[str, ...]
    """Parts of the parameters that have a late copy."""
    target_interval: int
    """Gradient steps between updates of the late copies."""

    def __init__(self, algorithm: ReplayActorCritic, spec: EnvSpec) -> None:
        super().__init__(algorithm, spec)
        if algorithm.network is not None:
            check_own(algorithm.network, self.observation_space)
        self.optimizer = optax.scale_by_adam()

    def torso(self, **options: Any) -> Torso:
        """Make hidden layers for the policy. options: of `Hidden`."""
        a: ReplayActorCritic = self.algorithm
        return Torso(self.observation_space, Hidden(a.net_arch.pi, a.activation_fn, **options), self._own())

    def make_critic(self, outputs: int = 1, **options: Any) -> Critic:
        """Make a critic with so many outputs. options: of `Hidden`."""
        a: ReplayActorCritic = self.algorithm
        return Critic(self.observation_space, Hidden(a.net_arch.vf, a.activation_fn, **options), self._own(), outputs)

    def _own(self) -> nn.Module | None:
        network = self.algorithm.network
        return None if network is None else network.copy(name=None)

    def init_params(self, key: Key) -> dict[str, Any]:
        """Make the parameters; running statistics of batch normalisation, where there are any, are the part "stats"."""
        key_actor, key_critics = jax.random.split(key)
        obs, action = dummy(self.observation_space, 1), self.dummy_action()
        actor = self.actor.init(key_actor, obs)
        critics = ensemble(lambda k: self.critic.init(k, obs, action), self.algorithm.n_critics, key_critics)
        params: dict[str, Any] = {"actor": actor["params"], "critics": tuple(one["params"] for one in critics)}
        if STATISTICS in actor:
            params["stats"] = {"actor": actor[STATISTICS], "critics": tuple(one[STATISTICS] for one in critics)}
        return params

    def dummy_action(self) -> Array | None:
        """An action `[1, A]` for the critics; None where they value all at once."""
        return jnp.zeros((1, *self.spec.action_space.shape))  # type: ignore[misc]

    @abstractmethod
    def init_extra(self, params: dict[str, Any], key: Key) -> Extra:
        """Make what the state has beside networks."""

    def init_core(self, key: Key) -> Core:
        params = self.init_params(key)
        return Core(
            params=params,
            target=jax.tree.map(jnp.copy, {part: params[part] for part in self.targets}),
            opt_state={part: self.optimizer.init(params[part]) for part in params if part != "stats"},
            updates=jnp.int32(0),
            extra=self.init_extra(params, jax.random.fold_in(key, 1)),
        )

    def policy(self, params: dict[str, Any], obs: PyTree) -> Any:
        """What the actor says of observations: actions `[B, A]`, or a distribution over them."""
        return self.actor.apply({"params": params["actor"]}, obs)

    def q(self, params: dict[str, Any], obs: PyTree, action: Array | None, key: Key | None = None) -> Array:
        """What the critics say of actions, `[n, B, K]`. key: of whatever is random in them; None for nothing."""
        return each(lambda critic: self.critic.apply({"params": critic}, obs, action), params["critics"])

    def update(
        self, core: Core, samples: Samples, key: Key, learning_rate: Array, progress_remaining: Array
    ) -> tuple[Core, Metrics, Array]:
        a: ReplayActorCritic = self.algorithm
        key_critics, key_actor = jax.random.split(key)
        core, metrics, error = self.critic_step(core, samples, key_critics, learning_rate)
        core = core._replace(updates=core.updates + 1)
        core = every(a.policy_delay, lambda core: self.actor_step(core, samples, key_actor, learning_rate), core)
        if self.targets:
            core = every(self.target_interval, self.follow, core)
        return core, {**metrics, **core.extra.metrics}, error

    def critic_step(self, core: Core, samples: Samples, key: Key, rate: Array) -> tuple[Core, Metrics, Array]:
        """Move the critics towards the target. Returns also metrics and the error of each sample `[B]`."""
        key_target, key_q = jax.random.split(key)
        target = jax.lax.stop_gradient(self.target(core, samples, key_target))

        def loss(critics: tuple[PyTree, ...]) -> tuple[Array, tuple[Metrics, Array]]:
            q = self.q({**core.params, "critics": critics}, samples.obs, samples.action, key_q)
            return self.critic_loss(q, target, samples)

        core, (metrics, error) = self.descend(core, "critics", loss, rate)
        return core, metrics, error

    def critic_loss(self, q: Array, target: Array, samples: Samples) -> tuple[Array, tuple[Metrics, Array]]:
        """The mean of `losses` by the samples' weights, metrics, and the error of each sample `[B]`."""
        losses, error = self.losses(q, target)
        mean = (samples.weight * losses).mean()
        return mean, ({"critic_loss": mean, "value": q.mean()}, error)

    @abstractmethod
    def target(self, core: Core, samples: Samples, key: Key) -> Array:
        """What critics should say of the actions that were taken, `[B, K]`."""

    def losses(self, q: Array, target: Array) -> tuple[Array, Array]:
        """Squared errors `[B]`, summed over the critics, of `q` `[n, B, 1]`; and the mean absolute errors `[B]`."""
        error = (q - target)[..., 0]
        return (error**2).sum(axis=0), jnp.abs(error).mean(axis=0)

    @abstractmethod
    def actor_step(self, core: Core, samples: Samples, key: Key, rate: Array) -> Core:
        """Move the policy towards what the critics value."""

    def descend(self, core: Core, part: str, loss: Callable[[PyTree], Any], rate: Array) -> tuple[Core, Any]:
        """Take a step down the gradient of `loss(part of the parameters) -> (loss, aux)`. Returns aux, too."""
        params, opt_state, aux, sound = gradient_step(
            self.optimizer, loss, core.params[part], core.opt_state[part], rate, core.sound, guard=self.guards
        )
        params, opt_state = {**core.params, part: params}, {**core.opt_state, part: opt_state}
        return core._replace(params=params, opt_state=opt_state, sound=sound), aux

    def follow(self, core: Core) -> Core:
        """Move the late copies towards the parameters by `tau` (Polyak averaging)."""
        tau, params = jnp.where(core.sound, self.algorithm.tau, 0.0), {part: core.params[part] for part in core.target}
        return core._replace(target=jax.tree.map(lambda t, p: t + tau * (p - t), core.target, params))

    def mixed(self, action: Array, share: Array, key: Key) -> Array:
        """Actions `[N, A]`, of which a share is drawn uniformly instead."""
        key_action, key_random = jax.random.split(key)
        anything = jax.random.uniform(key_action, action.shape, minval=-1.0, maxval=1.0)
        random = jax.random.uniform(key_random, action.shape[:1]) < share
        return jnp.where(random[:, None], anything, action)

    def value(self, params: dict[str, Any], obs: PyTree, action: Array) -> Array:
        """The least value that a critic gives to actions, `[N]`."""
        return self.q(params, obs, action).mean(axis=2).min(axis=0)

    def stacked(self, obs: PyTree, carry: PyTree) -> PyTree:
        """What the network sees of observations that `explain` was given: each the first of an episode."""
        return self.recall(carry, obs, jnp.ones(jax.tree.leaves(obs)[0].shape[0], jnp.bool_))[0]


def every(interval: int, fn: Callable[[Core], Core], core: Core) -> Core:
    """Apply `fn` after each `interval`-th gradient step."""
    if interval == 1:
        return fn(core)
    due = (core.updates % interval == 0).astype(jnp.int32)
    # A branch would copy all that it carries; a loop of no or one turn works in place.
    return jax.lax.fori_loop(0, due, lambda _, core: fn(core), core)
