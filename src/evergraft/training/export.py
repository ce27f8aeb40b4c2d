"""Export a run's model to a plain dense checkpoint that transformers loads without this package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, BertConfig, BertForPreTraining

from evergraft import __version__
from evergraft.bert.model import OWN_KEYS, SparseBertForPreTraining
from evergraft.bert.tokenizer import save_tokenizer
from evergraft.errors import EvergraftError
from evergraft.files.folders import atomic_folder
from evergraft.runs.folder import Run
from evergraft.runs.recipe import Recipe
from evergraft.sparse.conversion import densify


def export(run_folder: Path, directory: Path) -> dict[str, Any]:
    """Write config, dense weights, tokenizer and model card; atomic.

    Args:
        run_folder: of a finished run.
        directory: the new folder; `BertForPreTraining.from_pretrained(directory)` gives the run's logits.

    Returns:
        `directory`, and `parameters` of the dense model.

    Raises:
        EvergraftError: the run is not there or not finished, or `directory` exists.
    """
    if directory.exists():
        raise EvergraftError(f"{directory} exists already; choose a new folder to export to")
    run = Run.open(run_folder)
    model_folder = run.model_folder
    result = run.result
    if result is None:
        raise EvergraftError(f"{run_folder} has not finished; finish it with: evergraft pretrain --resume {run_folder}")
    model = _dense(SparseBertForPreTraining.from_pretrained(model_folder))
    with atomic_folder(directory) as folder:
        model.save_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(model_folder)
        save_tokenizer(tokenizer, folder, model.config.max_position_embeddings)
        (folder / "README.md").write_text(_card(run.recipe, result), encoding="utf-8")
    return {"directory": str(directory), "parameters": model.num_parameters()}


def _dense(sparse: SparseBertForPreTraining) -> BertForPreTraining:
    if sparse.config.density < 1:
        densify(sparse)
    settings = {key: value for key, value in sparse.config.to_dict().items() if key not in OWN_KEYS}
    model = BertForPreTraining(BertConfig(**settings))
    model.load_state_dict(sparse.state_dict())
    return model


def _card(recipe: Recipe, result: dict[str, Any]) -> str:
    block = f"{recipe.block[0]}x{recipe.block[1]}"
    sparse = f"""always-sparse

The encoder's weight matrices had {result["density"]:.2%} of their {block} blocks during all of
pre-training, which evolved in {recipe.updates} updates; this checkpoint stores them as dense matrices with zeros."""
    return f"""---
library_name: transformers
pipeline_tag: fill-mask
tags: [bert, {"sparse-training, " * (recipe.density < 1)}evergraft]
---

# BERT ({recipe.model}), pre-trained {sparse if recipe.density < 1 else "dense"}

Trained by evergraft {__version__} on {", ".join(recipe.corpus)}.

| | |
|---|---|
| training | {result["steps"]:,} steps, {result["tokens"]:,} tokens, {result["flops_total"]:.3e} FLOPs in the encoder |
| validation MLM loss, accuracy | {result["validation_mlm_loss"]:.4f} nats, {result["validation_mlm_accuracy"]:.2%} |
| validation NSP loss, accuracy | {result["validation_nsp_loss"]:.4f} nats, {result["validation_nsp_accuracy"]:.2%} |
| unigram entropy of the training text | {result["unigram_entropy"]:.4f} nats |

The complete recipe:

```yaml
{recipe.to_yaml()}```
"""
