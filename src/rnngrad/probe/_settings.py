"""Settings that would change the numbers or the time, put aside while the probe computes."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache, wraps
from typing import Any, ParamSpec, TypeVar

import scipy.linalg  # noqa: F401  a controller knows the libraries that are loaded when it is made
import torch
from threadpoolctl import ThreadpoolController
from torch.nn.utils import parametrize

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def probing(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Prepare torch for a function that users call.

    Tensors that name no device are made on the CPU, whatever torch's default device is. A
    parametrized module computes its weights once: they may be random, or change when read.
    """

    @wraps(function)
    def call(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        with ExitStack() as settings:
            settings.enter_context(parametrize.cached())
            if torch.get_default_device().type != "cpu":
                settings.enter_context(torch.device("cpu"))
            return function(*args, **kwargs)

    return call


@contextmanager
def exact_arithmetic(device: torch.device) -> Iterator[None]:
    """No autograd, no autocast, and float32 products in float32 rather than TF32 or bfloat16."""
    with ExitStack() as settings:
        settings.enter_context(_float32_products())
        settings.enter_context(torch.inference_mode())
        settings.enter_context(torch.autocast(device.type, enabled=False))
        yield


_lock = threading.Lock()
_calls: list[Any] = []  # the limits of the calls that run now; the first one has set them


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()  # looking for the libraries takes a millisecond


@contextmanager
def one_blas_thread() -> Iterator[int]:
    """Let every product take one thread, and yield how many Python threads torch's user wants.

    The limits belong to the process: the first of overlapping calls sets them, the last one out
    restores what it found.
    """
    with _lock:
        if not _calls:
            _calls.append(_controller().limit(limits=1, user_api="blas"))
        _calls.append(None)
    try:
        yield torch.get_num_threads()
    finally:
        with _lock:
            _calls.pop()
            if len(_calls) == 1:
                _calls.pop().restore_original_limits()


@contextmanager
def _float32_products() -> Iterator[None]:
    """torch has two ways to set their precision, and reads neither where both were used.

    The one by backend, of torch 2.9 and later, is read in any case.
    """
    mkldnn: Any = torch.backends.mkldnn
    backends: tuple[Any, ...] = (torch.backends.cuda.matmul, getattr(mkldnn, "matmul", None))
    if not all(hasattr(backend, "fp32_precision") for backend in backends):
        precision = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(precision)
        return
    changed = [b for b in backends if b.fp32_precision not in ("none", "ieee")]
    # a backend that follows the shared setting goes on following it
    shared = torch.backends.fp32_precision  # pyright: ignore[reportAttributeAccessIssue]
    before = ["none" if b.fp32_precision == shared else b.fp32_precision for b in changed]
    try:
        for backend in changed:
            backend.fp32_precision = "ieee"
        yield
    finally:
        for backend, precision in zip(changed, before, strict=True):
            backend.fp32_precision = precision
