"""`mm1 play`: a page on this machine, to try a checkpoint on one's own picture."""

from __future__ import annotations

import math
import secrets
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ablations.errors import UserError
from mm1 import api
from mm1.terminal import say

if TYPE_CHECKING:
    from flask import Flask

    from mm1_jax.evaluation.answering import Speaker

HOST = "127.0.0.1"
NAMES = ("localhost", HOST, "[::1]")
MOST_BYTES = 32 << 20  # of a request: a picture and a prompt
MOST_TOKENS = 512
MOST_LETTERS = 20_000  # of a prompt


@click.command()
@click.argument("folder", metavar="WEIGHTS", type=click.Path(path_type=Path))
@click.option("--port", type=click.IntRange(1, 65535), default=8060, show_default=True)
@click.option(
    "--store", default=None, help="Store whose data may have the tokenizer. [$MM1_STORE, .mm1]"
)
@click.option("--data", type=click.Path(path_type=Path), default=None, help="[STORE/data]")
def play(folder: Path, port: int, store: str | None, data: Path | None) -> int:
    """Serve a page to ask a checkpoint about your own picture; on this machine alone.

    WEIGHTS is what `mm1 generate` takes: a checkpoint of ours (a folder of `mm1 train`, the
    `trained` folder of `mm1 promote`), or a Hugging Face folder.

    \b
    Example: mm1 play best/trained
    """
    from analysis.serving import serve_until_ended
    from mm1_jax.evaluation.answering import Speaker

    speaker = Speaker(folder, data or Path(store or api.default_store()) / "data")

    def begun(place: str) -> None:
        say(f"{folder}: {place} (Ctrl-C ends it)")

    return serve_until_ended(HOST, port, lambda: make_app(speaker, str(folder)), begun)


def make_app(speaker: Speaker, name: str) -> Flask:
    """The application: a page, and the one thing that it asks."""
    from flask import Flask, Response, abort, request

    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MOST_BYTES
    app.config["MAX_FORM_MEMORY_SIZE"] = 4 * MOST_LETTERS
    one_at_a_time = threading.Lock()

    @app.before_request
    def check() -> None:
        """Only the page itself asks: another one could lead its own name to this machine."""
        host = request.headers.get("Host", "")
        if host.rpartition(":")[0] not in NAMES and host not in NAMES:
            abort(403)
        if request.method == "POST":
            if request.headers.get("Origin") != f"http://{host}":
                abort(403)
            if request.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
                abort(403)

    @app.get("/")
    def page() -> Response:
        nonce = secrets.token_urlsafe(16)
        made = Response(_page(name, speaker.sees, nonce), mimetype="text/html")
        made.headers["Content-Security-Policy"] = (
            f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; "
            "img-src blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
            "frame-ancestors 'none'"
        )
        return made

    @app.post("/answer")
    def answer() -> tuple[dict[str, Any], int]:
        try:
            asked = _asked(request.form)
            picture = request.files.get("picture")
            with one_at_a_time, tempfile.TemporaryDirectory(prefix="mm1-play-") as place:
                images = []
                if picture is not None and picture.filename:
                    images = [Path(place) / "picture"]
                    picture.save(images[0])
                try:
                    return _answered(speaker, images, **asked), 200
                except UserError as error:
                    told = str(error).replace(f"{images[0]}" if images else "\0", "your picture")
                    raise UserError(told) from None
        except UserError as error:
            return {"error": " ".join(str(error).split())}, 400

    @app.after_request
    def protect(made: Response) -> Response:
        made.headers["X-Content-Type-Options"] = "nosniff"
        made.headers["Cache-Control"] = "no-store"
        made.headers["Cross-Origin-Resource-Policy"] = "same-origin"
        return made

    return app


def _asked(form: Any) -> dict[str, Any]:
    prompt = str(form.get("prompt", ""))
    if len(prompt) > MOST_LETTERS:
        raise UserError(f"the prompt has more than {MOST_LETTERS:,} characters")
    try:
        tokens, seed = int(form.get("tokens", 32)), int(form.get("seed", 0))
        temperature = float(form.get("temperature", 0))
    except ValueError:
        raise UserError("tokens, seed and temperature are numbers") from None
    if not (1 <= tokens <= MOST_TOKENS and 0 <= temperature <= 10 and 0 <= seed < 2**31):
        raise UserError(f"valid: 1 to {MOST_TOKENS} tokens, temperature 0 to 10, seed from 0")
    return {"prompt": prompt, "tokens": tokens, "seed": seed, "temperature": temperature}


def _answered(
    speaker: Speaker, images: list[Path], prompt: str, tokens: int, seed: int, temperature: float
) -> dict[str, Any]:
    from mm1_jax.model.generation import Sampling

    given = speaker.answer(
        prompt,
        images=images,
        most_tokens=tokens,
        sampling=Sampling(temperature, None, None),
        seed=seed,
    )
    sure = [math.exp(one) for one in given.logprobs]
    return {
        "text": given.text,
        "tokens": len(given.tokens),
        "sure": math.fsum(sure) / len(sure) if sure else None,
        "ended": len(given.tokens) < tokens,
    }


def _page(name: str, sees: bool, nonce: str) -> str:
    from importlib.resources import files

    from ablations.shown_text import in_html

    text = files("mm1").joinpath("play.html").read_text(encoding="utf-8")
    found = {"NAME": in_html(name), "NONCE": nonce, "SEES": "true" if sees else "false"}
    for key, value in found.items():
        text = text.replace(f"{{{{{key}}}}}", value)
    return text
