"""Optional fields of the contract are () where nobody needs them: no program of a plain learner knows of them."""

from typing import Any, NamedTuple

import jax
import pytest
from gymnasium import spaces

from renshu import A2C, DQN, PPO, PQN, SAC, Algorithm, QLearning
from renshu.types import EnvSpec, TimeStep
from tests.algorithms.rollouts import make_rollout

KEY = jax.random.key(0)
REPLAY: dict[str, Any] = {"buffer_size": 64, "batch_size": 8, "net_arch": [4], "train_freq": 2}
ON_POLICY: dict[str, Any] = {"n_steps": 4, "net_arch": [4]}
ALGORITHMS: dict[str, Algorithm] = {
    "ppo": PPO(**ON_POLICY, batch_size=8, norm_obs=True, norm_reward=True),
    "a2c": A2C(**ON_POLICY),
    "pqn": PQN(**ON_POLICY, batch_size=8),
    "dqn": DQN(**REPLAY),
    "sac": SAC(**REPLAY),
    "qlearning": QLearning(n_steps=4, obs_bins=3),
}


class PlainTimeStep(NamedTuple):
    """What an actor saw before there were optional fields."""

    obs: Any
    first: Any


class PlainRollout(NamedTuple):
    """What learning saw before there were optional fields."""

    obs: Any
    first: Any
    action: Any
    reward: Any
    terminated: Any
    carry: Any
    extras: Any
    env_id = continues = ()  # no fields: the program cannot take them

    @property
    def valid(self):
        return ~self.first[1:]


@pytest.mark.parametrize("name", ALGORITHMS)
def test_programs_are_those_of_a_contract_without_optional_fields(name):
    box = spaces.Box(-1.0, 1.0, (3,))
    learner = ALGORITHMS[name].build(EnvSpec(box, box if name == "sac" else spaces.Discrete(2), 2))
    state, rollout = jax.eval_shape(learner.init, KEY), make_rollout(learner)
    plain = PlainRollout(*rollout[:7])

    def learn(state: Any, rollout: Any, key: Any) -> Any:
        return learner.learn(state, rollout, key)

    def act(state: Any, timestep: Any, key: Any) -> Any:
        acting = learner.prepare(learner.actor_state(state), getattr(timestep, "env_id", ()))
        return learner.act(acting, learner.initial_carry(2), timestep, key, explore=True)

    timestep = PlainTimeStep(rollout.obs[0], rollout.first[0])
    for function, now, before in (
        (learn, rollout, plain),
        (act, TimeStep(*timestep), timestep),
    ):
        texts = [jax.jit(function, keep_unused=True).lower(state, given, KEY).as_text() for given in (now, before)]
        assert len(texts[0]) > 500
        assert texts[0] == texts[1]
