"""How much disk a study takes, and whether there is as much."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from rnngrad.data.fetch import Mirror, cache_folder
from rnngrad.data.glove import GLOVE
from rnngrad.data.jigsaw import JIGSAW
from rnngrad.errors import InputError
from rnngrad.params import Params
from rnngrad.preset.lengths import Lengths

GB = 1e9
BYTES_PER_WORD = 6
"""The bytes of a comment's text per word, blanks included: 5.8 in real comments."""
COPIES = 2
"""The copies of a stage's output: one in its place and one in DVC's cache."""
CURVE_ROW = 75 * 2 * COPIES + 315
"""Bytes of one step of one curve: in build/probe and in reports/curves.csv, and in mlflow.db."""
GATES = {"rnn": 1, "gru": 3, "lstm": 4}
STATISTICS = {"rnn": 3, "gru": 3, "lstm": 4}


def downloads(params: Params) -> list[Mirror]:
    """The files that the study needs from the network and that are not in the cache yet.

    A file counts as the first mirror serves it, and as there if it has the right size.
    """
    jigsaw = list(JIGSAW.values()) if params.sample.per_class else [JIGSAW["train.csv"]]
    wanted = jigsaw if params.data.source == "jigsaw" else []
    wanted = [*wanted, GLOVE] if params.embed.vectors == "glove" else wanted
    return [mirrors[0] for mirrors in wanted if not any(map(_is_there, mirrors))]


def disk_needs(params: Params, lengths: Lengths) -> dict[Path, int]:
    """Bytes by folder: the downloads' cache, and the project with build/ and DVC's cache."""
    outputs = _text(lengths) + _numbers(params, lengths)
    outputs += sum(_weights(cell, params) for cell in params.cells)
    curves = sum(_curves(cell, params, lengths) for cell in params.cells)
    return {
        cache_folder().absolute(): sum(mirror.size for mirror in downloads(params)),
        Path.cwd(): COPIES * outputs + curves,
    }


def check_disk(needs: Mapping[Path, int]) -> None:
    """Refuse to start what will not fit.

    Raises:
        InputError: a file system has less free space than what its folders need together.
    """
    by_device: dict[int, list[Path]] = {}
    for folder in needs:
        by_device.setdefault(_existing(folder).stat().st_dev, []).append(folder)
    for folders in by_device.values():
        needed = sum(needs[folder] for folder in folders)
        free = shutil.disk_usage(_existing(folders[0])).free
        if needed > free:
            raise InputError(
                f"the study needs about {needed / GB:.1f} GB below "
                f"{' and '.join(map(str, folders))}, but only {free / GB:.1f} GB are free there; "
                "make room, or set RNNGRAD_CACHE to a folder elsewhere"
            )


def parameters(cell: str, features: int, hidden: int) -> int:
    """Weights and biases of a cell with one layer, and of its logistic unit."""
    return GATES[cell] * hidden * (features + hidden + 2) + hidden + 1


def _is_there(mirror: Mirror) -> bool:
    path = cache_folder() / mirror.name
    return path.is_file() and path.stat().st_size == mirror.size


def _text(lengths: Lengths) -> int:
    # build/comments.parquet and build/sample.parquet, as if Parquet did not compress
    return BYTES_PER_WORD * (lengths.words_given + int(lengths.sample.sum()))


def _numbers(params: Params, lengths: Lengths) -> int:
    """The bytes of build/embed/: the comments' tokens and splits, and their words' vectors."""
    words = int(lengths.sample.sum())
    # Heaps' law, as in real comments: 59,000 different words among 1.4 million
    vocabulary = 13 * words**0.6
    return int(4 * words + 60 * len(lengths.sample) + 4 * params.embed.dimensions * vocabulary)


def _weights(cell: str, params: Params) -> int:
    # untrained and trained; and while it trains, a checkpoint with Adam's two averages
    train = params.train_of(cell)
    values = parameters(cell, params.embed.dimensions, train.hidden)
    return 4 * values * len(train.seeds) * (2 + 3)


def _curves(cell: str, params: Params, lengths: Lengths) -> int:
    models = 2 * len(params.train_of(cell).seeds)
    points = models * STATISTICS[cell] * lengths.steps
    return points * (4 * params.probe.comments * COPIES + CURVE_ROW)


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())
