"""The page to try a checkpoint: who may ask it, what it answers, what a browser makes of it."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from mm1.play_command import make_app
from mm1_jax.config.train_config import TrainConfig
from mm1_jax.data import tokenizer
from mm1_jax.evaluation.answering import Speaker, answer
from mm1_jax.model.initialisation import initialise
from mm1_jax.model.multimodal import MultimodalModel
from mm1_jax.training.checkpoints import save_part

SMALL = {
    "encoder": {"image_size": 16, "patch_size": 8, "width": 16, "layers": 1, "heads": 2},
    "connector": {"kind": "average_pooling", "tokens": 1},
    "language_model": {"width": 16, "layers": 1, "heads": 2, "kv_heads": 1, "mlp_width": 32},
    "data": {"vocabulary": 300},
}
OWN = {"Origin": "http://localhost"}


@pytest.fixture(scope="module")
def speaker(tmp_path_factory) -> Speaker:
    folder = tmp_path_factory.mktemp("play") / "run"
    config = TrainConfig.model_validate(SMALL)
    save_part(folder, config, initialise(MultimodalModel(config), 0))
    tokenizer.train([f"red {n}" for n in range(999)], 300).save(folder)
    return Speaker(folder, folder / "data")


@pytest.fixture
def client(speaker):
    return make_app(speaker, '<script>alert("name")</script>').test_client()


def picture() -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def ask(client, content: bytes | None = None, headers=OWN, **fields):
    form = {"prompt": "red 7", "tokens": "4", **fields}
    if content is not None:
        form["picture"] = (io.BytesIO(content), "../../evil.png")
    return client.post("/answer", data=form, headers=headers)


def test_the_page_shows_its_name_as_text_and_runs_its_own_script_alone(client):
    page = client.get("/")
    assert "<script>alert" not in page.text
    assert "&lt;script&gt;" in page.text
    policy = page.headers["Content-Security-Policy"]
    nonce = policy.partition("'nonce-")[2].partition("'")[0]
    assert policy.startswith("default-src 'none'")
    assert f'nonce="{nonce}"' in page.text
    assert client.get("/").headers["Content-Security-Policy"] != policy


def test_an_answer_is_that_of_mm1_generate(client, speaker, tmp_path):
    place = tmp_path / "picture.png"
    place.write_bytes(picture())
    folder = speaker._folder
    said = ask(client, picture()).json
    expected = answer(folder, "red 7", images=[place], most_tokens=4, data=folder / "data")
    assert (said["text"], said["tokens"]) == (expected.text, len(expected.tokens))
    assert 0 < said["sure"] <= 1
    assert ask(client).json["text"] is not None  # without a picture too


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"content": b"GIF89a and no picture"}, "your picture"),
        ({"content": b""}, "your picture"),
        ({"prompt": "x" * 20_001}, "characters"),
        ({"tokens": "many"}, "numbers"),
        ({"tokens": "99999"}, "valid: 1 to 512"),
        ({"temperature": "nan"}, "temperature"),
        ({"prompt": ""}, "the prompt is empty"),
    ],
)
def test_what_is_wrong_is_told_in_a_line(client, asked, told):
    content = asked.pop("content", None)
    said = ask(client, content, **asked)
    assert said.status_code == 400
    assert told in said.json["error"]
    assert "/tmp" not in said.json["error"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example", "Origin": "http://evil.example"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {},
        {**OWN, "Sec-Fetch-Site": "cross-site"},
    ],
)
def test_other_pages_are_refused(client, headers):
    assert ask(client, headers=headers).status_code == 403


def test_another_name_of_this_machine_sees_no_page(client):
    assert client.get("/", headers={"Host": "evil.example:8060"}).status_code == 403
    assert client.get("/", headers={"Host": "127.0.0.1:8060"}).status_code == 200


@pytest.mark.slow
def test_a_browser_asks_and_shows_the_answer_as_text(speaker, monkeypatch):
    import threading

    from playwright.sync_api import sync_playwright
    from werkzeug.serving import make_server

    hostile = "<img src=x onerror=\"document.title='stolen'\">"
    told = {"text": hostile, "tokens": 3, "sure": 0.5, "ended": True}
    monkeypatch.setattr("mm1.play_command._answered", lambda *_, **__: told)
    server = make_server("127.0.0.1", 0, make_app(speaker, "run"), threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with sync_playwright() as browsers:
        browser = browsers.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox"]
        )
        page = browser.new_page(viewport={"width": 420, "height": 900})
        wrong: list[str] = []
        page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
        page.goto(f"http://127.0.0.1:{server.port}/")
        file = {"name": "a.png", "mimeType": "image/png", "buffer": picture()}
        page.set_input_files("#picture", files=[file])
        page.click("#go")
        assert page.locator("li .answer").inner_text() == hostile
        assert page.locator("li img").count() == 1  # the picture, and no other
        assert page.title() == "mm1 play: run"
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= 420
        assert wrong == []
        browser.close()
    server.shutdown()
