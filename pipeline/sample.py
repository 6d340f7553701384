"""Stage 2: draw the balanced sample as build/sample.parquet, and say what is in it as a card."""

import quiet  # noqa: F401  # isort: skip

import json

from rnngrad.stage import run_stage, whole


def main() -> None:
    from rnngrad.data.sampling import data_card, read_table, sample_comments
    from rnngrad.params import read_params

    params = read_params().sample
    comments = read_table("build/comments.parquet", "the download stage")
    sample = sample_comments(comments, params)
    card = data_card(comments, sample, params)
    with whole("build/sample.parquet") as table, whole("build/data_card.json") as summary:
        sample.to_parquet(table, index=False, write_page_checksum=True)
        summary.write_text(json.dumps(card, indent=2, sort_keys=True) + "\n")
    print(f"{len(sample):,} of {len(comments):,} comments -> build/sample.parquet")


if __name__ == "__main__":
    run_stage(main)
