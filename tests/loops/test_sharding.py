"""Learning data parallel over the devices of a machine, as docs/scaling.md says: equal to one device, to rounding."""

import json
import os
import subprocess
import sys

SCRIPT = """
import json, sys
import jax, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from renshu import A2C, PPO

devices = jax.devices()
mesh = Mesh(np.array(devices), ("data",))
everywhere, by_env = NamedSharding(mesh, P()), NamedSharding(mesh, P(None, "data"))
differences = {}
small = {"n_steps": 4, "net_arch": [16]}
for algorithm in (A2C(**small, gae_lambda=0.9), PPO(**small, batch_size=32, n_epochs=2)):
    trainer = algorithm.on("renshu/CartPole-v1", num_envs=16, seed=0, loop="host").trainer
    trainer.set_target(10_000)
    learner = trainer.learner
    learn = jax.jit(learner.learn)
    loop = trainer.start_loop(None)
    rollout = jax.tree.map(np.asarray, loop.collect().rollout)
    found = []
    for sharded in (False, True):
        state, given = jax.tree.map(np.asarray, trainer.state), rollout
        if sharded:
            state, given = jax.device_put(state, everywhere), jax.device_put(rollout, by_env)
            assert len(given.reward.sharding.device_set) == 8
        for i in range(3):
            state, _ = learn(state, given, jax.random.key(i))
        found.append(jax.tree.map(np.asarray, state.params))
    pairs = zip(*map(jax.tree.leaves, found), strict=True)
    differences[type(algorithm).__name__] = max(float(np.abs(a - b).max()) for a, b in pairs)
print(json.dumps({"devices": len(devices), "differences": differences}))
"""


def test_eight_devices_learn_what_one_does():
    flags = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=1"
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, "XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["devices"] == 8
    assert all(difference < 1e-5 for difference in found["differences"].values())
