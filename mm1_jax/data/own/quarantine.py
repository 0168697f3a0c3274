"""Bad records: written to a file, counted by reason, and too many of them stop the run."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType

from pydantic import Field

from ablations.errors import UserError
from ablations.schema import Config
from ablations.shown_text import shown_url, without_secrets
from mm1_jax.data.own.raw import BadRecord, RawDocument

_MOST_LEFT_OUT = 100_000  # lines; what is more is counted alone


class Quota(Config):
    """How many bad records a run endures, of records and of images within records alike."""

    share: float = Field(0.05, ge=0, le=1, description="of what was read so far")
    minimum: int = Field(50, ge=0, description="so few never stop a run")


class Quarantine:
    """One JSON line a bad record: file, index, part, reason, detail; in the order of reading.

    seen, bad           whole records: how many were read, and the bad ones by reason
    seen_images, bad_images    the same for single images (and texts) of records that are kept
    left_out    what a reader did not use, by reason, and no quota counts: images of MMC4 that match
                no sentence, members of a tar that are part of no sample
    """

    def __init__(self, path: Path, quota: Quota | None = None):
        self.path = path
        self.quota = quota or Quota()
        self.seen = self.seen_images = 0
        self.bad: Counter[str] = Counter()
        self.bad_images: Counter[str] = Counter()
        self.left_out: Counter[str] = Counter()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("w", encoding="utf-8")

    def __enter__(self) -> Quarantine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def kept(self, records: Iterable[RawDocument | BadRecord]) -> Iterator[RawDocument]:
        """The documents alone; bad records are put away.

        Raises:
            UserError: the quota is passed.
        """
        for record in records:
            if isinstance(record, BadRecord):
                if record.reason == "no_sample":
                    self.left_out["no_sample"] += 1
                    if self.left_out["no_sample"] <= _MOST_LEFT_OUT:
                        self._write(record)
                    continue
                if record.part is None:
                    self.seen += 1
                else:
                    self.seen_images += 1
                self.add(record)
            else:
                self.seen += 1
                self.seen_images += len(record.images)
                self.left_out.update(record.facts.get("left_out", {}))
                yield record

    def add(self, record: BadRecord) -> None:
        """Put away a record, or an image, that was counted as seen.

        Raises:
            UserError: the quota is passed.
        """
        self._write(record)
        if record.part is None:
            self.bad[record.reason] += 1
            self._check("records", self.bad, self.seen)
        else:
            self.bad_images[record.reason] += 1
            self._check("images", self.bad_images, self.seen_images)

    def _write(self, record: BadRecord) -> None:
        line = {
            "file": shown_url(record.origin.file),
            "index": record.origin.index,
            "part": record.part,
            "reason": record.reason,
            "detail": without_secrets(record.detail),
        }
        # ASCII: what is wrong may be that it is no UTF-8.
        self._file.write(json.dumps(line) + "\n")

    def _check(self, what: str, bad: Counter[str], seen: int) -> None:
        count = bad.total()
        if count > self.quota.minimum and count > self.quota.share * seen:
            self._file.flush()
            reasons = ", ".join(f"{number} {reason}" for reason, number in bad.most_common())
            raise UserError(
                f"{count} of the first {seen} {what} cannot be used ({reasons}), more than the "
                f"quota of {self.quota.share:.2%}; each is listed in {self.path}"
            )
