"""Stage 0: refuse a params.yaml with an unknown, missing or ill-typed key before anything runs."""

from rnngrad.params import read_params
from rnngrad.stage import run_stage


def main() -> None:
    read_params()


if __name__ == "__main__":
    run_stage(main)
