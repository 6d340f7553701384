"""The changes that a preset makes to params.yaml, checked, and as the settings of an experiment."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from rnngrad.errors import InputError
from rnngrad.params import Params, check_params, read_params

Section = Mapping[str, Any]


class Preset(NamedTuple):
    """A named study.

    Attributes:
        params: params.yaml with the preset's changes on top.
        settings: the changes, each as ``key=value`` in the grammar of ``dvc exp run -S``; a key
            that params.yaml does not have begins with ``+``.
    """

    params: Params
    settings: list[str]


def read_preset(
    name: str, folder: str | Path = "presets", base: str | Path = "params.yaml"
) -> Preset:
    """Read ``<folder>/<name>.yaml`` and lay it over ``base``.

    Mappings are merged key by key; anything else, a list too, replaces what was there.

    Raises:
        InputError: there is no such preset, ``base`` is unusable, or the preset has an unknown or
            ill-typed key. One line that names file and key.
    """
    path = Path(folder) / f"{name}.yaml"
    if not path.is_file():
        known = sorted(found.stem for found in Path(folder).glob("*.yaml"))
        raise InputError(f"{path}: no such preset; there is {' or '.join(known) or 'none'}")
    read_params(base)
    defaults, changes = _mapping(Path(base)), _mapping(path)
    return Preset(
        params=check_params(merged(defaults, changes), path),
        settings=[_setting(keys, value, defaults) for keys, value in _leaves(changes)],
    )


def merged(base: Section, changes: Section) -> dict[str, Any]:
    """``base`` with ``changes`` on top, mapping by mapping; neither is altered."""
    result = dict(base)
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(result.get(key), Mapping):
            result[key] = merged(result[key], value)
        else:
            result[key] = value
    return result


def _mapping(path: Path) -> Section:
    try:
        content = YAML(typ="safe", pure=True).load(path)
    except YAMLError as error:
        raise InputError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: not a mapping of sections; give keys as params.yaml has them")
    return content


def _leaves(content: Section, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in content.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, (*above, key))
        else:
            yield (*above, key), value


def _setting(keys: tuple[str, ...], value: Any, defaults: Section) -> str:
    return f"{'' if _has(defaults, keys) else '+'}{'.'.join(keys)}={_written(value)}"


def _has(content: Any, keys: tuple[str, ...]) -> bool:
    if not keys:
        return True
    return isinstance(content, Mapping) and keys[0] in content and _has(content[keys[0]], keys[1:])


def _written(value: Any) -> str:
    """A value in the grammar of Hydra's overrides, which DVC reads."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case list():
            return f"[{','.join(map(_written, value))}]"
        case Mapping():
            return "{}"
        case str() if not re.fullmatch(r"(?!(null|true|false|nan|inf)$)[a-z_][\w./-]*", value):
            escaped = value.replace("\\", "\\\\").replace("'", "\\'")
            return f"'{escaped}'"
        case _:
            return str(value)
