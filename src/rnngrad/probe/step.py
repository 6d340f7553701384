"""Jacobian curves of any step function; mistakes that would give wrong ones are looked for."""

import inspect
import re
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import parametrize
from torch.optim.swa_utils import AveragedModel
from torch.utils import _pytree as pytree

from rnngrad.errors import InputError, check_memory, full_name
from rnngrad.probe._batch import check_finite, check_floating, steps_of
from rnngrad.probe._problem import CELLS, instead
from rnngrad.probe._scaled import Array, ScaledRows, log10_of
from rnngrad.probe._settings import bar, exact_products
from rnngrad.probe._statistics import (
    SIZES,
    STATISTICS,
    Statistic,
    log10_norm_estimate,
    random_start,
    wanted,
)
from rnngrad.probe.curves import JacobianCurves

_forward_mode = threading.Lock()  # torch has one level of forward mode for all threads
State = TypeVar("State")  # a tensor, or tuples, lists and dicts of them
Step = Callable[[Any, Tensor], Any]

# their forward tells nothing of what their module takes
WRAPPERS = torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel, AveragedModel
CLOSE = 0.01  # a derivative further off than this part of it is wrong, not just rounded
INPUT_NAME = re.compile(r"x(s|\d|_?t|_in)?|u_?t?|.*_inputs?|(inp|emb|tok|word|data|feat|obs).*")
STATE_NAME = re.compile(
    r"[hs]|[hc]x|h[sc\d]|[hs]_?(t|0|tm1|in|cur)|[hs]?_?prev.*|carry|.*(hidden|state|mem|_hx).*"
)

CURES = {  # by torch's message, which names one missing part of a custom function at a time
    r"autograd\.Function|vmap support": "an autograd.Function needs setup_context, "
    "generate_vmap_rule = True and jvp",
    "_encoder_layer_fwd|multi_head|dot_product": "torch.backends.mha.set_fastpath_enabled(False) "
    "and torch.nn.attention.sdpa_kernel(SDPBackend.MATH) help",
    "mutate a captured": "call eval() on what counts, as BatchNorm does in training, and write to "
    "no tensor that is made outside",
    r"data pointer|numpy\(\)": "write it in torch, without NumPy",
    r"does not require grad|requires_grad_\(\)": "use torch.func.grad in place of autograd.grad",
}

NOT_FINITE = "step returns NaN or inf, in the state or its derivative, at step {}"
TRIANGLE = "torch.linalg.cholesky reads one triangle: have the step make its state symmetric first"
UNLIKE_RESULTS = (
    "the derivative of step is more than 1 % off a central difference of its results, at step {}: "
    ".detach() and .item() leave a part out, TorchScript with weights that require grad loses it, "
    f"{TRIANGLE}; if that is not meant, take them away or call requires_grad_(False)"
)
UNLIKE_AUTOGRAD = (
    "the derivative of step is more than 1 % off autograd's, at step {}: torch.no_grad inside a "
    f"step stops autograd alone: write .detach() in its place, or take it away; {TRIANGLE}"
)


