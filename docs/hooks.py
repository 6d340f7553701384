"""What the study found stands in reports/, and these pages show it from there."""

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

REPORTS = Path("reports")


def on_page_markdown(markdown: str, **_: Any) -> str:
    lines = (REPORTS / "answer.txt").read_text().splitlines()
    return markdown.replace("[answer]", "\n".join(f"- {line}" for line in lines))


def on_files(files: Files, config: Any) -> Files:
    for path in sorted((REPORTS / "figures").glob("*.svg")):
        files.append(File.generated(config, f"figures/{path.name}", content=path.read_bytes()))
    return files
