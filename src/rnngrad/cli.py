"""The command `rnngrad`. Heavy modules are imported late, so that help comes at once."""

import argparse
import inspect
import os
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import metadata
from typing import Any

import shtab

from rnngrad.errors import InputError, check_memory, printable

EXIT = (
    "exit status: 0 done, 1 bad input (one line on stderr), doctor found something BAD, or nobody "
    "reads on, 2 wrong usage, 130 Ctrl-C"
)
UNSET = "state", "png", "lengths", "mask", "module", "nonlinearity", "forget_bias", "words"
WORDS = 36  # of a comment
MARKERS = {".": ".", "+": "+", "braille": "⠒"}  # a curve's marker, and its look in the key
WORD_SCALE = 0.57  # the standard deviation of the numbers in GloVe's vectors


def main(arguments: list[str] | None = None) -> int:
    """Run the command in ``sys.argv``, or another one, and return its exit status."""
    options = argparse.Namespace(**dict.fromkeys(UNSET))
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115  it may be closed
    with suppress(AttributeError):  # a replaced stdout may lack this method
        sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]  where dots are unknown
    try:
        _parser().parse_args(arguments, options)
        status = options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has closed the pipe, as head does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (InputError, TypeError, OSError, MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "can't allocate" not in str(error):
            raise
        sys.exit(f"rnngrad {options.command}: {printable(str(error))}")
    except KeyboardInterrupt:
        return 130
    return status


def _parser() -> argparse.ArgumentParser:
    says = "How far back do gradients reach in RNNs, LSTMs and GRUs?"
    parser = argparse.ArgumentParser("rnngrad", description=says, epilog=EXIT)
    version = f"rnngrad {metadata.version('rnngrad')}"
    parser.add_argument("--version", action="version", version=version)
    shtab.add_argument_to(parser, help="print a shell's completion of this command")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run: Callable[..., int], says: str) -> Callable[..., Any]:
        one = commands.add_parser(
            name, help=says, description=says, epilog=EXIT, argument_default=argparse.SUPPRESS,
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )  # fmt: skip
        one.set_defaults(run=run)
        return one.add_argument

    add = command("diagnose", _diagnose, "the question: why is an untrained cell's gradient zero?")
    add("--cell", choices=("rnn", "lstm", "gru"), default="lstm", help="kind of cell")
    add("--init", choices=("keras", "torch", "chrono", "identity"), default="keras", help="weights")
    add("--forget-bias", type=float, metavar="B", help="of an LSTM by --init keras (1)")
    add("--units", type=int, default=200, metavar="H", help="units of the cell")
    add("--features", type=int, default=100, metavar="D", help="numbers per word")
    add("--steps", type=int, default=1403, metavar="T", help="steps, padding included")
    add("--padding", choices=("pre", "post", "none"), default="pre", help="zeros: where they stand")
    add("--words", type=int, metavar="N", help=f"random words beside the padding ({WORDS})")
    add("--start", choices=("uniform", "zero"), default="uniform", help="h_0, c_0: U(0, 1) or 0")
    add("--seed", type=int, default=1, help="of weights, words and start")
    read = command("probe", _probe, "why is the gradient zero in a file's weights, on your inputs?")
    holds = ".pt: state dict, checkpoint, torch's own modules; or .keras, .weights.h5"
    files = [
        read("file", help=holds),
        read("--inputs", required=True, metavar="X.npy", help="floats (batch, time, features)"),
        read("--lengths", metavar="N.npy", help="the real steps of each example"),
        read("--mask", metavar="M.npy", help="bool (batch, time): where a step counts"),
    ]
    read("--module", metavar="NAME", help="which of the file's recurrent modules")
    read("--layer", type=int, default=-1, help="which, from 0; of two directions each counts")
    read("--nonlinearity", choices=("tanh", "relu"), help="of a state dict's RNN (tanh)")
    for both in (add, read):
        both("--state", choices=("h", "c", "full"), help="whose gradient; c of an LSTM, else h")
        both("--dtype", choices=("float32", "float64"), default="float32", help="what is judged")
        files.append(both("--png", metavar="FILE", help="draw a PNG into a file, not as text"))
    for path in files:
        path.complete = shtab.FILE  # type: ignore[attr-defined]
    command("doctor", _doctor, "check versions, compiled loops, cores, BLAS, GPU, packages, data")
    return parser


