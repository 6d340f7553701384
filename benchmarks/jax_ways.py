"""JAX: one compiled scan over the steps, in each of which all directions go through jvp.

Tangents are put back on a scale of order 1 after every step, by a power of two per example, as
somebody who has met the underflow would write it. Compiling is not timed.
"""

import jax  # type: ignore[import-not-found]
import jax.numpy as jnp  # type: ignore[import-not-found]
import numpy as np

from benchmarks.turns import Found, Problem, Turn, timed


def curves(problem: Problem, dtype: str) -> Turn:
    jax.config.update("jax_enable_x64", dtype == "float64")
    arguments = [jnp.asarray(array, dtype=dtype) for array in problem]
    compiled = jax.jit(_curves).lower(*arguments).compile()

    def run(steps: int | None) -> Found:
        if steps:  # compiled it is already
            return {}
        *sizes, exponents = map(np.asarray, jax.block_until_ready(compiled(*arguments)))
        logs = [(np.log10(v.astype(float)) + exponents * np.log10(2.0)).T for v in sizes]
        return {"column_sum": logs[0], "frobenius": logs[1]}

    return timed(run)


def _curves(W_ih, W_hh, b, x, h, c):
    """Column sums and Frobenius norms (t, b), and the powers of two that they stand before."""

    def step(carry, a_t):
        h, c, dh, dc, exponent = carry

        def cell(h, c):
            i, f, g, o = jnp.split(a_t + h @ W_hh.T, 4, axis=-1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            return jax.nn.sigmoid(o) * jnp.tanh(c), c

        (h, c), push = jax.linearize(cell, h, c)
        dh, dc = jax.vmap(push)(dh, dc)  # (k, b, i)
        column_sum = jnp.abs(dc.sum(axis=2)).mean(axis=0)
        frobenius = jnp.sqrt(jnp.square(dc).sum(axis=(0, 2)))
        shift = jnp.frexp(frobenius)[1]
        scale = jnp.ldexp(jnp.ones_like(frobenius), -shift)[:, None]
        return (h, c, dh * scale, dc * scale, exponent + shift), (column_sum, frobenius, exponent)

    dc = jnp.broadcast_to(jnp.eye(h.shape[1], dtype=h.dtype)[:, None], (h.shape[1], *h.shape))
    start = (h, c, jnp.zeros_like(dc), dc, jnp.zeros(len(h), dtype=jnp.int32))
    return jax.lax.scan(step, start, jnp.swapaxes(x @ W_ih.T + b, 0, 1))[1]
