"""The question's way: for every t, a pass over all steps and `tf.gradients` of c_t by c_0.

With t as a Python number TensorFlow traces a new graph for every t, which is part of what that way
costs. With t as a tensor one graph serves all; it is traced before the clock starts.
"""

import os
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import numpy as np
import tensorflow as tf  # pyright: ignore[reportMissingModuleSource]

from benchmarks.cases import Problem
from benchmarks.competitors import Curves

Prepared = tuple[Callable[[], None], Callable[[int], Curves]]


def traced_per_t(problem: Problem) -> Prepared:
    gradient = tf.function(_gradient_of(problem))
    return _nothing, lambda t: _curves(gradient(t))


def t_as_tensor(problem: Problem) -> Prepared:
    gradient = tf.function(_gradient_of(problem))
    gradient(tf.constant(1))
    return _nothing, lambda t: _curves(gradient(tf.constant(t)))


def _nothing() -> None:
    """Nothing is shared between the steps."""


def _curves(gradient: tf.Tensor) -> Curves:
    with np.errstate(divide="ignore"):
        return Curves(np.log10(np.abs(gradient.numpy().astype(np.float64)).mean(1))[:, None])


def _gradient_of(problem: Problem) -> Callable[[tf.Tensor | int], tf.Tensor]:
    _use_threads()
    W_ih, W_hh, b = map(tf.constant, (problem.weight_ih, problem.weight_hh, problem.bias))
    x = tf.constant(problem.inputs.swapaxes(0, 1))
    h_0, c_0 = tf.constant(problem.h), tf.constant(problem.c)

    def step(state: tuple[tf.Tensor, tf.Tensor], x_t: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        h, c = state
        a = tf.matmul(x_t, W_ih, transpose_b=True) + tf.matmul(h, W_hh, transpose_b=True) + b
        i, f, g, o = tf.split(a, 4, axis=1)
        c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
        return tf.sigmoid(o) * tf.tanh(c), c

    def gradient(t: tf.Tensor | int) -> tf.Tensor:
        # another tensor each trace: a constant from outside would not be part of the graph
        start = tf.identity(c_0)
        _, c = tf.scan(step, x, (h_0, start))
        return tf.gradients(c[t - 1], start)[0]

    return gradient


def _use_threads() -> None:
    threads = int(os.environ.get("OMP_NUM_THREADS", "2"))
    if tf.config.threading.get_intra_op_parallelism_threads() != threads:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
