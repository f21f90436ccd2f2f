"""Handwritten digits by supervised learning: the library's layers are Flax modules, so they serve elsewhere too.

784-100-100-10, Adam, cross-entropy; a seventh of the pictures is kept apart for the test. The pictures are MNIST's from
OpenML. Where that cannot be reached, the small ones that come with scikit-learn take their place:

    pip install -e ".[examples]"
    python examples/mnist.py
"""

import socket
from http.client import IncompleteRead
from urllib.error import URLError

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from renshu.networks.encoders import Hidden
from renshu.networks.layers import dense

BATCH = 100


class Classifier(nn.Module):
    """Two hidden layers of 100 units: pictures [B, F] in [0, 1] -> logits of the ten digits [B, 10]."""

    @nn.compact
    def __call__(self, pictures: jax.Array) -> jax.Array:
        return dense(10, 1.0, False)(Hidden((100, 100))(pictures))


def load(timeout: float = 10.0) -> tuple[np.ndarray, np.ndarray, int]:
    """Return pictures [K, F] in [0, 1], digits [K], and for how many epochs to train. timeout: seconds of silence."""
    try:
        from sklearn import datasets
    except ModuleNotFoundError as error:
        raise SystemExit('mnist.py reads its pictures by scikit-learn: pip install -e ".[examples]"') from error
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(timeout)
    try:
        x, y = datasets.fetch_openml("mnist_784", return_X_y=True, as_frame=False, parser="liac-arff", n_retries=1)
    except (URLError, ConnectionError, TimeoutError, IncompleteRead) as error:
        x, y = datasets.load_digits(return_X_y=True)
        print(f"data: {len(x):,} digits of 8 x 8 pixels from scikit-learn, since OpenML cannot be reached ({error})")
        return x / 16, y, 30  # they are few: as many epochs make about as many gradient steps as three of MNIST
    finally:
        socket.setdefaulttimeout(before)
    print(f"data: MNIST from OpenML, {len(x):,} digits of 28 x 28 pixels")
    return x / 255, y.astype(int), 3


def main(epochs: int | None = None, learning_rate: float = 1e-3, seed: int = 0) -> float:
    """Train and test. Returns the share of the test's pictures that are recognised. epochs: None for enough of them."""
    x, y, enough = load()
    order = np.random.default_rng(seed).permutation(len(x))
    x, y = jnp.asarray(x[order], jnp.float32), jnp.asarray(y[order])
    kept = len(x) // 7
    x_test, y_test, x, y = x[:kept], y[:kept], x[kept:], y[kept:]

    net, optimizer = Classifier(), optax.adam(learning_rate)
    params = net.init(jax.random.key(seed), x[:1])

    def loss(params, rows):
        return optax.softmax_cross_entropy_with_integer_labels(net.apply(params, x[rows]), y[rows]).mean()

    def step(carry, rows):
        params, opt_state = carry
        value, grads = jax.value_and_grad(loss)(params, rows)
        updates, opt_state = optimizer.update(grads, opt_state)
        return (optax.apply_updates(params, updates), opt_state), value

    @jax.jit
    def epoch(carry, key):
        """Take a gradient step on each minibatch of the shuffled pictures, all in one program."""
        rows = jax.random.permutation(key, len(x))[: len(x) // BATCH * BATCH].reshape(-1, BATCH)
        carry, losses = jax.lax.scan(step, carry, rows)
        return carry, losses.mean(), (net.apply(carry[0], x_test).argmax(axis=1) == y_test).mean()

    carry, accuracy = (params, optimizer.init(params)), 0.0
    for number, key in enumerate(jax.random.split(jax.random.key(seed + 1), epochs or enough), start=1):
        carry, mean_loss, accuracy = epoch(carry, key)
        print(f"epoch {number:2}   loss {mean_loss:.3f}   test {accuracy:.1%}")
    return float(accuracy)


if __name__ == "__main__":
    main()
