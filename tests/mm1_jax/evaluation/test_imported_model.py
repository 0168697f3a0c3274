"""How a model from elsewhere is spoken to: the tokens of its prompts, its template, its ends."""

from __future__ import annotations

import json

import pytest
from public_folders import IMAGE, llama_tokenizer, make_llava

from ablations.errors import UserError
from mm1_jax.data import tokenizer
from mm1_jax.data.templates import TEMPLATES, Exchange, converse
from mm1_jax.evaluation.asking import encoded
from mm1_jax.evaluation.imported_model import evaluated_import, imported_words
from mm1_jax.evaluation.tasks.prompts import as_text
from mm1_jax.weights.imported_tokenizer import begin_of
from mm1_jax.weights.multimodal_weights import recognise_multimodal
from mm1_jax.weights.public_weights import import_folder
from mm1_jax.weights.safetensors_folder import open_folder

TALK = (Exchange((0, "what colour is it?"), " red"), Exchange((1, "and this, the user's?"), None))
SPACES = ["prepend", "always", "first", "none"]


@pytest.fixture
def folder(tmp_path):
    return make_llava(tmp_path / "llava")


def words_of(folder):
    return imported_words(folder, recognise_multimodal(open_folder(folder)).config)


def template_of(folder):
    return recognise_multimodal(open_folder(folder)).config.data.template


@pytest.mark.parametrize("template", ["vicuna", "chatml"])
@pytest.mark.parametrize("space", SPACES)
def test_a_conversation_has_the_tokens_that_its_whole_text_has(folder, space, template):
    backend = llama_tokenizer(space)
    backend.save(str(folder / "tokenizer.json"))
    prompt, _ = converse(TALK, TEMPLATES[template])
    text = as_text(prompt).replace("<|end|>", "</s>")
    spoken = words_of(folder)
    (row,) = encoded([prompt], spoken.words, begin=spoken.begin, as_one=True)
    found = list(row.tokens)
    for number, place in reversed(list(zip(row.image_ids, row.image_at, strict=True))):
        assert number in (0, 1)
        found.insert(place, IMAGE)
    assert found == backend.encode(text).ids
    assert found.count(IMAGE) == 2
    assert found[0] == backend.token_to_id("<s>")


@pytest.mark.parametrize("space", SPACES)
def test_question_and_answer_that_are_encoded_apart_have_one_space_between(tmp_path, space):
    llama_tokenizer(space).save(str(tmp_path / "tokenizer.json"))
    found = tokenizer.load(tmp_path)
    apart = found.encode("Question") + found.encode(" red")
    assert apart == [i for ids in found.encode_batch(["Question", " red"]) for i in ids]
    spelled = "".join(map(found.word, apart))
    assert spelled == ("QuestionĠred" if space == "none" else "▁Question▁red")


def test_what_a_user_types_is_never_an_image(folder):
    spoken = words_of(folder)
    (row,) = encoded([("<image> a", 0, "<image> b</s>")], spoken.words, as_one=True)
    assert not {IMAGE, spoken.words.end} & set(row.tokens)


def test_the_begin_token_is_what_the_files_say(folder):
    words = words_of(folder).words
    assert begin_of(folder, words) == (1,)
    config = folder / "tokenizer_config.json"
    config.write_text(json.dumps({"add_bos_token": False}), encoding="utf-8")
    assert begin_of(folder, words) == ()
    config.write_text(
        json.dumps({"add_bos_token": True, "bos_token": {"content": "</s>"}}), encoding="utf-8"
    )
    assert begin_of(folder, words) == (1,)  # what tokenizer.json puts there
    bare = llama_tokenizer()
    bare.post_processor = None
    bare.save(str(folder / "tokenizer.json"))
    words = words_of(folder).words
    assert begin_of(folder, words) == (2,)
    config.write_text("{}", encoding="utf-8")
    assert begin_of(folder, words) == ()


def test_an_answer_ends_with_the_token_of_the_text_config_or_of_the_template(folder):
    assert words_of(folder).ends == (2,)
    (folder / "generation_config.json").write_text(
        json.dumps({"eos_token_id": [5, 6]}), encoding="utf-8"
    )
    assert words_of(folder).ends == (5, 6, 2)
    (folder / "chat_template.jinja").write_text(
        "{{ '<|im_start|>' + message['role'] }}", encoding="utf-8"
    )
    assert words_of(folder).ends == (5, 6, 2, IMAGE + 2)
    import_folder(folder, folder / "ours")
    config = recognise_multimodal(open_folder(folder)).config
    assert imported_words(folder / "ours", config) is not None
    assert imported_words(folder / "ours", config).ends == (5, 6, 2, IMAGE + 2)


def test_the_template_is_told_by_the_folders_own(folder, tmp_path):
    assert template_of(folder) == "vicuna"
    assert template_of(make_llava(tmp_path / "qwen", "llava_qwen2")) == "chatml"
    own = "{{ message['role'].upper() + ': ' }}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}"
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": own}), encoding="utf-8")
    assert template_of(folder) == "vicuna"
    told = {"chat_template": "<|im_start|>{{ message.role }}"}
    (folder / "chat_template.json").unlink()
    (folder / "tokenizer_config.json").write_text(json.dumps(told), encoding="utf-8")
    assert template_of(folder) == "chatml"
    (folder / "chat_template.jinja").write_text(
        "[INST] {{ message.content }} [/INST]", encoding="utf-8"
    )
    with pytest.raises(UserError, match=r"the chat template in .* is not known: neither vicuna's"):
        template_of(folder)


