"""Which commands does a page of the docs give, and what does it say that they print?"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"

_FENCE = re.compile(r"^```(\S+)(?: (\S+))?\n(.*?)^```", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"^(kubectl|helm|step) ", re.MULTILINE)
_VARIABLE = re.compile(r"\S*\d\S*")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its language, a mark behind that (``not-run``), and what stands in it."""

    kind: str
    mark: str
    text: str

    @property
    def commands(self) -> list[str]:
        """The programs that its lines begin with."""
        return _COMMAND.findall(self.text)

    def is_told_by(self, output: str) -> bool:
        """Whether each line stands in the output, in this order; words with a digit in them may be any, columns as wide as they are."""
        lines = (r"\s+".join(map(_pattern, line.split())) for line in self.text.splitlines())
        return re.search(r"^\s*" + r"\s*$.*^\s*".join(lines) + r"\s*$", output, re.MULTILINE | re.DOTALL) is not None


def sections(page: str) -> dict[str, list[Block]]:
    """The blocks under each heading, in the order of the page."""
    _, *parts = re.split(r"^## (.*)\n", (DOCS / page).read_text(), flags=re.MULTILINE)
    return {
        heading: [Block(*found) for found in _FENCE.findall(text)]
        for heading, text in zip(parts[::2], parts[1::2], strict=True)
    }


def blocks(page: str, kind: str) -> dict[str, list[str]]:
    """The texts of the blocks of one kind under each heading that has any; those with a mark are left out."""
    found = {
        heading: [block.text for block in there if (block.kind, block.mark) == (kind, "")]
        for heading, there in sections(page).items()
    }
    return {heading: texts for heading, texts in found.items() if texts}


def _pattern(word: str) -> str:
    return r"\S+" if _VARIABLE.fullmatch(word) else re.escape(word)
