"""What a page is, what it is asked and what it answers with.

A page is a module with a `PAGE`; `app.PAGES` lists them in the order of the navigation. Its `show`
is a function of what the store holds and of the address, and of nothing else: it is called again
when either changed. A control (`elements.select`, …) writes its value into the address.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from analysis.dashboard.address import State
from analysis.dashboard.view import View, Views

if TYPE_CHECKING:
    import pandas
    from dash import Dash


@dataclass
class Asked:
    """What a page is asked for: by whom does not matter, but whether they may act does."""

    views: Views
    state: State
    view: View | None = None  # of the study; None on pages of all studies
    may_act: bool = False

    @property
    def of(self) -> View:
        """The study's view, on a page of a study."""
        assert self.view is not None
        return self.view

    @property
    def study(self) -> str:
        """The study's name, on a page of a study."""
        return self.of.results.plan.study


@dataclass(frozen=True)
class Shown:
    """What a page shows: its controls stay as they are while only the body changes."""

    body: list[Any]
    controls: list[Any] = field(default_factory=list)
    title: str = ""


@dataclass(frozen=True)
class Page:
    """A page of the dashboard.

    name    in the address
    title   in the navigation
    show    what it shows
    tables  name of a figure → its numbers, which `/csv/…` sends
    mark    of what it shows beside the view's version: it is shown anew when that has changed
    begin   adds what the page needs beside `show`, callbacks of its own: to the app, about what
            the views show; the last argument says whether who asks may act
    """

    name: str
    title: str
    show: Callable[[Asked], Shown]
    tables: Mapping[str, Callable[[Asked], pandas.DataFrame]] = field(default_factory=dict)
    of_study: bool = True
    mark: Callable[[Asked], Any] = lambda _: None
    begin: Callable[[Dash, Views, Callable[[], bool]], None] | None = None
