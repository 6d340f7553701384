"""Stage 3: write the sample as tokens and the vectors of its words into build/embed."""

import quiet  # noqa: F401  # isort: skip

import json

from rnngrad.stage import run_stage, seal, whole


def main() -> None:
    import numpy as np

    from rnngrad.data.embedding import embed_sample
    from rnngrad.data.sampling import read_table
    from rnngrad.params import read_params

    params = read_params().embed
    tokenized, vectors, card = embed_sample(
        read_table("build/sample.parquet", "the sample stage"), params
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
