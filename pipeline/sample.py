"""Stage 2: draw the balanced sample as build/sample.parquet, and say what is in it as a card."""

import quiet  # noqa: F401  # isort: skip

import json
from functools import partial

from rnngrad.stage import read_output, run_stage, whole


def main() -> None:
    import pandas as pd

    from rnngrad.data.sampling import data_card, sample_comments
    from rnngrad.params import read_params

    params = read_params().sample
    read = partial(pd.read_parquet, page_checksum_verification=True)
    comments = read_output("build/comments.parquet", "the download stage", read)
    sample = sample_comments(comments, params)
    card = data_card(comments, sample, params)
    with whole("build/sample.parquet") as table, whole("build/data_card.json") as summary:
        sample.to_parquet(table, index=False, write_page_checksum=True)
        summary.write_text(json.dumps(card, indent=2, sort_keys=True) + "\n")
    print(f"{len(sample):,} of {len(comments):,} comments -> build/sample.parquet")


if __name__ == "__main__":
    run_stage(main)
