"""Writing a report: `mm1 report STUDY --format html|md|pdf|latex`."""

from __future__ import annotations

import re
from pathlib import Path

from ablations.errors import UserError, nearest
from analysis.report.content import Source, document, source_of
from analysis.results import StudyResults

# Form → how its files end. LaTeX has a folder of figures beside its file.
FORMS = {"html": ".html", "md": ".md", "pdf": ".pdf", "latex": ".tex"}


def check_form(form: str) -> None:
    """Raise `UserError` for a form that there is not."""
    if form not in FORMS:
        raise UserError(f"no format {form!r}{nearest(form, FORMS)}")


def usual_place(folder: Path, name: str, form: str) -> Path:
    """Where a report goes that nobody has said a place for.

    LaTeX has a folder of its own: it can be sent as it is, and what it compiles to is beside no
    PDF of the same name.
    """
    folder = folder / f"{name}-latex" if form == "latex" else folder
    return folder / f"{name}{FORMS[form]}"


def report(results: StudyResults) -> str:
    """The report of a study of a store as HTML text."""
    from analysis.report.html import html

    return html(document(source_of(results)))


def write_report(results: StudyResults, path: Path, form: str = "html") -> Path:
    """Write the report of a study of a store to `path`, at once, and return it."""
    return write(source_of(results), path, form)


def write(source: Source, path: Path, form: str = "html") -> Path:
    """Write a report to `path`, at once, and return it. Raises `UserError` for an unknown form."""
    check_form(form)
    made = document(source)
    path.parent.mkdir(parents=True, exist_ok=True)
    if form == "html":
        from analysis.report.html import html

        content = html(made).encode()
    elif form == "md":
        from analysis.report.markdown import markdown

        content = markdown(made).encode()
    elif form == "pdf":
        from analysis.report.pdf import pdf

        content = pdf(made)
    else:
        from analysis.report.latex import latex
        from analysis.report.pdf import picture

        # No name that LaTeX would take for something else.
        folder = path.with_name(re.sub(r"[^A-Za-z0-9.-]+", "-", path.stem) + "-figures")
        text, pictures = latex(made, folder.name)
        folder.mkdir(exist_ok=True)
        for name, svg in pictures.items():
            _at_once(folder / f"{name}.pdf", picture(svg))
        content = text.encode()
    return _at_once(path, content)


def _at_once(path: Path, content: bytes) -> Path:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content)
    return partial.replace(path)
