"""Where the public API keeps what it makes."""

from __future__ import annotations

import pytest

from ablations.resources import Shape
from mm1.api import compilation_cache
from mm1_jax.scale.execution import environment

NAME = "JAX_COMPILATION_CACHE_DIR"


def test_compiled_programs_are_kept_beside_the_store(tmp_path, monkeypatch):
    monkeypatch.delenv(NAME, raising=False)
    assert compilation_cache(str(tmp_path / "store")) == tmp_path / "store" / "cache"


@pytest.mark.parametrize("own", ["/shared/compiled", "gs://bucket/compiled"])
def test_compiled_programs_are_kept_where_jax_was_told_to(tmp_path, monkeypatch, own):
    monkeypatch.setenv(NAME, own)
    cache = compilation_cache(str(tmp_path / "store"))
    assert environment(Shape(), cache)[NAME] == own
