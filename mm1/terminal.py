"""What the commands print: names, answers and errors hold whatever somebody wrote."""

from __future__ import annotations

import sys

import click

from ablations.shown_text import visible, without_secrets


def say(text: str, *, err: bool = False) -> None:
    """Print text as text: nothing of it is obeyed by the terminal, and no secret is in it."""
    click.echo(visible(without_secrets(text)), err=err)


def say_answer(text: str) -> None:
    """Print what a model said: as it is for another program, as `say` in a terminal."""
    if sys.stdout.isatty():
        say(text)
    else:
        click.echo(text)
