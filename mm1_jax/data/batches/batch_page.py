"""A page that shows what the model really gets: images, tokens, segments, mask and loss weights."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np

from ablations.shown_text import in_html
from mm1_jax.config.train_config import TrainConfig
from mm1_jax.data.batches.images import png
from mm1_jax.data.batches.packing import Packed, lay_out
from mm1_jax.data.batches.pipeline import Images, stream_of
from mm1_jax.data.sources.prepared_packages import PreparedData, open_prepared

# One colour per document of a sequence, light enough for black text.
_PALETTE = np.array(
    [
        *((166, 206, 227), (253, 191, 111), (178, 223, 138), (251, 154, 153), (202, 178, 214)),
        *((255, 237, 111), (128, 205, 193), (229, 196, 148)),
    ],
    np.uint8,
)
_PADDING = np.array([238, 238, 238], np.uint8)


def show(config: TrainConfig, data_root: Path, seed: int, sequences: int, path: Path) -> None:
    """Write one self-contained HTML page about the first sequences of a training.

    They are drawn, packed and laid out by the functions that training uses. UserError if the data
    is not prepared.
    """
    prepared = open_prepared(config.data, data_root)
    stream = stream_of(config, data_root, seed)
    images = Images(stream, config, data_root)
    drawn = [stream[number] for number in range(min(sequences, len(stream)))]
    parts = [_sequence(packed, i, config, prepared, images) for i, packed in enumerate(drawn)]
    mixture = ", ".join(f"{name} {w:.0%}" for name, w in config.data.mixture.weights.items())
    facts = {
        "mixture": mixture,
        "data seed": config.seeds.for_data_order(seed),
        "packing": config.data.packing,
        "text tokens T": config.data.text_tokens,
        "image slots I": config.image_slots,
        "tokens per image k": config.image_tokens,
        "sequence length S": config.sequence_length,
        "image size": f"{config.encoder.image_size} px",
        "vocabulary": config.data.vocabulary,
    }
    listed = "".join(
        f"<div><dt>{in_html(k)}</dt><dd>{in_html(str(v))}</dd></div>" for k, v in facts.items()
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_PAGE.format(facts=listed, sequences="".join(parts)), encoding="utf-8")


def _sequence(
    packed: Packed,
    number: int,
    config: TrainConfig,
    prepared: PreparedData,
    pictures: Images,
) -> str:
    packed = pictures.in_views(packed)
    batch = lay_out([packed], config.view_tokens, config.sequence_length)
    (images,) = pictures.pixels([packed])
    segments = batch["segments"][0]
    used_text, used_images = int((packed.segments > 0).sum()), int((packed.image_ids >= 0).sum())
    trained = int(batch["loss_weights"].sum())
    return f"""
