"""Hyperparameters: what is refused and how, what is stored, and that nothing is lost on the way to a file and back."""

import dataclasses
import json
import math
import pickle
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from flax import linen as nn

from renshu import A2C, PPO
from renshu.algorithms.hyperparameters import NetArch
from renshu.errors import HyperparameterError
from renshu.ops.schedules import Cosine, Linear, Piecewise


class Torso(nn.Module):
    width: int = 4

    @nn.compact
    def __call__(self, obs):
        return nn.Dense(self.width)(obs)


def custom(progress_remaining):
    return 1e-3 * progress_remaining


def test_an_unknown_name_is_refused_with_its_near_matches():
    with pytest.raises(HyperparameterError, match=r"PPO has no hyperparameter 'learning_rat'.*learning_rate"):
        PPO(learning_rat=1e-3)  # type: ignore[call-arg]
    with pytest.raises(HyperparameterError, match=r"'zzz'. It has: .*batch_size"):
        PPO(zzz=1)  # type: ignore[call-arg]


def test_positional_arguments_are_refused():
    with pytest.raises(HyperparameterError, match="by name"):
        PPO(3e-4)  # type: ignore[misc]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"learning_rate": -1e-3}, "learning_rate must be a finite number >= 0 or a schedule"),
        ({"learning_rate": math.nan}, "learning_rate must be"),
        ({"learning_rate": None}, "not None"),
        ({"learning_rate": "1e-3"}, "not '1e-3'"),
        ({"gamma": 1.01}, "gamma must be a finite number >= 0 and <= 1, not 1.01"),
        ({"gamma": math.inf}, "gamma"),
        ({"ent_coef": math.inf}, "ent_coef"),
        ({"log_std_init": -math.inf}, "log_std_init must be a finite number, not -inf"),
        ({"n_steps": 0}, "n_steps must be a whole number of at least 1, not 0"),
        ({"n_steps": 2.5}, "n_steps must be a whole number"),
        ({"n_steps": True}, "n_steps"),
        ({"n_steps": "8"}, "n_steps"),
        ({"n_steps": 10**400}, "n_steps"),
        ({"n_epochs": math.nan}, "n_epochs"),
        ({"gamma": False}, "gamma"),
        ({"max_grad_norm": 0}, "max_grad_norm must be a finite number > 0"),
        ({"max_grad_norm": None}, "max_grad_norm"),
        ({"target_kl": 0.0}, "target_kl must be a finite number > 0 or None"),
        ({"clip_range_vf": -0.2}, "clip_range_vf .* or a schedule .* or None"),
        ({"norm_obs": 1}, "norm_obs must be True or False, not 1"),
        ({"activation_fn": "tanhh"}, "activation_fn must be one of None, tanh, relu, elu, silu, not 'tanhh'"),
        ({"activation_fn": nn.relu}, "activation_fn must be one of"),
        ({"net_arch": 64}, "net_arch must be a list of whole numbers"),
        ({"net_arch": [64, 0]}, "net_arch"),
        ({"net_arch": [64, True]}, "net_arch"),
        ({"net_arch": [64.5]}, "net_arch"),
        ({"net_arch": {"pi": [64]}}, "net_arch"),
        ({"net_arch": {"pi": [64], "qf": [64]}}, "net_arch"),
        ({"net_arch": {"pi": [64], "vf": 64}}, "net_arch"),
        ({"network": "Torso"}, "network must be a Flax Linen module or its class, not 'Torso'"),
        ({"network": dict}, "network must be a Flax Linen module"),
    ],
    ids=lambda value: re.sub(r" (object|) ?at 0x\w+", "", str(value)),
)
def test_a_wrong_value_is_refused_in_words_that_name_it(wrong: dict[str, Any], words: str):
    with pytest.raises(HyperparameterError, match=words) as caught:
        PPO(**wrong)
    assert str(caught.value).startswith(f"PPO: {next(iter(wrong))}")


def test_whole_numbers_may_be_written_as_floats():
    ppo = PPO(n_steps=1e3, batch_size=np.int64(10), gamma=1)  # type: ignore[arg-type]
    assert (ppo.n_steps, ppo.batch_size, ppo.gamma) == (1000, 10, 1.0)
    assert [type(value) for value in (ppo.n_steps, ppo.batch_size, ppo.gamma)] == [int, int, float]


def test_none_where_it_means_something():
    assert PPO(target_kl=None, clip_range_vf=None, network=None).target_kl is None


@pytest.mark.parametrize(
    ("given", "pi", "vf"),
    [
        ([64, 32], (64, 32), (64, 32)),
        ((8,), (8,), (8,)),
        ([], (), ()),
        ({"pi": [4], "vf": (8, 8)}, (4,), (8, 8)),
        (NetArch((1,), (2,)), (1,), (2,)),
        ([np.int64(3)], (3,), (3,)),
    ],
    ids=str,
)
def test_widths(given: Any, pi: tuple[int, ...], vf: tuple[int, ...]):
    assert A2C(net_arch=given).net_arch == NetArch(pi, vf)


def test_a_network_may_be_a_class_or_an_instance():
    assert PPO(network=Torso).network == Torso()
    assert PPO(network=Torso(9)).network.width == 9


