"""Draw docs/topology.gif: the blocks of one layer while a small BERT trains; colour is how long a block has lived.

python docs/topology_picture.py docs/topology.gif
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from transformers import TrainerCallback

from evergraft import SparseLinear, sparse_layers
from evergraft.runs.recipe import Recipe
from evergraft.training.pretrain import pretrain

LAYER = "bert.encoder.layer.0.intermediate.dense"
RECIPE = Recipe(
    model="tiny",
    block="4x4",
    density=0.1,
    updates=60,
    steps=600,
    learning_rate=5e-3,
    save_every=600,
    corpus=["builtin:docstrings"],
)
BACKGROUND, NEW, OLD = np.array([250, 250, 248]), np.array([244, 165, 60]), np.array([18, 60, 72])


class Ages(TrainerCallback):
    """Counts, at every tenth step, for how many of them each block of the layer has been active."""

    def __init__(self) -> None:
        self.frames: list[tuple[int, np.ndarray]] = []

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        if state.global_step % 10 == 0:
            active = _grid(sparse_layers(model)[LAYER])
            ages = self.frames[-1][1] if self.frames else np.zeros(active.shape)
            self.frames.append((state.global_step, np.where(active, ages + 1, 0)))


def _grid(layer: SparseLinear) -> np.ndarray:
    height, width = layer.block
    return layer.topology.mask()[::height, ::width].numpy()


def _draw(step: int, ages: np.ndarray, longest: float) -> Image.Image:
    share = np.sqrt(ages / longest)[..., None]
    colour = np.where(ages[..., None] > 0, NEW + (OLD - NEW) * share, BACKGROUND).astype(np.uint8)
    blocks = Image.fromarray(colour.transpose(1, 0, 2)).resize(
        (ages.shape[0] * 6, ages.shape[1] * 6), Image.Resampling.NEAREST
    )
    frame = Image.new("RGB", (blocks.width + 24, blocks.height + 44), tuple(BACKGROUND.tolist()))
    frame.paste(blocks, (12, 12))
    text = f"step {step}   {LAYER}, 512 x 128 in blocks of 4 x 4, one in ten alive   orange: just grown, dark: old"
    ImageDraw.Draw(frame).text((12, blocks.height + 22), text, fill=(60, 60, 60))
    return frame


def main(path: str) -> None:
    """Train, and write the picture."""
    ages = Ages()
    with tempfile.TemporaryDirectory() as scratch:
        pretrain(RECIPE, Path(scratch) / "run", callbacks=[ages])
    longest = max(frame.max() for _, frame in ages.frames)
    images = [_draw(step, frame, longest).quantize(64) for step, frame in ages.frames]
    images[0].save(
        path,
        save_all=True,
        append_images=images[1:],
        duration=[120] * (len(images) - 1) + [2500],
        loop=0,
        optimize=True,
    )


main(sys.argv[1])
