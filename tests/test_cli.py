"""The command: its answers, its one-line errors and its exit statuses."""

import importlib.metadata
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import rnngrad
from rnngrad.cli import main

FIXTURES = Path(__file__).with_name("keras_fixtures")
SMALL = ("diagnose", "--units", "8", "--features", "4", "--steps", "50", "--words", "9")
X = torch.randn(2, 12, 5, generator=torch.Generator().manual_seed(0))


class Model(nn.Module):
    """A class that is not torch's."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.LSTM(5, 4, num_layers=2)
        self.decoder = nn.GRU(5, 3, bias=False)
        self.head = nn.Linear(3, 1)


class Malicious:
    """Unpickling it runs a command."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Exit status, stdout and stderr of the command with these arguments."""

    def call(*arguments: object) -> tuple[int, str, str]:
        status: Any
        status, end = 0, ""
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as error:
            status, end = error.code, ""
        if isinstance(status, str):  # what Python makes of it
            status, end = 1, f"{status}\n"
        out, err = capsys.readouterr()
        return status, out, err + end

    return call


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[object], Path]:
    """Save something as torch.save does."""

    def save(thing: object) -> Path:
        torch.save(thing, tmp_path / "model.pt")
        return tmp_path / "model.pt"

    return save


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    np.save(tmp_path / "x.npy", X.numpy())
    return tmp_path / "x.npy"


Run = Callable[..., tuple[int, str, str]]
Save = Callable[[object], Path]


def batch_first(module: Any) -> Any:
    module.batch_first = True
    return module


# diagnose


@pytest.mark.slow
def test_the_question_is_answered(run: Run):
    status, out, _ = run("diagnose", "--cell", "lstm", "--steps", 1403, "--padding", "pre")
    zero = re.search(r"flush-to-zero: 0 from step (\d+)", out)
    size = re.search(r"at the end +true log10 \|J\| = (-\d+\.\d)", out)
    assert status == 0
    assert zero
    assert 510 <= int(zero[1]) <= 560
    assert size
    assert -102 < float(size[1]) < -89  # the question's, over weight seeds
    assert re.search(r"^underflow .* too small for float32", out, re.MULTILINE)
    assert "─ smallest normal float32" in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "d c_t / d c_0 of LSTM(8), 1 example(s), 50 steps, judged for float32"),
        (("--cell", "gru", "--dtype", "float64"), "d h_t / d h_0 of GRU(8), 1 example(s), 50"),
        (("--cell", "rnn", "--init", "identity", "--start", "zero"), "d h_t / d h_0 of RNN(8)"),
        (("--init", "chrono", "--state", "full"), "d s_t / d s_0 of LSTM(8)"),
        (("--init", "torch", "--padding", "post", "--state", "h"), "d h_t / d h_0 of LSTM(8)"),
    ],
)
def test_each_kind_of_model_is_diagnosed(arguments: tuple[str, ...], says: str, run: Run):
    status, out, _ = run(*SMALL, *arguments)
    assert status == 0
    assert out.startswith(says)
    assert re.search(r"\n(alive|decayed|underflow|structural) ", out)


def test_padding_and_words_change_what_is_read(run: Run):
    settings = [("pre", 9), ("post", 9), ("none", 9), ("pre", 3)]
    found = [run(*SMALL, "--padding", p, "--words", w)[1] for p, w in settings]
    assert len({*found}) == 4
    assert run(*SMALL, "--padding", "pre", "--words", 77)[1] == found[2]


def test_the_forget_bias_makes_it_remember(run: Run):
    ends = [
        re.search(r"true log10 \|J\| = (\S+)", run(*SMALL, "--forget-bias", bias)[1])
        for bias in (3, 5)
    ]
    assert ends[0]
    assert ends[1]
    assert float(ends[0][1]) < float(ends[1][1])


