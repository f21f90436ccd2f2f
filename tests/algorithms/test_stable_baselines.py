"""Defaults beside those of Stable-Baselines3 2.9 and sb3-contrib 2.9: the same, or named on the page of differences."""

from pathlib import Path

import pytest

from renshu.algorithms.registry import algorithm

PAGE = Path(__file__).parents[2] / "docs" / "stable-baselines.md"
ON_POLICY = {"gamma": 0.99, "vf_coef": 0.5, "ent_coef": 0.0, "max_grad_norm": 0.5}
ON_POLICY |= {"use_sde": False, "sde_sample_freq": -1}
REPLAY = {"buffer_size": 1_000_000, "learning_starts": 100, "gamma": 0.99, "gradient_steps": 1, "n_steps": 1}
VALUES = {"batch_size": 32, "tau": 1.0, "train_freq": 4, "target_update_interval": 10_000, **REPLAY}
ACTORS = {"batch_size": 256, "train_freq": 1, "action_noise": None, **REPLAY}
SOFT = {
    "ent_coef": "auto",
    "target_entropy": "auto",
    "use_sde": False,
    "sde_sample_freq": -1,
    "use_sde_at_warmup": False,
}
SIGNATURES = {
    "PPO": {
        **ON_POLICY,
        **{"learning_rate": 3e-4, "n_steps": 2048, "batch_size": 64, "n_epochs": 10, "gae_lambda": 0.95},
        **{"clip_range": 0.2, "clip_range_vf": None, "normalize_advantage": True, "target_kl": None},
    },
    "A2C": {
        **ON_POLICY,
        **{"learning_rate": 7e-4, "n_steps": 5, "gae_lambda": 1.0, "rms_prop_eps": 1e-5, "use_rms_prop": True},
        "normalize_advantage": False,
    },
    "DQN": {
        **VALUES,
        **{"learning_rate": 1e-4, "max_grad_norm": 10.0},
        **{"exploration_fraction": 0.1, "exploration_initial_eps": 1.0, "exploration_final_eps": 0.05},
    },
    "QRDQN": {
        **VALUES,
        **{"learning_rate": 5e-5, "max_grad_norm": None, "n_quantiles": 200},
        **{"exploration_fraction": 0.005, "exploration_initial_eps": 1.0, "exploration_final_eps": 0.01},
    },
    "DDPG": {**ACTORS, "learning_rate": 1e-3, "tau": 0.005},
    "TD3": {
        **ACTORS,
        **{"learning_rate": 1e-3, "tau": 0.005, "policy_delay": 2},
        **{"target_policy_noise": 0.2, "target_noise_clip": 0.5},
    },
    "SAC": {**ACTORS, **SOFT, "learning_rate": 3e-4, "tau": 0.005, "target_update_interval": 1},
    "TQC": {
        **ACTORS,
        **SOFT,
        **{"learning_rate": 3e-4, "tau": 0.005, "target_update_interval": 1, "top_quantiles_to_drop_per_net": 2},
    },
    "CrossQ": {**ACTORS, **SOFT, "learning_rate": 1e-3, "policy_delay": 3},
}
"""Every argument of their constructors that is a hyperparameter; not those of logging, seeding and buffer classes."""
ABSENT = {
    *(("CrossQ", field) for field in ("use_sde", "sde_sample_freq")),
    *((name, field) for name in ("SAC", "TQC", "CrossQ") for field in ("action_noise", "use_sde_at_warmup")),
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_hyperparameters_are_those_of_stable_baselines(name: str) -> None:
    ours, absent = algorithm(name)(), {field for owner, field in ABSENT if owner == name}
    theirs = {field: value for field, value in SIGNATURES[name].items() if field not in absent}
    assert {field: getattr(ours, field) for field in theirs} == theirs
    assert not [field for field in absent if hasattr(ours, field)]


def test_what_is_absent_is_on_the_page() -> None:
    rows = [row for row in PAGE.read_text().splitlines() if row.startswith("|")]
    for name, field in sorted(ABSENT):
        named = [row for row in rows if f"`{field}`" in row]
        assert any(name in row or " of " not in row for row in named), f"{PAGE.name} does not name {field} of {name}"
