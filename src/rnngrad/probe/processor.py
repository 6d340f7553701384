"""What the speed of a step depends on and only the processor can tell."""

import platform
from pathlib import Path

import torch

PROCESSORS = Path("/proc/cpuinfo")
# Linux has it in KiB: "32768K"
LAST_CACHE = Path("/sys/devices/system/cpu/cpu0/cache/index3/size")

# What one call works on at most where there is no cache to keep to: it takes a GPU as long for
# little as for much.
OTHER_DEVICE_BYTES = 2**30


def bytes_at_once(device: torch.device, on_cpu: int) -> int:
    """What to work on at a time."""
    return on_cpu if device.type == "cpu" else OTHER_DEVICE_BYTES


def is_intel() -> bool:
    """Is this a processor of Intel's?"""
    try:
        with PROCESSORS.open() as lines:
            name = lines.read(1000)
    except OSError:
        name = platform.processor()
    return "GenuineIntel" in name


def last_cache_bytes() -> int:
    """Bytes of the cache that the cores share, or 0 where nothing tells."""
    try:
        return 2**10 * int(LAST_CACHE.read_text().strip().removesuffix("K"))
    except (OSError, ValueError):
        return 0
