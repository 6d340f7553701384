"""Draw which room of src/rnngrad imports which, as the mermaid diagram in CONTRIBUTING.md.

python .ci/rooms.py           # write it
python .ci/rooms.py --check   # fail where it is not what the imports say
"""

import sys
from pathlib import Path

import grimp

PAGE = Path("CONTRIBUTING.md")
BEGIN, END = "```mermaid\n", "```\n"


def imports() -> dict[str, set[str]]:
    """By room, the rooms below it that it imports."""
    graph = grimp.build_graph("rnngrad")
    rooms = sorted(graph.find_children("rnngrad"))
    for room in rooms:
        graph.squash_module(room)
    return {
        room: graph.find_modules_directly_imported_by(room) & {*rooms} - {room} for room in rooms
    }


def diagram() -> str:
    """One arrow per import that no longer way through other rooms stands for."""
    below = imports()

    def reaches(room: str, other: str, *seen: str) -> bool:  # a circle ends where it began
        further = below[room] - {*seen}
        return any(each == other or reaches(each, other, room, *seen) for each in further)

    arrows = [
        f"    {room.removeprefix('rnngrad.')} --> {other.removeprefix('rnngrad.')}"
        for room, others in below.items()
        for other in sorted(others)
        if not any(reaches(each, other) for each in others - {other})
    ]
    return "\n".join(["flowchart TD", *arrows, ""])


def main() -> None:
    """Write the diagram into the page, or compare."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    page = before + BEGIN + diagram() + END + after
    if "--check" not in sys.argv:
        PAGE.write_text(page)
    elif page != PAGE.read_text():
        sys.exit(f"{PAGE}: the picture of the rooms is not what the imports say; run make rooms")


if __name__ == "__main__":
    main()
