"""Export a run's model to a plain dense checkpoint that transformers loads without this package."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from transformers import AutoTokenizer, BertConfig, BertForPreTraining

from evergraft.bert.config import OWN_KEYS
from evergraft.bert.model import SparseBertForPreTraining
from evergraft.bert.tokenizer import save_tokenizer
from evergraft.errors import EvergraftError
from evergraft.files.folders import atomic_folder
from evergraft.runs.folder import Run
from evergraft.runs.record import Record
from evergraft.sparse.conversion import densify
from evergraft.training.card import CARD, model_card


class ExportResult(Record):
    """What `export` has written: the folder, and the number of parameters of the dense model."""

    directory: Path = Field(description="the folder of the dense checkpoint")
    parameters: int = Field(description="parameters of the dense model")


def export(run_folder: Path, directory: Path) -> ExportResult:
    """Write a finished run's model as a dense checkpoint: configuration, weights, tokenizer and model card.

    Args:
        run_folder: the folder of a finished run.
        directory: a new folder, which is written whole or not at all. `BertForPreTraining.from_pretrained(directory)`
            computes the same logits as the run's model.

    Returns:
        The folder, and the number of the dense model's parameters.

    Raises:
        EvergraftError: there is no run or it has not finished, or `directory` exists.

    Example:
        >>> export(Path("runs/first"), Path("my-bert"))
        >>> model = transformers.AutoModelForMaskedLM.from_pretrained("my-bert")
    """
    if directory.exists():
        raise EvergraftError(f"{directory} exists already; choose a new folder to export to")
    run = Run.open(run_folder)
    model_folder = run.model_folder
    card = model_card(run.recipe, run.finished_result)
    model = _dense(SparseBertForPreTraining.from_pretrained(model_folder))
    with atomic_folder(directory) as folder:
        model.save_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(model_folder)
        save_tokenizer(tokenizer, folder, model.config.max_position_embeddings)
        (folder / CARD).write_text(card, encoding="utf-8")
    return ExportResult(directory=directory, parameters=model.num_parameters())


def _dense(sparse: SparseBertForPreTraining) -> BertForPreTraining:
    """A plain BERT of transformers that computes the same."""
    if sparse.config.sparsity is not None:
        densify(sparse)
    settings = {key: value for key, value in sparse.config.to_dict().items() if key not in OWN_KEYS}
    model = BertForPreTraining(BertConfig(**settings))
    model.load_state_dict(sparse.state_dict())
    return model
