"""Threads change no bit, no setting is left behind, and numba may be without a cache."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Thread, Timer, main_thread
from typing import Any

import numpy as np
import pytest
import scipy.linalg  # noqa: F401  its BLAS has limits of its own
import torch
from threadpoolctl import ThreadpoolController, threadpool_info
from torch import nn

import rnngrad
from rnngrad.errors import InputError


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def problem(
    kind: Callable[..., nn.RNNBase], hidden: int, batch: int, steps: int
) -> tuple[Any, Any]:
    """Some examples share their first 40 steps."""
    torch.manual_seed(0)
    x = torch.randn(batch, steps, 3)
    x[: batch // 2, :40] = 0
    return kind(3, hidden, batch_first=True), x


def gradients(module: nn.RNNBase, x: torch.Tensor) -> torch.Tensor:
    shape = *x.shape[:2], module.hidden_size
    return torch.linspace(-1, 1, int(np.prod(shape))).view(shape)


PROBES: dict[str, Callable[[], dict[str, Any]]] = {
    # columns in parts: 200 directions of one example
    "one example": lambda: vars(
        rnngrad.jacobian_curves(
            *problem(nn.LSTM, 100, 1, 40), state="full", spectral_steps=[1, 33, 40]
        )
    ),
    "few leaders": lambda: vars(
        rnngrad.jacobian_curves(*problem(nn.GRU, 100, 5, 70), spectral_steps=[40])
    ),
    "many examples": lambda: vars(
        rnngrad.jacobian_curves(*problem(nn.LSTM, 20, 33, 70), state="c")
    ),
    "one scale per row": lambda: vars(
        rnngrad.jacobian_curves(*far_apart(), statistics=("frobenius", "column_sum"))
    ),
    "sketch": lambda: vars(
        rnngrad.jacobian_curves(*problem(nn.RNN, 30, 9, 40), method="sketch")
    ),
    "diagnosis": lambda: vars(rnngrad.diagnose(*problem(nn.LSTM, 9, 17, 40), state="c")),
    "losses": lambda: vars(
        rnngrad.loss_gradient_curves(
            *(args := problem(nn.GRU, 30, 20, 50)), gradients(*args)
        )
    ),
    "weights": lambda: rnngrad.weight_gradient_parts(
        *(args := problem(nn.LSTM, 9, 5, 40)), gradients(*args)
    ),
    "exponents": lambda: {"": rnngrad.lyapunov_exponents(*problem(nn.GRU, 60, 5, 50))},
}  # fmt: skip


def far_apart() -> tuple[nn.RNN, torch.Tensor]:
    module, x = problem(nn.RNN, 100, 1, 40)
    with torch.no_grad():
        module.weight_hh_l0.mul_(10.0 ** torch.linspace(-30, 0, 100)[:, None])
    return module.double(), x.double()


@pytest.mark.parametrize("name", PROBES)
def test_the_number_of_threads_changes_no_bit(name: str):
    found = []
    for count in (1, 2, 3):
        with threads(count):
            found.append(PROBES[name]())
    arrays = {k: v for k, v in found[0].items() if isinstance(v, np.ndarray)}
    assert arrays
    for key, values in arrays.items():
        for other in found[1:]:
            np.testing.assert_array_equal(other[key], values, err_msg=key)


def limits() -> list[int]:
    return [lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"]


def set_limits(count: int) -> None:
    """A user sets them once: no thread that lives on holds them."""
    controller = ThreadpoolController()
    thread = Thread(target=lambda: controller.limit(limits=count, user_api="blas"))
    thread.start()
    thread.join()


def test_overlapping_calls_leave_the_limits_of_the_user():
    """One of them fails again and again, beside others that do not, in threads that live on."""
    module, x = problem(nn.GRU, 40, 20, 60)
    growing = nn.RNN(3, 2, nonlinearity="relu", batch_first=True)
    with torch.no_grad():
        for weight in growing.parameters():
            weight.fill_(1e30)

    def fails() -> None:
        for _ in range(40):
            with pytest.raises(InputError, match="overflows float64"):
                rnngrad.jacobian_curves(growing, torch.ones(1, 60, 3))

    def works() -> None:
        for _ in range(4):
            rnngrad.jacobian_curves(module, x)
            rnngrad.loss_gradient_curves(module, x, gradients(module, x))

    before, threads = limits()[0], torch.get_num_threads()
    try:
        set_limits(3)
        with ThreadPoolExecutor(3) as pool:
            done = [pool.submit(call) for call in (works, fails, works)]
            during = set()
            while not all(future.done() for future in done):
                during.update(limits())
            for future in done:
                future.result()
            assert 1 in during
            assert set(limits()) == {3}
            rnngrad.lyapunov_exponents(module, x[:1])
            assert set(limits()) == {3}
            assert torch.get_num_threads() == threads
    finally:
        set_limits(before)


QUICK = """
import torch, rnngrad
module, x = torch.nn.RNN(2, 3), torch.zeros(4, 1, 2)
for _ in range(2):
    print(rnngrad.jacobian_curves(module, x).log10_frobenius.shape)
