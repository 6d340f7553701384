"""The question's way: for every t, a pass over all steps and `tf.gradients` of c_t by c_0.

    python -m benchmarks.competitors.tensorflow_loop FOLDER

TensorFlow traces a new graph for every t, which is part of the costs of that way.
"""

import os
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import numpy as np
import tensorflow as tf  # pyright: ignore[reportMissingModuleSource]

from benchmarks.cases import Problem
from benchmarks.competitors import Curves, Turn, one_by_one, serve


def prepare(problem: Problem) -> Callable[[], Turn]:
    tf.config.threading.set_intra_op_parallelism_threads(int(os.environ["OMP_NUM_THREADS"]))
    W_ih, W_hh, b, x, h_0, c_0 = map(tf.constant, problem)
    x = tf.transpose(x, [1, 0, 2])

    def step(state: tuple[tf.Tensor, tf.Tensor], x_t: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        h, c = state
        a = tf.matmul(x_t, W_ih, transpose_b=True) + tf.matmul(h, W_hh, transpose_b=True) + b
        i, f, g, o = tf.split(a, 4, axis=1)
        c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
        return tf.sigmoid(o) * tf.tanh(c), c

    def gradient(t: int) -> tf.Tensor:
        # another tensor each trace: a constant from outside would not be part of the graph
        start = tf.identity(c_0)
        _, c = tf.scan(step, x, (h_0, start))
        return tf.gradients(c[t - 1], start)[0]

    def at(t: int) -> Curves:
        # a new function each time: in a later round nothing is traced already
        found = tf.function(gradient)(t).numpy().astype(np.float64)
        with np.errstate(divide="ignore"):
            return Curves(np.log10(np.abs(found).mean(1))[:, None])

    return lambda: one_by_one(lambda: None, at, problem.case.steps)


if __name__ == "__main__":
    serve(prepare)
