"""What the times were measured on, without names of hosts or folders."""

import os
import platform
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("torch", "numpy")


def description(threads: int) -> dict[str, object]:
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "memory_gib": round(_memory_bytes() / 2**30),
        "system": platform.system(),
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
        **_competitors(),
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


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _competitors() -> dict[str, str]:
    """The versions that are pinned."""
    lines = (Path(__file__).parent / "requirements.txt").read_text().splitlines()
    pins = (line.split("==") for line in lines if "==" in line)
    return {name.strip(): pinned.strip() for name, pinned in pins}
