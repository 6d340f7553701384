"""An estimate in words, before a study starts, of the resources that it takes."""

from collections.abc import Mapping
from pathlib import Path

from rnngrad.params import Params
from rnngrad.preset.disk import GB, downloads
from rnngrad.preset.lengths import Lengths


def time_lines(params: Params, lengths: Lengths) -> list[str]:
    """Time of training and probing each cell, measured on this machine; takes some 10 seconds."""
    from rnngrad.preset import duration
    from rnngrad.workers import pool

    lines, total = [], 0.0
    with pool(len(params.cells)) as executor:
        futures = [executor.submit(duration.measure, c, params, lengths) for c in params.cells]
        found = [future.result() for future in futures]
    for cell, rates in zip(params.cells, found, strict=True):
        train = params.train_of(cell)
        data = duration.stand_in(params, train, lengths)
        training = duration.training_seconds(rates, train, data)
        probing = duration.probing_seconds(rates, train, params.probe.comments)
        total += training + probing
        lines.append(
            f"{cell}: about {in_words(training)} to train {_count(len(train.seeds), 'seed')} for "
            f"{_count(train.epochs, 'epoch')}, {in_words(probing)} to probe them"
        )
    return [
        *lines,
        f"together about {in_words(total)} on {duration.processor()}, as measured with a few "
        "updates; downloads, figures and what does not grow with the sample come on top: minutes",
    ]


def disk_lines(needs: Mapping[Path, int]) -> list[str]:
    """Disk by folder."""
    return [f"disk: about {size / GB:.2f} GB below {folder}" for folder, size in needs.items()]


def size_line(params: Params, lengths: Lengths) -> str:
    """Comments, steps and downloads."""
    wanted = downloads(params)
    megabytes = sum(mirror.size for mirror in wanted) / 1e6
    names = ", ".join(mirror.name for mirror in wanted)
    return f"{len(lengths.sample):,} comments of up to {lengths.steps:,} words; to download: " + (
        f"{megabytes:,.0f} MB ({names})" if wanted else "nothing"
    )


def in_words(seconds: float) -> str:
    """A duration as coarse as an estimate: seconds, minutes, or hours and tens of minutes."""
    minutes = seconds / 60
    if minutes < 1.5:
        return f"{max(round(seconds, -1), 10):.0f} s"
    if minutes < 90:
        return f"{minutes:.0f} min"
    hours, rest = divmod(round(minutes, -1), 60)
    return f"{hours:.0f} h {rest:.0f} min" if rest else f"{hours:.0f} h"


def _count(number: int, name: str) -> str:
    return f"{number} {name}{'' if number == 1 else 's'}"
