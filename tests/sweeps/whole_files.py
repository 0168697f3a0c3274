"""Files that a killed stage leaves whole. Imported by stages, in workers too."""

from __future__ import annotations


def write_whole(place, text):
    """All of it or nothing, whenever the process is killed."""
    new = place.with_suffix(".new")
    new.write_text(text, encoding="utf-8")
    new.replace(place)
