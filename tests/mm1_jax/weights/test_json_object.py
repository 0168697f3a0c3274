from __future__ import annotations

import pytest

from ablations.errors import UserError
from mm1_jax.weights.json_object import read_object, stating


def test_an_object_is_read_whatever_the_locale(tmp_path):
    (tmp_path / "x.json").write_bytes('{"a": "é", "b": [1, 2.5, null]}'.encode())
    assert read_object(tmp_path / "x.json") == {"a": "é", "b": [1, 2.5, None]}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is empty"),
        (b"{\n\n", "json:3: not JSON"),
        (b"[]", "expected a JSON object .* found a list"),
        (b"true", "found a truth value"),
        (b'{"a": 1' + b"0" * 5000 + b"}", "not JSON that can be read"),
        (b"\xff", "not UTF-8"),
        (b"{" * 50_000, "not JSON"),
    ],
)
def test_what_holds_no_object_is_named(tmp_path, content, told):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(UserError, match=told) as error:
        read_object(tmp_path / "x.json")
    assert str(error.value).startswith(str(tmp_path / "x.json"))


def test_a_file_that_is_not_there_or_a_folder_is_named(tmp_path):
    for name in ("none.json", ""):
        with pytest.raises(UserError, match=str(tmp_path)):
            read_object(tmp_path / name)


def test_what_an_object_lacks_is_told_with_the_file_and_a_told_mistake_stays(tmp_path):
    with pytest.raises(UserError, match=r"x\.json: has no 'width'"), stating(tmp_path / "x.json"):
        {}["width"]
    with pytest.raises(UserError, match=r"x\.json: is not as"), stating(tmp_path / "x.json"):
        int("wide")
    with pytest.raises(UserError, match=r"^my own$"), stating(tmp_path / "x.json"):
        raise UserError("my own")
