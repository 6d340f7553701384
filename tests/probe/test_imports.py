"""The probe loads few libraries and compiles nothing on import; `import rnngrad` loads none."""

import subprocess
import sys
from importlib.metadata import version

import rnngrad

HEAVY = "{'pytorch_lightning', 'lightning', 'mlflow', 'dvc', 'pydantic'}"


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_import_is_lazy():
    assert run("import sys, rnngrad; print({'torch', 'numba'} & {*sys.modules})") == "set()"


def test_using_the_probe_imports_no_more():
    code = f"""
import sys, torch, rnngrad
module, x = torch.nn.LSTM(2, 3), torch.zeros(4, 1, 2)
rnngrad.jacobian_curves(module, x).to_frame()
rnngrad.jacobian_curves_of_step(lambda s, x: torch.tanh(s), x.transpose(0, 1), torch.zeros(1, 3))
rnngrad.loss_gradient_curves(module, x, torch.ones(4, 1, 3))
rnngrad.weight_gradient_parts(module, x, torch.ones(4, 1, 3))
rnngrad.lyapunov_exponents(module, x)
next(rnngrad.trajectory(module, x).jacobians())
print(rnngrad.diagnose(module, x))
print("loaded:", sorted({HEAVY} & set(sys.modules)))
"""
    assert run(code).endswith("loaded: []")


def test_the_version_is_that_of_the_installed_package():
    assert rnngrad.__version__ == version("rnngrad")


def test_every_public_name_resolves():
    for name in rnngrad.__all__:
        assert name in dir(rnngrad)
        assert getattr(rnngrad, name).__doc__
