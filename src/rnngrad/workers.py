"""Independent jobs on all cores or on a Dask cluster, one thread each; Ctrl-C is quiet."""

import json
import logging
import multiprocessing
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from importlib import metadata
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from tempfile import NamedTemporaryFile
from threading import Thread
from typing import Any

from tqdm import tqdm

from rnngrad.errors import InputError, needs
from rnngrad.stage import code_digest, within

# Each worker has one thread, whatever the caller's environment says. Another number would change
# results, since sums are rounded in another order and MKL takes other kernels. glibc keeps the
# memory that a step frees: asking the kernel for it again took a fifth of the time.
_LIBRARIES = ("OMP_NUM", "MKL_NUM", "MKL_DOMAIN_NUM", "OPENBLAS_NUM", "VECLIB_MAXIMUM")
_ENVIRONMENT = {f"{library}_THREADS": "1" for library in _LIBRARIES}
_ENVIRONMENT |= {"MALLOC_MMAP_THRESHOLD_": str(2**32), "MALLOC_TRIM_THRESHOLD_": str(2**33)}

# Workers are copies of one process that has imported what they need. On macOS they
# are not, since its system libraries do not outlive being copied.
METHOD = "forkserver" if sys.platform == "linux" else "spawn"

SCHEDULER = "RNNGRAD_SCHEDULER"
SECONDS, PATIENCE = 5, 60  # in which a scheduler must answer, and have a worker
_number = 0


def start_workers(*modules: str) -> None:
    """Import modules for the workers to come, while the caller goes on.

    torch takes seconds: a stage calls this first. Else, or where workers are not forked, each
    imports what its first job needs. A failed import fails the jobs alone.
    """
    os.environ.update(_ENVIRONMENT, RNNGRAD_MAIN_PROCESS=str(os.getpid()))
    if METHOD == "forkserver":
        multiprocessing.set_forkserver_preload(["rnngrad.quick_imports", *modules])
        with _ctrl_c_waits():
            forkserver.ensure_running()


def pool(jobs: int) -> AbstractContextManager[futures.Executor]:
    """Give an executor with a worker per core, and no more than jobs; each has one thread.

    An error or Ctrl-C inside the block ends the workers in the middle of their jobs. Where
    ``RNNGRAD_SCHEDULER`` is a Dask scheduler's address, or the file that holds it, jobs run on that
    cluster. They read and write below the current folder. Functions are importable by name;
    arguments and results are picklable and hold no tensors, which torch would share.

    Raises:
        InputError: a worker was ended from outside, as when memory runs out; or the cluster fails.
    """
    place = os.environ.get(SCHEDULER)
    return _cluster(place) if place else _processes(jobs)


@contextmanager
def _processes(jobs: int) -> Iterator[futures.Executor]:
    at_once = max(1, min(jobs, cores()))
    start_workers()
    context: Any = multiprocessing.get_context(METHOD)
    if METHOD == "forkserver":
        # A process that does nothing starts once all is imported; Ctrl-C may come meanwhile
        first = context.Process(target=int)
        first.start()
        first.join()
    with _ctrl_c_waits():  # a lock that Ctrl-C left half made ends in a traceback
        given = context.Value("i", 0), dict(os.environ)
        executor = _Processes(at_once, context, _begin, given)
    try:
        yield executor
        executor.shutdown()
    except BaseException as error:
        executor.kill()
        if not isinstance(error, futures.BrokenExecutor) or error.__cause__:
            raise
        what = "a worker process was ended from outside, perhaps because memory ran out"
        raise InputError(f"{what}; run the same command again to go on") from error


