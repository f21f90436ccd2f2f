"""TD3, SAC and their kin solve the probes; a wrong sign, discount or end would not."""

import numpy as np
import pytest
from flax import linen as nn
from gymnasium import spaces

from renshu.algorithms.continuous.crossq import CrossQ
from renshu.algorithms.continuous.ddpg import DDPG
from renshu.algorithms.continuous.sac import SAC
from renshu.algorithms.continuous.td3 import TD3
from renshu.algorithms.continuous.tqc import TQC
from renshu.errors import HyperparameterError
from tests import probes
from tests.algorithms.transitions import parts

BOX = spaces.Box(-1, 1, (1,), np.float32)
BASE = {"learning_rate": 3e-3, "batch_size": 64, "buffer_size": 2000, "learning_starts": 200, "net_arch": [32]}
BASE |= {"train_freq": 4, "gradient_steps": 16, "gamma": 0.9}
LATE = {**BASE, "tau": 0.05}
KINDS = {
    "td3": lambda **kw: TD3(**{**LATE, "action_noise": "normal", "prioritized": True, "n_steps": 3, **kw}),
    "ddpg": lambda **kw: DDPG(**{**LATE, "action_noise": "ou", "action_noise_std": 0.5, **kw}),
    "sac": lambda **kw: SAC(**{**LATE, **kw}),
    "sde": lambda **kw: SAC(**{**LATE, "use_sde": True, "log_std_init": -1.0, **kw}),
    "redq": lambda **kw: SAC(
        **{**LATE, "n_critics": 3, "n_target_critics": 2, "dropout": 0.01, "layer_norm": True, **kw}
    ),
    "tqc": lambda **kw: TQC(**{**LATE, "n_quantiles": 8, "top_quantiles_to_drop_per_net": 1, **kw}),
    "crossq": lambda **kw: CrossQ(**{**BASE, **kw}),
}


def trained(name, env, steps=2400, **options):
    return KINDS[name](**options).on(env, num_envs=4, seed=0).learn(steps, progress=False)


def value(agent, x):
    return float(agent.explain(np.array([x], np.float32))["value"])


@pytest.mark.parametrize("name", [name for name in KINDS if name != "sac"])
def test_policy(name):
    """The right action, which is not at a bound, and its value of 0, which is the highest."""
    agent = trained(name, lambda: probes.Policy(BOX))
    for sign in (-1.0, 1.0):
        action = agent.predict(np.array([sign], np.float32))
        assert BOX.contains(action)
        np.testing.assert_allclose(action, 0.5 * sign, atol=0.15)
        assert value(agent, sign) == pytest.approx(0.0, abs=0.2)


def test_choices():
    """Of three, one is right for each observation: 0 for -1, 1 for +1."""
    agent = trained("sac", lambda: probes.Policy(spaces.Discrete(3)), ent_coef=0.05)
    for sign in (-1.0, 1.0):
        found = agent.explain(np.array([sign], np.float32))
        assert agent.predict(np.array([sign], np.float32)) == (sign > 0)
        np.testing.assert_allclose(found["action_values"], [sign < 0, sign > 0, 0], atol=0.3)


def test_discount():
    agent = trained("sac", lambda: probes.Discount(BOX), steps=3000, gamma=0.5, ent_coef=0.0)
    assert value(agent, 1.0) == pytest.approx(1.0, abs=0.1)
    assert value(agent, 0.0) == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("name", ["ddpg", "tqc"])
def test_time_limit(name):
    """Treating the time limit as an end would give a value of about 2.4 where it is 5."""
    options = {"gamma": 0.8, **({} if name == "ddpg" else {"ent_coef": 0.0})}
    if name == "tqc":
        options["top_quantiles_to_drop_per_net"] = 0
    agent = trained(name, lambda: probes.TimeLimit(BOX), steps=3000, **options)
    assert value(agent, 0.0) == pytest.approx(5.0, abs=0.5)


# --- networks of one's own ------------------------------------------------------------------------------------------


class Own(nn.Module):
    @nn.compact
    def __call__(self, obs):
        return nn.tanh(nn.Dense(5)(obs))


class Wrong(nn.Module):
    @nn.compact
    def __call__(self, obs):
        return obs.sum()


def test_own_network():
    """In place of the policy's hidden layers, and before those of the critics."""
    agent = KINDS["sac"](network=Own).on(lambda: probes.Policy(BOX), seed=0)
    actor, critic = (
        [x.shape for x in parts(tree, "kernel").values()]
        for tree in (agent.parameters["actor"], agent.parameters["critics"][0])
    )
    assert (1, 5) in actor, "Own sees the observation"
    assert not any(32 in shape for shape in actor), "and there are no hidden layers beside it"
    assert {(1, 5), (5 + 1, 32)} <= set(critic), "the critics' hidden layers see its features and the action"
    assert BOX.contains(agent.predict(np.ones(1, np.float32)))
    with pytest.raises(HyperparameterError, match="Wrong must return features of shape"):
        KINDS["td3"](network=Wrong).on(lambda: probes.Policy(BOX))