def _diagnose(options: argparse.Namespace) -> int:
    import torch

    from rnngrad.models.initializers import make_layer

    H, D, T = options.units, options.features, options.steps
    if not 1 <= min(H, D, T) <= max(H, D, T) < 2**31:
        raise InputError("--units, --features, --steps: whole numbers from 1 to 2**31 - 1")
    if options.words is not None and options.padding == "none":
        raise InputError("--words stand beside padding: leave it out, or choose --padding pre")
    words = min(WORDS, T) if options.words is None else options.words
    if not 1 <= words <= T:
        raise InputError(f"--words {words}: a whole number from 1 to --steps, {T}")
    bias = options.forget_bias
    if bias is not None and (options.cell, options.init) != ("lstm", "keras"):
        raise InputError("--forget-bias is of --cell lstm --init keras: leave it out")
    if not abs(bias or 0) < 3e38:
        raise InputError("--forget-bias is a number that float32 holds, such as 1")
    if not 0 <= options.seed < 2**63:
        raise InputError("--seed is a whole number from 0 to 2**63 - 1")
    # ten Jacobians of (h, c), W_ih in float32 and three times in float64, and the inputs
    needed = 320 * H * H + 112 * H * D + 4 * T * D
    check_memory(needed, "--units, --steps and --features take", "ask for less")
    torch.manual_seed(options.seed)
    kind, bias = getattr(torch.nn, options.cell.upper()), 1.0 if bias is None else bias
    module = make_layer(kind, D, H, options.init, longest=T, forget_bias=bias)
    words = T if options.padding == "none" else words
    first = T - words if options.padding == "pre" else 0
    inputs = torch.zeros(1, T, D)
    inputs[:, first : first + words] = WORD_SCALE * torch.randn(words, D)
    make = torch.rand if options.start == "uniform" else torch.zeros
    h_0, c_0 = make(1, 1, H), make(1, 1, H)
    return _answer(options, module, inputs, (h_0, c_0) if options.cell == "lstm" else h_0)


def _probe(options: argparse.Namespace) -> int:
    import torch

    from rnngrad.keras import from_keras
    from rnngrad.saved import recurrent_module

    if options.file.endswith((".keras", ".h5")):
        if options.nonlinearity:
            raise InputError("--nonlinearity is of torch's state dicts: save Keras' whole model")
        with warnings.catch_warnings(record=True, action="always") as told:
            module = from_keras(options.file, options.module)
        for warning in told:
            print(f"rnngrad: {warning.message}", file=sys.stderr)
    else:
        module = recurrent_module(options.file, options.module, options.nonlinearity)
        if not options.nonlinearity and isinstance(module, torch.nn.RNN):
            said = f"{module.nonlinearity}; of a state dict, --nonlinearity says which it is"
            print(f"rnngrad: the nn.RNN's nonlinearity is {said}", file=sys.stderr)
        if options.nonlinearity and not isinstance(module, torch.nn.RNN):
            raise InputError(f"--nonlinearity is an nn.RNN's: {options.file} holds a {module}")
    steps = {"lengths": _array(options.lengths)} if options.lengths else {}
    steps |= {"mask": _array(options.mask, "b")} if options.mask else {}
    inputs = torch.from_numpy(_array(options.inputs))
    if module.bidirectional or module.proj_size:
        *own, ends = _direction(options, module.double(), inputs, steps)
        return _answer(options, *own, lengths=ends)
    return _answer(options, module, inputs, layer=options.layer, **steps)


def _direction(options: argparse.Namespace, module: Any, inputs: Any, steps: Any) -> Any:
    """Give one direction of one layer as a module of its own, what it reads, and its lengths."""
    import torch

    import rnngrad
    from rnngrad._recording import record

    count = module.num_layers * (1 + module.bidirectional)
    if not -count <= options.layer < count:
        raise InputError(f"--layer {options.layer}: each direction counts, use 0..{count - 1}")
    # this refuses inputs that do not fit
    rnngrad.trajectory(torch.nn.RNN(module.input_size, 1, batch_first=True), inputs)
    own = record(module, (inputs.double(),), {}, None, steps).layers[options.layer]
    others = f"; --layer takes another of {count}" if count > 1 else ""
    print(f"rnngrad: this is {own.name}{others}", file=sys.stderr)
    return own.module, own.read[0], own.lengths


def _array(path: str, kinds: str = "fiu") -> Any:
    import numpy as np

    with open(path, "rb") as file:
        try:
            array = np.lib.format.read_array(file)
        except Exception as error:  # a damaged file may raise anything
            reason = "it holds objects: pad sequences" if "pickle" in f"{error}" else error
            raise InputError(f"{path}: no array of numbers by numpy.save: {reason}") from None
    if array.dtype.kind not in kinds:
        what = "numbers" if "f" in kinds else "bool"
        raise InputError(f"{path}: holds no single array of {what}: write it with numpy.save")
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))