<section>
<h2>Sequence {number} <small>{in_html(packed.source)}</small></h2>
<p>documents {len(packed.documents)} · {used_text} of {len(packed.tokens)} text tokens ·
{used_images} of {len(packed.image_ids)} image slots · {int((segments > 0).sum())} of
{len(segments)} positions filled · {trained} tokens bear loss</p>
<div class="columns"><div class="documents">{_documents(packed, batch, images, prepared)}</div>
<figure class="mask"><img alt="attention mask" src="{_mask(segments)}">
<figcaption>Attention mask: row = position that looks, column = position that is looked at.
Coloured where it may, one colour per document; nothing crosses documents.</figcaption></figure>
</div>
{_strips(batch)}
</section>"""


def _documents(
    packed: Packed, batch: dict[str, np.ndarray], images: np.ndarray, prepared: PreparedData
) -> str:
    """The documents in reading order, each token a chip that tells its numbers."""
    filled = np.flatnonzero(batch["segments"][0])
    where = dict(zip(batch["gather"][0, filled].tolist(), filled.tolist(), strict=True))
    boxes = []
    for segment, name in enumerate(packed.documents, start=1):
        chips: list[tuple[int, str]] = []
        for slot in np.flatnonzero((packed.image_segments == segment) & (packed.image_ids >= 0)):
            image_name = _image_name(packed, slot, prepared)
            title = f"image slot {slot}: {image_name}, before text token {packed.image_at[slot]}"
            chip = f'<img class="seen" title="{in_html(title)}" src="{_source(images[slot])}">'
            chips.append((2 * int(packed.image_at[slot]), chip))
        for t in np.flatnonzero(packed.segments == segment):
            chips.append((2 * int(t) + 1, _token(int(t), packed, batch, where, prepared)))
        # Stable: several images at one place keep the order of their slots.
        content = "".join(chip for _, chip in sorted(chips, key=lambda pair: pair[0]))
        colour = "rgb({}, {}, {})".format(*_colour(segment))
        boxes.append(
            f'<div class="document" style="--colour: {colour}">'
            f"<h3>{segment} · {in_html(name)}</h3>{content}</div>"
        )
    return "".join(boxes)


def _image_name(packed: Packed, slot: int, prepared: PreparedData) -> str:
    row = int(packed.image_ids[slot])
    if not packed.image_files:
        return prepared.images.names[row]
    file = packed.image_files[row]
    return f"shard {file.shard}, bytes {file.offset} to {file.offset + file.size}"


def _token(
    t: int,
    packed: Packed,
    batch: dict[str, np.ndarray],
    where: dict[int, int],
    prepared: PreparedData,
) -> str:
    token = int(packed.tokens[t])
    text = "■" if token == prepared.tokenizer.end else prepared.tokenizer.decode([token])
    shown = in_html(text).replace(" ", "␣").replace("\n", "⏎<br>")
    weight = float(batch["loss_weights"][0, t])
    title = (
        f"text token {t}, id {token}, at S = {where[t]}, position "
        f"{batch['positions'][0, where[t]]}; "
        + (f"predicted from S = {batch['predictors'][0, t]}" if weight else "bears no loss")
    )
    return f'<span class="token{"" if weight else " silent"}" title="{title}">{shown}</span>'


def _strips(batch: dict[str, np.ndarray]) -> str:
    """One picture row per array over the S positions."""
    segments, gather = batch["segments"][0], batch["gather"][0]
    positions = batch["positions"][0]
    text = len(batch["tokens"][0])
    of_image = (segments > 0) & (gather >= text)
    kinds = np.where(of_image[:, None], [90, 90, 90], [255, 255, 255])
    kinds = np.where((segments > 0)[:, None], kinds, _PADDING).astype(np.uint8)
    shade = 255 - positions * 200 // max(1, int(positions.max()))
    grey = np.where((segments > 0)[:, None], shade[:, None].repeat(3, 1), _PADDING)
    weights = np.zeros(len(segments))
    weights[batch["predictors"][0]] += batch["loss_weights"][0]
    loss = np.where((weights > 0)[:, None], [44, 123, 182], [255, 255, 255]).astype(np.uint8)
    rows = {
        "documents": _colours(segments),
        "image tokens": kinds,
        "positions": grey.astype(np.uint8),
        "predicts with loss": loss,
    }
    return "".join(
        f'<div class="strip"><span>{name}</span><img alt="{name}" src="{_source(row[None])}"></div>'
        for name, row in rows.items()
    )


def _mask(segments: np.ndarray) -> str:
    same = (segments[:, None] == segments[None, :]) & (segments[:, None] > 0)
    allowed = np.tril(same)
    picture = np.where(allowed[..., None], _colours(segments)[:, None, :], 255).astype(np.uint8)
    return _source(picture)


def _colour(segment: int) -> np.ndarray:
    return _PALETTE[(segment - 1) % len(_PALETTE)]


def _colours(segments: np.ndarray) -> np.ndarray:
    """int [S] → uint8 [S, 3]; padding is grey."""
    colours = _PALETTE[(segments - 1) % len(_PALETTE)]
    return np.where((segments > 0)[:, None], colours, _PADDING).astype(np.uint8)


def _source(pixels: np.ndarray) -> str:
    return "data:image/png;base64," + base64.b64encode(png(pixels)).decode()


_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>What the model gets</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 1200px; margin: 2rem auto;
  padding: 0 1rem; }}
h1 {{ font-size: 1.5rem; }} h2 {{ font-size: 1.15rem; margin: 0; }} h2 small {{ color: #666;
  font-weight: normal; margin-left: .5rem; }}
dl {{ display: flex; flex-wrap: wrap; gap: .6rem 2rem; }}
dt {{ color: #666; font-size: .8rem; }} dd {{ margin: 0; }}
section {{ border-top: 1px solid #ddd; padding: 1.2rem 0; }}
p {{ color: #555; margin: .2rem 0 .8rem; }}
.columns {{ display: flex; gap: 1.5rem; align-items: flex-start; flex-wrap: wrap; }}
.documents {{ flex: 1 1 30rem; display: flex; flex-wrap: wrap; gap: .6rem; }}
.document {{ border-left: 6px solid var(--colour); background: #fafafa; padding: .4rem .6rem;
  border-radius: 4px; flex: 1 1 13rem; }}
.document h3 {{ font-size: .75rem; color: #777; margin: 0 0 .3rem; font-weight: normal; }}
.token {{ background: var(--colour); border-radius: 3px; padding: 0 1px; margin: 1px;
  display: inline-block; font-family: ui-monospace, monospace; font-size: .8rem; cursor: help; }}
.silent {{ background: none; outline: 1px dashed #aaa; outline-offset: -1px; }}
.seen {{ width: 64px; height: 64px; image-rendering: pixelated; vertical-align: middle;
  border: 1px solid #ccc; margin: 2px; cursor: help; }}
.mask {{ margin: 0; width: 300px; }} .mask img {{ width: 300px; height: 300px;
  image-rendering: pixelated; border: 1px solid #ccc; }}
figcaption {{ font-size: .8rem; color: #666; }}
.strip {{ display: flex; align-items: center; gap: .6rem; margin-top: 4px; font-size: .8rem;
  color: #666; }} .strip span {{ width: 9rem; text-align: right; }}
.strip img {{ flex: 1; height: 14px; image-rendering: pixelated; border: 1px solid #ddd;
  min-width: 0; }}
</style>
<h1>What the model gets</h1>
<p>Hover over a token or an image for its numbers. Dashed: bears no loss, because it is given (a
question) or because nothing precedes it in its document. ␣ is a space, ⏎ a line break, ■ the end of
a document. Images are shown at the model's resolution, enlarged.</p>
<dl>{facts}</dl>
{sequences}
</html>
"""
