"""The command `rnngrad`: the study's question, the probe on a file's weights, and a check-up.

Nothing heavy is imported before a command needs it, so that help comes at once.
"""

import argparse
import math
import sys
from collections.abc import Callable, Iterator
from importlib import import_module, metadata
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnngrad.errors import InputError, printable

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from rnngrad import Diagnosis

EXIT = "exit status: 0 done, 1 bad input (one line on stderr), 2 wrong usage, 130 Ctrl-C"
WORD_SCALE = 0.57  # the standard deviation of the numbers in GloVe's vectors
ANSWERS = {
    "structural": "exactly zero, in any arithmetic",
    "saturated": "10^{size:.1f}, and zero only because gates saturate in {dtype}",
    "underflow": "10^{size:.1f}; a zero is {dtype}'s, which cannot hold it",
    "decayed": "10^{size:.1f}; {dtype} can hold it, no optimiser will notice it",
    "exploding": "10^{size:.1f}: it explodes",
    "alive": "10^{size:.1f}: neither vanished nor exploded",
}


def main(arguments: list[str] | None = None) -> int:
    """Run the command in ``sys.argv``, or another one, and return its exit status."""
    options = _parser().parse_args(arguments)
    try:
        return options.run(options)
    except (InputError, TypeError) as error:
        print(f"rnngrad {options.command}: {printable(str(error))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    says = "How far back do gradients reach in RNNs, LSTMs and GRUs?"
    parser = argparse.ArgumentParser("rnngrad", description=says, epilog=EXIT)
    version = f"rnngrad {metadata.version('rnngrad')}"
    parser.add_argument("--version", action="version", version=version)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run: Callable[..., int], says: str) -> Callable[..., Any]:
        form = argparse.ArgumentDefaultsHelpFormatter
        one = commands.add_parser(
            name, help=says, description=says, epilog=EXIT, formatter_class=form
        )
        one.set_defaults(run=run)
        return one.add_argument

    add = command("diagnose", _diagnose, "why is the gradient of an untrained cell zero?")
    add("--cell", choices=("rnn", "lstm", "gru"), default="lstm", help="kind of cell")
    kinds = ("keras", "torch", "chrono", "identity")
    add("--init", choices=kinds, default="keras", help="initial weights")
    add("--forget-bias", type=float, default=1.0, metavar="B", help="of an LSTM by --init keras")
    add("--units", type=_count, default=200, metavar="H", help="units of the cell")
    add("--features", type=_count, default=100, metavar="D", help="numbers per word")
    add("--steps", type=_count, default=1403, metavar="T", help="steps, padding included")
    where = "where zeros make up for missing words; none: all steps are words"
    add("--padding", choices=("pre", "post", "none"), default="pre", help=where)
    add("--words", type=_count, default=36, metavar="N", help="random words beside the padding")
    start = "h_0 and c_0: U(0, 1), or zeros"
    add("--start", choices=("uniform", "zero"), default="uniform", help=start)
    add("--seed", type=int, default=1, help="of weights, words and start")
    _add_common(add)
    says = "why is the gradient zero in a file's weights, on your inputs?"
    add = command("probe", _probe, says)
    add("file", help=".pt: state dict, checkpoint, torch's own modules; or .keras, .weights.h5")
    shape = ".npy of floats: (batch, time, features) or (time, features)"
    add("--inputs", required=True, metavar="X.npy", help=shape)
    add("--lengths", metavar="N.npy", help=".npy: the real steps of each example")
    add("--module", metavar="NAME", help="which of the file's recurrent modules")
    add("--layer", type=int, default=-1, help="which of the module's layers, from 0")
    relu = "of an RNN in a state dict"
    add("--nonlinearity", choices=("tanh", "relu"), default="tanh", help=relu)
    _add_common(add)
    command(
        "doctor", _doctor, "check versions, compiled loops, cores, GPU, optional packages, data"
    )
    add = command("completion", _completion, "print a shell's completion of this command")
    add("shell", choices=("bash", "zsh", "tcsh"), help='as in: eval "$(rnngrad completion bash)"')
    return parser


def _add_common(add: Callable[..., Any]) -> None:
    of = "whose gradient; without it c of an LSTM, h of others"
    add("--state", choices=("h", "c", "full"), default=argparse.SUPPRESS, help=of)
    add("--dtype", choices=("float32", "float64"), default="float32", help="the arithmetic judged")
    add("--png", metavar="FILE", default=argparse.SUPPRESS, help="draw into a file, not as text")


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1")
    return int(text)


def _diagnose(options: argparse.Namespace) -> int:
    import torch

    from rnngrad.models import initializers

    H, D, T = options.units, options.features, options.steps
    torch.manual_seed(options.seed)
    kind: Any = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[options.cell]
    relu = options.init == "identity" and options.cell == "rnn"
    module = kind(D, H, batch_first=True, **({"nonlinearity": "relu"} if relu else {}))
    if options.init != "torch":
        initializers.initialize_like_keras(module, options.forget_bias)
    if options.init == "identity":
        initializers.set_identity(module)
    if options.init == "chrono":
        initializers.set_chrono_biases(module, T)
    words = T if options.padding == "none" else min(options.words, T)
    first = T - words if options.padding == "pre" else 0
    inputs = torch.zeros(1, T, D)
    inputs[:, first : first + words] = WORD_SCALE * torch.randn(words, D)
    make = torch.rand if options.start == "uniform" else torch.zeros
    start = tuple(make(1, 1, H) for _ in range(2 if options.cell == "lstm" else 1))
    return _answer(module, inputs, start if len(start) == 2 else start[0], options)


