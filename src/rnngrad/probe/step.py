"""Jacobian curves of any step function, by torch.func."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from rnngrad.errors import InputError
from rnngrad.probe._problem import check_finite, check_floating
from rnngrad.probe._scaled import ScaledRows, log10_of
from rnngrad.probe._settings import exact_products, probing
from rnngrad.probe._statistics import (
    STATISTICS,
    spectral_mask,
    spectral_norm,
    wanted_statistics,
)
from rnngrad.probe._step_checks import (
    UNLIKE_AUTOGRAD,
    UNLIKE_RESULTS,
    mixed_example,
    random_directions,
    refuse_swapped_arguments,
    same,
    unlike_autograd,
    unlike_results,
)
from rnngrad.probe.curves import JacobianCurves

Step = Callable[[Any, Tensor], Any]
ONE_THREAD = 64  # entries of a state
NOT_FINITE = "step returns NaN or inf, in the state or its derivative, at step {}"


def jacobian_curves_of_step(
    step: Step,
    inputs: Tensor,
    initial_state: Any,
    *,
    state: int | str | None = None,
    statistics: Sequence[str] = STATISTICS,
    spectral_steps: Sequence[int] | np.ndarray | None = None,
) -> JacobianCurves:
    """`jacobian_curves` for a recurrence that is written as a function.

    Args:
        step: (state, x) -> state, with x of shape (batch, features) and a state whose leaves have
            the batch in front; an nn.LSTMCell as `lambda s, x: cell(x, s)`, say. Examples must not
            depend on each other, and it must take any number of them: it is also tried on one
            alone. It must give the same state whenever it is called with the same arguments, leave
            these as they are, and torch.func.vmap and jvp must be able to go through it: no
            autograd.grad and no NumPy inside. It runs in the dtype it is given: pass float64 for
            exact curves.
        inputs: (batch, time, features), or anything with (batch, time) in front.
        initial_state: a pytree (tensor, tuple, list, dict, nested) of tensors (batch, ...).
        state: the entry of the state, by index or key, of which the Jacobian is taken with respect
            to itself; None means the whole state.
        statistics, spectral_steps: as in `jacobian_curves`.

    The one-step Jacobian of every step is computed with torch.func.jvp over all directions at once
    and multiplied up in float64 with one scale per row. Memory: as many copies of the step's
    intermediate values as the state has entries, and a few (batch, S, S) matrices, S being that
    number; the states of all steps, and nothing else that grows with time. The step is run twice
    over the whole sequence before that, to see that it has no memory of its own.

    Saturation: the derivatives are torch's own, from the outputs: 1 - tanh^2 and s (1 - s). In
    float64 they are 1e-7 off from pre-activations of about 11 (tanh) and 21 (sigmoid, positive
    side) and exactly zero from about 19 and 37, in float32 from 9 and 17: curves may then be -inf
    though the Jacobian is not zero. `jacobian_curves` uses forms without that cancellation: prefer
    it for torch's own modules.

    Stopped gradients: a step that detaches its state or a gate has another derivative than its
    results have, and TorchScript with weights that require grad may lose it. At the first, the
    middle and the last step it is compared with a central difference, and a warning tells where it
    is more than 1 % off. To leave a part out of the derivative write `.detach()`: torch.no_grad
    inside a step stops autograd and not torch.func.jvp, and the curves are then not autograd's. A
    warning tells of this too, unless autograd stops for all of the step. Numbers of 16 bits are too
    coarse for both.

    Raises:
        InputError: shapes that do not fit, a step that fails or runs under torch.inference_mode,
            takes its arguments in the other order, changes them, changes the state's structure or
            dtype, mixes examples, has a memory, is random, or returns NaN or inf.
        TypeError: integer inputs or states.

    Example:
        >>> import torch, rnngrad
        >>> cell, x = torch.nn.LSTMCell(3, 4).double(), torch.zeros(2, 5, 3).double()
        >>> start = (torch.zeros(2, 4).double(), torch.zeros(2, 4).double())
        >>> rnngrad.jacobian_curves_of_step(lambda s, x: cell(x, s), x, start).log10_spectral.shape
        (2, 5)
    """
    refuse_swapped_arguments(step)
    device = torch.get_default_device()
    if device.type == "cpu":
        return _curves(step, inputs, initial_state, state, statistics, spectral_steps)

    def as_given(s: Any, x: Tensor) -> Any:
        with device:
            return step(s, x)

    return _curves(as_given, inputs, initial_state, state, statistics, spectral_steps)


@probing
def _curves(
    step: Step,
    inputs: Tensor,
    initial_state: Any,
    state: int | str | None,
    statistics: Sequence[str],
    spectral_steps: Sequence[int] | np.ndarray | None,
) -> JacobianCurves:
    # tensors of inference mode do not tell whether they are written to, and autograd refuses them
    with torch.inference_mode(False), torch.no_grad():
        flat = _FlatStep(step, initial_state, inputs)
        wanted = wanted_statistics(statistics)
        spectral_at = spectral_mask(spectral_steps, flat.steps)
        rows = flat.positions(state).numpy()
        out = {name: np.full((flat.batch, flat.steps), np.nan) for name in wanted}
        J = ScaledRows.of(np.tile(np.eye(flat.size)[:, rows], (flat.batch, 1, 1)))
        # BLAS gives small products one thread by itself; setting it would take a fifth of the time
        products = exact_products if flat.size > ONE_THREAD else nullcontext
        for t, M in enumerate(flat.jacobians(flat.states())):
            with products():
                J = J.multiplied_by(M.numpy())
                # before they are aligned: an entry that nobody reads may be far larger
                mantissa, exponent = J.read(rows).aligned()
                read = {name: np.abs(mantissa.sum(axis=1)).mean(axis=1) for name in wanted}
                if "frobenius" in wanted:
                    read["frobenius"] = np.linalg.norm(mantissa, axis=(1, 2))
                if "spectral" in wanted:
                    nan = np.full(flat.batch, np.nan)
                    read["spectral"] = spectral_norm(mantissa) if spectral_at[t] else nan
            for name, values in read.items():
                out[name][:, t] = log10_of(values, exponent)
    arrays = {f"log10_{name}": values for name, values in out.items()}
    return JacobianCurves("full" if state is None else str(state), None, **arrays)


class _FlatStep:
    """The step on (batch, S) tensors."""

    def __init__(self, step: Step, initial_state: Any, inputs: Tensor) -> None:
        check_floating(inputs, "inputs")
        if inputs.dim() < 2 or not all(inputs.shape[:2]):
            raise InputError(
                f"inputs {tuple(inputs.shape)}: expected (batch, time, ...), not empty"
            )
        check_finite(inputs, "inputs", ("example", "step", "feature"))
        self.step = step
        self.inputs = inputs.clone() if inputs.is_inference() else inputs.detach()
        self.batch, self.steps = inputs.shape[:2]
        self._tried_alone = sorted({0, self.batch - 1})
        leaves, self.spec = pytree.tree_flatten(initial_state)
        if not leaves:
            raise InputError(f"initial_state {initial_state!r} holds no tensor")
        for i, leaf in enumerate(leaves):
            self._check_leaf(leaf, f"initial_state leaf {i}")
        self.shapes = [leaf.shape[1:] for leaf in leaves]
        self.sizes = [leaf[0].numel() for leaf in leaves]
        self.size = sum(self.sizes)
        if not self.size:
            raise InputError("initial_state has no entries")
        self.initial = self._flat([leaf.detach() for leaf in leaves])

    def _check_leaf(self, leaf: Tensor, name: str) -> None:
        check_floating(leaf, name)
        if leaf.dim() == 0 or len(leaf) != self.batch:
            raise InputError(f"{name} has shape {tuple(leaf.shape)}, expected ({self.batch}, ...)")
        check_finite(leaf, name, ("example", "unit"))

    def states(self) -> list[Tensor]:
        """The state before every step and after the last, from the step alone.

        It is called again afterwards: a memory of its own, or a random draw, then shows. What
        comes back after a number of calls shows as well, here or in those for the derivative:
        the calls in between are so many that both can not be multiples of that number.
        """
        states = [self.initial]
        for t in range(self.steps):
            states.append(self._next(states[-1], t))
        for _ in range(1 + 2 * (1 + len(self._tried_alone))):
            self(self.initial, self.inputs[:, 0])
        for t in range(self.steps):
            self._check_memory(self(states[t], self.inputs[:, t]), states[t + 1], t)
        self._check_independent()
        return states

    def _next(self, s: Tensor, t: int) -> Tensor:
        x = self.inputs[:, t].clone()  # what is the user's own is not to be written to
        with _failure_named(f"step fails for {self.batch} example(s) at step {t + 1}"):
            new = self(s, x)
        if s._version or x._version:
            raise InputError("step changes its arguments in place: let it make new tensors")
        if not torch.isfinite(new).all():
            raise InputError(NOT_FINITE.format(t + 1))
        return new

    def _check_memory(self, found: Tensor, before: Tensor, t: int, digits: float = 0.6) -> None:
        if not same(found, before, digits):
            raise InputError(
                "step has a memory of its own (a counter, a cache), or is random: called again "
                f"with the same state and input, it gives another state at step {t + 1}; let "
                "what it remembers be part of the state or the inputs"
            )

    def _check_independent(self) -> None:
        """At another state too: what is mixed may be zero, or the same for all, at the start.

        The first and the last alone: what they would be in a batch of one. At later steps, and for
        those in between, tangents tell.
        """
        x = self.inputs[:, 0]
        for s in (self.initial, self._shifted(self.initial)):
            with _failure_named(f"step fails for {self.batch} example(s)"):
                together = self(s, x)
            for b in self._tried_alone:
                with _failure_named(f"step fails for example {b} alone"):
                    alone = self(s[b : b + 1], x[b : b + 1])[0]
                if not same(together[b], alone):
                    raise InputError(
                        f"step mixes examples, or is random: example {b} alone gives another state"
                    )

    def _shifted(self, s: Tensor) -> Tensor:
        return s + random_directions(s, 0).abs() * (1 + s.abs()) / 4

    def _flat(self, leaves: list[Tensor]) -> Tensor:
        return torch.cat([leaf.reshape(len(leaf), -1) for leaf in leaves], dim=1)

    def positions(self, state: int | str | None) -> Tensor:
        """Which entries of the flat state the name means."""
        index = torch.arange(self.size).split(self.sizes)
        tree = pytree.tree_unflatten(list(index), self.spec)
        if state is None:
            return torch.arange(self.size)
        if isinstance(tree, Tensor):
            raise InputError(f"state={state!r}: the state is a single tensor; use state=None")
        try:
            rows = torch.cat(pytree.tree_flatten(tree[state])[0])
        except (KeyError, IndexError, TypeError, ValueError, RuntimeError):
            raise InputError(f"state={state!r} is no entry of the initial state") from None
        if not len(rows):
            raise InputError(f"state={state!r} has no entries")
        return rows

    def __call__(self, flat: Tensor, x: Tensor) -> Tensor:
        parts = flat.split(self.sizes, dim=1)
        leaves = [p.reshape(-1, *shape) for p, shape in zip(parts, self.shapes, strict=True)]
        result = self.step(pytree.tree_unflatten(leaves, self.spec), x)
        new, spec = pytree.tree_flatten(result)
        if not torch.is_inference_mode_enabled() and any(map(_is_inference, new)):
            raise InputError(
                "step runs under torch.inference_mode, where nothing has a derivative; "
                "leave that away, or use torch.no_grad"
            )
        if spec != self.spec or [getattr(leaf, "shape", None) for leaf in new] != [
            leaf.shape for leaf in leaves
        ]:
            raise InputError(
                "step returns a state of another structure or shape than it was given, for "
                f"{len(flat)} of {self.batch} examples (it must take any number of them)"
            )
        if any(leaf.dtype != flat.dtype for leaf in new):
            dtypes = ", ".join(str(leaf.dtype) for leaf in new)
            raise InputError(f"step returns a state of {dtypes} for one of {flat.dtype}")
        return self._flat(new)

    def jacobians(self, states: list[Tensor]) -> Iterator[Tensor]:
        """M[b, i, k] = d s_i / d s_k (b, S, S) of every step, float64."""
        # numbers of 16 bits are further off than 1 % by rounding
        coarse = self.initial.itemsize < 4
        looked_at = set[int]() if coarse else {0, self.steps // 2, self.steps - 1}
        for t, s in enumerate(states[:-1]):
            new, M = self._linearised(s, t)
            self._check_memory(new, states[t + 1], t, 0.3)  # other kernels may make it
            if t in looked_at and self._warns_of_derivative(s, M, t):
                looked_at = set()
            yield M

    def _linearised(self, s: Tensor, t: int) -> tuple[Tensor, Tensor]:
        """The next state and M, in one call: what the step makes then is what M belongs to."""
        x = self.inputs[:, t]
        basis = torch.eye(self.size, dtype=s.dtype, device=s.device)
        basis = basis.unsqueeze(1).expand(-1, self.batch, -1)
        other = random_directions(s, t)
        random = torch.stack([other, other[:1].expand_as(other)])

        def directional(ds: Tensor) -> tuple[Tensor, Tensor]:
            new, tangent, *_ = torch.func.jvp(lambda flat: self(flat, x), (s,), (ds,))
            return new, tangent

        with warnings.catch_warnings():
            # torch itself scripts its decompositions when forward mode is first used
            warnings.filterwarnings("ignore", ".*torch.jit.script.*", DeprecationWarning)
            with _failure_named("step cannot go through torch.func.vmap and jvp"):
                new, tangents = torch.func.vmap(directional)(torch.cat([basis, random]))
        tangents = tangents.double().cpu()
        M = tangents[:-2].permute(1, 2, 0)
        if not torch.isfinite(tangents).all():
            raise InputError(NOT_FINITE.format(t + 1))
        b = mixed_example(M, random.double().cpu(), tangents[-2:], torch.finfo(s.dtype).eps)
        if b is not None:
            raise InputError(
                f"step mixes examples: at step {t + 1} the state of example {b} depends on the "
                "state of another one"
            )
        return new[0], M

    def _warns_of_derivative(self, s: Tensor, M: Tensor, t: int) -> bool:
        """Where the derivative is wrong at this state and at one beside it.

        At a bend of the function alone it may be another one.
        """
        x = self.inputs[:, t]
        for differs, message in (
            (unlike_results, UNLIKE_RESULTS),
            (unlike_autograd, UNLIKE_AUTOGRAD),
        ):
            wrong = differs(lambda flat: self(flat, x), s, M)
            if not wrong.any():
                continue
            beside = self._shifted(s)
            if (
                wrong & differs(lambda flat: self(flat, x), beside, self._linearised(beside, t)[1])
            ).any():
                warnings.warn(message.format(t + 1), stacklevel=7)
                return True
        return False


def _is_inference(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.is_inference()


@contextmanager
def _failure_named(what: str) -> Iterator[None]:
    """Name in one line what goes wrong in the user's code."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"{what}: {reason}") from error
