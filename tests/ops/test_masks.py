import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from renshu.errors import SpaceError
from renshu.ops.distributions import Categorical
from renshu.ops.masks import FORBIDDEN, batched_with_mask, mask_for_display, mask_values, split, uniform_actions

KEY = jax.random.key(0)
MASK = np.array([[1, 0, 1], [0, 0, 1], [0, 0, 0]], np.int8)
SPACE = spaces.Dict({"action_mask": spaces.MultiBinary(3), "observation": spaces.Box(-1, 1, (2,))})


def test_an_observation_and_its_mask_are_taken_apart_and_where_nothing_is_allowed_everything_is():
    obs = np.arange(6.0).reshape(3, 2)
    seen, allowed = split({"action_mask": jnp.asarray(MASK), "observation": obs})
    assert seen is obs
    np.testing.assert_array_equal(allowed, [[True, False, True], [False, False, True], [True, True, True]])


def test_of_several_observations_at_once_the_mask_of_the_newest_counts():
    masks = np.stack([1 - MASK, MASK], axis=1)  # [3, 2, 3], oldest first
    _, allowed = split({"action_mask": jnp.asarray(masks), "observation": jnp.zeros((3, 2, 2))})
    np.testing.assert_array_equal(allowed[:2], MASK[:2] == 1)


def test_values_of_what_is_not_allowed():
    values, allowed = jnp.array([[1.0, 2.0, 3.0]]), jnp.array([[True, False, True]])
    np.testing.assert_array_equal(mask_values(values, allowed), np.array([[1.0, FORBIDDEN, 3.0]], np.float32))
    np.testing.assert_array_equal(mask_for_display(values, allowed), [[1.0, -np.inf, 3.0]])
    assert mask_values(values, None) is values
    assert mask_for_display(values, None) is values


def test_random_actions_are_uniform_among_what_is_allowed():
    mask = jnp.broadcast_to(jnp.array([True, False, True, True]), (6000, 4))
    drawn = np.bincount(uniform_actions(KEY, 6000, 4, mask), minlength=4)
    assert drawn[1] == 0
    np.testing.assert_allclose(drawn[[0, 2, 3]], 2000, atol=150)
    np.testing.assert_array_equal(
        uniform_actions(KEY, 50, 4, None), jax.random.randint(KEY, (50,), 0, 4), "as without masks"
    )


@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_a_masked_policy_has_finite_entropies_and_gradients(scale):
    mask = jnp.array([[True, False, True], [False, False, True]])

    def entropy(logits):
        policy = Categorical(mask_values(logits, mask))
        return (policy.entropy() + policy.log_prob(jnp.array([0, 2])) + policy.kl(policy)).sum()

    logits = scale * jnp.array([[0.0, 5.0, 0.0], [3.0, 1.0, -2.0]])
    value, gradient = jax.value_and_grad(entropy)(logits)
    assert float(value) == pytest.approx(np.log(2) - np.log(2) + 0.0, abs=1e-6), "two choices, then one"
    assert np.isfinite(gradient).all()
    assert not np.any(gradient[~mask]), "what is forbidden is not learned"
    probabilities = jax.nn.softmax(mask_values(logits, mask))
    np.testing.assert_array_equal(probabilities[~mask], 0.0)


def test_batches_with_masks_and_without():
    one = np.zeros(2, np.float32)
    for given, mask in (({"action_mask": [1, 0, 1], "observation": one}, None), (one, [True, False, True])):
        obs, batch, single = batched_with_mask(SPACE, given, mask)
        assert (batch, single) == (1, True)
        np.testing.assert_array_equal(obs["action_mask"], [[1, 0, 1]])
        assert obs["action_mask"].dtype == np.int8
        assert obs["observation"].shape == (1, 2)
    obs, batch, single = batched_with_mask(SPACE, np.zeros((4, 2)))
    assert (batch, single) == (4, False)
    np.testing.assert_array_equal(obs["action_mask"], np.ones((4, 3)))
    np.testing.assert_array_equal(
        batched_with_mask(SPACE, np.zeros((2, 2)), MASK[:2])[0]["action_mask"], MASK[:2], "one for each"
    )
    np.testing.assert_array_equal(
        batched_with_mask(SPACE, np.zeros((2, 2)), MASK[0])[0]["action_mask"], MASK[[0, 0]], "one for all"
    )


@pytest.mark.parametrize("mask", [[1, 0], [[1, 0, 1]] * 3, [0.5, 0.5, 0.0]], ids=["short", "many", "floats"])
def test_wrong_masks_are_refused(mask):
    with pytest.raises(SpaceError, match=r"whether it is allowed: .*\(3,\) or \(2, 3\); this is"):
        batched_with_mask(SPACE, np.zeros((2, 2)), mask)
    with pytest.raises(SpaceError, match="give the mask once"):
        batched_with_mask(SPACE, {"action_mask": [1, 1, 1], "observation": np.zeros(2)}, [1, 1, 1])