def jacobian_curves_of_step(
    step: Callable[[State, Tensor], State],
    inputs: Tensor,
    initial_state: State,
    *,
    lengths: Sequence[int] | Array | Tensor | None = None,
    mask: Array | Tensor | None = None,
    state: int | str | None = None,
    method: Literal["exact", "sketch"] = "exact",
    statistics: Statistic | Sequence[Statistic] = STATISTICS,
    spectral_steps: Sequence[int] | Array | None = None,
    directions: int = 8,
    seed: int = 0,
) -> JacobianCurves:
    """`jacobian_curves` for a recurrence that is written as a function.

    Args:
        step: (state, x) -> state, with x of shape (batch, features), as `lambda s, x: cell(x, s)`
            of an nn.LSTMCell. No example's state may depend on another's. The same arguments must
            give the same state and stay as they are. The step must pass torch.func.vmap and jvp: no
            autograd.grad, no NumPy. It runs in the dtype it is given: float64 for exact curves.
        inputs: (batch, time, features), or anything with (batch, time) in front.
        initial_state: a pytree (tensor, tuple, list, dict, nested) of tensors (batch, ...).
        lengths, mask: which steps count, as in `jacobian_curves`; elsewhere the state is kept.
        state: an entry of the state, by index or key: its Jacobian is taken with respect to itself.
            None means the whole state.
        method, statistics, spectral_steps, directions, seed: as in `jacobian_curves`. The sketch
            is for states of thousands of entries S: it needs no S x S matrix.

    torch.func.jvp gives each one-step Jacobian, over all directions at once. The product is float64
    with one scale per row. Memory: all states, of S entries each, and a few (batch, S, S) matrices.
    The step's intermediate values are there S times. Other threads must not use forward mode then.

    Saturation: torch's own derivatives, 1 - tanh^2 and s (1 - s), lose digits. They are exactly
    zero from pre-activations of about 19 and 37 on in float64, 9 and 17 in float32. Curves may then
    be -inf though the Jacobian is not zero. Prefer `jacobian_curves` for torch's own modules.

    Stopped gradients: three steps' derivatives are compared with central differences and with
    autograd's. The first show `.detach()`, the others torch.no_grad. A warning tells where one is
    more than 1 % off. Numbers of 16 bits are not compared.

    Raises:
        InputError: shapes that do not fit, or Jacobians beyond the memory. A step that fails, runs
            under torch.inference_mode, takes its arguments in the other order, changes them or the
            state's structure or dtype, mixes examples, has a memory, is random, or gives NaN.
        TypeError: integer inputs or states.

    Examples:
        >>> import torch, rnngrad
        >>> cell, x = torch.nn.LSTMCell(3, 4).double(), torch.zeros(2, 5, 3).double()
        >>> start = (torch.zeros(2, 4).double(), torch.zeros(2, 4).double())
        >>> rnngrad.jacobian_curves_of_step(lambda s, x: cell(x, s), x, start).log10_spectral.shape
        (2, 5)
    """
    _check_order(step)
    # tensors of inference mode do not tell whether they are written to, and autograd refuses them
    with parametrize.cached(), torch.inference_mode(False), torch.no_grad():
        flat = _FlatStep(step, initial_state, inputs, lengths, mask)
        names, spectral_at, count = wanted(
            statistics, method, spectral_steps, directions, flat.steps, paths=False
        )
        rows, of_state = flat.positions(state), "full" if state is None else str(state)
        # measured: of a GRUCell up to 37 matrices of the size of M V wait at a time
        needed = 8 * flat.batch * flat.size * 40 * (count or flat.size)
        mend = "use fewer examples or directions" if count else 'use method="sketch"'
        check_memory(needed, "Jacobians need", mend)
        if count:
            return JacobianCurves(of_state, None, **_sketch(flat, rows, count, seed))
        out = {f"log10_{name}": np.full((flat.batch, flat.steps), np.nan) for name in names}
        J = ScaledRows.of(np.tile(np.eye(flat.size)[:, rows], (flat.batch, 1, 1)))
        for t, M in enumerate(flat.jacobians()):
            with exact_products():
                J = J.multiplied_by(M.numpy())
                # rows are read before they are aligned: one that nobody reads may be far larger
                mantissa, exponent = J.read(rows).aligned()
                for name in names:
                    if name != "spectral" or spectral_at[t]:
                        out[f"log10_{name}"][:, t] = log10_of(SIZES[name](mantissa), exponent)
    return JacobianCurves(of_state, None, **{n: flat.counts.ended(v) for n, v in out.items()})


def _sketch(flat: "_FlatStep", rows: Array, count: int, seed: int) -> dict[str, Array]:
    V = random_start(flat.size, rows, flat.batch, count, seed)
    (log10, error), exponent = np.empty((2, flat.batch, flat.steps)), np.zeros(flat.batch)
    limits = torch.finfo(flat.initial.dtype)
    for t, Y in enumerate(flat.jacobians(torch.from_numpy(V))):
        size, of_all = _sizes(Y[:, rows]), _sizes(Y)
        if (size < limits.tiny / limits.eps * of_all).any():
            small = f"at step {t + 1} the state moves too little beside the others for a sketch"
            raise InputError(f'{small}: use method="exact"')
        log10[:, t], error[:, t] = log10_norm_estimate(Y[:, rows].numpy())
        log10[:, t] += exponent
        exponent += of_all.log10().numpy()[:, 0, 0]
    log10, error = map(flat.counts.ended, (log10, error))
    return {"log10_frobenius": log10, "log10_frobenius_error": error}


def _sizes(Y: Tensor) -> Tensor:
    """The largest entries (b, 1, 1), or 1."""
    largest = Y.abs().amax(dim=(1, 2), keepdim=True)
    return torch.where(largest > 0, largest, 1)