def _answer(options: argparse.Namespace, module: Any, *given: Any, **more: Any) -> int:
    import torch
    from matplotlib.figure import Figure

    import rnngrad

    if options.png and not os.path.isdir(os.path.dirname(options.png) or "."):
        raise InputError(f"--png {options.png}: there is no such folder")
    state = options.state or ("c" if isinstance(module, torch.nn.LSTM) else "h")
    dtype = getattr(torch, options.dtype)
    found = rnngrad.diagnose(module, *given, state=state, dtype=dtype, **more)
    print(f"{found}\n")
    figure = Figure(figsize=(6.4, 3.4), layout="constrained")
    ax = found.plot(figure.subplots())
    if options.png:
        figure.savefig(options.png, format="png", dpi=150)
    print(f"drawn: {options.png}" if options.png else _as_text(ax, found.verdict.shape[1]))
    return 0


def _as_text(ax: Any, steps: int) -> str:
    """Draw the picture's curves and the end of float32 as a terminal shows them."""
    import numpy as np
    import plotext

    picture, key, markers = plotext.figure.clear(), list[str](), iter(MARKERS.items())
    # the curve drawn last covers the others: let it be the true norm
    for line, label in [*zip(*ax.get_legend_handles_labels(), strict=True)][::-1]:
        x, y = line.get_xydata()[np.isfinite(line.get_ydata())].T.tolist()
        if x[:1] == [0]:  # from edge to edge: steps begin at 1
            picture.line(y[0])
            key.append(f"─ {label}")
        else:
            marker, looks = next(markers)
            picture.draw(picture.signal(x, y, marker=marker).lines(True))
            key.append(f"{looks} {label}")
    picture.label(ax.get_xlabel(), axis="x").title(ax.get_ylabel()).plot_size(78, 20)
    picture.ruler("x").ticks(np.linspace(1, steps, 5).astype(int).tolist())
    return "\n".join([picture.build().string(colorless=not sys.stdout.isatty()), *key[::-1]])


def _doctor(_: argparse.Namespace) -> int:
    bad = False
    for well, name, says in _checks():
        bad |= well is False
        print(f"{'--' if well is None else 'ok' if well else 'BAD':5}{name:20}{says}", flush=True)
    return int(bad)


def _checks() -> Iterator[tuple[bool | None, str, str]]:
    """Tell of each thing whether it is well (None: optional, not there), its name, and more."""
    from packaging.requirements import Requirement

    yield True, "python", f"{sys.version.split()[0]} on {sys.platform}"
    yield True, "rnngrad", metadata.version("rnngrad")
    names = set[str]()
    for needed in map(Requirement, metadata.requires("rnngrad") or []):
        extra = re.sub(r'extra == "(\w+)"', r"[\1]", str(needed.marker or ""))
        if extra in ("[dev]", "[docs]") or needed.name in names:
            continue
        names.add(needed.name)
        cure = f"pip install 'rnngrad{extra}'"
        try:
            version = metadata.version(needed.name)
        except metadata.PackageNotFoundError:
            yield None if extra else False, needed.name, f"not installed: {cure}"
            continue
        fits = needed.specifier.contains(version, prereleases=True)
        says = "" if fits else f", and not {needed.specifier}: {cure}"
        yield fits, needed.name, version + says
    begun, loops = time.perf_counter(), "compiled loops"
    try:
        import numba

        import rnngrad.compiled_probe

        folder = numba.njit(cache=True)(inspect.unwrap(rnngrad.jacobian_curves)).stats.cache_path
        yield True, loops, f"ready in {time.perf_counter() - begun:.1f} s, kept in {folder}"
    except Exception as error:  # the line tells whatever is wrong
        yield False, loops, f"{error}: NUMBA_CACHE_DIR may name a folder for them"
    with suppress(ImportError, InputError):  # the lines above name what is missing
        import torch
        from threadpoolctl import threadpool_info

        from rnngrad.workers import cores

        yield True, "cores", f"{cores()}, of which torch uses {torch.get_num_threads()}"

        libraries = [each for each in threadpool_info() if each["user_api"] == "blas"]
        kinds = (f"{v['internal_api']} {v['version']}, {v.get('architecture')}" for v in libraries)
        yield True, "matrix products", "; ".join(kinds)
        names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
        yield True if names else None, "GPU", ", ".join(names) or "none: all runs on the CPU"
        from rnngrad.data.fetch import cache_folder

        files = ", ".join(sorted(path.name for path in cache_folder().glob("*")))
        says = f"{cache_folder()}: {files or 'nothing downloaded, and the demo needs nothing'}"
        yield True if files else None, "data", says