"""


def test_without_a_cache_everything_is_compiled_each_time(tmp_path: Path):
    """Neither beside the package nor in the user's folder may anything be written."""
    package = Path(rnngrad.__file__).parent
    shutil.copytree(package, tmp_path / "rnngrad", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "rnngrad" / "probe" / "__pycache__").touch()  # no folder can be made there
    environment = os.environ | {
        "PYTHONPATH": str(tmp_path),
        "PYTHONDONTWRITEBYTECODE": "1",
        "XDG_CACHE_HOME": os.devnull,
        "HOME": os.devnull,
        "NUMBA_CACHE_DIR": os.devnull,
    }
    done = subprocess.run(
        [sys.executable, "-c", QUICK],
        env=environment, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == 2 * ["(1, 4)"]
    said = [line for line in done.stderr.splitlines() if "compiling the probe's loops" in line]
    assert len(said) == 1, done.stderr
    assert "each time" in said[0]


@pytest.mark.parametrize("way", ["ulimit -f 0", "export NUMBA_DISABLE_JIT=1"])
def test_a_full_disk_and_plain_python_give_the_same_numbers(way: str, tmp_path: Path):
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        ["bash", "-c", f'{way}; "$0" -c "$1"', sys.executable, QUICK],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == 2 * ["(1, 4)"]


def test_steps_are_probed_by_two_threads_at_once():
    """torch has one level of forward mode for all threads: two at once took each other's."""
    cell = nn.GRUCell(3, 3).double()
    xs = torch.randn(2, 2, 20, 3).double()

    def curves(x: torch.Tensor) -> np.ndarray:
        start = torch.zeros(2, 3).double()
        return rnngrad.jacobian_curves_of_step(
            lambda s, x: cell(x, s), x, start, statistics="frobenius"
        ).log10_frobenius

    alone = [curves(x) for x in xs]
    with ThreadPoolExecutor(2) as pool:
        for found in pool.map(curves, [x for _ in range(15) for x in xs]):
            assert any(np.array_equal(found, one) for one in alone)


def test_a_probe_leaves_parametrized_weights_of_other_threads_alone():
    gru: Any = nn.utils.parametrizations.weight_norm(nn.GRU(3, 4), "weight_hh_l0")
    probing = Thread(
        target=rnngrad.jacobian_curves, args=problem(nn.LSTM, 100, 4, 600), daemon=True
    )
    probing.start()
    seen = []
    while probing.is_alive():
        with torch.no_grad():
            gru.parametrizations.weight_hh_l0.original0.mul_(1.001)
        seen.append(float(gru.weight_hh_l0.detach().sum()))
    assert len(seen) > 1
    assert len({*seen}) == len(seen)


def weight_parts(module: nn.RNNBase, x: torch.Tensor) -> Any:
    return rnngrad.weight_gradient_parts(module, x, gradients(module, x))


LONG: dict[str, Callable[[], Any]] = {
    "forward": lambda: rnngrad.jacobian_curves(*problem(nn.LSTM, 256, 2, 20_000)),
    "in the main thread": lambda: rnngrad.jacobian_curves(*problem(nn.LSTM, 100, 1, 300_000)),
    "orthonormal": lambda: rnngrad.lyapunov_exponents(*problem(nn.LSTM, 64, 2, 20_000)),
    "backward": lambda: weight_parts(*problem(partial(nn.LSTM, bias=False), 256, 2, 1_500)),
}


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("way", LONG)
def test_ctrl_c_does_not_wait_for_the_examples_that_are_under_way(way: str):
    main: Any = main_thread().ident
    sent: list[float] = []

    def interrupt() -> None:
        sent.append(time.monotonic())
        signal.pthread_kill(main, signal.SIGINT)

    timer = Timer(1.5, interrupt)
    with threads(2):
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            LONG[way]()
        assert time.monotonic() - sent[0] < 15  # the calls take minutes
        assert torch.get_num_threads() == 2