EXAMPLES = {
    "defaults": {},
    "numbers": {"learning_rate": 1e-4, "n_steps": 16, "target_kl": 0.03, "norm_obs": True, "activation_fn": "silu"},
    "linear": {"learning_rate": Linear(1e-3, 1e-5, 0.5), "clip_range": Linear(0.2), "clip_range_vf": 0.1},
    "cosine": {"learning_rate": Cosine(1e-3), "net_arch": {"pi": [4], "vf": [8, 8]}},
    "piecewise": {"learning_rate": Piecewise(((0.0, 1e-3), (0.5, 1e-4))), "net_arch": [3]},
}
examples = pytest.mark.parametrize("given", EXAMPLES.values(), ids=EXAMPLES.keys())


@examples
def test_hashable_equal_and_printable(given: dict[str, Any]):
    one, other = PPO(**given), PPO(**given)
    assert one == other
    assert hash(one) == hash(other)
    assert eval(repr(one)) == one
    assert PPO(**given | {"gamma": 0.5}) != one


def test_an_algorithm_with_a_network_is_hashable():
    assert len({PPO(network=Torso), PPO(network=Torso()), PPO(network=Torso(5)), PPO()}) == 3


@examples
def test_nothing_is_lost_in_json(given: dict[str, Any]):
    ppo = PPO(**given)
    assert PPO.from_json(json.loads(json.dumps(ppo.to_json(), allow_nan=False))) == ppo


@examples
def test_nothing_is_lost_in_a_pickle(given: dict[str, Any]):
    assert pickle.loads(pickle.dumps(PPO(**given))) == PPO(**given)


def test_replace_checks_again():
    ppo = PPO(net_arch=[8], learning_rate=Linear(1e-3))
    changed = dataclasses.replace(ppo, gamma=0.9)
    assert (changed.gamma, changed.net_arch, changed.learning_rate) == (0.9, ppo.net_arch, ppo.learning_rate)
    with pytest.raises(HyperparameterError, match="gamma"):
        dataclasses.replace(ppo, gamma=2)


def test_hyperparameters_cannot_be_changed_in_place():
    with pytest.raises(dataclasses.FrozenInstanceError):
        PPO().gamma = 0.5  # type: ignore[misc]


@pytest.mark.parametrize(
    ("given", "word"),
    [({"learning_rate": custom}, "learning_rate"), ({"network": Torso(7)}, "network")],
    ids=["schedule", "network"],
)
def test_what_a_file_cannot_hold_is_asked_for_again(given: dict[str, Any], word: str):
    algorithm = A2C(gamma=0.5, **given)
    data = json.loads(json.dumps(algorithm.to_json()))
    with pytest.raises(HyperparameterError, match=rf"(?s)^{word}: .*pass it again"):
        A2C.from_json(data)
    assert A2C.from_json(data, **given) == algorithm
    assert algorithm.unsaved() == given


def test_overrides_replace_what_the_data_says():
    data = PPO(gamma=0.5, n_steps=8).to_json()
    assert PPO.from_json(data, gamma=0.7) == PPO(gamma=0.7, n_steps=8)
    with pytest.raises(HyperparameterError, match="gama"):
        PPO.from_json(data, gama=0.7)


def test_damaged_data_is_refused():
    with pytest.raises(HyperparameterError, match="gamma"):
        PPO.from_json({"gamma": "high"})
    with pytest.raises(HyperparameterError, match=r"learning_rate: .*lineer"):
        PPO.from_json({"learning_rate": {"schedule": "lineer", "start": 1.0}})
    with pytest.raises(HyperparameterError, match="'future'"):
        PPO.from_json({"future": 1})


def test_text_from_a_command_line():
    typed = {
        "learning_rate": "linear:1e-3:1e-5",
        "clip_range": "0.1",
        "clip_range_vf": "None",
        "n_steps": "1e3",
        "target_kl": "null",
        "norm_obs": "true",
        "normalize_advantage": "False",
        "activation_fn": "relu",
        "net_arch": '{"pi": [8], "vf": [4, 4]}',
    }
    assert PPO(**PPO.parse(typed)) == PPO(
        learning_rate=Linear(1e-3, 1e-5),
        clip_range=0.1,
        n_steps=1000,
        norm_obs=True,
        normalize_advantage=False,
        activation_fn="relu",
        net_arch={"pi": [8], "vf": [4, 4]},  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("network", "Torso", "from Python only"),
        ("learning_rate", "fast", "not a number"),
        ("gamma", "high", "gamma must be"),
        ("nonsense", "1", "no hyperparameter 'nonsense'"),
    ],
)
def test_wrong_text_is_refused(name: str, text: str, words: str):
    with pytest.raises(HyperparameterError, match=words):
        PPO(**PPO.parse({name: text}))


def test_plain_fields_of_an_own_algorithm_take_anything():
    @dataclass(frozen=True, kw_only=True)
    class Own(A2C):
        flavour: str = "vanilla"

    own = Own(flavour="lemon", gamma=0.5)
    assert Own.from_json(own.to_json()) == own
    with pytest.raises(HyperparameterError, match="flavour"):
        Own(flavor="lemon")  # type: ignore[call-arg]