def _probe(options: argparse.Namespace) -> int:
    import torch

    from rnngrad.keras import from_keras
    from rnngrad.saved import recurrent_module

    if options.file.endswith((".keras", ".h5")):
        module = from_keras(options.file, options.module)
    else:
        module = recurrent_module(options.file, options.module, options.nonlinearity)
    lengths = _array(options.lengths) if options.lengths else None
    inputs = torch.from_numpy(_array(options.inputs))
    return _answer(module, inputs, None, options, lengths=lengths, layer=options.layer)


def _array(path: str) -> "np.ndarray":
    import numpy as np

    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        raise InputError(f"{path}: holds no single array of numbers: write it with numpy.save")
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))


def _answer(
    module: "nn.Module", inputs: "Tensor", start: Any, options: argparse.Namespace, **more: Any
) -> int:
    import torch

    import rnngrad

    png = getattr(options, "png", None)
    if png and not Path(png).parent.is_dir():
        raise InputError(f"--png {png}: there is no such folder")
    state = getattr(options, "state", "c" if isinstance(module, torch.nn.LSTM) else "h")
    dtype = getattr(torch, options.dtype)
    found = rnngrad.diagnose(module, inputs, start, state=state, dtype=dtype, **more)
    print(f"{found}\n")
    if png:
        _draw(found, png)
    else:
        limit = math.log10(torch.finfo(dtype).smallest_normal)
        print(*_text_plot(found.log10_frobenius, limit, f"{options.dtype} ends"), sep="\n")
    print(f"\n{_sentence(found, options.dtype)}")
    return 0


def _sentence(found: "Diagnosis", dtype: str) -> str:
    """The fate of most examples at their last steps."""
    import numpy as np

    verdicts = found.verdict
    at_end = np.arange(len(verdicts)), (verdicts != "").sum(axis=1) - 1
    names, counts = np.unique(verdicts[at_end], return_counts=True)
    name = str(names[counts.argmax()])
    size = np.median(found.log10_frobenius[at_end][verdicts[at_end] == name])
    of = "" if len(verdicts) == 1 else f", in {counts.max()} of {len(verdicts)} examples"
    return f"{name}{of}: over all steps it is {ANSWERS[name].format(size=size, dtype=dtype)}"


def _draw(found: "Diagnosis", path: str) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    try:
        import_module("rnngrad.plot").draw_diagnosis(found).figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise InputError(f"--png {path}: {error}") from None
    print(f"drawn: {path}")


def _text_plot(
    log10: "np.ndarray", limit: float, note: str, width: int = 68, height: int = 14
) -> Iterator[str]:
    """The median of the examples in braille dots, or in asterisks where the terminal has none."""
    import numpy as np

    steps = np.flatnonzero(~np.isnan(log10).all(axis=0))
    middle = np.nanquantile(log10[:, steps], 0.5, axis=0, method="nearest")
    if not np.isfinite(middle).any():
        return
    low, high = math.floor(middle[np.isfinite(middle)].min()), math.ceil(middle.max())
    dots = np.zeros((4 * height, 2 * width), dtype=bool)
    rows = (high - np.array([*middle, limit])) / max(high - low, 1) * (len(dots) - 1)
    notes: dict[int, str] = {}
    if low < limit < high:
        dots[round(rows[-1]), ::3] = True
        notes[round(rows[-1]) // 4] = note
    cuts = np.linspace(0, len(middle) - 1, 2 * width + 1).round().astype(int)
    for x, (first, last) in enumerate(pairwise(cuts)):
        some = rows[first : last + 1]
        some = some[np.isfinite(some)].round().astype(int)
        if len(some):
            dots[some.min() : some.max() + 1, x] = True
    bits = np.array([[1, 8], [2, 16], [4, 32], [64, 128]])[:, None]
    cells = (dots.reshape(height, 4, width, 2) * bits).sum(axis=(1, 3))
    braille = "utf" in (sys.stdout.encoding or "").lower()
    yield "log10 |J| at every step, median of the examples"
    for y, row in enumerate(cells):
        mark = f"{high:+d}" if y == 0 else f"{low:+d}" if y == height - 1 else ""
        line = "".join(" " if not c else chr(0x2800 + c) if braille else "*" for c in row)
        yield f"{mark:>5} |{line} {notes.get(y, '')}".rstrip()
    yield f"{'step':>5}  1{len(middle):>{width - 1}}"


def _doctor(_: argparse.Namespace) -> int:
    from rnngrad.doctor import checks

    bad = False
    for well, name, says in checks():
        bad |= well is False
        print(f"{'--' if well is None else 'ok' if well else 'BAD':5}{name:19}{says}", flush=True)
    return int(bad)


def _completion(options: argparse.Namespace) -> int:
    try:
        shtab = import_module("shtab")
    except ImportError:
        raise InputError("needs shtab: pip install 'rnngrad[completion]'") from None
    print(shtab.complete(_parser(), options.shell))
    return 0


if __name__ == "__main__":
    sys.exit(main())
