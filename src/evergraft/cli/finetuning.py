"""`evergraft finetune`: a run's model on labelled sentences."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evergraft.cli.flags import Device, Json, RunFolder
from evergraft.cli.output import print_result
from evergraft.settings import SEEDS


def finetune(
    run: RunFolder,
    task: Annotated[str, typer.Option(help="sst2, mrpc, rte, cola, stsb, or a table FILE.tsv with a header line.")],
    data: Annotated[Path | None, typer.Option(help="The folder with the task's train.tsv and dev.tsv.")] = None,
    validation: Annotated[
        Path | None, typer.Option(help="A table to validate FILE.tsv on (default: a tenth is held out).")
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training examples.")] = 3,
    learning_rate: Annotated[float, typer.Option(help="Peak of the learning rate.")] = 1e-4,
    batch_size: Annotated[int, typer.Option(min=1, help="Examples in a step.")] = 32,
    seed: Annotated[
        int, typer.Option(min=0, max=SEEDS - 1, help="Seed of the classifier, the order of examples and dropout.")
    ] = 0,
    densify: Annotated[bool, typer.Option("--densify", help="Make the encoder dense first.")] = False,
    updates: Annotated[int, typer.Option(min=0, help="Topology updates; 0 leaves the topology as it is.")] = 0,
    device: Device = "auto",
    output: Annotated[
        Path | None, typer.Option(help="A new folder (default: finetune/TASK-sSEED in the run's folder).")
    ] = None,
    as_json: Json = False,
) -> None:
    """Fine-tune a run on labelled sentences.

    The encoder stays sparse, with its topology as it is or updated on, or is made dense first.
    """
    from evergraft.finetuning import finetune as tune

    result = tune(
        run,
        task,
        data=data,
        validation=validation,
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
        seed=seed,
        dense=densify,
        updates=updates,
        device=device,
        output=output,
    )
    print_result(result.to_dict(), as_json)
