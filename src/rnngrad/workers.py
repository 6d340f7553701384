"""Independent jobs on all cores, one thread each, with progress and a quiet answer to Ctrl-C."""

import gc
import multiprocessing
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from threading import RLock
from typing import Any, TypeVar, cast

from tqdm import tqdm

from rnngrad.errors import InputError

Result = TypeVar("Result")

# One thread per worker, whatever the caller's environment says: sums over several are rounded in
# another order, and MKL takes other kernels: their number would be in the results. And glibc keeps
# the memory that a step frees instead of asking the kernel for it again at the next, which took a
# fifth of the time.
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MKL_DOMAIN_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "VECLIB_MAXIMUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": str(2**32),
    "MALLOC_TRIM_THRESHOLD_": str(2**33),
}

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
    os.environ.update(_ENVIRONMENT)
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
    waiting = enumerate([pickle.dumps(job) for job in jobs])
    running: dict[Connection, int] = {}
    done: dict[int, bytes] = {}

    def give_next(worker: Connection) -> None:
        for number, job in waiting:
            running[worker] = number
            with suppress(ConnectionError):  # its end is noticed where the result is received
                worker.send_bytes(job)
            return

    with _workers(_at_a_time(len(jobs), os.cpu_count() or 1, share_cores), function) as workers:
        for worker in workers:
            give_next(worker)
        for wanted in range(len(jobs)):
            while wanted not in done:
                for worker in cast("list[Connection]", wait([*running])):
                    done[running.pop(worker)] = _receive(worker)
                    give_next(worker)
            result, error = pickle.loads(done.pop(wanted))
            if error is not None:
                raise error
            yield result


def _at_a_time(jobs: int, cores: int, share_cores: bool) -> int:
    return min(jobs, cores + jobs % cores if share_cores else cores)


def _receive(worker: Connection) -> bytes:
    try:
        return worker.recv_bytes()
    except (EOFError, ConnectionError):
        raise InputError(
            "a worker process was ended from outside, perhaps because memory ran out; "
            "run the same command again to go on"
        ) from None


@contextmanager
def _workers(count: int, function: Callable[..., Any]) -> Iterator[list[Connection]]:
    """Processes that wait for jobs, each at the other end of a pipe of its own.

    A `multiprocessing.Pool` has one pipe for the results of all. A worker that is ended while it
    writes there, as happens after an error of another, leaves the lock held, and the pool waits
    for ever.
    """
    start_workers()
    context = multiprocessing.get_context(METHOD)
    lock = context.RLock()
    if METHOD == "forkserver":
        # A process that does nothing is there when all is imported; Ctrl-C may come meanwhile
        first = context.Process(target=int)
        first.start()
        first.join()
    workers: list[Connection] = []
    with ExitStack() as ends:
        # those of a fork server are as deaf as it is
        with _noting_ctrl_c() if METHOD == "forkserver" else _deaf() as pressed:
            for _ in range(count):
                worker, theirs = context.Pipe()
                process = context.Process(target=_work, args=(theirs, function, lock), daemon=True)
                process.start()
                theirs.close()  # now the worker's is the only one, and its end is the pipe's end
                ends.callback(process.join)
                # a polite signal would be taken by Lightning for a wish to stop some time
                ends.callback(process.kill)
                workers.append(ends.enter_context(worker))
        if pressed:
            raise KeyboardInterrupt
        yield workers


def _work(connection: Connection, function: Callable[..., Any], lock: RLock) -> None:
    tqdm.set_lock(lock)
    gc.freeze()
    gc.enable()
    with suppress(EOFError, ConnectionError):  # who wanted the results is gone
        while True:
            connection.send_bytes(_answer(function, connection.recv_bytes()))


def _answer(function: Callable[..., Any], job: bytes) -> bytes:
    """The result or the error, by value.

    Left to multiprocessing, torch would share tensors through file descriptors that a thread hands
    out, and an error or Ctrl-C would end in a traceback of that thread.
    """
    try:
        return pickle.dumps((function(*pickle.loads(job)), None))
    except Exception as error:
        error.add_note(f"in a worker process:\n{traceback.format_exc()}")
        return pickle.dumps((None, error))


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
