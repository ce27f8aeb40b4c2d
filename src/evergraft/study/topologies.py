"""Pictures of a run's topologies: every sparse layer before training and after."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open

from evergraft.errors import EvergraftError
from evergraft.runs.folder import Run
from evergraft.runs.layout import WEIGHTS
from evergraft.sparse.allocate import allocate
from evergraft.sparse.config import SparsityConfig
from evergraft.sparse.conversion import random_generator
from evergraft.sparse.topology import INDICES, BlockTopology
from evergraft.study.record import RunRecord

LARGEST, SMALLEST = 256, 96  # pixels of a picture's sides: larger ones are averaged, smaller ones enlarged
WHITE, KEPT, GONE, NEW = (250, 250, 249), (15, 82, 87), (176, 182, 190), (234, 138, 30)


@dataclass(frozen=True)
class LayerPicture:
    """A layer's topology at both ends of training.

    Out features run downwards in the pictures, in features to the right. Blocks that were there from the first step to
    the last are dark in both; first blocks that were pruned are grey, and last blocks that were grown are orange.

    Attributes:
        layer: its short name.
        size: `512 x 128 in blocks of 4x4`.
        kept: share of the blocks of the first topology that the last one still has.
        explored: share of all blocks that were ever active.
        before, after: PNG pictures as data URIs.
    """

    layer: str
    size: str
    kept: float
    explored: float
    before: str
    after: str


def layer_pictures(record: RunRecord, encoder_layers: int = 3) -> list[LayerPicture]:
    """The pictures of a sparse run.

    Args:
        record: the run.
        encoder_layers: how many encoder layers to draw: of a deeper encoder, the first, the last and some between.

    Raises:
        EvergraftError: the run's model is not there, or torn.
    """
    explored = {update.layer: update.explored for update in record.logged_updates}
    last = last_topologies(record)
    first = first_topologies(record, last)
    in_order = [name for name in explored if name in last] or list(last)
    chosen = _chosen([_stack_layer(name) for name in last], encoder_layers)
    return [
        _picture(name, first[name], last[name], explored.get(name, last[name].density))
        for name in in_order
        if _stack_layer(name) in chosen
    ]


def first_topologies(record: RunRecord, last: Mapping[str, BlockTopology]) -> dict[str, BlockTopology]:
    """The topologies that a run began with, drawn again as `sparsify` draws them: from the seed and a layer's name.

    Args:
        record: the run.
        last: the topologies that it ended with, of every sparse layer by name.
    """
    config = record.recipe.part(SparsityConfig)
    shapes = {name: (topology.out_features, topology.in_features) for name, topology in last.items()}
    counts = allocate(shapes, config)
    return {
        name: BlockTopology.random_count(
            *shape, last[name].block, counts[name], random_generator(config.seed, name), config.placement
        )
        for name, shape in shapes.items()
    }


def last_topologies(record: RunRecord) -> dict[str, BlockTopology]:
    """The topologies of a finished run's model, by the names of their layers.

    Raises:
        EvergraftError: the run's model is not there, or torn.
    """
    config = record.recipe.part(SparsityConfig)
    path = Run(record.folder, record.recipe).model_folder / WEIGHTS
    topologies = {}
    try:
        with safe_open(path, "pt") as file:
            for key in file.keys():  # noqa: SIM118 - no dict
                if key.endswith(".row_offsets"):
                    name = key.removesuffix(".row_offsets")
                    tensors = (file.get_tensor(f"{name}.{index}") for index in INDICES)
                    topologies[name] = BlockTopology(config.of_layer(name)[1], *tensors)
                    topologies[name].check(name)
    except (EvergraftError, SafetensorError) as error:
        raise EvergraftError(f"{path} is torn: {error}; leave this run out of the report") from None
    return topologies


def _stack_layer(name: str) -> int:
    return next(int(part) for part in name.split(".") if part.isdigit())


def _chosen(layers: list[int], count: int) -> set[int]:
    return set(np.linspace(min(layers), max(layers), min(count, len(set(layers)))).round().astype(int).tolist())


def _picture(name: str, first: BlockTopology, last: BlockTopology, explored: float) -> LayerPicture:
    then, now = _active(first), _active(last)
    kept = then & now
    size = f"{last.out_features} x {last.in_features} in blocks of {last.block[0]}x{last.block[1]}"
    short = name.partition("encoder.")[2].removesuffix(".dense").replace(".self.", ".").replace("layer.", "layer ")
    return LayerPicture(
        short.replace(".", " "),
        size,
        float(kept.sum() / then.sum()),
        explored,
        _png(then, kept, GONE),
        _png(now, kept, NEW),
    )


def _active(topology: BlockTopology) -> np.ndarray:
    """Bool [block rows, block columns]."""
    rows, columns = topology.row_offsets.shape[0] - 1, topology.transposed_offsets.shape[0] - 1
    active = torch.zeros(rows * columns, dtype=torch.bool)
    active[topology.positions] = True
    return active.view(rows, columns).numpy()


def _png(active: np.ndarray, kept: np.ndarray, other: tuple[int, int, int]) -> str:
    pixels = np.full((*active.shape, 3), WHITE, np.uint8)
    pixels[active] = other
    pixels[kept] = KEPT
    image = Image.fromarray(pixels)
    width, height = image.size
    shrink = max(1, -(-max(width, height) // LARGEST))
    enlarge = max(1, SMALLEST // min(width, height)) if shrink == 1 else 1
    enlarge = max(1, min(enlarge, LARGEST // max(width, height)))
    size = (max(1, width * enlarge // shrink), max(1, height * enlarge // shrink))
    image = image.resize(size, Image.Resampling.BOX if shrink > 1 else Image.Resampling.NEAREST)
    stream = io.BytesIO()
    (image if shrink > 1 else image.quantize(8)).save(stream, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
