"""Evaluation of a finished run."""

from __future__ import annotations

import json
import math
import shutil

import pytest

from evergraft import EvergraftError
from evergraft.training.evaluate import evaluate


def test_of_the_runs_own_text_and_of_other_text(finished, text_file):
    own = evaluate(finished)
    other = evaluate(finished, [str(text_file)], batch_size=8)
    assert list(own.to_dict()) == ["mlm_loss", "mlm_accuracy", "nsp_loss", "nsp_accuracy", "sequences"]
    assert other.sequences > own.sequences  # all of the text, not the validation split alone
    for result in (own, other):
        assert 0 < result.mlm_loss < math.log(200)
        assert 0 <= result.mlm_accuracy <= 1


def test_changed_text_is_refused(finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    environment = json.loads((run / "environment.json").read_text())
    (run / "environment.json").write_text(json.dumps({**environment, "corpus_identity": "other"}))
    with pytest.raises(EvergraftError, match=r"has changed since .* resumed or evaluated on"):
        evaluate(run)


def test_an_unknown_device_is_refused(finished):
    with pytest.raises(EvergraftError, match="`device` must be auto, cpu or cuda; got tpu"):
        evaluate(finished, device="tpu")