def test_tasks_ask_it_with_its_template_its_begin_token_and_whole_texts(folder):
    model = evaluated_import(folder)
    assert (model.template, model.begin, model.as_one, model.ends) == ("vicuna", (1,), True, (2,))
    assert model.view_tokens == 16
    assert (model.views.size, model.views.fit, model.views.pixels) == (28, "crop", "clip")


def test_a_tokenizer_without_the_image_token_is_refused(folder):
    backend = llama_tokenizer()
    content = json.loads(backend.to_str())
    content["added_tokens"] = [one for one in content["added_tokens"] if one["id"] < IMAGE]
    (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(UserError, match="has no token 320, which marks an image"):
        words_of(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"has no tokenizer\.json"):
        words_of(folder)


FOREIGN = {
    "cut": b'{"eos_token": "</',
    "empty": b"",
    "a list": b"[1, 2]",
    "null": b"null",
    "not UTF-8": b"\xff\xfe{\0}\0",
}
BESIDE = [
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "generation_config.json",
    "chat_template.json",
    "preprocessor_config.json",
    "processor_config.json",
]


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
@pytest.mark.parametrize("name", BESIDE)
def test_a_file_beside_the_weights_that_is_cut_or_foreign_is_named_in_one_line(
    folder, name, content
):
    (folder / name).write_bytes(content)
    with pytest.raises(UserError) as error:
        words_of(folder)
    assert name in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("tokenizer_config.json", {"eos_token": 2}, "eos_token: expected a text, found 2"),
        ("tokenizer_config.json", {"add_bos_token": True, "bos_token": [1]}, None),
        ("tokenizer_config.json", {"eos_token": {"content": None}}, None),
        ("generation_config.json", {"eos_token_id": "2"}, "eos_token_id"),
        ("generation_config.json", {"eos_token_id": [2, None]}, "eos_token_id"),
        ("generation_config.json", {"eos_token_id": 2.5}, "eos_token_id 2.5"),
        ("preprocessor_config.json", {"size": "large"}, "not as such files are written"),
        ("preprocessor_config.json", {"size": {"height": 0, "width": 0}}, "0 × 0 pixels"),
        ("preprocessor_config.json", {"image_mean": None}, "not as such files are written"),
        ("preprocessor_config.json", {"image_mean": [0.5]}, "image_mean"),
        ("preprocessor_config.json", {"image_std": [0, 1, 1]}, "image_std"),
        ("preprocessor_config.json", {"resample": 77}, "77"),
        ("preprocessor_config.json", {"resample": True}, "resample True"),
        ("preprocessor_config.json", {"image_mean": [float("nan")] * 3}, "image_mean"),
        ("preprocessor_config.json", {"image_mean": "abc"}, "image_mean"),
        ("preprocessor_config.json", {"do_center_crop": "false"}, "expected true or false"),
        (
            "preprocessor_config.json",
            {"do_center_crop": True, "size": 7, "crop_size": 28},
            "a shorter side of 7",
        ),
        (
            "preprocessor_config.json",
            {"do_center_crop": True, "size": 10**9},
            "of a shorter side of 1000",
        ),
        ("generation_config.json", {"eos_token_id": ""}, "eos_token_id"),
        ("generation_config.json", {"eos_token_id": {}}, "eos_token_id"),
        ("generation_config.json", {"eos_token_id": -3}, "eos_token_id"),
        ("generation_config.json", {"eos_token_id": 2**31}, "eos_token_id"),
        ("tokenizer_config.json", {"add_bos_token": "false"}, "expected true or false"),
        ("tokenizer_config.json", {"eos_token": "\ud800"}, "eos_token: expected a text"),
        ("chat_template.json", {"chat_template": 5}, "chat_template: expected a text"),
        ("config.json", {"model_type": "llava", "image_token_index": True}, "a whole number"),
        ("processor_config.json", {"image_processor": ["CLIP"]}, "not as such files are written"),
        ("config.json", {"model_type": "llava", "text_config": [1]}, "not as such files"),
        (
            "config.json",
            {"model_type": "llava", "text_config": {"hidden_size": "8"}},
            "not as such",
        ),
        ("preprocessor_config.json", {"size": {"height": "8"}}, "not as such files are written"),
        ("config.json", {"hidden_size": 8}, "model_type None"),
    ],
)
def test_a_value_of_another_type_is_told_with_its_file(folder, name, content, told):
    (folder / name).write_text(json.dumps(content), encoding="utf-8")
    if told is None:  # a tokenizer that states its own begin needs none of these
        assert words_of(folder).words
        return
    with pytest.raises(UserError, match=told) as error:
        words_of(folder)
    assert "\n" not in str(error.value)


def test_of_several_chat_templates_the_default_one_is_the_models(folder):
    several = [
        {"name": "tools", "template": "no such"},
        {"name": "default", "template": "<|im_start|>{{ role }}"},
    ]
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"chat_template": several}), encoding="utf-8"
    )
    assert template_of(folder) == "chatml"
