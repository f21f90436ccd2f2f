"""What is timed: the same hyperparameters for Renshu and its peers. Plain data; imported by both sides."""

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
    },
    "a2c": {
        "environment": "CartPole-v1",
        "num_envs": 8,
        "steps": 500_000,
        "warm_up": 80,
        "settings": {"n_steps": 5, "gamma": 0.99, "ent_coef": 0.0},
        "linear": {},
        "peers": ["sb3"],
    },
}