def _check_order(step: Step) -> None:
    """Refuse (input, state), as cells have it: where both have one size, it would run as well."""
    if isinstance(step, type) or not callable(step):
        raise TypeError(f"step must be a function (state, x) -> state, got {step!r:.60}")
    step = getattr(step, "_orig_mod", step)  # torch.compile wraps a module
    step = step.func if isinstance(step, partial) and not step.args else step
    owner: Any = getattr(step, "__self__", None)
    if isinstance(owner, torch.nn.Module) and step in (owner.__call__, owner._call_impl):
        step = owner  # these tell nothing of what forward takes
    step = step.module if isinstance(step, WRAPPERS) else step
    if isinstance(getattr(step, "module", step), tuple(CELLS)):  # AveragedModel has it as such
        raise InputError("step is a module that takes all steps: use rnngrad.jacobian_curves")
    try:
        taken = inspect.signature(getattr(step, "forward", step)).parameters
    except (TypeError, ValueError):
        return
    first, second, *_ = (*map(str.lower, taken), "", "")
    inside = step.modules() if isinstance(step, torch.nn.Module) and not second else ()
    if first != "args" and any(isinstance(module, tuple(CELLS)) for module in inside):
        raise InputError(f"step takes (state, x), this model {first} alone: {instead(step)}")
    known = INPUT_NAME.fullmatch(first) and not STATE_NAME.fullmatch(first)
    if known and STATE_NAME.fullmatch(second):
        given = f"step takes ({first}, {second}), not (state, x)"
        raise InputError(f"{given}: hand over lambda state, x: step(x, state)")


