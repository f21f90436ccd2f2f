import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renshu.envs.builtin.memory import Memory, MemoryState
from renshu.envs.device import DeviceEnvs
from renshu.errors import HyperparameterError


def state(cue: int, position: int, turn: int = 0) -> MemoryState:
    return MemoryState(jnp.int32(cue), jnp.int32(position), jnp.int32(turn))


def test_the_cue_is_seen_once_and_both_ways():
    env = Memory(length=3)
    states, obs = jax.vmap(env.reset)(jax.random.split(jax.random.key(0), 500))
    assert (obs[:, 0] == states.cue).all()
    assert set(obs[:, 0].tolist()) == {-1.0, 1.0}
    assert abs(float(obs[:, 0].mean())) < 0.15
    after = env.step(state(1, 0), jnp.int32(0), jax.random.key(0))
    assert after.obs.tolist() == pytest.approx([0, 0, 1 / 3])
    assert env.observation_space.contains(np.asarray(after.obs))


@pytest.mark.parametrize("cue", [-1, 1])
@pytest.mark.parametrize("action", [0, 1])
def test_an_episode(cue, action):
    env = Memory(length=3)
    now, seen = state(cue, 0), []
    step = jax.jit(env.step)
    for i in range(4):
        after = step(now, jnp.int32(action), jax.random.key(i))
        now = after.state
        seen.append((after.obs.tolist(), float(after.reward), bool(after.terminated)))
    reward = 1.0 if (action == 1) == (cue == 1) else -1.0
    assert [r for _, r, _ in seen] == [0, 0, 0, reward]
    assert [end for *_, end in seen] == [False, False, False, True]
    assert [obs[1] for obs, *_ in seen] == [0, 0, 1, 0]
    assert [obs[2] for obs, *_ in seen] == pytest.approx([1 / 3, 2 / 3, 1, 1])
    assert all(obs[0] == 0 for obs, *_ in seen)


def test_remembering_pays_and_not_remembering_does_not():
    envs = DeviceEnvs(Memory(length=4), 200)
    step = jax.jit(envs.step)

    def play(recall: bool) -> np.ndarray:
        state, obs = envs.reset(jax.random.key(3))
        cue, total = obs[:, 0], 0
        for _ in range(5):
            state, out = step(state, (cue > 0).astype(jnp.int32) if recall else jnp.ones(200, jnp.int32))
            total += out.reward
        assert state.ended.all()
        assert (state.inner.turn != 0).all()
        return np.asarray(total)

    assert (play(recall=True) == 1).all()
    assert abs(play(recall=False).mean()) < 0.25


def test_text_and_picture():
    env = Memory(length=3)
    assert env.text(state(1, 0)) == "... \nP   \nR.. "
    assert env.text(state(-1, 0)) == "L.. \nP   \n... "
    assert env.text(state(-1, 2)) == "... \n  P \n... "
    assert env.text(state(-1, 3, 1)) == "... \n    \n...P"
    pictures = [env.render(s) for s in (state(1, 0), state(-1, 0), state(1, 1), state(1, 3, 1), state(-1, 3, 1))]
    assert {p.shape for p in pictures} == {(120, 160, 3)}
    assert {p.dtype for p in pictures} == {np.dtype(np.uint8)}
    assert len({p.tobytes() for p in pictures}) == 5
    hidden = (env.render(state(1, 1)), env.render(state(-1, 1)))
    assert (hidden[0] == hidden[1]).all()


@pytest.mark.parametrize("length", [0, -1, 2.5])
def test_a_corridor_of_no_length_is_refused(length):
    with pytest.raises(HyperparameterError, match="1 or more"):
        Memory(length=length)
