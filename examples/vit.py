"""A vision transformer on scikit-learn's handwritten digits, dense and sparse side by side.

The table shows accuracy on held-out images, the number of parameters of the whole model, and the seconds of training.
A model as small as this one gains little time from sparsity; docs/performance.md measures larger ones.

    python examples/vit.py
    python examples/vit.py --epochs 30 --density 0.05
"""

import argparse
import time

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor
from transformers import ViTConfig, ViTForImageClassification

import evergraft

BATCH_SIZE = 64


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a vision transformer, dense and sparse.")
    parser.add_argument("--epochs", type=int, default=10, help="passes over the training images")
    parser.add_argument("--density", type=float, default=0.1, help="share of the sparse model's blocks that exist")
    options = parser.parse_args()

    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16  # [1797, 1, 8, 8], in [0, 1]
    parts = train_test_split(images, torch.tensor(digits.target), test_size=360, random_state=0)
    print("model    accuracy  parameters  seconds")
    for name, density in {"dense": None, "sparse": options.density}.items():
        accuracy, parameters, seconds = train(*parts, options.epochs, density)
        print(f"{name:7}  {accuracy:8.1%}  {parameters:10,}  {seconds:7.1f}")


def train(
    images: Tensor, test_images: Tensor, labels: Tensor, test_labels: Tensor, epochs: int, density: float | None
) -> tuple[float, int, float]:
    """Train a model, dense without a density; returns its accuracy on the test images, its parameters and seconds."""
    torch.manual_seed(0)
    config = ViTConfig(
        image_size=8,
        patch_size=4,
        num_channels=1,
        num_labels=10,
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=512,
    )
    model = ViTForImageClassification(config)
    if density is not None:
        evergraft.sparsify(model, density=density, block=(16, 1))
    steps = epochs * -(-len(images) // BATCH_SIZE)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    updater = None
    if density is not None:
        updater = evergraft.TopologyUpdater(model, optimizer, total_steps=steps, updates=min(80, steps // 2))

    began = time.perf_counter()
    model.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(images)).split(BATCH_SIZE):
            model(pixel_values=images[batch], labels=labels[batch]).loss.backward()
            optimizer.step()
            if updater:
                updater.step()
            optimizer.zero_grad()
    seconds = time.perf_counter() - began

    model.eval()
    with torch.no_grad():
        guesses = model(pixel_values=test_images).logits.argmax(-1)
    accuracy = (guesses == test_labels).float().mean().item()
    return accuracy, model.num_parameters(), seconds


if __name__ == "__main__":
    main()