class _FlatStep:
    """The step on (batch, S) tensors."""

    def __init__(
        self, step: Step, initial_state: Any, inputs: Tensor, lengths: Any, mask: Any
    ) -> None:
        check_floating(inputs, "inputs")
        if inputs.dim() < 2 or not all(inputs.shape[:2]):
            raise InputError(f"inputs {(*inputs.shape,)}: expected (batch, time, ...), not empty")
        self.batch, self.steps = inputs.shape[:2]
        self.counts = steps_of(self.batch, self.steps, lengths, mask)
        inputs = self.counts.cleared(inputs, "inputs", "feature")
        self.step, self.real = step, self.counts.real.to(inputs.device)
        self.inputs = inputs.clone() if inputs.is_inference() else inputs.detach()
        leaves, self.spec = pytree.tree_flatten(initial_state)
        for i, leaf in enumerate(leaves):
            name = f"initial_state leaf {i}"
            check_floating(leaf, name)
            if leaf.shape[:1] != (self.batch,):
                shape = tuple(leaf.shape)
                raise InputError(f"{name} has shape {shape}, expected ({self.batch}, ...)")
            check_finite(leaf, name, ("example", "unit"))
        self.shapes, self.dtypes = [leaf.shape for leaf in leaves], [leaf.dtype for leaf in leaves]
        self.sizes = [leaf[0].numel() for leaf in leaves]
        self.size = sum(self.sizes)
        if not self.size:
            raise InputError("initial_state has no entries: pass tensors (batch, ...)")
        needed = 8 * self.batch * self.size * (4 + self.steps) + 2 * inputs[:, 0].nbytes
        check_memory(needed, "states and inputs need", "use fewer examples or steps")
        # the widest dtype holds all parts; the narrowest says how many digits there are
        self.initial = torch.cat([leaf.detach().reshape(self.batch, -1) for leaf in leaves], dim=1)
        self.eps = max(torch.finfo(dtype).eps for dtype in self.dtypes)

    def positions(self, state: int | str | None) -> Array:
        """The entries of the flat state that the name means."""
        index = np.arange(self.size)
        if state is None:
            return index
        tree = pytree.tree_unflatten(np.split(index, np.cumsum(self.sizes)[:-1]), self.spec)
        try:
            return np.concatenate(pytree.tree_leaves(tree[state]))
        except (KeyError, IndexError, TypeError, ValueError):
            cure = "; of a single tensor use state=None" if isinstance(tree, np.ndarray) else ""
            raise InputError(f"state={state!r} is no entry of the initial state{cure}") from None

    def __call__(self, flat: Tensor, x: Tensor, t: int) -> Tensor:
        parts = zip(flat.split(self.sizes, dim=1), self.shapes, self.dtypes, strict=True)
        own = [part.reshape(shape).to(dtype) for part, shape, dtype in parts]
        tree = pytree.tree_unflatten(own, self.spec)
        new = self.step(tree, x)
        leaves, spec = pytree.tree_flatten(new)
        if spec != self.spec or [getattr(leaf, "shape", None) for leaf in leaves] != self.shapes:
            what = "step returns a state of another structure, order or shape than it was given"
            found, wanted = (
                pytree.tree_map(lambda v: (*v.shape,) if hasattr(v, "shape") else type(v), state)
                for state in (new, pytree.tree_unflatten(own, self.spec))  # it may write to tree
            )
            raise InputError(f"{what}: {found}, not {wanted}")
        if others := [full_name(leaf) for leaf in leaves if not isinstance(leaf, Tensor)]:
            raise TypeError(f"step returns a {others[0]}: write it in torch, without NumPy")
        if (dtypes := [leaf.dtype for leaf in leaves]) != self.dtypes:
            found, wanted = (", ".join(map(str, each)) for each in (dtypes, self.dtypes))
            raise InputError(f"step returns a state of {found} for one of {wanted}")
        if any(leaf.is_inference() for leaf in leaves):
            raise InputError("step runs under torch.inference_mode: leave it away, or use no_grad")
        new = torch.cat([leaf.reshape(self.batch, -1).to(flat) for leaf in leaves], dim=1)
        real = self.real[:, t, None]
        return new if real.all() else torch.where(real, new, flat)

    def jacobians(self, sketch: Tensor | None = None) -> Iterator[Tensor]:
        """Yield M = d s_i / d s_k of every step, float64 (b, S, S). A sketch gets M V (b, S, k)."""
        V = sketch
        if V is None:
            V = torch.eye(self.size, dtype=torch.float64, device="cpu").expand(self.batch, -1, -1)
        states = self._states()
        taken = self.real.any(dim=0).nonzero().flatten().tolist() if self.eps < 1e-4 else []
        looked_at = {*taken[:1], *taken[len(taken) // 2 :][:1], *taken[-1:]}
        what = f"Jacobians of {self.size:,} entries"
        for t, s in enumerate(bar(states[:-1], what, unit="step")):
            new, M = self._linearised(s, t, V)
            _check_memory(new, states[t + 1], t, self.eps**0.3)  # vmap may use other kernels
            if t in looked_at and (message := self._wrong_derivative(s, M, t, V)):
                warnings.warn(message.format(t + 1), stacklevel=3 if sketch is None else 4)
                looked_at.clear()
            yield M
            V = V if sketch is None else M / _sizes(M)  # the last product, of order 1

    def _states(self) -> list[Tensor]:
        """The state before every step and after the last."""
        states = [self.initial]
        for t in range(self.steps):
            s, x = states[-1], self.inputs[:, t].clone()  # the user's own is not to be written to
            with _failure_named(f"step fails at step {t + 1}"):
                states.append(self(s, x, t))
                again = self(s, x, t)  # shows a random draw; `jacobians` shows later changes
            if s._version or x._version:
                raise InputError("step changes its arguments in place: let it make new tensors")
            if not torch.isfinite(states[-1]).all():
                raise InputError(NOT_FINITE.format(t + 1))
            _check_memory(again, states[-1], t, self.eps**0.6)
        return states

    def _linearised(self, s: Tensor, t: int, V: Tensor) -> tuple[Tensor, Tensor]:
        """The next state and M V, from one call, so that M belongs to that state."""
        # Two more directions, sums of V's, tell whether examples mix. If they do, M V misses that
        # whose weights differ between examples by more.
        x, own = self.inputs[:, t].clone(), _random_directions(V[:, 0], t)
        weights = torch.stack([own, own[:1].expand_as(own)])
        extra = torch.einsum("bik,nbk->nbi", V, weights)
        directions = torch.cat([V.permute(2, 0, 1), extra]).to(s)

        def directional(ds: Tensor) -> Any:
            return torch.func.jvp(lambda flat: self(flat, x, t), (s,), (ds,))

        with _forward_mode, warnings.catch_warnings():
            # torch itself scripts its decompositions when forward mode is first used
            warnings.filterwarnings("ignore", ".*torch.jit.script.*", DeprecationWarning)
            with _failure_named("step cannot go through torch.func.vmap and jvp"):
                new, tangents = torch.func.vmap(directional)(directions)
        tangents, weights = tangents.double().cpu(), weights.double()
        if not torch.isfinite(tangents).all():
            raise InputError(NOT_FINITE.format(t + 1))
        M = tangents[:-2].permute(1, 2, 0)
        missing = (tangents[-2:] - torch.einsum("bik,nbk->nbi", M, weights)).abs().amax(dim=-1)
        size = torch.einsum("bik,bk->bi", M.abs(), weights[0].abs()).amax(dim=-1)
        mixed = missing[0] > self.eps**0.6 * size + 32 * missing[1]
        if mixed.any():
            raise InputError(
                f"step mixes examples: at step {t + 1} the state of example "
                f"{int(mixed.nonzero()[0])} depends on the state of another one"
            )
        return new[0], M

    def _wrong_derivative(self, s: Tensor, M: Tensor, t: int, V: Tensor) -> str:
        """Return a warning if an entry is wrong both at this state and at one beside it."""
        # only one of the two can be at a bend, where right derivatives may differ
        # near enough for a write to go to the same slot of a memory
        beside = s + _random_directions(s, 0).abs() * (1 + s.abs()) / 32
        checks = {UNLIKE_RESULTS: self._unlike_results, UNLIKE_AUTOGRAD: self._unlike_autograd}
        for message, unlike in checks.items():
            # a step need not take states beside its own (variances), nor suit autograd
            with suppress(Exception):
                wrong = unlike(s, M, t, V)
                if wrong.any():
                    with suppress(Exception):
                        wrong &= unlike(beside, self._linearised(beside, t, V)[1], t, V)
                if wrong.any():
                    return message
        return ""

    def _unlike_results(self, s: Tensor, M: Tensor, t: int, V: Tensor) -> Tensor:
        """Compare the derivative in a random direction with the results': wrong entries (b, S)."""
        length = self.eps ** (1 / 3)
        size = (V.abs() / (1 + s.double().cpu().abs())[..., None]).amax(dim=1)  # beside the state
        weights = _random_directions(V[:, 0], 1) / size.clamp(min=1e-300)
        direction, x = torch.einsum("bik,bk->bi", V, weights).to(s), self.inputs[:, t]
        lengths = (length, -length, length / 4, -length / 4)
        a, b, c, d = (self(s + direction * e, x, t).double().cpu() for e in lengths)
        wide, narrow = (a - b) / (2 * length), (c - d) / (length / 2)
        expected = torch.einsum("bik,bk->bi", M, weights)
        largest = torch.maximum(a.abs(), s.double().cpu().abs()).amax(dim=-1, keepdim=True)
        # a difference that depends on its own length is rounding, or a bend near the state
        rounding = torch.maximum(8 * self.eps * largest / length, 10 * (wide - narrow).abs())
        return _far_apart(wide, expected, rounding)

    def _unlike_autograd(self, s: Tensor, M: Tensor, t: int, V: Tensor) -> Tensor:
        """Compare a random cotangent, pushed back along V, with autograd: wrong entries (b, k)."""
        s, cotangent = s.clone().requires_grad_(), _random_directions(s, 2)
        with torch.enable_grad():
            new = self(s, self.inputs[:, t], t)
            (found,) = torch.autograd.grad(new, s, cotangent, materialize_grads=True)
        cotangent = cotangent.double().cpu()
        size = torch.einsum("bik,bi->bk", M.abs(), cotangent.abs()).amax(dim=-1, keepdim=True)
        expected = torch.einsum("bik,bi->bk", M, cotangent)
        found = torch.einsum("bik,bi->bk", V, found.double().cpu())
        return _far_apart(found, expected, self.eps**0.3 * size)


@contextmanager
def _failure_named(what: str) -> Iterator[None]:
    """Name in one line what goes wrong in the user's code."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        cures = (cure for said, cure in CURES.items() if re.search(said, reason))
        reason = next(cures, reason)
        raise InputError(f"{what}: {reason}") from error


def _check_memory(found: Tensor, before: Tensor, t: int, part: float) -> None:
    """Raise unless the results of two calls agree up to the relative error `part`."""
    # the largest entry counts, for each of them may be a difference of larger numbers
    if not torch.allclose(found, before, rtol=part, atol=part * float(before.abs().max())):
        raise InputError(
            "step has a memory of its own (a counter, a cache), or is random: called again with "
            f"the same state and input, it gives another state at step {t + 1}; call eval(), or "
            "let the state hold what it remembers, the inputs what it draws (dropout masks)"
        )


def _random_directions(like: Tensor, seed: int) -> Tensor:
    """Like a state (b, S), and no entry near zero."""
    generator = torch.Generator().manual_seed(seed)
    signed = torch.rand(like.shape, generator=generator, dtype=torch.float64, device="cpu") - 0.5
    return (signed + signed.sign() / 2).to(like)


def _far_apart(a: Tensor, b: Tensor, rounding: Tensor) -> Tensor:
    off = (a - b).abs()
    return (off > rounding) & (off > CLOSE * torch.maximum(a.abs(), b.abs()))
