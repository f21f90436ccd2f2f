"""Recurrent cores against plain loops, cut where episodes begin."""

import jax
import numpy as np
import pytest

from renshu.networks.recurrent import CORES, core

T, B, F, H = 7, 3, 5, 4
KEY = jax.random.key(0)
KINDS = CORES[1:]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def plain(name, params, x, carry, first):
    """One step of one environment after the other, in float64."""
    p = {key: np.asarray(value, np.float64) for key, value in params.items()}
    out = np.zeros((T, B, H))
    carry = [np.array(part, np.float64) for part in carry]
    for b in range(B):
        h = [part[b] for part in carry]
        for t in range(T):
            if first[t, b]:
                h = [np.zeros(H) for _ in h]
            given = x[t, b] @ p["input_kernel"] + p["bias"]
            if name == "lstm":
                i, f, g, o = np.split(given + h[1] @ p["recurrent_kernel"], 4)
                cell = sigmoid(f + 1) * h[0] + sigmoid(i) * np.tanh(g)
                h = [cell, sigmoid(o) * np.tanh(cell)]
            elif name == "gru":
                z, r = np.split(sigmoid(given[: 2 * H] + h[0] @ p["recurrent_kernel"]), 2)
                h = [(1 - z) * h[0] + z * np.tanh(given[2 * H :] + (r * h[0]) @ p["candidate_kernel"])]
            else:
                z, candidate = sigmoid(given[:H]), given[H:]
                h = [(1 - z) * h[0] + z * candidate]
            out[t, b] = h[-1]
        for part, value in zip(carry, h, strict=True):
            part[b] = value
    return out, carry


@pytest.fixture(params=KINDS)
def case(request):
    rng = np.random.default_rng(0)
    module = core(request.param, H)
    x, first = rng.normal(size=(T, B, F)).astype(np.float32), rng.random((T, B)) < 0.3
    assert first[1:].any()
    carry = tuple(rng.normal(size=(B, H)).astype(np.float32) for _ in module.initial_carry(B))
    params = module.init(KEY, x, carry, first)
    params = jax.tree.map(lambda p: p + 0.1 * rng.normal(size=p.shape).astype(np.float32), params)
    return request.param, module, params, x, carry, first


def test_against_a_plain_loop(case):
    name, module, params, x, carry, first = case
    out, after = module.apply(params, x, carry, first)
    expected, wanted = plain(name, params["params"], x, carry, first)
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)
    for a, b in zip(after, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_two_halves_are_the_whole(case):
    _, module, params, x, carry, first = case
    whole, _ = module.apply(params, x, carry, first)
    early, between = module.apply(params, x[:4], carry, first[:4])
    late, _ = module.apply(params, x[4:], between, first[4:])
    np.testing.assert_allclose(whole, np.concatenate([early, late]), rtol=1e-5, atol=1e-6)


def test_nothing_crosses_the_beginning_of_an_episode(case):
    _, module, params, x, carry, first = case
    first = np.array(first)
    first[3] = True
    before, _ = module.apply(params, x, carry, first)
    changed = x.copy()
    changed[:3] += 1
    after, _ = module.apply(params, changed, tuple(part + 1 for part in carry), first)
    np.testing.assert_array_equal(before[3:], after[3:])
    assert (np.asarray(before[:3]) != np.asarray(after[:3])).any()


def test_a_minimal_unit_remembers_at_first():
    """Its slowest unit forgets a sixty-fifth in a step."""
    module = core("mingru", 8)
    params = module.init(KEY, np.zeros((1, 1, 2), np.float32), module.initial_carry(1), np.zeros((1, 1), bool))
    bias = np.asarray(params["params"]["bias"])[:8]
    assert sigmoid(bias[0]) == pytest.approx(1 / 2)
    assert sigmoid(bias[-1]) == pytest.approx(1 / 65)
