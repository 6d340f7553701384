"""The machine that the times were measured on, without names of hosts or folders."""

import os
import platform
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("torch", "numpy", "numba")


def description(threads: int) -> dict[str, object]:
    # JAX and TensorFlow have another environment: their versions are the pinned ones
    lines = (Path(__file__).parent / "requirements.txt").read_text().splitlines()
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
        **dict(line.split("==") for line in lines if "==" in line),
    }


def processor() -> str:
    """Its name as the kernel gives it, and what decides the rate of its products."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    values = {k.strip(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
    name = values.get("model name", platform.machine())
    return f"{name}, AVX-512" if "avx512f" in values.get("flags", "") else name
