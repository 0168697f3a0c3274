from __future__ import annotations

import json
import math

from ablations.strict_json import dumps


def test_what_is_not_finite_is_null_at_any_depth():
    value = {"a": math.nan, "b": [1, (math.inf, {"c": -math.inf})], "d": 2.5, "e": "NaN"}
    text = dumps(value, indent=1)
    assert json.loads(text) == {"a": None, "b": [1, [None, {"c": None}]], "d": 2.5, "e": "NaN"}
    assert "Infinity" not in text
