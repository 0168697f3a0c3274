"""Take outputs out of the committed notebooks."""

from __future__ import annotations

import json

from analysis.notebooks import FOLDER, cleaned, names, written


def main() -> None:
    """Rewrite each notebook that is not as it is committed, and say which."""
    for name in names():
        path = FOLDER / f"{name}.ipynb"
        text = path.read_text(encoding="utf-8")
        clean = written(cleaned(json.loads(text)))
        if clean != text:
            path.write_text(clean, encoding="utf-8")
            print(f"{path.name}: outputs taken out")


if __name__ == "__main__":
    main()
