"""When a running stage has been silent for so long that a person should look."""

from __future__ import annotations

import pytest

from sweeps.silence import Listening, unusual_silence


@pytest.mark.parametrize(
    ("now", "reports", "planned", "silence"),
    [
        (119, [], 1, 0),  # two minutes are nothing
        (125, [], 1, 125),
        (390, [], 100, 0),  # it was to report nothing for as long as it lasts
        (410, [], 100, 410),
        (125, [1, 2, 3], 1000, 122),  # it has shown how often it reports
        (900, [300, 600], 1, 0),
        (1900, [300, 600], 1, 1300),
        (130, [-5000, -100], 1, 130),  # reports of an attempt before
    ],
)
def test_silence_is_told_when_it_is_long_for_this_stage(now, reports, planned, silence):
    assert unusual_silence(now, 0, reports, planned) == silence


def test_an_observer_takes_a_repeated_report_for_silence():
    listening = Listening(started=0)
    assert listening.silence(130, planned_seconds=1) == 130
    for now in (140, 141, 142):
        listening.hear(now, 25)
    assert listening.silence(260, planned_seconds=1) == 0  # the first took 140 seconds
    assert listening.silence(140 + 561, planned_seconds=1) == 561
    listening.hear(702, 50)
    assert listening.silence(703, planned_seconds=1) == 0
