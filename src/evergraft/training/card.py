"""The model card of an exported model: how it was trained, how good it is, and the recipe to repeat it."""

from __future__ import annotations

from evergraft import __version__
from evergraft.runs.recipe import Recipe
from evergraft.runs.result import RunResult

CARD = "README.md"  # where the Hugging Face Hub looks for a model card


def model_card(recipe: Recipe, result: RunResult) -> str:
    """The card of a run's model, in Markdown with a YAML header.

    Args:
        recipe: the run's recipe, fully resolved.
        result: what the run came to.
    """
    sparse = not recipe.is_dense
    mlm_accuracy, nsp_accuracy = (
        _figure(accuracy, ".2%") for accuracy in (result.validation_mlm_accuracy, result.validation_nsp_accuracy)
    )
    return f"""---
library_name: transformers
pipeline_tag: fill-mask
tags: [bert, {"sparse-training, " * sparse}evergraft]
---

# BERT ({recipe.model}), pre-trained {_sparsity(recipe, result) if sparse else "dense"}

Trained by evergraft {__version__} on {", ".join(recipe.corpus)}.

| | |
|---|---|
| training | {result.steps:,} steps, {result.tokens:,} tokens, {result.flops_total:.3e} FLOPs in the encoder |
| validation MLM loss, accuracy | {result.validation_mlm_loss:.4f} nats, {mlm_accuracy} |
| validation NSP loss, accuracy | {result.validation_nsp_loss:.4f} nats, {nsp_accuracy} |
| unigram entropy of the training text | {_figure(result.unigram_entropy, ".4f")} nats |

The complete recipe:

```yaml
{recipe.to_yaml()}```
"""


def _sparsity(recipe: Recipe, result: RunResult) -> str:
    block = f"{recipe.block[0]}x{recipe.block[1]}"
    return f"""always-sparse

The encoder's weight matrices had {result.density:.2%} of their {block} blocks during all of
pre-training, which evolved in {recipe.updates} updates; this checkpoint stores them as dense matrices with zeros."""


def _figure(value: float | None, form: str) -> str:
    return "not recorded" if value is None else format(value, form)
