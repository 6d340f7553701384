"""The report's tables: cards, claims, stages and settings, as data frames and as Markdown."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from rnngrad.errors import printable
from rnngrad.report.style import NAMES
from rnngrad.study.claims.claim import Claim
from rnngrad.study.results import Results

_STAGES = [  # stage, what it makes, the keys of params.yaml that it reads, where
    ("download", "comments with labels", "data, sample.per_class", "build/comments.parquet"),
    ("sample", "balanced classes, filler, splits, data card", "sample", "build/sample.parquet"),
    ("embed", "tokens and word vectors", "embed", "build/embed/"),
    (
        "train",
        "one model per cell and seed, training curves",
        "train, cells, embed",
        "build/train/",
    ),
    (
        "probe",
        "Jacobian curves, path split, gates; what the claims are judged by, triangle",
        "probe, train, cells, embed",
        "build/probe/, build/evidence/",
    ),
    (
        "conditions",
        "the why-table, its figures, horizons",
        "conditions, train, cells, embed",
        "build/conditions/",
    ),
    ("report", "this page, verdicts", "all", "reports/"),
    ("publish", "the same as MLflow runs", "none", "mlflow.db"),
]


def markdown_table(table: pd.DataFrame) -> str:
    """GitHub's pipes."""

    def line(cells: Any) -> str:
        return "| " + " | ".join(str(cell).replace("|", r"\|") for cell in cells) + " |"

    rows = [line(row) for row in table.itertuples(index=False)]
    return "\n".join([line(table.columns), line("---" for _ in table.columns), *rows])


def text(value: object) -> str:
    """A value from outside, such as a file's name, as Markdown that shows nothing but itself."""
    return re.sub(r"([\\`*_{}\[\]<>&~#!$])", r"\\\1", printable(str(value)))


def code(value: object) -> str:
    """The same in Markdown's backticks, of which there are more than the value has in a row."""
    shown = printable(str(value))
    fence = "`" * (1 + max(map(len, re.findall("`+", shown)), default=0))
    gap = " " if "`" in shown else ""
    return f"{fence}{gap}{shown}{gap}{fence}"


def data_table(results: Results) -> pd.DataFrame:
    """The sample, as its card says."""
    card, embed = results.data_card, results.embed_card
    given, sample = card["given"], card["sample"]
    words = sample["words"]
    rows = [
        ("source", text(card["source"])),
        ("comments given", f"{given['comments']:,} ({_classes(given['classes'])})"),
        ("comments in the sample", f"{sample['comments']:,} ({_classes(sample['classes'])})"),
        (
            "words of a comment",
            f"mean {words['mean']:.0f}, median {words['median']:.0f}, p95 {words['p95']:.0f}, "
            f"p99 {words['p99']:.0f}, longest {words['max']:,}",
        ),
        (
            "replaced by the filler",
            f"{card['filler']['words_replaced']:,} words by “{text(card['filler']['word'])}”; "
            f"{card['filler']['comments_left_whole']:,} comments left whole",
        ),
        ("word vectors", f"{text(embed['vectors'])}, {embed['dimensions']} dimensions"),
        (
            "coverage",
            f"{embed['coverage_of_tokens']:.1%} of the tokens, "
            f"{embed['coverage_of_types']:.1%} of {embed['types']:,} word types",
        ),
    ]
    return pd.DataFrame(rows, columns=["the sample", ""])


def _classes(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} labelled {label}" for label, count in sorted(counts.items()))


def model_table(results: Results) -> pd.DataFrame:
    """The models, as their cards say."""
    rows = []
    for cell in results.cells:
        settings = results.model_cards[cell]["settings"]
        rows.append(
            {
                "cell": NAMES[cell],
                "parameters": f"{results.model_cards[cell]['parameters']:,}",
                "hidden units": settings["hidden"],
                "initialiser": settings["initializer"],
                "epochs": settings["epochs"],
                "batch": settings["batch_size"],
                "learning rate": settings["learning_rate"],
                "clipping": settings["clip_norm"] or "none",
                "seeds": ", ".join(map(str, settings["seeds"])),
            }
        )
    return pd.DataFrame(rows)


def stage_table(seconds: Mapping[str, float]) -> pd.DataFrame:
    """Which command makes which number; ``seconds`` by stage, and by ``stage@cell``."""
    rows = [
        (f"`dvc repro {stage}`", what, f"`{keys}`", f"`{where}`", _seconds(seconds, stage))
        for stage, what, keys, where in _STAGES
    ]
    return pd.DataFrame(rows, columns=["command", "makes", "from params.yaml", "in", "seconds"])


def _seconds(seconds: Mapping[str, float], stage: str) -> str:
    """The seconds that a stage took for all cells together; a dash where none are known."""
    parts = [taken for name, taken in seconds.items() if name.partition("@")[0] == stage]
    return f"{sum(parts):.0f}" if parts else "–"


def params_table(results: Results) -> pd.DataFrame:
    """Every setting of params.yaml but the conditions."""
    # conditions have a table of their own
    settings = results.params.model_dump(mode="json", exclude={"conditions": {"cases"}})
    flat = pd.json_normalize(settings, max_level=2).iloc[0]
    rows = [(code(key), code(value)) for key, value in flat.items()]
    return pd.DataFrame(rows, columns=["key of params.yaml", "value"])


def claims_table(claims: Sequence[Claim]) -> pd.DataFrame:
    """Statement, verdict and numbers of every claim."""
    rows = [
        {
            "": claim.id,
            "statement": f"{claim.statement} *({claim.source})*",
            "verdict": f"**{claim.verdict}**",
            # one number below the other: some sentences hold a dozen
            "measured": f"{claim.measured.replace('; ', ';<br>')}{_interval(claim)}",
        }
        for claim in claims
    ]
    return pd.DataFrame(rows)


def _interval(claim: Claim) -> str:
    interval = claim.interval
    if interval is None or interval["low"] is None or interval["high"] is None:
        return ""
    numbers = (f"{interval[end]:.4g}" for end in ("mean", "low", "high"))
    return "<br>[{}; {} to {}]".format(*numbers)


def tutorial_table(parts: pd.DataFrame) -> pd.DataFrame:
    """The tutorial's triangle of three steps: a row per loss, a column per step."""
    norms = parts.pivot_table("norm", "loss", "step")
    rows = [
        {"": f"loss {loss}"}
        | {f"step {step}": "" if pd.isna(norm) else f"{norm:.6f}" for step, norm in row.items()}
        for loss, row in norms.iterrows()
    ]
    return pd.DataFrame(rows)
