"""`mlp digest`: write down which image an environment runs, so that a review sees it and the next up deploys it."""

import re
from typing import Annotated

import typer

from contract.errors import PlatformError
from contract.paths import ROOT

SECTIONS = ("inference", "training")
"""Sections of an environment's file that name an image."""
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def digest(
    environment: Annotated[str, typer.Argument(help="An environment that has a Pulumi.<name>.yaml.")],
    image: Annotated[str, typer.Argument(help="Which image: inference or training.")],
    value: Annotated[str, typer.Argument(metavar="DIGEST", help="What the push printed: sha256:...")],
) -> None:
    """Set an image's digest in Pulumi.<environment>.yaml: commit that line, and the next up deploys the image."""
    file = ROOT / f"Pulumi.{environment}.yaml"
    if not file.is_file():
        raise PlatformError(f"there is no environment {environment}: {file.name} does not exist")
    if image not in SECTIONS:
        raise PlatformError(f"there is no image {image!r}; allowed: {', '.join(SECTIONS)}")
    if not DIGEST.fullmatch(value):
        raise PlatformError(f"{value!r} is not an image's digest; allowed: sha256: and 64 of the digits 0-9 and a-f")
    file.write_text(with_digest(file.read_text(), image, value, file.name))
    print(f"{file.name}: ml-platform:{image}.image_digest is {value}")


def with_digest(text: str, section: str, value: str, file: str) -> str:
    """An environment's file with another digest in a section: in place of the one there, or as its first key.

    Raises:
        PlatformError: if the section is not there, or not written as a block.
    """
    head = rf"^  ml-platform:{section}:[ ]*(#.*)?\n"
    found = re.search(head + r"((?:(?:    .*|[ ]*)\n)*)", text, re.MULTILINE)
    if not found or not found[2].strip():
        raise PlatformError(f"{file}: ml-platform:{section} is not there as a block, one key a line")
    body, line = found[2], f"    image_digest: {value}\n"
    body, replaced = re.subn(r"^    (# )?image_digest:.*\n", line, body, count=1, flags=re.MULTILINE)
    start, end = found.span(2)
    return text[:start] + (body if replaced else line + body) + text[end:]