def test_a_picture_instead_of_text(run: Run, tmp_path: Path):
    status, out, _ = run(*SMALL, "--png", tmp_path / "curve.png")
    assert status == 0
    assert f"drawn: {tmp_path / 'curve.png'}" in out
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    status, _, err = run(*SMALL, "--png", "no/such/folder.png")
    assert (status, err.count("\n")) == (1, 1)
    assert "No such file or directory: 'no/such/folder.png'" in err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--init", "chrono", "--cell", "gru"), "the chrono initialiser is made for an nn.LSTM"),
        (("--init", "identity"), "the identity initialiser is made for an nn.RNN"),
        (("--state", "c", "--cell", "rnn"), 'state="c": a RNN has no cell state'),
        (("--steps", "0"), "--units, --features, --steps and --words are whole numbers from 1"),
        (("--units", "1000000"), "can't allocate memory"),
    ],
)
def test_bad_input_is_one_line(arguments: tuple[str, ...], says: str, run: Run):
    status, out, err = run(*SMALL, *arguments)
    assert (status, out) == (1, "")
    assert err.startswith("rnngrad diagnose: ")
    assert says in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("arguments", [("--steps", "few"), ("--cell", "lstn"), ("--sed", "1")])
def test_wrong_usage_has_a_status_of_its_own(arguments: tuple[str, ...], run: Run):
    status, out, err = run("diagnose", *arguments)
    assert (status, out) == (2, "")
    assert "rnngrad diagnose: error: " in err or "rnngrad: error: " in err


def test_ctrl_c_has_one_too(run: Run, monkeypatch: pytest.MonkeyPatch):
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(rnngrad, "diagnose", interrupt, raising=False)
    assert run(*SMALL) == (130, "", "")


# probe


@pytest.mark.parametrize(
    "module",
    [
        nn.LSTM(5, 4),
        nn.LSTM(5, 4, dtype=torch.float64),
        nn.GRU(5, 3, num_layers=2, bias=False),
        nn.RNN(5, 1),
        nn.RNN(5, 4, nonlinearity="relu"),
    ],
    ids=str,
)
@pytest.mark.parametrize("whole", [False, True])
def test_a_file_is_diagnosed_as_its_module_is(
    module: Any, whole: bool, run: Run, saved: Save, inputs: Path
):
    arguments = [saved(module if whole else module.state_dict()), "--inputs", inputs]
    if not whole and getattr(module, "nonlinearity", None) == "relu":
        arguments += ["--nonlinearity", "relu"]
    status, out, _ = run("probe", *arguments)
    state = "c" if isinstance(module, nn.LSTM) else "h"
    wanted = rnngrad.diagnose(batch_first(module), X, state=state)
    assert status == 0
    assert out.startswith(f"{wanted}\n")


@pytest.mark.parametrize("wrapped", [False, True])
def test_one_of_several_modules_is_chosen(wrapped: bool, run: Run, saved: Save, inputs: Path):
    torch.manual_seed(0)
    model = Model()
    weights = model.state_dict()
    path = saved({"epoch": 3, "state_dict": weights} if wrapped else weights)
    names = [f"state_dict.{name}" if wrapped else name for name in ("encoder", "decoder")]
    status, _, err = run("probe", path, "--inputs", inputs)
    assert (status, err.count("\n")) == (1, 1)
    assert f"name (--module) one of {', '.join(names)}" in err
    assert "has no module 'nix'" in run("probe", path, "--inputs", inputs, "--module", "nix")[2]
    out = run("probe", path, "--inputs", inputs, "--module", names[0], "--layer", 0)[1]
    wanted = rnngrad.diagnose(batch_first(model.encoder), X, state="c", layer=0)
    assert out.startswith(f"{wanted}\n")


def test_modules_inside_torch_s_own_containers_are_found(run: Run, saved: Save, inputs: Path):
    model = nn.Sequential(nn.Linear(2, 5), nn.RNN(5, 4, nonlinearity="relu"), nn.Linear(4, 1))
    wanted = rnngrad.diagnose(batch_first(model[1]), X)
    assert run("probe", saved(model), "--inputs", inputs)[1].startswith(f"{wanted}\n")


