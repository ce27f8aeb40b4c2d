"""`evergraft corpus`: text made ready for training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evergraft.cli.flags import Json
from evergraft.cli.output import print_result
from evergraft.cli.translation import Command

app = typer.Typer(help="Prepare text for training.", no_args_is_help=True)


@app.command(cls=Command)
def prepare(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCES",
            help="Text files, globs, folders (.gz .xz .zst .jsonl .parquet too), data set names, "
            "builtin:docstrings, or - for standard input.",
        ),
    ],
    output: Annotated[Path, typer.Option(help="The corpus's folder; must not exist.")],
    vocabulary_size: Annotated[int, typer.Option(min=1, help="Word pieces to learn.")] = 8192,
    tokenizer: Annotated[
        str | None, typer.Option(help="A tokenizer.json or vocab.txt to use, instead of learning a vocabulary.")
    ] = None,
    sequence_length: Annotated[int, typer.Option(min=8, help="Shortest input a document must fill, in tokens.")] = 128,
    validation_fraction: Annotated[float, typer.Option(help="Share of the documents to validate on.")] = 0.05,
    as_json: Json = False,
) -> None:
    """Tokenise text once, into a folder that training maps into memory."""
    from evergraft.corpus import prepare as write

    corpus = write(
        sources,
        output,
        vocabulary_size=vocabulary_size,
        tokenizer=tokenizer,
        sequence_length=sequence_length,
        validation_fraction=validation_fraction,
    )
    print_result(corpus.summary(), as_json)
