"""Independent jobs on all cores, one thread each, with progress and a quiet answer to Ctrl-C."""

import multiprocessing
import os
import pickle
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.pool import Pool
from typing import Any, TypeVar

from tqdm import tqdm

Result = TypeVar("Result")

# One thread per worker in torch and in NumPy; and glibc keeps the memory that a step frees instead
# of asking the kernel for it again at the next, which took a fifth of the time.
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": str(2**32),
    "MALLOC_TRIM_THRESHOLD_": str(2**33),
}


def run_jobs(function: Callable[..., Result], jobs: Sequence[tuple[Any, ...]]) -> Iterator[Result]:
    """``function(*job)`` of every job, in order, as many at a time as there are cores.

    The networks of this study are too small for two threads: one thread each for two jobs is faster
    than two threads for one, and no result depends on the number of cores.

    Args:
        function: importable by name, as everything in ``jobs`` must be picklable.
        jobs: the arguments of each call.
    """
    sent = [pickle.dumps(job) for job in jobs]
    with _pool(min(len(jobs), os.cpu_count() or 1)) as pool:
        for result in pool.imap(_Call(function), sent):
            yield pickle.loads(result)


class _Call:
    """A call whose arguments and result travel by value.

    Left to multiprocessing, torch would share tensors through file descriptors that a thread hands
    out, and an error or Ctrl-C would end in a traceback of that thread.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, job: bytes) -> bytes:
        return pickle.dumps(self.function(*pickle.loads(job)))


@contextmanager
def _pool(workers: int) -> Iterator[Pool]:
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    context = multiprocessing.get_context("spawn")
    lock = context.RLock()
    # Ctrl-C is the parent's to answer: leaving the block below ends the workers. They inherit being
    # deaf to it, since one that is still importing torch would answer with a traceback.
    answer = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        pool = context.Pool(workers, tqdm.set_lock, (lock,))
    finally:
        signal.signal(signal.SIGINT, answer)
    with pool:
        yield pool
