"""The numbers of each lab stay what they were, unless its version says otherwise."""

import dataclasses
import json

import pytest

from sims.engine import get_lab, lab_ids
from tests import golden

LAB = get_lab("label_noise")


@pytest.mark.parametrize("lab_id", lab_ids())
def test_numbers_stay_while_the_version_does(lab_id, record_property):
    lab = get_lab(lab_id)
    recorded = golden.read(lab)
    assert recorded.get("version") == lab.version, f"run: python -m tests.golden {lab_id}"
    assert len(recorded["runs"]) >= 3
    checked = golden.check(lab, recorded)
    record_property("grade", checked[0].grade)
    print(f"{lab_id}: " + {"A": "bits compared", "B": "another machine: numbers compared"}[checked[0].grade])
    for one in checked:
        assert one.agrees, f"numbers moved; raise the version of {lab_id}. {one.params}: {one.difference}"


@pytest.fixture
def recorded(tmp_path):
    path = tmp_path / "golden.json"
    path.write_text(json.dumps({"runs": [{"params": {"steps": 40, "replicates": 2}}]}))
    assert golden.regenerate(LAB, path)
    return path


def moved(path, factor):
    content = json.loads(path.read_text())
    ends = content["runs"][0]["numbers"]
    ends["test_error"] = [value * factor for value in ends["test_error"]]
    content["runs"][0]["trace_sha256"] = "0" * 64
    return content


def test_nothing_is_written_where_nothing_moved(recorded):
    before = recorded.read_text()
    assert not golden.regenerate(LAB, recorded) and recorded.read_text() == before


def test_moved_numbers_are_refused_until_the_version_is_raised(recorded):
    recorded.write_text(json.dumps(moved(recorded, 1.01)))
    with pytest.raises(golden.VersionNotRaised, match="test_error"):
        golden.regenerate(LAB, recorded)
    raised = dataclasses.replace(LAB, version=LAB.version + 1)
    assert golden.regenerate(raised, recorded)
    assert golden.read(LAB, recorded)["version"] == LAB.version + 1
    assert all(one.agrees for one in golden.check(LAB, golden.read(LAB, recorded)))


def test_a_run_without_numbers_is_added_to_the_same_version(recorded):
    content = json.loads(recorded.read_text())
    content["runs"].append({"params": {"steps": 30}})
    recorded.write_text(json.dumps(content))
    assert golden.regenerate(LAB, recorded) and len(golden.read(LAB, recorded)["runs"]) == 2


def test_another_machine_is_held_to_the_tolerance(recorded):
    within, beyond = (moved(recorded, 1 + factor * LAB.grade_b.relative) for factor in (0.1, 10.0))
    for content, agrees in ((within, True), (beyond, False)):
        elsewhere = {**content, "fingerprint": {**content["fingerprint"], "cpu": "another"}}
        assert [(one.grade, one.agrees) for one in golden.check(LAB, elsewhere)] == [("B", agrees)]
        assert [(one.grade, one.agrees) for one in golden.check(LAB, content)] == [("A", False)], "bits moved"


def test_infinite_and_missing_numbers_are_compared_too():
    old = {"numbers": {"x": [None, 1.0]}}
    assert golden._worst(LAB, old, {"numbers": {"x": [None, 1.0]}}) == ""
    assert golden._worst(LAB, old, {"numbers": {"x": [0.0, 1.0]}}) != ""
    assert golden._worst(LAB, old, {"numbers": {"x": [None]}}) != ""
    assert golden._worst(LAB, old, {"numbers": {"y": [None, 1.0]}}) != ""