@contextmanager
def _cluster(place: str) -> Iterator[futures.Executor]:
    with needs("cluster"):
        from distributed import Client, KilledWorker
    for noisy in ("distributed", "distributed.client"):  # they also raise what they log
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    with ExitStack() as stack:
        try:
            address = place if "://" in place else json.loads(Path(place).read_text())["address"]
            make = partial(Client, address, timeout=SECONDS, set_as_default=False)
            # a client would wait for ever where somebody else takes the call
            client = stack.enter_context(within(SECONDS + 1, make))
            client.wait_for_workers(1, timeout=PATIENCE)
            with NamedTemporaryFile(dir=".", prefix=".unfinished-") as mark:
                found: Any = client.run(
                    _processor, os.path.abspath(mark.name), code_digest() + versions()
                )
        except Exception as error:  # an address may raise anything
            reason = str(error).partition("\n")[0] or f"{type(error).__name__}: no Dask scheduler"
            raise InputError(
                f"{SCHEDULER}={place}: {reason}; name a scheduler, as tcp://host:8786, or its "
                "file, whose workers share this folder and code"
            ) from error
        if len(processors := {*found.values()}) > 1:
            said = " | ".join(sorted(processors))
            print(f"results depend on the processor: {said}", file=sys.stderr)
        executor: Any = client.get_executor(pure=False)
        stack.callback(executor.shutdown, wait=False)
        executor.submit = partial(executor.submit, _elsewhere, os.getcwd())
        try:
            yield executor
        except (KilledWorker, futures.CancelledError) as error:
            raise InputError("the cluster lost a job; run the same command again") from error


def _processor(mark: str, code: str) -> str:
    """Name a worker's processor, where it sees a file, may start processes and has the code."""
    from llvmlite.binding import get_host_cpu_name

    if not os.path.exists(mark) or multiprocessing.current_process().daemon:
        raise InputError("a worker does not see this folder, or runs without --no-nanny")
    if code != code_digest() + versions():
        raise InputError("a worker has other code, torch or NumPy than this process")
    return get_host_cpu_name()


def versions() -> str:
    """Name what results depend on beside their own code and inputs."""
    return " ".join([*map(metadata.version, ("torch", "numpy")), *_ENVIRONMENT.values()])


def _elsewhere(folder: str, *job: Any) -> Any:
    """Do a job on a cluster's worker, in a process of its own: its settings end with it."""
    from distributed import get_worker

    worker = get_worker()
    task = worker.state.tasks[worker.get_current_task()]
    with _processes(1) as executor:
        executor.submit(os.chdir, folder).result()
        future = executor.submit(*job)
        while not futures.wait([future], 1).done:
            if task.state != "executing":  # nobody waits for it any more
                raise futures.CancelledError
        return future.result()


def cores() -> int:
    """Count the cores that this process may use; ``RNNGRAD_CORES`` overrides it, or InputError."""
    if wanted := os.environ.get("RNNGRAD_CORES"):
        if not re.fullmatch("[1-9][0-9]{0,3}", wanted):
            raise InputError(f"RNNGRAD_CORES is {wanted[:20]!r}; set it to a number from 1 to 9999")
        return int(wanted)
    allowed = getattr(os, "sched_getaffinity", None)  # SLURM's share, too; not on macOS
    return len(allowed(0)) if allowed else os.cpu_count() or 1


def worker_number() -> int:
    """Say which of its pool's workers this process is, from 0; 0 where it is none."""
    return _number


class _Processes(futures.ProcessPoolExecutor):
    """Workers that Ctrl-C does not reach, and that can be ended in the middle of their jobs."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> futures.Future[Any]:
        with _ctrl_c_waits():  # this may start a worker
            future = super().submit(fn, *args, **kwargs)
            # If woken before the worker had started, the thread that watches it would miss its end.
            # These names are CPython's private ones, the same in 3.11 to 3.13.
            self._executor_manager_thread_wakeup.wakeup()
            return future

    def kill(self) -> None:
        """End the workers. Lightning takes SIGTERM for a wish to stop later: use SIGKILL."""
        with _ctrl_c_waits():
            for process in [*(self._processes or {}).values()]:
                process.kill()
            # a thread here would wait for the rest of a result whose worker has ended
            self._result_queue._writer.close()  # type: ignore[attr-defined]
            self.shutdown(cancel_futures=True)


def _begin(count: Any, environment: dict[str, str]) -> None:
    global _number
    os.environ.clear()
    os.environ.update(environment)  # the process they were copied from had another
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    tqdm.set_lock(count.get_lock())
    with count.get_lock():
        _number, count.value = count.value, count.value + 1
    Thread(target=_end_with_the_main_process, daemon=True).start()


def _end_with_the_main_process() -> None:
    main: Any = multiprocessing.parent_process()
    main.join()  # however it ends, SIGKILL included
    os._exit(1)


@contextmanager
def _ctrl_c_waits() -> Iterator[None]:
    """Make Ctrl-C wait for the end of the block; it does not reach processes started there.

    A worker that is still importing torch would answer with a traceback.
    """
    resource_tracker.ensure_running()  # started later, it would let Ctrl-C through
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
