"""The command: its answers, its one-line errors and its exit statuses."""

import importlib.metadata
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import rnngrad
from processes import start

FIXTURES = Path(__file__).with_name("keras_fixtures")

SMALL = ("diagnose", "--units", "8", "--features", "4", "--steps", "50", "--words", "9")

Run = Callable[..., tuple[int, str, str]]


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
    assert re.search(r"^underflow .* too small for autograd", out, re.MULTILINE)
    assert "─ smallest normal float32" in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "d c_t / d c_0 of LSTM(8), 1 example(s), 50 steps, judged for torch.float32"),
        (("--cell", "gru", "--dtype", "float64"), "d h_t / d h_0 of GRU(8), 1 example(s), 50"),
        (("--cell", "rnn", "--init", "identity", "--start", "zero"), "d h_t / d h_0 of RNN(8)"),
        (("--init", "chrono", "--state", "full"), "d state_t / d state_0 of LSTM(8)"),
        (("--init", "torch", "--padding", "post", "--state", "h"), "d h_t / d h_0 of LSTM(8)"),
    ],
)
def test_each_kind_of_model_is_diagnosed(arguments: tuple[str, ...], says: str, run: Run):
    status, out, _ = run(*SMALL, *arguments)
    assert status == 0
    assert out.startswith(says)
    assert re.search(r"\n(alive|decayed|underflow|structural) ", out)


def test_padding_and_words_change_what_is_read(run: Run):
    settings = [("pre", 9), ("post", 9), ("pre", 3), ("pre", 50)]
    found = [run(*SMALL, "--padding", p, "--words", w)[1] for p, w in settings]
    assert len({*found}) == 4
    assert run(*SMALL[:-2], "--padding", "none")[1] == found[3]
    assert run(*SMALL[:-2])[1] == run(*SMALL, "--words", 36)[1]


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


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--init", "chrono", "--cell", "gru"), "the chrono initialiser is made for an nn.LSTM"),
        (("--init", "identity"), "the identity initialiser is made for an nn.RNN"),
        (("--state", "c", "--cell", "rnn"), 'state="c": the RNN has no cell state'),
        (("--cell", "gru", "--forget-bias", "5"), "--forget-bias is of --cell lstm --init keras"),
        (("--steps", "0"), "--units, --features, --steps: whole numbers from 1"),
        (("--words", "51"), "--words 51: a whole number from 1 to --steps, 50"),
        (("--words", "0"), "--words 0: a whole number from 1 to --steps, 50"),
        (("--padding", "none"), "--words stand beside padding: leave it out"),
        (("--forget-bias", "1e300"), "--forget-bias is a number that float32 holds"),
        (("--seed", "9" * 30), "--seed is a whole number from 0 to 2**63 - 1"),
        (("--units", "1000000"), "--units, --steps and --features take about"),
        (("--png", "no/such/folder.png"), "--png no/such/folder.png: there is no such folder"),
    ],
)
def test_bad_input_is_one_line(arguments: tuple[str, ...], says: str, refusal: Callable[..., str]):
    err = refusal(*SMALL, *arguments)
    assert err.startswith("rnngrad diagnose: ")
    assert says in err


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


def test_the_doctor_finds_nothing_wrong_here(run: Run):
    status, out, _ = run("doctor")
    assert status == 0
    assert re.search(r"^ok +torch +2\.", out, re.MULTILINE)
    kept = re.search(r"^ok +compiled loops +ready in .* s, kept in (.+)$", out, re.MULTILINE)
    assert kept
    assert [*Path(kept[1]).glob("*.nbi")]
    for name in ("cores", "GPU", "dvc", "mlflow", "data"):
        assert re.search(rf"^(ok|--) +{name} ", out, re.MULTILINE)


def test_the_doctor_says_what_is_missing_and_what_is_too_old(
    run: Run, monkeypatch: pytest.MonkeyPatch
):
    version = importlib.metadata.version

    def without(name: str) -> str:
        if name in ("torch", "mlflow"):
            raise importlib.metadata.PackageNotFoundError(name)
        return "2.9" if name == "pydantic" else version(name)

    monkeypatch.setattr(importlib.metadata, "version", without)
    status, out, _ = run("doctor")
    assert status == 1
    assert re.search(r"^BAD +torch +not installed: pip install 'rnngrad'$", out, re.MULTILINE)
    assert re.search(r"^-- +mlflow +.* 'rnngrad\[study\]'$", out, re.MULTILINE)
    old = r"^BAD +pydantic +2\.9, and not >=2\.11: pip install 'rnngrad\[study\]'$"
    assert re.search(old, out, re.MULTILINE)


def test_completion_knows_the_options_and_files(run: Run):
    status, out, _ = run("--print-completion", "bash")
    assert "_shtab_rnngrad_probe___inputs_COMPGEN=_shtab_compgen_files" in out
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
    assert "exit status: 0 done, 1 bad input (one line on stderr), doctor found something" in text


def in_a_process(*arguments: str, **environment: str) -> "subprocess.Popen[str]":
    code = "import sys, rnngrad.cli as c; sys.exit(c.main())"
    return start("-c", code, *arguments, env=environment)


@pytest.mark.parametrize("arguments", [SMALL, ("--print-completion", "bash")])
def test_a_reader_that_has_had_enough_is_no_error(arguments: tuple[str, ...]):
    with in_a_process(*arguments) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        assert "Broken" not in process.stderr.read()
    assert process.returncode == 1


def test_a_curve_falls_from_left_to_right(run: Run):
    rows = [line.partition("┤")[2] for line in run(*SMALL)[1].splitlines()]
    dots = [[x for x, c in enumerate(row) if "\u2800" < c < "\u2900"] for row in rows]
    ends = [max(row) for row in dots if row]
    assert len(ends) > 2
    assert ends == sorted(ends)


def test_a_terminal_without_dots_gets_question_marks():
    process = in_a_process(*SMALL, PYTHONIOENCODING="ascii")
    out, _ = process.communicate()
    assert process.returncode == 0
    assert out.isascii()
    assert "? true norm" in out
