"""Stage 1: get the comments of data.source as build/comments.parquet."""

import quiet  # noqa: F401  # isort: skip
from rnngrad.stage import run_stage, whole


def main() -> None:
    from rnngrad.data.sources import read_comments
    from rnngrad.params import read_params

    comments = read_comments(read_params())
    with whole("build/comments.parquet") as path:
        comments.to_parquet(path, index=False, write_page_checksum=True)
    print(f"{len(comments):,} comments ({comments.attrs['source']}) -> build/comments.parquet")


if __name__ == "__main__":
    run_stage(main)
