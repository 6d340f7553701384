"""A recurrent module from a file of torch's, without running anything that the file may hold."""

import io
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from unittest.mock import Mock

import torch
from torch import Tensor, nn

from rnngrad.errors import InputError

KINDS: dict[int, Any] = {1: nn.RNN, 3: nn.GRU, 4: nn.LSTM}  # by the number of gates
CURE = "save model.state_dict() and pass that"


def recurrent_module(path: str, name: str | None, nonlinearity: str | None) -> nn.RNNBase:
    """Make the module of a state dict, a checkpoint, or a module of torch's own classes.

    A name says which one. The state dict of an nn.RNN lacks its nonlinearity: None means tanh.
    """
    weights, modes = _load(path)
    if any(re.search(r"\.parametrizations\.|_l\d+\w*_(g|v|orig)$", key) for key in weights):
        raise InputError(
            f"{path}: weights are parametrized: remove_parametrizations (or remove_weight_norm, "
            "prune.remove), then save the state dict"
        )
    ends = [key for key in weights if key.endswith(".weight_hh_l0")]
    names = [key.removesuffix(".weight_hh_l0").removeprefix(".") for key in ends]
    name = chosen(name, names, path)
    pattern = re.compile(re.escape(f".{name}." if name else ".") + r"((weight|bias)_[hir]+_l\w+)")
    own = {at[1]: weight for key, weight in weights.items() if (at := pattern.fullmatch(key))}
    known = {"RNN_RELU": "relu", "RNN_TANH": "tanh"}.get(modes.get(name, ""))
    if known and nonlinearity not in (known, None):
        raise InputError(f"{path}: the nn.RNN's nonlinearity is {known}, and not {nonlinearity}")
    return module_of(own, known or nonlinearity or "tanh", f"{path}: {name or 'the module'}")


def chosen(name: str | None, names: Iterable[str], path: str) -> str:
    """Give the name, or the only one there is; InputError where that is none."""
    if not (names := list(names)):
        cure = "of an nn.LSTMCell, add _l0 to the weights' names; of Keras, save it as .keras"
        raise InputError(f"{path}: no nn.RNN, nn.LSTM, nn.GRU or layer of Keras 3 in it; {cure}")
    if name is None and len(names) == 1:
        return names[0]
    if name not in names:
        known = ", ".join(names) or "it is one itself, without a name"
        raise InputError(f"{path}: name one (--module, name=) of its recurrent modules: {known}")
    return name


def module_of(weights: Mapping[str, Tensor], nonlinearity: str, where: str) -> Any:
    """Make a module with ``batch_first=True`` of the class and sizes that the weights have."""
    recurrent, projection = weights["weight_hh_l0"], weights.get("weight_hr_l0")
    H = (0, *(recurrent if projection is None else projection).shape)[-1]
    matrices = all(weight.dim() == 2 for key, weight in weights.items() if "weight" in key)
    kind = KINDS.get(len(recurrent) // H) if matrices and H else None
    if kind is None or "weight_ih_l0" not in weights:
        raise InputError(f"{where} has not the weights of an nn.RNN, nn.LSTM or nn.GRU")
    try:
        module = kind(
            weights["weight_ih_l0"].shape[-1],
            H,
            num_layers=sum(re.fullmatch(r"weight_hh_l\d+", key) is not None for key in weights),
            bias="bias_ih_l0" in weights,
            batch_first=True,
            bidirectional="weight_hh_l0_reverse" in weights,
            **({"nonlinearity": nonlinearity} if kind is nn.RNN else {}),
            **({} if projection is None else {"proj_size": len(projection)}),
            device="meta",
        )
        module.load_state_dict(weights, assign=True)
    except (RuntimeError, ValueError) as error:
        raise InputError(f"{where}: {str(error).splitlines()[:2][-1].strip()}") from None
    return module


def _load(path: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Give weights by their names in the model, a dot in front, and the modes of modules."""
    own: Any = [c for c in vars(nn).values() if isinstance(c, type) and issubclass(c, nn.Module)]
    modes: dict[str, str] = {}
    try:
        with warnings.catch_warnings(action="ignore"), torch.serialization.safe_globals(own):
            found = torch.load(path, map_location="cpu", weights_only=True)
        if isinstance(found, nn.Module):
            modes = {n: getattr(module, "mode", "") for n, module in found.named_modules()}
            found = dict(found.named_parameters(remove_duplicate=False))
        return dict(_tensors(found, "")), modes
    except Exception as error:  # a file that somebody made may raise anything
        if isinstance(error, OSError) and error.filename:  # it cannot be opened
            raise
        what = f"torch.load(weights_only=True) cannot read it: {CURE}, in torch's newer format and "
        what += "without pickle_protocol="
        named = re.search(r"GLOBAL (\S+)", str(error))
        if name := named[1] if named else _other_name(path):
            what = f"it holds {name}, not known to be safe; nothing of it was run: {CURE}"
        raise InputError(f"{path}: {what}") from None


class _Names(pickle.Unpickler):
    """Raise InputError of the first name in a pickle that torch does not write; make nothing."""

    def find_class(self, module: str, name: str) -> Any:
        own = module.split(".")[0] == "torch" and name != "_load_from_bytes"
        if own or (module, name) == ("collections", "OrderedDict"):
            return Mock
        raise InputError(f"{module}.{name}")

    def persistent_load(self, pid: object) -> None: ...


def _other_name(path: str) -> str:
    try:
        with open(path, "rb") as file:
            if zipfile.is_zipfile(file):
                with zipfile.ZipFile(file) as archive:
                    pickled = [n for n in archive.namelist() if n.endswith("data.pkl")]
                    _Names(io.BytesIO(archive.read(pickled[0]))).load()
            file.seek(0)
            while True:  # the older format is several pickles
                _Names(file).load()
    except InputError as error:
        return str(error)
    except Exception:  # a file that somebody made may raise anything
        return ""


def _tensors(found: object, prefix: str) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of nested dicts by dotted names."""
    if isinstance(found, Tensor):
        yield prefix, found.detach()
    elif isinstance(found, Mapping | list | tuple):
        for key, value in found.items() if isinstance(found, Mapping) else enumerate(found):
            yield from _tensors(value, f"{prefix}.{key}")
