"""What a running stage has reported: a line of JSON for each report, in its scratch folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

REPORTS = "reports.jsonl"


class Reports:
    """The reports of one stage, by step: `step`, `time` and metrics; read on as they come."""

    def __init__(self, scratch: Path):
        self._file = scratch / REPORTS
        self._read = 0  # bytes
        self._by_step: dict[int, dict[str, Any]] = {}
        self.reports: list[dict[str, Any]] = []

    def read(self) -> list[dict[str, Any]]:
        """All there are by now."""
        try:
            with open(self._file, "rb") as file:
                file.seek(self._read)
                data = file.read()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return self.reports
        data = data[: data.rfind(b"\n") + 1]  # what follows the last newline is being written
        self._read += len(data)
        in_order = True
        for report in filter(None, map(_parsed, data.split(b"\n"))):
            step = report["step"]
            in_order &= not self.reports or step > self.reports[-1]["step"]
            self._by_step[step] = report  # a resumed stage reports some steps again
            self.reports.append(report)
        if not in_order:
            self.reports = [self._by_step[step] for step in sorted(self._by_step)]
        return self.reports


def _parsed(line: bytes) -> dict[str, Any] | None:
    """A report; None for a line that was torn by a kill, or is rubbish."""
    try:
        report = json.loads(line)
        step = report.pop("step")
        numbers = {name: float(value) for name, value in report.items()}
    except (ValueError, TypeError, AttributeError, LookupError):
        return None
    return {"step": step, **numbers} if isinstance(step, int) else None
