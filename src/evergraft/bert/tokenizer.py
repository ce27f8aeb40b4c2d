"""Saving a tokenizer so that transformers 4 and 5 load it, and so that it cuts text where the model's positions end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def save_tokenizer(tokenizer: Any, folder: Path, longest: int) -> None:
    """Write a tokenizer beside a model.

    Args:
        tokenizer: one of transformers' tokenizers.
        folder: the model's folder.
        longest: how many tokens the model has positions for; `truncation=True` cuts there.
    """
    tokenizer.model_max_length = longest
    tokenizer.save_pretrained(folder)
    file = folder / "tokenizer_config.json"
    settings = json.loads(file.read_text(encoding="utf-8"))
    for name in ("backend", "is_local", "local_files_only"):  # these say where it was loaded from
        settings.pop(name, None)
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"  # transformers 4 does not know the name that 5 writes
    file.write_text(json.dumps(settings, indent=2), encoding="utf-8")
