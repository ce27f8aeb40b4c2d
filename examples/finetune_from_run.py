"""Pre-train a tiny sparse BERT with a recipe, then fine-tune it on a labelled table: the whole way, from Python.

The text and the labels are made up here: simple sentences, labelled by whether an animal or a person is spoken of.
Everything that the two calls write lies in the run's folder: settings, metrics, topologies, checkpoints, models.

    python examples/finetune_from_run.py --output runs/animals
"""

import argparse
import random
from pathlib import Path

import evergraft

ANIMALS = ("the cat", "a small dog", "the old horse", "a red fox", "every sparrow", "the hare")
PEOPLE = ("my teacher", "the tall captain", "an engineer", "every baker", "the nurse", "a young painter")
VERBS = ("watches", "follows", "remembers", "crosses", "leaves", "finds", "passes", "avoids")
OBJECTS = ("the house", "a wooden boat", "seven stones", "the mountain road", "an unfinished bridge", "the lanterns")
PLACES = ("in the morning", "near the harbour", "without a word", "after the rain", "beyond the hills")


def main() -> None:
    parser = argparse.ArgumentParser(description="Pre-train and fine-tune a tiny sparse BERT from Python.")
    parser.add_argument("--output", type=Path, required=True, help="a new folder")
    parser.add_argument("--steps", type=int, default=200, help="steps of pre-training")
    options = parser.parse_args()
    options.output.mkdir(parents=True)
    text, table, run = (options.output / name for name in ("text.txt", "labels.tsv", "run"))
    write_text(text)
    write_table(table)

    recipe = evergraft.Recipe(
        model="tiny",
        corpus=str(text),
        vocabulary_size=200,
        sequence_length=32,
        density=0.1,
        block=(16, 1),
        steps=options.steps,
        batch_size=16,
        updates=options.steps // 10,
        learning_rate=5e-3,
    )
    pretrained = evergraft.pretrain(recipe, run)
    print(f"pre-trained: validation loss {pretrained.validation_mlm_loss:.3f}", end=", ")
    print(f"before training {pretrained.untrained_validation_mlm_loss:.3f}", end=", ")
    print(f"unigram entropy {pretrained.unigram_entropy:.3f}")

    tuned = evergraft.finetune(run, str(table), epochs=3, learning_rate=1e-3)
    print(f"fine-tuned at density {tuned.density:.3f}: accuracy {tuned.metrics['accuracy']:.1%}", end=" ")
    print(f"on {tuned.validation_examples} held-out sentences")
    print(f"the classifier lies in {tuned.output}")


def sentence(rng: random.Random, subjects: tuple[str, ...]) -> str:
    return " ".join(rng.choice(words) for words in (subjects, VERBS, OBJECTS, PLACES))


def write_text(path: Path) -> None:
    """Fifty documents of forty sentences; a blank line ends a document."""
    rng = random.Random(0)
    texts = [" ".join(sentence(rng, ANIMALS + PEOPLE).capitalize() + "." for _ in range(40)) for _ in range(50)]
    path.write_text("\n\n".join(texts), encoding="utf-8")


def write_table(path: Path) -> None:
    """Five hundred labelled sentences, of which `finetune` holds one in ten out for validation."""
    rng = random.Random(1)
    lines = ["sentence\tlabel"]
    for _ in range(250):
        lines += [f"{sentence(rng, ANIMALS)}\tanimal", f"{sentence(rng, PEOPLE)}\tperson"]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
