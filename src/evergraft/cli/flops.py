"""`evergraft flops`: what training costs, as counted from shapes; nothing is measured."""

from __future__ import annotations

from typing import Annotated

import typer

from evergraft.cli.flags import Json, Model
from evergraft.cli.output import print_result
from evergraft.settings import parse_block


def flops(
    model: Model = "base",
    density: Annotated[float, typer.Option(help="Share of the encoder's blocks that exist; 1 is dense.")] = 1.0,
    block: Annotated[
        str, typer.Option(help="Rows x columns of a block; 1x1 comes closest to the asked density.")
    ] = "1x1",
    sequence_length: Annotated[int, typer.Option(min=1, help="Tokens an input has.")] = 128,
    sequences: Annotated[int | None, typer.Option(min=1, help="Also count a run of this many sequences.")] = None,
    as_json: Json = False,
) -> None:
    """Count FLOPs and bytes of training.

    The figures of the sparse encoder stand beside those of its dense twin.
    """
    from evergraft.bert.config import buildable_config
    from evergraft.bert.ledger import ledger
    from evergraft.sparse.config import SparsityConfig

    sparsity = SparsityConfig(density=density, block=parse_block(block))
    counted = ledger(buildable_config(model, 1, sequence_length), sparsity, sequence_length)
    print_result(counted.to_dict(sequences), as_json)
