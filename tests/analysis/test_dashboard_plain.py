"""What a page's components become before they leave."""

from __future__ import annotations

import json
import math

import numpy as np
import plotly.graph_objects
import pytest
from dash import dcc, html
from plotly.io.json import to_json_plotly

from analysis.dashboard.app import plain


def test_components_as_plain_values_are_what_dash_would_send() -> None:
    figure = plotly.graph_objects.Figure(plotly.graph_objects.Scatter(x=[1, 2], y=[0.5, math.nan]))
    parts = [
        html.Div(
            [html.Span("a", className="b"), None, ("c", 1, True), 0.5, math.nan, np.float64(2.5)],
            **{"aria-label": "d", "data-x": np.int64(3)},
            style={"color": "e"},
        ),
        dcc.Graph(figure=figure),
        {1: "f", "g": np.array([1, 2])},
    ]
    sent = json.loads(to_json_plotly(parts))
    assert json.dumps(plain(parts), sort_keys=True) == json.dumps(sent, sort_keys=True)


def test_no_text_of_a_component_is_obeyed_or_has_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hunter2-and-more")
    hostile = "\x1b[2J hunter2-and-more"
    figure = plotly.graph_objects.Figure(layout={"title": {"text": hostile}})
    parts = [html.P([hostile], title=hostile), dcc.Graph(figure=figure), {1: hostile}]
    told = json.dumps(plain(parts))
    assert "hunter2" not in told
    assert "\\u001b" not in told
    assert told.count("***") == 4
