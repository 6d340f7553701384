"""The study's findings and the gallery stand elsewhere, and these pages show them from there."""

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

REPORTS, GALLERY = Path("reports"), Path("examples") / "gallery"


def on_page_markdown(markdown: str, **_: Any) -> str:
    lines = (REPORTS / "answer.txt").read_text().splitlines()
    # links that work where the pages are read in the repository
    markdown = markdown.replace("../reports/report.md", "report.html").replace("../reports/", "")
    markdown = markdown.replace("../examples/gallery/", "gallery/")
    markdown = markdown.replace("[answer]", "\n".join(f"- {line}" for line in lines))
    markdown = re.sub(r"\b(2|10)\^-", r"\1^−", markdown)
    return re.sub(r"\b(2|10)\^(−?[\d.]*\d)", r"\1<sup>\2</sup>", markdown)


def on_files(files: Files, config: Any) -> Files:
    for path in sorted((REPORTS / "figures").glob("*.svg")):
        files.append(File.generated(config, f"figures/{path.name}", content=path.read_bytes()))
    for path in sorted(GALLERY.glob("*")):
        files.append(File.generated(config, f"gallery/{path.name}", content=path.read_bytes()))
    for name in ("report.html", "real/report.html"):
        page = (REPORTS / name).read_text()
        page = page.replace('<a href="explore.html">explore.html</a>', "explore.html")  # not in git
        files.append(File.generated(config, name, content=page))
    code = GALLERY.with_suffix(".py").read_bytes()
    files.append(File.generated(config, "gallery.py", content=code))
    return files
