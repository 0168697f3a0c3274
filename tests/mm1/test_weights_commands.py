from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from public_folders import make_folder, make_llava

from ablations.errors import UserError
from mm1.cli import main
from mm1.generate_command import generate
from mm1.weights_commands import weights_import
from mm1_jax.config.train_config import TrainConfig
from mm1_jax.data import tokenizer
from mm1_jax.data.sources.fingerprint import data_fingerprint
from mm1_jax.data.templates import TEMPLATES
from mm1_jax.model.initialisation import initialise
from mm1_jax.model.multimodal import MultimodalModel
from mm1_jax.training.checkpoints import save_part

SMALL = {
    "encoder": {"image_size": 16, "patch_size": 8, "width": 16, "layers": 1, "heads": 2},
    "connector": {"kind": "average_pooling", "tokens": 1},
    "language_model": {"width": 16, "layers": 1, "heads": 2, "kv_heads": 1, "mlp_width": 32},
}


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "image.png"
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_encode_gives_the_same_from_public_files_and_from_the_imported_checkpoint(
    mm1, tmp_path, image
):
    folder, lying = make_folder(tmp_path / "dinov2", "dinov2_registers"), tmp_path / "lying.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(image).transpose(Image.Transpose.ROTATE_90).save(lying, exif=exif)
    assert mm1("weights", "import", folder, tmp_path / "ours").returncode == 0
    for weights, out in ((folder, "a.npz"), (tmp_path / "ours", "b.npz")):
        result = mm1("encode", weights, image, lying, "--out", tmp_path / out)
        assert result.returncode == 0, result.stderr
    a, b = (dict(np.load(tmp_path / out)) for out in ("a.npz", "b.npz"))
    assert a["pixels"].shape == (2, 28, 28, 3)
    np.testing.assert_array_equal(a["pixels"][0], a["pixels"][1])
    assert sorted(a) == ["layer_0", "layer_1", "layer_2", "output", "pixels"]
    assert a["layer_0"].shape == a["output"].shape == (2, 1 + 3 + 16, 32)
    assert all(array.dtype == np.float32 for array in a.values())
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])


def test_generate_continues_ids_and_says_the_same_from_the_imported_checkpoint(mm1, tmp_path):
    folder = make_folder(tmp_path / "qwen3", "qwen3")
    mm1("weights", "import", folder, tmp_path / "ours")
    words = ("--ids", "3,17,39", "--max-tokens", 4, "--json")
    first = json.loads(mm1("generate", folder, *words).stdout)
    assert first == json.loads(mm1("generate", tmp_path / "ours", *words).stdout)
    assert len(first["tokens"]) == len(first["logprobs"]) == 4
    assert first["text"] == ""
    assert max(first["logprobs"]) < 0


def test_a_llava_answers_about_an_image_also_when_it_was_imported(tmp_path, image):
    folder = make_llava(tmp_path / "llava")

    def run(command, *words):
        result = CliRunner().invoke(command, list(map(str, words)), catch_exceptions=False)
        assert result.exit_code == 0
        return result.stdout

    assert "multimodal of family llava" in run(weights_import, folder, tmp_path / "ours")
    asked = ("--image", image, "--prompt", "what colour is it?", "--max-tokens", 4, "--json")
    first = json.loads(run(generate, folder, *asked))
    assert len(first["tokens"]) == 4
    assert json.loads(run(generate, tmp_path / "ours", *asked)) == first


def test_a_model_of_conversations_is_asked_in_a_turn(tmp_path, monkeypatch):
    words = tokenizer.train([f"USER: what is it? {n} ASSISTANT:" for n in range(99)], 300)
    prepared = SimpleNamespace(tokenizer=words)
    monkeypatch.setattr("mm1_jax.evaluation.answering.open_prepared", lambda *_: prepared)
    answers = []
    start = TEMPLATES["vicuna"].start[0]
    asked = {"vicuna": "what is it?", "plain": f"{start}USER: what is it? ASSISTANT:"}
    for template, prompt in asked.items():
        data = {"template": template, "vocabulary": 300}
        config = TrainConfig.model_validate({**SMALL, "data": data})
        save_part(tmp_path / template, config, initialise(MultimodalModel(config), 0))
        said = [str(tmp_path / template), "--prompt", prompt, "--max-tokens", "8", "--json"]
        answers.append(CliRunner().invoke(generate, said, catch_exceptions=False).stdout)
    first, second = map(json.loads, answers)
    assert first["tokens"] == second["tokens"]
    np.testing.assert_allclose(first["logprobs"], second["logprobs"], atol=1e-5)