def test_lengths_end_the_examples(run: Run, saved: Save, inputs: Path, tmp_path: Path):
    module = nn.LSTM(5, 4, batch_first=True)
    np.save(tmp_path / "n.npy", np.array([12, 7], ">i4"))
    arguments = (saved(module), "--inputs", inputs, "--lengths", tmp_path / "n.npy")
    wanted = rnngrad.diagnose(module, X, state="c", lengths=[12, 7])
    assert run("probe", *arguments)[1].startswith(f"{wanted}\n")


def test_a_file_of_keras(run: Run, tmp_path: Path):
    np.save(tmp_path / "x.npy", X.numpy()[:, :, :3])
    arguments = (FIXTURES / "model.keras", "--inputs", tmp_path / "x.npy", "--module", "encoder")
    module = rnngrad.from_keras(FIXTURES / "model.keras", "encoder")
    wanted = rnngrad.diagnose(module, X[:, :, :3], state="c")
    status, out, _ = run("probe", *arguments)
    assert status == 0
    assert out.startswith(f"{wanted}\n")


def refused(run: Run, path: Path, inputs: Path) -> str:
    status, out, err = run("probe", path, "--inputs", inputs)
    assert (status, out) == (1, "")
    assert err.startswith("rnngrad probe: ")
    assert str(path) in err
    assert err.count("\n") == 1
    return err


@pytest.mark.parametrize("zipped", [True, False])
def test_a_class_that_is_not_torch_s_is_refused_by_name(
    zipped: bool, run: Run, tmp_path: Path, inputs: Path
):
    path = tmp_path / "model.pt"
    torch.save(Model(), path, _use_new_zipfile_serialization=zipped)
    assert "it holds test_cli.Model, no module of torch's own" in (refused(run, path, inputs))


@pytest.mark.parametrize("plain", [True, False])
def test_a_malicious_file_runs_nothing(plain: bool, run: Run, tmp_path: Path, inputs: Path):
    path, trace = tmp_path / "model.pt", tmp_path / "trace"
    harm = {"weight_hh_l0": Malicious(f"touch {trace}")}
    if plain:
        path.write_bytes(pickle.dumps(harm, protocol=2))
    else:
        torch.save(harm, path)
    assert f"it holds {os.system.__module__}.system, no module" in refused(run, path, inputs)
    assert not trace.exists()
    pickle.loads(pickle.dumps(harm))
    assert trace.exists()  # it would have done harm


def test_files_that_hold_no_module(run: Run, saved: Save, inputs: Path, tmp_path: Path):
    assert "No such file" in refused(run, tmp_path / "nix.pt", inputs)
    assert "Is a directory" in refused(run, tmp_path, inputs)
    cyclic: dict[str, Any] = {}
    cyclic["itself"] = cyclic
    weights = nn.LSTM(5, 4).state_dict()
    for thing, says in (
        (cyclic, "torch.load(weights_only=True) cannot read it: save model.state_dict()"),
        (nn.Linear(2, 2), "holds no recurrent module of torch or Keras"),
        (3, "holds no recurrent module of torch or Keras"),
        ({"weight_hh_l0": torch.zeros(7, 3)}, "has not the weights of an nn.RNN"),
        ({"weight_hh_l0": torch.zeros(3)}, "has not the weights of an nn.RNN"),
        ({"weight_hh_l0": torch.zeros(0, 0)}, "has not the weights of an nn.RNN"),
        (weights | {"bias_hh_l0": torch.zeros(3)}, "size mismatch for bias_hh_l0"),
        (weights | {"weight_ih_l0": torch.zeros(3)}, "size mismatch for weight_ih_l0"),
    ):
        assert says in refused(run, saved(thing), inputs)
    for text in (b"", b"nothing"):
        (tmp_path / "it.pt").write_bytes(text)
        assert "cannot read it" in refused(run, tmp_path / "it.pt", inputs)
    torch.save(nn.LSTM(5, 4, bidirectional=True), tmp_path / "two.pt")
    status, _, err = run("probe", tmp_path / "two.pt", "--inputs", inputs)
    assert (status, err.count("\n")) == (1, 1)


