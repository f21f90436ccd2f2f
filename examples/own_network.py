"""A network of your own: a Flax module from observations to features; Renshu puts policy and value heads on top."""

import flax.linen as nn
import jax.numpy as jnp

import renshu


class Residual(nn.Module):
    """Two hidden layers, the second with a residual connection. obs [B, 4] -> features [B, width]."""

    width: int = 32

    @nn.compact
    def __call__(self, obs):
        x = nn.silu(nn.Dense(self.width)(jnp.asarray(obs, jnp.float32)))
        return nn.LayerNorm()(x + nn.silu(nn.Dense(self.width)(x)))


def main(steps: int = 100_000) -> renshu.Agent:
    """Train with it, save, and load: files hold no code, so the module is passed again."""
    preset = renshu.preset("ppo", "CartPole-v1", network=Residual(width=48))
    agent = preset.algorithm.on("CartPole-v1", num_envs=preset.num_envs, seed=0).learn(steps)
    path = agent.save("residual.safetensors")
    again = renshu.load(path, network=Residual(width=48))
    print("mean return of 20 episodes:", again.evaluate(20))
    return again


if __name__ == "__main__":
    main()
