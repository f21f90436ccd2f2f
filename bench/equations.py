"""Equations of papers, as plain data, and the functions of the library that they are: for `bench.papers`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from renshu.algorithms.continuous import crossq, sac, soft, td3, temperature, tqc
from renshu.algorithms.replay_learner import ReplayLearner
from renshu.algorithms.value_based.dqn import DQNLearner
from renshu.ops import losses, targets, value_heads
from renshu.optim import gradient_steps, train_state


class Equation(NamedTuple):
    """An equation of a paper: its number or place there, in TeX, and a piece of the line of code that it is."""

    number: str
    formula: str
    code: str


class Chapter(NamedTuple):
    """An algorithm: its papers, the functions that are shown, its equations, and the differences of the code."""

    title: str
    papers: str
    functions: Sequence[Callable[..., Any]]
    equations: Sequence[Equation]
    differences: Sequence[str] = ()


POLICY = Equation(
    "Haarnoja (9)",
    r"J_\pi(\phi) = \mathbb{E}\,[\alpha \log \pi_\phi(f_\phi(\epsilon; s) \mid s) - Q_\theta(s, f_\phi(\epsilon; s))]",
    "return -(q - temperature * log_prob[:, None]).mean()",
)
TEMPERATURE = Equation(
    "Haarnoja (18)",
    r"J(\alpha) = \mathbb{E}_{a \sim \pi}\,[-\alpha \log \pi(a \mid s) - \alpha \bar{\mathcal{H}}]",
    "return log_temperature * jax.lax.stop_gradient(entropy - target)",
)
FOLLOWING = r"\bar\theta_i \leftarrow \tau \theta_i + (1 - \tau)\,\bar\theta_i"

REPLAY = Chapter(
    "Learning from replay",
    'Mnih et al. 2015, "Human-level control through deep reinforcement learning", Methods, algorithm 1, whose inner '
    'loop is that of all learners from replay; Schaul et al. 2016, "Prioritized experience replay".',
    [
        ReplayLearner.learn,
        ReplayLearner.observe,
        ReplayLearner.remember,
        ReplayLearner.update,
        ReplayLearner._descend,
    ],
    [
        Equation(
            "Mnih, algorithm 1",
            r"\text{Store transition } (\phi_t, a_t, r_t, \phi_{t+1}) \text{ in } D",
            "self.replay.add(state.memory, rollout, key)",
        ),
        Equation(
            "Mnih, algorithm 1",
            r"\text{Sample random minibatch of transitions } (\phi_j, a_j, r_j, \phi_{j+1}) \text{ from } D",
            "batch = self.replay.gather(known, index, weight, self.config.gamma)",
        ),
        Equation(
            "Schaul (1) and section 3.4",
            r"P(i) = p_i^\alpha / \textstyle\sum_k p_k^\alpha, \quad "
            r"w_i = (1/N \cdot 1/P(i))^\beta / \max_j w_j",
            "return self.replay.draw(memory, key_draw, self.config.batch_size, beta), key_step",
        ),
        Equation(
            "Mnih, algorithm 1",
            r"\text{Perform a gradient descent step with respect to } \theta",
            "train, metrics, error = self.gradient_step(train, batch, key_step, rate)",
        ),
        Equation(
            "Schaul, section 3.3",
            r"p_i = \lvert \delta_i \rvert + \epsilon",
            "self.replay.reprioritize(known, batch.indices, error)",
        ),
    ],
    ["A rollout of several steps is stored at once, and the gradient steps that it entitles to follow in one loop."],
)

SAC = Chapter(
    "SAC",
    'Haarnoja et al. 2018, "Soft actor-critic algorithms and applications", arXiv:1812.05905.',
    [
        sac.SACLearner.gradient_step,
        sac.SACLearner.target,
        soft.SoftActorCriticLearner.policy_step,
        temperature.temperature_step,
    ],
    [
        Equation(
            "(3)",
            r"V(s) = \mathbb{E}_{a \sim \pi}\,[Q(s, a) - \alpha \log \pi(a \mid s)]",
            "return q - temperature * log_prob[:, None]",
        ),
        Equation(
            "section 6",
            r"\min_{i=1,2} Q_{\bar\theta_i}(s', a')",
            "q = self.q(late, batch.next_obs, action, key_q).min(axis=0)",
        ),
        Equation(
            "(2)",
            r"r(s, a) + \gamma\, \mathbb{E}_{s'}[V(s')]",
            "return reward[:, None] + discount[:, None] * value",
        ),
        Equation(
            "(5)",
            r"J_Q(\theta) = \mathbb{E}\left[\tfrac12 \left(Q_\theta(s, a) - "
            r"(r + \gamma\, \mathbb{E}_{s'}[V_{\bar\theta}(s')])\right)^2\right]",
            "loss, error = td_loss(q, target, batch.weight, scale=0.5)",
        ),
        Equation(
            "(8)",
            r"a = f_\phi(\epsilon; s)",
            'action, log_prob = self.policy({**params, "actor": actor}, obs).sample_and_log_prob(key_action)',
        ),
        POLICY._replace(number="(9)"),
        TEMPERATURE._replace(number="(18)"),
        Equation("algorithm 1", FOLLOWING, "lambda t, p: t + share * (p - t)"),
    ],
    [
        "(18) is taken of the logarithm: what is learned is $`\\log\\alpha`$, and it stands in the loss in place of "
        "$`\\alpha`$, as in Stable-Baselines3.",
        "`n_target_critics`, `policy_delay` and `dropout` come from later papers (REDQ, DroQ). By default all critics "
        "count, and every step improves the policy.",
    ],
)

TD3 = Chapter(
    "TD3",
    'Fujimoto et al. 2018, "Addressing function approximation error in actor-critic methods", arXiv:1802.09477.',
    [td3.TD3Learner.gradient_step, td3.TD3Learner.target, td3.TD3Learner.policy_step],
    [
        Equation(
            "(14)",
            r"\epsilon \sim \mathrm{clip}(\mathcal{N}(0, \sigma), -c, c), \quad \tilde a = \pi_{\phi'}(s') + \epsilon",
            "smoothed = jnp.clip(action + jnp.clip(noise, -limit, limit), -1.0, 1.0)",
        ),
        Equation(
            "(15)",
            r"y = r + \gamma \min_{i=1,2} Q_{\theta'_i}(s', \tilde a)",
            'self.q(late["critics"], batch.next_obs, smoothed).min(axis=0)',
        ),
        Equation(
            "algorithm 1",
            r"\theta_i \leftarrow \mathrm{argmin}_{\theta_i} N^{-1} \textstyle\sum (y - Q_{\theta_i}(s, a))^2",
            "loss, error = td_loss(q, target, batch.weight)",
        ),
        Equation(
            "algorithm 1",
            r"\text{if } t \bmod d",
            "train_state = apply_every(self.config.policy_delay, improve, train_state)",
        ),
        Equation(
            "algorithm 1",
            r"\nabla_\phi J(\phi) = N^{-1} \textstyle\sum \nabla_a Q_{\theta_1}(s, a)\rvert_{a=\pi_\phi(s)} "
            r"\nabla_\phi \pi_\phi(s)",
            "mean = -self.q(first_critic, obs, self.policy(actor, obs)).mean()",
        ),
        Equation(
            "algorithm 1",
            r"\theta'_i \leftarrow \tau \theta_i + (1 - \tau)\,\theta'_i, \quad "
            r"\phi' \leftarrow \tau \phi + (1 - \tau)\,\phi'",
            "lambda t, p: t + share * (p - t)",
        ),
    ],
    ["The smoothed action is clipped to the actions that there are, from -1 to 1; (14) leaves that out."],
)

TQC = Chapter(
    "TQC",
    'Kuznetsov et al. 2020, "Controlling overestimation bias with truncated mixture of continuous distributional '
    'quantile critics", arXiv:2005.04269; Dabney et al. 2018, "Distributional reinforcement learning with quantile '
    'regression", arXiv:1710.10044. N critics have M quantiles each; kN of all are kept.',
    [tqc.TQCLearner.gradient_step, tqc.TQCLearner.target],
    [
        Equation(
            "section 3, target distribution",
            r"z_{(1)}(s', a') \le \ldots \le z_{(NM)}(s', a') \text{ of all critics, without those above } z_{(kN)}",
            "return jnp.sort(jnp.swapaxes(quantiles, 0, 1).reshape(batch, -1), axis=1)[:, : n * (count - drop)]",
        ),
        Equation(
            "(11)",
            r"y_i(s, a) = r(s, a) + \gamma\,[z_{(i)}(s', a') - \alpha \log \pi_\phi(a' \mid s')]",
            "td_target(batch.reward, batch.discount, soft_value(kept, log_prob, temperature(self.config, late)))",
        ),
        Equation(
            "section 3, loss functions",
            r"\tau_m = \frac{2m - 1}{2M}",
            "return (jnp.arange(self.outputs) + 0.5) / self.outputs",
        ),
        Equation(
            "Dabney (10)",
            r"\rho^H_\tau(u) = \lvert \tau - \mathbf{1}(u < 0) \rvert\, \mathcal{L}^1_H(u)",
            "loss = (slope * huber(error)).mean(axis=2).sum(axis=1)",
        ),
        Equation(
            "section 3, loss functions",
            r"J_Z(\psi_n) = \mathbb{E}\left[\frac{1}{kNM} \sum_{m=1}^{M} \sum_{i=1}^{kN} "
            r"\rho^H_{\tau_m}(y_i(s, a) - \theta^m_{\psi_n}(s, a))\right]",
            "return (weight * (losses.mean(axis=0) / q.shape[-1])).mean(), errors.mean(axis=0)",
        ),
        Equation(
            "section 3, loss functions",
            r"J_\pi(\phi) = \mathbb{E}\left[\alpha \log \pi_\phi(a \mid s) - "
            r"\frac{1}{NM} \sum_{m,n} \theta^m_{\psi_n}(s, a)\right]",
            "mean = lambda quantiles: quantiles.mean(axis=(0, 2))[:, None]",
        ),
        TEMPERATURE,
        Equation("Haarnoja, algorithm 1", FOLLOWING, "lambda t, p: t + share * (p - t)"),
    ],
    [
        "The loss is the mean over critics, where the paper gives each critic its own: a factor of 1/N in the "
        "gradient, which Adam all but undoes. The authors' code has it too.",
        "The policy's step is SAC's, `SoftActorCriticLearner.policy_step`, with the mean above as its `reduce`.",
    ],
)

CROSSQ = Chapter(
    "CrossQ",
    'Bhatt et al. 2024, "CrossQ: Batch normalization in deep reinforcement learning for greater sample efficiency and '
    'simplicity", arXiv:1902.05605. Its figure 2 is the loss of the critics as 13 lines of JAX.',
    [crossq.CrossQLearner.gradient_step, crossq.CrossQLearner.normalised_policy_step],
    [
        Equation(
            "figure 2, line 2",
            r"a' \sim \pi_\phi(\cdot \mid s')",
            "next_action, log_prob = self.policy(params, batch.next_obs).sample_and_log_prob(key_critics)",
        ),
        Equation(
            "figure 2, lines 5 to 10",
            r"\begin{bmatrix} q \\ q' \end{bmatrix} = Q_\theta\left(\begin{bmatrix} s \\ s' \end{bmatrix}, "
            r"\begin{bmatrix} a \\ a' \end{bmatrix}\right)",
            "return self.critic.apply(variables, obs, action, train=True, mutable=[STATISTICS])",
        ),
        Equation(
            "figure 2, lines 11 to 13",
            r"y = r + \gamma\,(\min q' - \alpha \log \pi_\phi(a' \mid s')), \text{ without gradient}",
            "target = td_target(batch.reward, batch.discount, soft_value(next_q.min(axis=0), log_prob, alpha))",
        ),
        Equation(
            "figure 2, line 13",
            r"\mathbb{E}\,[(q - y)^2]",
            "loss, error = td_loss(q, target, batch.weight, scale=0.5)",
        ),
        POLICY,
        TEMPERATURE,
    ],
    [
        "The loss has the factor 1/2 of SAC, which the figure leaves out and the authors' code has.",
        "Critics are 1,024 wide by default, as in sb3-contrib; the paper's are 2,048.",
        "The policy is valued by critics that go by their running statistics, as in the authors' code.",
    ],
)

DQN = Chapter(
    "DQN",
    'Mnih et al. 2015, "Human-level control through deep reinforcement learning", Methods (which have no numbers); '
    'van Hasselt et al. 2016, "Deep reinforcement learning with double Q-learning", arXiv:1509.06461, with `double`.',
    [DQNLearner.gradient_step, DQNLearner.target, DQNLearner.after_steps],
    [
        Equation(
            "Mnih, algorithm 1; van Hasselt (3)",
            r"y = r + \gamma \max_{a'} Q(s', a'; \theta^-), \text{ or } r \text{ at the end}",
            "policy = jax.nn.one_hot(jnp.argmax(next_values, axis=1), self.actions)",
        ),
        Equation(
            "the same",
            r"r + \gamma\, Q(s', a'; \theta^-)",
            "target = (reward + discount * after)[:, None]",
        ),
        Equation(
            'van Hasselt, section "Double DQN"',
            r"y = r + \gamma\, Q(s', \mathrm{argmax}_a Q(s', a; \theta); \theta^-)",
            "next_values = self.values(online, batch.next_obs, keys.choosing)",
        ),
        Equation(
            "Mnih, Methods",
            r"L(\theta) = \mathbb{E}\,[(y - Q(s, a; \theta))^2]",
            "losses, error = self.head.loss(chosen, target, taus)",
        ),
        Equation(
            "Mnih, Methods",
            r"\text{the error } y - Q \text{ clipped to } [-1, 1]",
            "return jnp.where(size <= delta, 0.5 * x**2, delta * (size - 0.5 * delta))",
        ),
        Equation(
            "Mnih, algorithm 1",
            r"\text{Every } C \text{ steps reset } \hat Q = Q",
            "times = counters.steps // interval - state.counters.steps // interval",
        ),
    ],
    [
        "C (`target_update_interval`) counts steps of the environments, as in Stable-Baselines3; the paper counts "
        "updates.",
        "The optimiser is Adam, with gradients clipped to a norm of 10, as in Stable-Baselines3; RMSProp in the paper.",
        "The other branches are the options `distributional`, `munchausen` and `noisy`, each with a paper of its own.",
    ],
)

CHAPTERS = (REPLAY, SAC, TD3, TQC, CROSSQ, DQN)
SHARED: Sequence[Any] = (
    targets.td_target,
    targets.soft_value,
    targets.truncated_mixture,
    losses.td_loss,
    losses.quantile_td_loss,
    losses.soft_actor_loss,
    losses.temperature_loss,
    value_heads.Mean.target,
    value_heads.Mean.loss,
    value_heads.huber,
    value_heads.quantile_huber,
    value_heads.Quantiles.midpoints.fget,
    train_state.Optimizers.step,
    gradient_steps.optimizer_step,
    train_state.polyak,
    train_state.apply_every,
)
"""Functions of several algorithms, shown once."""