def test_arrays_that_hold_no_inputs(run: Run, saved: Save, tmp_path: Path):
    path, x = saved(nn.LSTM(5, 4)), tmp_path / "x.npy"
    for array, says in (
        (np.ones((2, 3), int), "embed or convert it first"),
        (np.array([{}]), "Object arrays cannot be loaded"),
        (np.array(["a"]), "holds no single array of numbers"),
        (np.ones((2, 3)), "inputs have 3 features, the module expects 5"),
    ):
        np.save(x, array, allow_pickle=True)
        status, out, err = run("probe", path, "--inputs", x)
        assert (status, out) == (1, "")
        assert says in err
        assert err.count("\n") == 1
    assert "No such file" in run("probe", path, "--inputs", tmp_path / "nix.npy")[2]


# doctor, completion, help


def test_the_doctor_finds_nothing_wrong_here(run: Run):
    status, out, _ = run("doctor")
    assert status == 0
    assert re.search(r"^ok +torch +2\.", out, re.MULTILINE)
    assert re.search(r"^ok +compiled loops +ready in .* s, kept in .+$", out, re.MULTILINE)
    for name in ("cores", "GPU", "dvc", "mlflow", "data"):
        assert re.search(rf"^(ok|--) +{name} ", out, re.MULTILINE)


def test_the_doctor_says_what_is_missing(run: Run, monkeypatch: pytest.MonkeyPatch):
    version = importlib.metadata.version

    def without(name: str) -> str:
        if name in ("torch", "mlflow"):
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(importlib.metadata, "version", without)
    status, out, _ = run("doctor")
    assert status == 1
    assert re.search(r"^BAD +torch +not installed: pip install 'rnngrad'$", out, re.MULTILINE)
    assert re.search(r"^-- +mlflow +.* 'rnngrad\[study\]'$", out, re.MULTILINE)


def test_completion_knows_the_options(run: Run):
    status, out, _ = run("--print-completion", "bash")
    assert status == 0
    assert "--forget-bias" in out


def test_help_tells_the_statuses_and_imports_nothing_heavy():
    code = """
import sys
from rnngrad.cli import main
try:
    main(["diagnose", "--help"])
except SystemExit as end:
    print(end.code, {"torch", "numpy", "matplotlib", "pandas"} & {*sys.modules})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 set()"
    text = " ".join(done.stdout.split())
    assert "exit status: 0 done, 1 bad input (one line on stderr), 2 wrong usage, 130" in text


def in_a_process(*arguments: str, **environment: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", "import sys, rnngrad.cli as c; sys.exit(c.main())", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | environment,
    )


def test_a_reader_that_has_had_enough_is_no_error():
    with in_a_process(*SMALL) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        assert b"Broken" not in process.stderr.read()
    assert process.returncode == 1


# the picture


def test_a_curve_falls_from_left_to_right(run: Run):
    rows = [line.partition("┤")[2] for line in run(*SMALL)[1].splitlines()]
    dots = [[x for x, c in enumerate(row) if "\u2800" < c < "\u2900"] for row in rows]
    ends = [max(row) for row in dots if row]
    assert len(ends) > 2
    assert ends == sorted(ends)


def test_a_gradient_of_exactly_zero_has_a_picture(run: Run, saved: Save, inputs: Path):
    module = nn.RNN(5, 4)
    nn.init.zeros_(dict(module.named_parameters())["weight_hh_l0"])
    status, out, _ = run("probe", saved(module), "--inputs", inputs)
    assert status == 0
    assert re.search(r"^structural ", out, re.MULTILINE)
    assert "step t" in out


def test_a_terminal_without_dots_gets_question_marks():
    process = in_a_process(*SMALL, PYTHONIOENCODING="ascii")
    out, _ = process.communicate()
    assert process.returncode == 0
    assert out.isascii()
    assert b"? true norm" in out
