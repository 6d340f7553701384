"""Stage 3: write the sample as tokens and the vectors of its words into build/embed."""

import quiet  # noqa: F401  # isort: skip

import json
from functools import partial

from rnngrad.stage import read_output, run_stage, seal, whole


def main() -> None:
    import numpy as np
    import pandas as pd

    from rnngrad.data.embedding import embed_sample
    from rnngrad.params import read_params

    params = read_params().embed
    read = partial(pd.read_parquet, page_checksum_verification=True)
    # no name holds the sample: a million comments are half of the memory
    tokenized, vectors, card = embed_sample(
        read_output("build/sample.parquet", "the sample stage", read), params
    )
    with whole("build/embed") as folder:
        folder.mkdir()
        tokenized.save(folder / "tokens.npz")
        np.save(folder / "vectors.npy", vectors)
        (folder / "card.json").write_text(json.dumps(card, indent=2, sort_keys=True) + "\n")
        seal(folder)
    print(
        f"{card['vocabulary']:,} words, vectors ({card['vectors']}) for "
        f"{card['coverage_of_tokens']:.1%} of the tokens -> build/embed"
    )


if __name__ == "__main__":
    run_stage(main)
