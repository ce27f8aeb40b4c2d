"""Bytes of what a forward pass keeps for backward, for the dense and sparse models of the proxy.

    python benchmarks/activations.py

Counted by torch's hooks on saved tensors, each storage once and without parameters and topologies, so that the figures
are exact and the same on every machine that runs the same tier of native code.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from evergraft.bert.config import bert_config
from evergraft.bert.model import create_model
from evergraft.sparse.config import SparsityConfig

SEQUENCES, LENGTH, MASKED, VOCABULARY = 32, 32, 5, 1024  # recipes/proxy.yaml
MODELS = Path(__file__).parents[1] / "studies" / "models"
DENSE = (str(MODELS / "l2-h32.json"), str(MODELS / "l2-h64.json"), "tiny", "mini")
SPARSE = (("tiny", (1, 1)), ("tiny", (16, 1)), ("mini", (1, 1)))


def activations(model: torch.nn.Module) -> int:
    """Bytes that one batch's loss keeps."""
    ids = torch.randint(VOCABULARY, (SEQUENCES, LENGTH))
    positions = torch.arange(MASKED).expand(SEQUENCES, -1)
    owned = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(
            input_ids=ids,
            token_type_ids=torch.zeros_like(ids),
            masked_positions=positions,
            labels=ids.gather(1, positions),
            next_sentence_label=torch.zeros(SEQUENCES, dtype=torch.long),
        )
    return sum(tensor.untyped_storage().nbytes() for pointer, tensor in kept.items() if pointer not in owned)


def main() -> None:
    """Print a line a model."""
    models = [(name, bert_config(name, VOCABULARY, LENGTH)) for name in DENSE]
    models += [
        (
            f"{name} {block[0]}x{block[1]}",
            bert_config(name, VOCABULARY, LENGTH, sparsity=SparsityConfig(density=0.1, block=block)),
        )
        for name, block in SPARSE
    ]
    for name, config in models:
        print(f"{Path(name).stem}: {activations(create_model(config, 0).train()) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
