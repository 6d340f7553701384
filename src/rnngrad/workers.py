"""Independent jobs on all cores, one thread each, with progress and a quiet answer to Ctrl-C."""

import gc
import multiprocessing
import os
import pickle
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import forkserver
from multiprocessing.pool import IMapIterator, Pool
from multiprocessing.process import BaseProcess
from threading import RLock
from typing import Any, TypeVar

from tqdm import tqdm

from rnngrad.errors import InputError

Result = TypeVar("Result")

# One thread per worker in torch and in NumPy; and glibc keeps the memory that a step frees instead
# of asking the kernel for it again at the next, which took a fifth of the time.
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": str(2**32),
    "MALLOC_TRIM_THRESHOLD_": str(2**33),
}

LOOK_EVERY = 1.0  # seconds, for workers that are gone
# Workers are copies of one process that has imported what they need. Not on macOS, whose system
# libraries do not outlive being copied.
METHOD = "forkserver" if sys.platform == "linux" else "spawn"


def start_workers(*modules: str) -> None:
    """Have modules imported for the workers to come, beside whatever the caller does next.

    torch takes seconds to import: a stage calls this first. Without it, or where every worker is
    a process of its own, a worker imports what it needs when its first job comes.

    Args:
        modules: names. One that cannot be imported is an error only for the job that needs it.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if METHOD == "forkserver":
        context = multiprocessing.get_context(METHOD)
        context.set_forkserver_preload(["rnngrad.quick_imports", *modules])
        with _deaf():
            forkserver.ensure_running()


def run_jobs(
    function: Callable[..., Result], jobs: Sequence[tuple[Any, ...]], *, share_cores: bool = False
) -> Iterator[Result]:
    """``function(*job)`` of every job, in order, as many at a time as there are cores.

    The networks of this study are too small for two threads: one thread each for two jobs is faster
    than two threads for one, and no result depends on the number of cores.

    Args:
        function: importable by name, as everything in ``jobs`` must be picklable.
        jobs: the arguments of each call.
        share_cores: of jobs that take equally long. Where they would leave cores without a job in
            the end, some more of them run at a time, and take turns: five on two cores take as long
            as two and a half in a row, not three.

    Raises:
        InputError: a worker was ended from outside, as the kernel does when memory runs out.
        Exception: whatever ``function`` raises.
    """
    sent = [pickle.dumps(job) for job in jobs]
    with _pool(_at_a_time(len(jobs), os.cpu_count() or 1, share_cores)) as pool:
        workers = {*multiprocessing.active_children()}
        results = pool.imap(_Call(function), sent)
        for _ in jobs:
            yield pickle.loads(_next(results, workers))


def _next(results: IMapIterator, workers: set[BaseProcess]) -> bytes:
    """The next result. The pool itself would wait for ever for one whose worker is gone."""
    while True:
        try:
            return results.next(timeout=LOOK_EVERY)
        except multiprocessing.TimeoutError:
            if workers - {*multiprocessing.active_children()}:
                raise InputError(
                    "a worker process was ended from outside, perhaps because memory ran out; "
                    "run the same command again to go on"
                ) from None


def _at_a_time(jobs: int, cores: int, share_cores: bool) -> int:
    return min(jobs, cores + jobs % cores if share_cores else cores)


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
    start_workers()
    context = multiprocessing.get_context(METHOD)
    if METHOD == "forkserver":
        # A process that does nothing is there when all is imported; Ctrl-C may come meanwhile
        first = context.Process(target=int)
        first.start()
        first.join()
    lock = context.RLock()
    # those of a fork server are as deaf as it is
    with _noting_ctrl_c() if METHOD == "forkserver" else _deaf() as pressed:
        pool = context.Pool(workers, _begin, (lock,))
    with pool:
        if pressed:
            raise KeyboardInterrupt
        yield pool


def _begin(lock: RLock) -> None:
    tqdm.set_lock(lock)
    gc.freeze()
    gc.enable()


@contextmanager
def _noting_ctrl_c() -> Iterator[list[int]]:
    """For what should not be left half done: gives the signals that came meanwhile."""
    pressed: list[int] = []
    answer = signal.signal(signal.SIGINT, lambda number, _: pressed.append(number))
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, answer)


@contextmanager
def _deaf() -> Iterator[None]:
    """For starting processes that Ctrl-C does not reach: it is the parent's to answer.

    Leaving the pool's block ends the workers. They inherit being deaf to it, since one that is
    still importing torch would answer with a traceback.
    """
    answer = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, answer)
