"""Where there is no GPU: the probe on a device that is none, in a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

PRETENDED_GPU = Path(__file__).with_name("pretended_gpu.py")


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_no_tensor_is_on_the_wrong_device(cell: str):
    subprocess.run([sys.executable, PRETENDED_GPU, cell], check=True, timeout=300)
