from __future__ import annotations

import base64
import io
import re

import numpy as np
from PIL import Image

from mm1_jax.config.data import DataConfig, MixtureConfig
from mm1_jax.config.train_config import TrainConfig
from mm1_jax.data.batches.batch_page import show
from mm1_jax.data.batches.packing import lay_out
from mm1_jax.data.batches.pipeline import stream_of

CONFIG = TrainConfig(
    data=DataConfig(mixture=MixtureConfig(easy_vqa=1, interleaved=1), text_tokens=64, images=4)
)


def test_the_page_shows_what_the_model_gets_and_needs_no_network(data_root, tmp_path):
    show(CONFIG, data_root, seed=1, sequences=2, path=tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert not re.search(r'(src|href)="(?!data:)', page)
    stream = stream_of(CONFIG, data_root, 1)
    packed = [stream[0], stream[1]]
    assert page.count("<section>") == 2
    for sequence in packed:
        for name in sequence.documents:
            assert name in page
    assert page.count('class="token') == sum((s.segments > 0).sum() for s in packed)
    assert page.count('class="seen"') == sum((s.image_ids >= 0).sum() for s in packed)
    without_loss = sum(
        int((s.segments > 0).sum() - lay_out([s], 4)["loss_weights"].sum()) for s in packed
    )
    assert page.count('class="token silent"') == without_loss > 0
    mask = re.search(r'alt="attention mask" src="data:image/png;base64,([^"]+)"', page)
    assert mask
    with Image.open(io.BytesIO(base64.b64decode(mask[1]))) as image:
        allowed = (np.asarray(image.convert("RGB")) != 255).any(axis=-1)
    segments = lay_out(packed[:1], 4)["segments"][0]
    same = (segments[:, None] == segments) & (segments > 0)
    np.testing.assert_array_equal(allowed, np.tril(same))
