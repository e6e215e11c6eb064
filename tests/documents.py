#!/usr/bin/env python3
"""Every link from one file of the repository to another leads somewhere, headings included."""

import re
import subprocess
from pathlib import Path
from urllib.parse import unquote

from harness import Checks, holds

LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)
CODE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def anchors(document):
    """The anchors that a forge gives a document's headings."""
    headings = HEADING.findall(CODE.sub("", document.read_text()))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def check_links(document):
    for target in LINK.findall(CODE.sub("", document.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = unquote(target).partition("#")
        file = (document.parent / path).resolve() if path else document
        holds(file.exists(), f"{target}: there is no such file")
        holds(not anchor or anchor in anchors(file), f"{target}: {file.name} has no such heading")


def main():
    checks = Checks()
    listed = subprocess.run(["git", "ls-files", "*.md"], stdout=subprocess.PIPE, text=True, check=True)
    for name in listed.stdout.split():
        with checks(f"links of {name}"):
            check_links(Path(name).resolve())
    checks.exit()


if __name__ == "__main__":
    main()
