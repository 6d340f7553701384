"""The command `rnngrad`: the study's question, the probe on a file's weights, and a check-up.

Nothing heavy is imported before a command needs it, so that help comes at once.
"""

import argparse
import os
import sys
from collections.abc import Callable
from importlib import import_module, metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnngrad.errors import InputError, printable

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from rnngrad import Diagnosis

FORM = argparse.ArgumentDefaultsHelpFormatter
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
        status = options.run(options)
        sys.stdout.flush()
    except (InputError, TypeError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "can't allocate" not in str(error):
            raise
        print(f"rnngrad {options.command}: {printable(str(error))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever reads has had enough, as head does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status


def _parser() -> argparse.ArgumentParser:
    says = "How far back do gradients reach in RNNs, LSTMs and GRUs?"
    parser = argparse.ArgumentParser("rnngrad", description=says, epilog=EXIT)
    version = f"rnngrad {metadata.version('rnngrad')}"
    parser.add_argument("--version", action="version", version=version)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    shared: dict[str, Any] = {"epilog": EXIT, "formatter_class": FORM}

    def command(name: str, run: Callable[..., int], says: str) -> Callable[..., Any]:
        one = commands.add_parser(name, help=says, description=says, **shared)
        one.set_defaults(run=run)
        return one.add_argument

    says = "the study's question: why is an untrained cell's gradient zero? (random words, seconds)"
    add = command("diagnose", _diagnose, says)
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
    from rnngrad.text_plot import text_plot

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
        print(*text_plot(found.log10_frobenius, dtype), sep="\n")
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
    return f"{name}{of}: |J| over all steps is {ANSWERS[name].format(size=size, dtype=dtype)}"


def _draw(found: "Diagnosis", path: str) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.4), layout="constrained")
    import_module("rnngrad.plot").draw_diagnosis(found, figure.subplots())
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise InputError(f"--png {path}: {error}") from None
    print(f"drawn: {path}")


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
