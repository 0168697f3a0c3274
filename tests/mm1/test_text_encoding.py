"""Text is UTF-8 whatever the locale says: `make lint` runs this beside ruff's PLW1514.

Ruff sees `open(…)` and `Path(…).read_text()`, but not `path.read_text()`, whose type it does not
know, nor `subprocess.run(…, text=True)`.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ["ablations", "analysis", "benchmarks", "mm1", "mm1_jax", "sweeps", "tests"]
MODE = re.compile("[rwaxbtU+]+")
OTHERS = {"tarfile", "Image", "webbrowser"}  # whose `open` is not that of text files
SUBPROCESS = {"Popen", "call", "check_call", "check_output", "run"}


def leaves_the_encoding_to_the_locale(call: ast.Call) -> bool:
    method = isinstance(call.func, ast.Attribute)
    name = call.func.attr if method else getattr(call.func, "id", "")
    stated = {word.arg: word.value for word in call.keywords}
    texts = [
        argument.value if isinstance(argument, ast.Constant) else None for argument in call.args
    ]
    if (
        "encoding" in stated
        or None in stated
        or (method and ast.unparse(call.func.value) in OTHERS)
    ):
        return False
    if name == "read_text":
        return method and not texts
    if name == "write_text":
        return method and len(texts) == 1
    if name in SUBPROCESS:
        return "text" in stated or "universal_newlines" in stated
    if name in {"open", "fdopen", "NamedTemporaryFile", "TemporaryFile"}:
        if "mode" in stated:
            mode = stated["mode"]
            text = mode.value if isinstance(mode, ast.Constant) else None
        elif (name == "open" and method) or name.endswith("TemporaryFile"):
            text = texts[0] if texts else "r" if name == "open" else "w+b"
        else:
            text = texts[1] if len(texts) > 1 else "r"
        return isinstance(text, str) and bool(MODE.fullmatch(text)) and "b" not in text
    return name == "TextIOWrapper"


@pytest.mark.parametrize("package", PACKAGES)
def test_no_text_is_read_or_written_in_the_encoding_of_the_locale(package):
    found = [
        f"{file.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node)[:80]}"
        for file in sorted((ROOT / package).rglob("*.py"))
        for node in ast.walk(ast.parse(file.read_bytes()))
        if isinstance(node, ast.Call) and leaves_the_encoding_to_the_locale(node)
    ]
    assert not found, 'state encoding="utf-8":\n' + "\n".join(found)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("open(path)", True),
        ("open(path, 'a')", True),
        ("path.open()", True),
        ("path.open('w', newline='')", True),
        ("path.open(mode='w')", True),
        ("path.read_text()", True),
        ("path.write_text(text)", True),
        ("subprocess.run(command, text=True)", True),
        ("io.TextIOWrapper(file)", True),
        ("tempfile.NamedTemporaryFile('w')", True),
        ("open(path, encoding='utf-8')", False),
        ("open(path, 'rb')", False),
        ("path.open('rb')", False),
        ("path.read_text('utf-8')", False),
        ("path.write_text(text, encoding='utf-8')", False),
        ("subprocess.run(command)", False),
        ("Image.open(path)", False),
        ("archive.open(name)", False),
        ("tempfile.NamedTemporaryFile()", False),
    ],
)
def test_what_counts_as_left_to_the_locale(line, found):
    assert leaves_the_encoding_to_the_locale(ast.parse(line, mode="eval").body) is found
