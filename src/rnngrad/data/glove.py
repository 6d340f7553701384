"""GloVe word vectors (Pennington, Socher & Manning, EMNLP 2014): glove.6B, 100 dimensions."""

from collections.abc import Sequence
from pathlib import Path

from rnngrad.data.fetch import Mirror, fetch
from rnngrad.errors import InputError

DIMENSIONS = 100
GLOVE = (
    Mirror(
        "https://github.com/piskvorky/gensim-data/releases/download/glove-wiki-gigaword-100/"
        "glove-wiki-gigaword-100.gz",
        name="glove-wiki-gigaword-100.gz",
        sha256="4934d4708bf3d65f28fc984dbbfa18af9cbd2505d166a7258a1a957808559b43",
        size=134_300_434,
    ),
    Mirror(
        "https://huggingface.co/stanfordnlp/glove/resolve/"
        "1db2080b2d94def6e5b0386a523102f9d8849e9d/glove.6B.zip",
        name="glove.6B.100d.txt",
        sha256="95dde4dfd627ab26608d33e76d1195ec059734bd29089ea52cadb08d07c64544",
        size=347_116_733,
        archive="glove.6B.zip",
        archive_sha256="617afb2fe6cbd085c235baf7a465b96f4112bd7f7ccb2b2cbd649fed9cbcf2fb",
    ),
)
"""The same 400,000 vectors twice; the first file begins with a header line."""


def fetch_glove(dimensions: int, mirrors: Sequence[Mirror] = GLOVE) -> Path:
    """The vectors file, downloaded unless it is in the cache.

    Raises:
        InputError: ``dimensions`` is not GloVe's, or no mirror works.
    """
    if dimensions != DIMENSIONS:
        raise InputError(
            f"embed.vectors glove has {DIMENSIONS} dimensions, but embed.dimensions is "
            f"{dimensions}; set it to {DIMENSIONS}, or give another file with embed.vectors file"
        )
    return fetch(mirrors)
