"""JAX: one compiled scan over the steps, in each of which all directions go through jvp.

    python -m benchmarks.competitors.jax_scan FOLDER float64

Tangents are put back on a scale of order 1 after every step, by a power of two per example, as
somebody who has met the underflow would write it. Compiling is not timed.
"""

import sys
from collections.abc import Callable

import jax  # type: ignore[import-not-found]
import jax.numpy as jnp  # type: ignore[import-not-found]
import numpy as np

from benchmarks.cases import Problem
from benchmarks.competitors import Curves, Turn, first_steps, serve

LOG10_2 = float(np.log10(2))


def prepare(problem: Problem) -> Callable[[], Turn]:
    arguments = [jnp.asarray(array, dtype=sys.argv[2]) for array in problem]
    compiled = jax.jit(_curves).lower(*arguments).compile()

    def run() -> Curves:
        sizes, exponents = jax.block_until_ready(compiled(*arguments))
        scale = np.asarray(exponents, dtype=np.float64) * LOG10_2
        return Curves(*((np.log10(np.asarray(v, dtype=np.float64)) + scale).T for v in sizes))

    return lambda: first_steps(run, problem.case.steps, problem.case.steps)


def _curves(W_ih, W_hh, b, x, h, c):
    """Column sums and Frobenius norms (t, b), and the powers of two that they stand before."""
    a = jnp.swapaxes(x @ W_ih.T + b, 0, 1)
    dc = jnp.broadcast_to(jnp.eye(h.shape[1], dtype=h.dtype)[:, None], (h.shape[1], *h.shape))

    def step(carry, a_t):
        h, c, dh, dc, exponent = carry
        h, c, dh, dc = _advance(W_hh, a_t, h, c, dh, dc)
        sizes = _sizes(dc)
        shift = jnp.frexp(sizes[1])[1]
        scale = jnp.ldexp(jnp.ones_like(sizes[1]), -shift)[:, None]
        return (h, c, dh * scale, dc * scale, exponent + shift), (sizes, exponent)

    start = (h, c, jnp.zeros_like(dc), dc, jnp.zeros(len(h), dtype=jnp.int32))
    return jax.lax.scan(step, start, a)[1]


def _advance(W_hh, a_t, h, c, dh, dc):
    def cell(h, c):
        i, f, g, o = jnp.split(a_t + h @ W_hh.T, 4, axis=-1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        return jax.nn.sigmoid(o) * jnp.tanh(c), c

    (h_new, c_new), push = jax.linearize(cell, h, c)
    return h_new, c_new, *jax.vmap(push)(dh, dc)


def _sizes(dc):
    """mean_k |sum_i dc| and sqrt(sum dc^2) of the tangents dc (k, b, i), each (b,)."""
    return jnp.abs(dc.sum(axis=2)).mean(axis=0), jnp.sqrt(jnp.square(dc).sum(axis=(0, 2)))


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", sys.argv[2] == "float64")
    serve(prepare)
