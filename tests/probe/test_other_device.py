"""Where there is no GPU: the probe on a device that is none, in a process of its own."""

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
@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_no_tensor_is_on_the_wrong_device(cell: str):
    subprocess.run([sys.executable, PRETENDED_GPU, cell], check=True, timeout=300)