def test_the_tokenizer_beside_the_checkpoint_is_the_one_that_speaks(mm1, tmp_path, monkeypatch):
    words, other = (tokenizer.train([f"{t} {n}" for n in range(999)], 300) for t in ("red", "dog"))
    config = TrainConfig.model_validate({**SMALL, "data": {"vocabulary": 300}})
    run = tmp_path / "run"
    save_part(run, config, initialise(MultimodalModel(config), 0))
    words.save(run)
    asked = (run, "--max-tokens", 3, "--store", tmp_path / "empty", "--json")
    said = mm1("generate", *asked, "--prompt", "red 7")
    assert said.returncode == 0, said.stderr
    ids = ",".join(map(str, words.encode("red 7")))
    assert json.loads(mm1("generate", *asked, "--ids", ids).stdout) == json.loads(said.stdout)
    prepared = SimpleNamespace(tokenizer=words)
    monkeypatch.setattr("mm1_jax.evaluation.answering.open_prepared", lambda *_: prepared)
    data = tmp_path / "data" / data_fingerprint(config.data)
    data.mkdir(parents=True)
    (data / "manifest.json").touch()
    other.save(run)
    command = [str(run), "--prompt", "red", "--data", str(data.parent)]
    with pytest.raises(UserError, match="the data's tokenizer is not that of the checkpoint"):
        CliRunner().invoke(generate, command, standalone_mode=False, catch_exceptions=False)
    tokenizer.train([f"red {n}" for n in range(999)], 310).save(run)
    assert (
        "has 310 tokens and the model 300: it is of another model"
        in mm1("generate", *asked, "--prompt", "red").stderr
    )
    public = make_folder(tmp_path / "llama", "llama")
    words.save(public)
    assert (
        "has 300 tokens and the model 40: it is of another model"
        in mm1("generate", public, "--prompt", "red").stderr
    )


def test_inspect_says_what_a_folder_is(mm1, tmp_path):
    result = mm1("weights", "inspect", make_folder(tmp_path, "clip"), "--json")
    found = json.loads(result.stdout)
    assert (found["part"], found["family"], found["config"]["width"]) == ("encoder", "clip", 32)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("generate", "{qwen2}"), "--prompt TEXT or as --ids"),
        (("generate", "{qwen2}", "--ids", "1,x"), "expected whole numbers"),
        (("generate", "{qwen2}", "--ids", "40"), "tokens 0 to 39"),
        (("generate", "{qwen2}", "--prompt", "hello"), "no tokenizer.json"),
        (
            ("generate", "{qwen2}", "--ids", "1", "--image", "x.png"),
            "holds a language model, which",
        ),
        (("generate", "nowhere", "--prompt", "x", "--image", "x.png"), "no folder 'nowhere'"),
        (("generate", "{clip}", "--ids", "1"), "no language model that is known"),
        (("encode", "{qwen2}", "x.png", "--out", "x.npz"), "no image encoder that is known"),
        (("encode", "{clip}", "x.png", "--out", "x.npz"), "no image 'x.png'"),
        (("weights", "import", "nowhere", "out"), "no folder 'nowhere'"),
        (("weights", "export", "{clip}", "out"), "holds no trained model"),
    ],
)
def test_a_mistake_is_told_in_one_line(tmp_path, monkeypatch, capsys, words, expected):
    folders = {name: make_folder(tmp_path / name, name) for name in ("clip", "qwen2")}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mm1.cli.enter_utf8_mode", lambda: None)  # it would replace this process
    monkeypatch.setattr("sys.argv", ["mm1", *(word.format(**folders) for word in words)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    told = capsys.readouterr()
    assert told.out == ""
    (line,) = told.err.strip().splitlines()
    assert expected in line
