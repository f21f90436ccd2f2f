"""Cases to time: the same hyperparameters for Renshu and its peers. Plain data, imported by both sides.

page: the page that shows the figures. modes: what is timed, see bench.speed. warm_up: steps of the preceding `learn`
where compilation is left out. own: additional arguments for Renshu where its defaults differ from those of its peers.
algorithm: by default the name of the case. ours: the environment of the compiled loop; "host" is then Renshu's own
host loop, a peer like the others.
"""

EVERY = ("empty cache", "warm cache", "no compilation")
CASES = {
    "ppo": {
        "environment": "CartPole-v1",
        "num_envs": 8,
        "steps": 100_000,
        "warm_up": 512,
        "settings": {
            "n_steps": 32,
            "batch_size": 256,
            "n_epochs": 20,
            "gamma": 0.98,
            "gae_lambda": 0.8,
            "ent_coef": 0.0,
        },
        "linear": {"learning_rate": 1e-3, "clip_range": 0.2},
        "peers": ["sb3", "sbx"],
        "page": "speed",
        "modes": EVERY,
        "own": {},
    },
    "a2c": {
        "environment": "CartPole-v1",
        "num_envs": 8,
        "steps": 500_000,
        "warm_up": 80,
        "settings": {"n_steps": 5, "gamma": 0.99, "ent_coef": 0.0},
        "linear": {},
        "peers": ["sb3"],
        "page": "speed",
        "modes": EVERY,
        "own": {},
    },
    "dqn": {
        "environment": "CartPole-v1",
        "num_envs": 1,
        "steps": 20_000,
        "warm_up": 2_000,
        "settings": {
            "learning_rate": 2.3e-3,
            "batch_size": 64,
            "buffer_size": 100_000,
            "learning_starts": 1_000,
            "gamma": 0.99,
            "target_update_interval": 10,
            "train_freq": 256,
            "gradient_steps": 128,
            "exploration_fraction": 0.16,
            "exploration_final_eps": 0.04,
            "net_arch": [256, 256],
        },
        "linear": {},
        "peers": ["sb3", "sbx"],
        "page": "speed_replay",
        "modes": EVERY[2:],
        "own": {},
    },
    "sac": {
        "environment": "Pendulum-v1",
        "num_envs": 1,
        "steps": 3_000,
        "warm_up": 300,
        "settings": {"learning_rate": 1e-3, "batch_size": 256, "net_arch": [256, 256]},
        "linear": {},
        "peers": ["sb3", "sbx"],
        "page": "speed_replay",
        "modes": EVERY[2:],
        "own": {},
    },
}
CASES["td3"] = {**CASES["sac"], "peers": ["sb3"]}
# SBX moves the target networks after every gradient step, whatever `policy_delay` is.
CASES["td3_sbx"] = {**CASES["sac"], "algorithm": "TD3", "peers": ["sbx"], "own": {"target_update_interval": 1}}
CASES["dqn_compiled"] = {
    "algorithm": "DQN",
    "environment": "CartPole-v1",
    "ours": "renshu/CartPole-v1",
    "num_envs": 4,
    "steps": 100_000,
    "warm_up": 5_000,
    "settings": {
        "learning_rate": 1e-3,
        "batch_size": 64,
        "buffer_size": 100_000,
        "learning_starts": 1_000,
        "target_update_interval": 1_000,
        "train_freq": 1,
        "gradient_steps": 1,
        "net_arch": [64, 64],
    },
    "linear": {},
    "peers": ["host", "sb3"],
    "page": "speed_replay",
    "modes": EVERY[2:],
    "own": {},
}
CASES["sac_compiled"] = {**CASES["sac"], "algorithm": "SAC", "ours": "renshu/Pendulum-v1", "peers": ["host", "sb3"]}
