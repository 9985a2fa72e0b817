"""The code blocks of a document, for tests that run them."""

import re
from pathlib import Path

from contract.paths import ROOT


def blocks(name: str, language: str) -> list[str]:
    """The blocks in a language of a file in docs/, or of the README."""
    file = ROOT / "docs" / name if (ROOT / "docs" / name).exists() else ROOT / name
    return re.findall(rf"```{language}\n(.*?)```", Path(file).read_text(), re.S)
