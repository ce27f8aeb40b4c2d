"""How far studies are, and studies that have changed."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import yaml

from evergraft.errors import EvergraftError
from evergraft.study.collection import collect
from evergraft.study.execution import run_study
from evergraft.study.grid import load_study
from evergraft.study.status import check_unchanged, duration, print_status, seconds_left, study_status
from tests.study.stub import RESULT, states


def test_a_real_study(finished_study):
    study, statuses = finished_study
    assert states(statuses) == ["finished", "finished", "finished", "failed"] * 2
    assert "block 5x5 does not divide a weight of" in statuses[3].reason
    assert statuses[0].loss == json.loads((study.runs[0].folder / "result.json").read_text())["validation_mlm_loss"]
    assert not study.runs[3].folder.exists()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "is torn; remove it and run the study again"),
        (json.dumps(RESULT | {"validation_mlm_loss": None}), "is torn: validation_mlm_loss: Input should be a valid"),
    ],
)
def test_a_torn_result_is_told(study, text, sentence):
    study.runs[0].folder.mkdir(parents=True)
    (study.runs[0].folder / "result.json").write_text(text)
    status = study_status(study)[0]
    assert status.state == "failed"
    assert sentence in status.reason


def test_time_left(study, behave):
    study.output.mkdir()
    assert seconds_left(study_status(study), 1) is None
    first, second = study.runs[:2]
    first.folder.mkdir()
    (first.folder / "result.json").write_text(json.dumps(RESULT | {"seconds": 100.0}))
    second.folder.mkdir()
    line = {"step": 50, "tokens": 1, "seconds": 40.0, "mlm_loss": 3.0}
    (second.folder / "metrics.jsonl").write_text(json.dumps(line) + "\n" + '{"step": 60, "tok')
    statuses = study_status(study)
    assert (statuses[1].state, statuses[1].progress, statuses[1].loss) == ("stopped", 0.5, 3.0)
    assert seconds_left(statuses, 1) == pytest.approx(40 + 90 + 90)
    assert seconds_left(statuses, 2) == pytest.approx(110)
    assert [duration(seconds) for seconds in (5, 600, 7500)] == ["5 s", "10 min", "2 h 05 min"]


def test_a_title_is_text(study, behave, capsys):
    titled = replace(study, title="A [bold]title[/x]")
    statuses = run_study(titled)
    print_status(titled, statuses, 1)
    assert "A [bold]title[/x]" in capsys.readouterr().out


def test_a_changed_study_is_told(finished_study, tmp_path):
    study, _ = finished_study
    fields = yaml.safe_load(study.path.read_text())
    fields["base"]["learning_rate"] = 5e-3
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(fields))
    changed = load_study(path)
    for ask in (run_study, check_unchanged, lambda _: collect([path])):
        with pytest.raises(EvergraftError) as refused:
            ask(changed)
        assert "has changed since" in str(refused.value)
        assert "learning_rate is 0.005, was 0.001; restore it" in str(refused.value)


def test_a_foreign_run_is_not_taken_over(finished_study, tmp_path):
    study, _ = finished_study
    fields = yaml.safe_load(study.path.read_text()) | {"output": str(tmp_path / "out")}
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(fields))
    copied = load_study(path)
    shutil.copytree(study.runs[0].folder, copied.runs[0].folder)
    with pytest.raises(EvergraftError, match="holds a run that this study did not begin"):
        run_study(copied)


@pytest.mark.parametrize(("asked", "refused"), [({}, False), ({"initialisation": "fan_in"}, True)], ids=str)
def test_a_study_that_an_earlier_version_began_goes_on(tmp_path, asked, refused):
    """Its file says nothing of a field that version had not, and the default has changed since."""
    fields = {"title": "A study", "base": {"model": "tiny", "steps": 100, **asked}, "grid": {}}
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(fields | {"output": str(tmp_path / "out")}))
    study = load_study(path)
    run = study.runs[0]
    run.folder.mkdir(parents=True)
    begun = yaml.safe_load(run.recipe.to_yaml())
    del begun["initialisation"], begun["encoder_rate"]
    for file in (run.folder / "recipe.yaml", run.recipe_file):
        file.write_text(yaml.safe_dump(begun))
    if refused:
        with pytest.raises(EvergraftError, match="initialisation is fan_in, was normal"):
            check_unchanged(study)
    else:
        check_unchanged(study)
