"""Stage 3: write the sample as tokens and the vectors of its words into build/embed."""

import quiet  # noqa: F401  # isort: skip
from rnngrad.stage import read_output, run_stage, whole


def main() -> None:
    import pandas as pd

    from rnngrad.data.embedding import embed_sample
    from rnngrad.params import read_params

    params = read_params().embed
    embedding = embed_sample(
        read_output("build/sample.parquet", "the sample stage", pd.read_parquet), params
    )
    with whole("build/embed") as folder:
        embedding.save(folder)
    card = embedding.card
    print(
        f"{card['vocabulary']:,} words, vectors ({card['vectors']}) for "
        f"{card['coverage_of_tokens']:.1%} of the tokens -> build/embed"
    )


if __name__ == "__main__":
    run_stage(main)
