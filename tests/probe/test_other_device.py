"""Without a GPU the probe runs on a device that is none, in a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest
from torch.utils import backend_registration

PRETENDED_GPU = Path(__file__).with_name("pretended_gpu.py")


@pytest.mark.skipif(
    not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this release of torch lets nobody add a device in Python",
)
@pytest.mark.parametrize("options", [["rnn", "lstm", "gru"], ["lstm", "without-float64"]])
def test_another_device_finds_what_the_cpu_finds(options: list[str]):
    subprocess.run([sys.executable, PRETENDED_GPU, *options], check=True, timeout=300)
