"""Critics of any observation; ensembles one after the other and all at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from renshu.networks.critics import Critic, init_ensemble, map_ensemble, unstack
from renshu.networks.encoders import Hidden
from tests.algorithms.rollouts import assert_close
from tests.networks.inputs import ACTION, KEY, OBS, SPACE, drawn


@pytest.mark.parametrize(
    "space",
    [SPACE, spaces.Dict({"a": spaces.Discrete(3), "b": spaces.Tuple((SPACE, spaces.MultiBinary(2)))})],
    ids=["box", "nested"],
)
def test_critics_value_actions_of_any_observation(space):
    obs = OBS
    if isinstance(space, spaces.Dict):
        obs = {"a": np.arange(5) % 3, "b": (OBS, np.ones((5, 2), np.int8))}
    critic = Critic(space, Hidden((8,)), outputs=3)
    params = drawn(critic, obs, ACTION)
    values = critic.apply({"params": params}, obs, ACTION)
    assert values.shape == (5, 3)
    for other in (critic.apply({"params": params}, obs, -ACTION), critic.apply({"params": params}, obs, ACTION)[::-1]):
        assert np.abs(np.asarray(values) - np.asarray(other)).max() > 1e-3


def test_one_after_the_other_is_all_at_once(monkeypatch):
    critic = Critic(SPACE, Hidden((8,)))
    params = init_ensemble(lambda key: critic.init(key, OBS, ACTION)["params"], 3, KEY)
    keys = tuple(jax.random.split(KEY, 3))

    def value(params, key):
        return critic.apply({"params": params}, OBS, ACTION) + jax.random.normal(key, (5, 1))

    apart = map_ensemble(value, params, keys)
    assert apart.shape == (3, 5, 1)
    assert len({float(x) for x in apart[:, 0, 0]}) == 3, "each is drawn for itself"
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert_close(map_ensemble(value, params, keys), apart)
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *params)
    assert_close(unstack(stacked, 3), params)
