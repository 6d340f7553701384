"""Does this installation have what rnngrad needs, and what else does it have?"""

import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib import metadata

from rnngrad.errors import InputError


def checks() -> Iterator[tuple[bool | None, str, str]]:
    """Is it well (None: it is optional and not there), what, and what there is to say."""
    yield True, "python", f"{sys.version.split()[0]} on {sys.platform}"
    for text in metadata.requires("rnngrad") or []:
        name, extra = re.split(r"[^\w.-]", text)[0], re.search(r"extra == .(\w+)", text)
        if extra and extra[1] == "dev":
            continue
        try:
            yield True, name, metadata.version(name)
        except metadata.PackageNotFoundError:
            of = f"rnngrad[{extra[1]}]" if extra else "rnngrad"
            yield None if extra else False, name, f"not installed: pip install '{of}'"
    begun, loops = time.perf_counter(), "compiled loops"
    try:
        import numba

        from rnngrad.probe import compile_loops

        compile_loops()
        folder = numba.njit(cache=True)(compile_loops).stats.cache_path
        yield True, loops, f"ready in {time.perf_counter() - begun:.1f} s, kept in {folder}"
    except Exception as error:  # whatever is wrong is told
        yield False, loops, f"{error}: NUMBA_CACHE_DIR may name a folder for them"
    with suppress(ImportError, InputError):  # which ones are missing is said
        import torch

        yield True, "cores", f"{os.cpu_count()}, of which torch uses {torch.get_num_threads()}"
        names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
        yield True if names else None, "GPU", ", ".join(names) or "none: all runs on the CPU"
        from rnngrad.data.fetch import cache_folder

        files = ", ".join(sorted(path.name for path in cache_folder().glob("*")))
        says = f"{cache_folder()}: {files or 'nothing downloaded, and the demo needs nothing'}"
        yield True if files else None, "data", says
