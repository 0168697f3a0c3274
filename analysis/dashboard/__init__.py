"""The dashboard: every study of a store, live, in the browser. Nothing comes from the network."""

from analysis.dashboard.app import make_app
from analysis.dashboard.server import serve

__all__ = ["make_app", "serve"]
