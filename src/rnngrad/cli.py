"""The command `rnngrad`: the study's question, the probe on a file's weights, and a check-up.

Nothing heavy is imported before a command needs it: help comes at once.
"""

import argparse
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping
from importlib import import_module, metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnngrad.errors import InputError, printable

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from rnngrad import Diagnosis

EXIT = "exit status: 0 done, 1 bad input (one line on stderr), 2 wrong usage, 130 Ctrl-C"
# word vectors of GloVe have numbers of this standard deviation
WORD_SCALE = 0.57
ANSWERS = {
    "structural": "it is exactly zero in any arithmetic",
    "saturated": "it is 10^{size:.1f}, and zero only because gates saturate in {dtype}",
    "underflow": "it is 10^{size:.1f}, and any zero is {dtype}'s, which cannot hold it",
    "decayed": "it is 10^{size:.1f}, small, and {dtype} can hold it",
    "exploding": "it is 10^{size:.1f} and explodes",
    "alive": "it is 10^{size:.1f}, neither vanished nor exploded",
}


def main(arguments: list[str] | None = None) -> int:
    """Run the command with ``sys.argv`` or the arguments; return its exit status."""
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
    parser = argparse.ArgumentParser(
        "rnngrad", description="How far back do gradients reach in RNNs, LSTMs and GRUs?", epilog=EXIT
    )
    version = f"rnngrad {metadata.version('rnngrad')}"
    parser.add_argument("--version", action="version", version=version)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run: Any, says: str) -> Any:
        form = argparse.ArgumentDefaultsHelpFormatter
        added = commands.add_parser(name, help=says, description=says, epilog=EXIT, formatter_class=form)
        added.set_defaults(run=run)
        return added

    one = command("diagnose", _diagnose, "why is the gradient of an untrained cell zero?")
    one.add_argument("--cell", choices=("rnn", "lstm", "gru"), default="lstm", help="kind of cell")
    initial = ("keras", "torch", "chrono", "identity")
    one.add_argument("--init", choices=initial, default="keras", help="initial weights")
    one.add_argument("--forget-bias", type=float, default=1.0, help="of an LSTM, with --init keras")
    one.add_argument("--units", type=_count, default=200, metavar="H", help="units")
    one.add_argument("--features", type=_count, default=100, metavar="D", help="numbers per word")
    one.add_argument("--steps", type=_count, default=1403, metavar="T", help="steps")
    padding = "where zeros fill the steps up"
    one.add_argument("--padding", choices=("pre", "post", "none"), default="pre", help=padding)
    one.add_argument("--words", type=_count, default=36, help="random words, where there is padding")
    start = "h_0 and c_0: U(0, 1) or zeros"
    one.add_argument("--start", choices=("uniform", "zero"), default="uniform", help=start)
    one.add_argument("--seed", type=int, default=1, help="of weights, words and start")
    _add_common(one)
    two = command("probe", _probe, "why is the gradient zero in a file's weights, on your inputs?")
    file = ".pt of a state dict, checkpoint or torch's own modules; .keras; .weights.h5"
    two.add_argument("file", help=file)
    shape = ".npy: floats (batch, time, features) or (time, features)"
    two.add_argument("--inputs", required=True, metavar="X.npy", help=shape)
    two.add_argument("--lengths", metavar="N.npy", help=".npy: real steps of each example")
    two.add_argument("--module", metavar="NAME", help="which of several recurrent modules")
    two.add_argument("--layer", type=int, default=-1, help="of a module of several, from 0")
    of_rnn = "of an RNN whose file does not say it"
    two.add_argument("--nonlinearity", choices=("tanh", "relu"), default="tanh", help=of_rnn)
    _add_common(two)
    command("doctor", _doctor, "check versions, compiled loops, cores, GPU and what is optional")
    three = command("completion", _completion, 'completion of a shell: eval "$(rnngrad completion bash)"')
    three.add_argument("shell", choices=("bash", "zsh", "tcsh"))
    return parser


def _add_common(parser: argparse.ArgumentParser) -> None:
    of = "state to differentiate; default: c of an LSTM, else h"
    parser.add_argument("--state", choices=("h", "c", "full"), help=of, default=argparse.SUPPRESS)
    judged = "arithmetic that is judged"
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32", help=judged)
    parser.add_argument("--png", metavar="FILE", help="draw into this file, not as text")


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1")
    return int(text)


def _diagnose(options: argparse.Namespace) -> int:
    import torch

    from rnngrad.models import initializers

    H, D, T = options.units, options.features, options.steps
    torch.manual_seed(options.seed)
    kind = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[options.cell]
    relu = options.init == "identity" and options.cell == "rnn"
    module = kind(D, H, batch_first=True, **({"nonlinearity": "relu"} if relu else {}))
    if options.init != "torch":
        initializers.initialize_like_keras(module, options.forget_bias)
    if options.init == "identity":
        initializers.set_identity(module)
    if options.init == "chrono":
        initializers.set_chrono_biases(module, T)
    words = T if options.padding == "none" else min(options.words, T)
    inputs = torch.zeros(1, T, D)
    first = T - words if options.padding == "pre" else 0
    inputs[:, first : first + words] = WORD_SCALE * torch.randn(words, D)
    make = torch.rand if options.start == "uniform" else torch.zeros
    start = [make(1, 1, H) for _ in range(2 if options.cell == "lstm" else 1)]
    return _answer(module, inputs, options, tuple(start) if len(start) == 2 else start[0])


def _probe(options: argparse.Namespace) -> int:
    import torch

    if options.file.endswith((".keras", ".h5")):
        from rnngrad.keras import from_keras

        module = from_keras(options.file, options.module)
    else:
        module = _torch_module(options)
    inputs = torch.from_numpy(_array(options.inputs))
    lengths = _array(options.lengths) if options.lengths else None
    return _answer(module, inputs, options, lengths=lengths, layer=options.layer)


def _answer(module: "nn.RNNBase", inputs: "Tensor", options: Any, start: Any = None, **more: Any) -> int:
    import torch

    import rnngrad

    state = getattr(options, "state", "c" if isinstance(module, torch.nn.LSTM) else "h")
    dtype = getattr(torch, options.dtype)
    found = rnngrad.diagnose(module, inputs, start, state=state, dtype=dtype, **more)
    print(found)
    print()
    if options.png:
        _draw(found, options.png)
    else:
        print("\n".join(_text_plot(_median(found.log10_frobenius), "log10 |J|")))
    return 0
