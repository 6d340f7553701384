"""Settings that would change the numbers or the time, put aside while the probe computes."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import cache, partial
from typing import Any, TypeVar

import scipy.linalg  # noqa: F401  a controller knows the libraries that are loaded when it is made
import torch
from threadpoolctl import OpenBLASController, ThreadpoolController
from tqdm import tqdm

Result = TypeVar("Result")
Item = TypeVar("Item")

bar = partial(tqdm, delay=3, disable=None, leave=False)  # on a terminal, after three seconds

_controller = cache(ThreadpoolController)  # looking for the libraries takes a millisecond
_lock = threading.Lock()
# One entry per call that runs now: the user's limits of BLAS, oneDNN switch and torch threads.
_calls: list[tuple[Any, bool, int]] = []
_of_thread = threading.local()  # of one that works for a call: has the call ended?


@contextmanager
def prepared() -> Iterator[None]:
    """Prepare torch for a function that users call: tensors are on the CPU where none is named."""
    elsewhere = torch.empty(0).device.type != "cpu"  # torch 2.6 names another default
    with torch.device("cpu") if elsewhere else nullcontext():
        yield


@contextmanager
def exact_products() -> Iterator[int]:
    """Let products take one thread each and no bfloat16; yield the user's number of threads.

    These settings belong to the process. The first of overlapping calls notes them, and the last
    one out restores them. Each thread also has its own setting of torch's number of threads.
    """
    one_dnn: Any = torch.backends.mkldnn  # it may take bfloat16 for float32
    with _lock:
        if not _calls:
            # threadpoolctl lets one thread alone set OpenBLAS's limits until it forgets it
            OpenBLASController.clear_controlling_thread(force=True)
            limits = _controller().limit(limits=1, user_api="blas")
            _calls.append((limits, one_dnn.enabled, torch.get_num_threads()))
            one_dnn.enabled = False
        else:
            _calls.append(_calls[0])
        limits, enabled, count = _calls[0]
        torch.set_num_threads(1)
    try:
        yield count
    finally:
        with _lock:
            torch.set_num_threads(count)
            _calls.pop()
            if not _calls:
                one_dnn.enabled = enabled
                OpenBLASController.clear_controlling_thread(force=True)
                limits.restore_original_limits()
                OpenBLASController.clear_controlling_thread(force=True)


@contextmanager
def threads() -> Iterator[ThreadPoolExecutor]:
    """Share exact products among threads."""
    ended = threading.Event()

    def begin() -> None:
        # threads inherit a flush of denormal numbers, which would change autograd's float32 results
        torch.set_flush_denormal(False)
        _of_thread.ended = ended

    with exact_products() as count, ThreadPoolExecutor(count, initializer=begin) as pool:
        try:
            yield pool
        except BaseException:  # Ctrl-C should not wait for what the threads have begun
            ended.set()
            raise


def stop_if_ended() -> None:
    """Leave the work of a thread whose call has failed or was interrupted; loops ask often."""
    if hasattr(_of_thread, "ended") and _of_thread.ended.is_set():
        raise CancelledError


def in_threads(
    function: Callable[[Item], Result], items: Sequence[Item], what: str
) -> list[Result]:
    """The function of every item, by several threads."""
    with threads() as pool:
        return list(bar(pool.map(function, items), what, len(items), unit="part"))
