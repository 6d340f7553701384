"""Peak memory of the probe at the size of the question: T = 1,403, H = 200, batch 100.

    python -m benchmarks.memory            about a minute on two idle cores
    python -m benchmarks.memory --batch 8  a few seconds

Prints the peak of the process, what of it the imports and the inputs take, and the limit it keeps.
Exits with status 1 above the limit.
"""

import argparse
import json
import resource
import sys
import time

import torch

import rnngrad

LIMIT_GIB = 2.0


def peak_gib() -> float:
    """Of this process so far; ru_maxrss is in KiB on Linux and in bytes on macOS."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1403)
    parser.add_argument("--hidden", type=int, default=200)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--cell", choices=("RNN", "LSTM", "GRU"), default="LSTM")
    parser.add_argument("--json", action="store_true", help="seconds and MiB alone, for a program")
    args = parser.parse_args()

    torch.manual_seed(0)
    module = getattr(torch.nn, args.cell)(100, args.hidden, batch_first=True)
    inputs = torch.randn(args.batch, args.steps, 100)
    before, start = peak_gib(), time.perf_counter()
    rnngrad.jacobian_curves(
        module,
        inputs,
        state="c" if args.cell == "LSTM" else "h",
        spectral_steps=sorted({min(20, args.steps), min(100, args.steps), args.steps}),
    )
    seconds, peak = time.perf_counter() - start, peak_gib()
    if args.json:
        print(json.dumps({"seconds": seconds, "peak_mib": 1024 * (peak - before)}))
        return 0
    full = args.batch * args.steps * args.hidden**2 * 4 / 2**30
    print(f"{args.cell}, T = {args.steps}, H = {args.hidden}, batch {args.batch}: {seconds:.0f} s")
    print(f"peak {peak:.2f} GiB, of which {before:.2f} GiB before the probe started")
    print(f"limit {LIMIT_GIB} GiB; a (batch, time, H, H) array would take {full:.0f} GiB")
    return int(peak > LIMIT_GIB)


if __name__ == "__main__":
    raise SystemExit(main())
