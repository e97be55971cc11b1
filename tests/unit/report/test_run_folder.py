import json

import pytest

from slowfast.report.run_folder import flatten, parse_table, read_run
from slowfast.report.run_tables import ANY, find_videos


def test_a_training_run_has_curves_and_no_results(trained):
    run = read_run(trained)
    assert run.curves["loss"] == ((1.0, 2.5), (2.0, 1.5))
    assert run.curves["val_top1"] == ((1.0, 40.0), (2.0, 54.5))
    assert run.curves["train_top1"] == ((1.0, 30.0), (2.0, 50.0))
    assert set(run.curves) == {"loss", "loss_classification", "lr", "val_top1", "train_top1"}
    assert run.config == {"SOLVER.MAX_EPOCH": "2", "RNG_SEED": "0"}
    assert (run.evaluations, run.table, run.jobs, run.damages) == ((), None, (), ())


def test_a_repeated_epoch_replaces_what_was_there(trained):
    log = trained / "json_stats.log"
    log.write_text(log.read_text() + 'json_stats: {"_type": "train_epoch", "epoch": "1/9", "loss": 7.0, "lr": null}\n')
    run = read_run(trained)
    assert run.curves["loss"] == ((1.0, 7.0),)
    assert "lr" not in run.curves
    assert "not finite were left out of lr" in run.damages[0]


def test_a_line_that_is_being_written_is_left_out_and_told(trained):
    log = trained / "json_stats.log"
    log.write_text(log.read_text() + 'json_stats: {"_type": "train_ep')
    run = read_run(trained)
    assert len(run.curves["loss"]) == 2
    assert "1 line(s) are not JSON" in run.damages[0]


def test_results_of_format_2(tested):
    (evaluation,) = read_run(tested).evaluations
    first, second = evaluation.splits
    assert (evaluation.dataset, evaluation.protocol, evaluation.facts["git_revision"]) == (
        "hmdb51",
        "zero_shot",
        "0123abc",
    )
    assert (first.name, first.metrics["top1_acc"], first.num_videos, first.num_official) == ("split1", 60.0, 20, None)
    assert [score.name for score in first.classes] == ["clap", "wave", "sit"]
    assert (first.classes[0].videos, first.classes[0].top1, first.classes[0].confused_with) == (7, 57.14, "wave")
    assert first.classes[2].top1 is None
    assert first.confusion.counts.tolist() == [[4, 3, 0], [1, 6, 0], [0, 0, 0]]
    assert first.confusion.errors(9) == [(0, 1), (1, 0)]
    assert (second.classes, second.confusion, second.predictions) == ((), None, None)


def test_results_of_format_1_are_one_split(tmp_path, results_of):
    content = results_of(format="slowfast-stdd/results/1", split="test", metrics={"top1_acc": 42.9, "top5_acc": 97.6})
    del content["splits"]
    del content["dataset"]
    (tmp_path / "results_3views.json").write_text(json.dumps(content))
    (evaluation,) = read_run(tmp_path).evaluations
    assert evaluation.variant == "3views"
    (split,) = evaluation.splits
    assert (split.name, split.num_videos, split.metrics) == ("test", 40, {"top1_acc": 42.9, "top5_acc": 97.6})


def test_results_of_other_weights_are_left_out(tmp_path, results_of):
    """What an earlier test left behind is no variant of the later one."""
    for name, weights in (("results", "a"), ("results_clip0.3", "a"), ("results_clip0.5", "b")):
        (tmp_path / f"{name}.json").write_text(json.dumps({**results_of(), "weights_sha256": weights}))
    run = read_run(tmp_path)
    assert [evaluation.variant for evaluation in run.evaluations] == ["", "clip0.3"]
    (line,) = [line for line in run.damages if "other weights" in line]
    assert line.startswith(f"{tmp_path / 'results_clip0.5.json'}: is of other weights than results.json")


def test_damaged_files_are_told_by_name(tested):
    (tested / "results_x.json").write_text("[1, 2")
    (tested / "config.yaml").write_text("a: [")
    folder = tested / "splits" / "split1"
    (folder / "per_class.csv").write_text("class,videos\nclap,many\n")
    (folder / "confusion.csv").write_text("class,clap\nwave,1\n")
    run = read_run(tested)
    for name in (
        "results_x.json: not JSON",
        "config.yaml: not YAML",
        "per_class.csv: not a table",
        "confusion.csv: not",
    ):
        assert sum(name in line for line in run.damages) == 1, name
    assert all("\n" not in line for line in run.damages)
    assert run.evaluations[0].splits[0].classes == ()


@pytest.mark.parametrize("text", ["", "class\n", "class,a\na,-1\n", "class,a,b\na,1\nb,1,2\n", "class,a\na,x\n"])
def test_a_broken_confusion_matrix_is_no_matrix(tested, text):
    (tested / "splits" / "split1" / "confusion.csv").write_text(text)
    run = read_run(tested)
    assert run.evaluations[0].splits[0].confusion is None
    assert any("confusion.csv" in line for line in run.damages)


def test_an_unknown_format_is_read_and_told(tested, results_of):
    (tested / "results.json").write_text(json.dumps(results_of(format="other/7")))
    run = read_run(tested)
    assert len(run.evaluations[0].splits) == 2
    assert "format is 'other/7'" in run.damages[0]


def test_a_split_outside_the_folder_is_not_read(tested, results_of, split_files):
    split_files(tested / "elsewhere", ["a"], [[1]], {})
    (tested / "results.json").write_text(json.dumps(results_of(splits={"../elsewhere": {"top1_acc": 1.0}})))
    (split, _) = read_run(tested).evaluations[0].splits
    assert (split.name, split.classes, split.confusion) == ("../elsewhere", (), None)


def test_a_table_and_its_jobs(tmp_path, tested):
    cells = {"hmdb51": {"split_mean": {"mean": 55.0, "std": 5.0, "values": [50.0, 60.0]}, "full": {"mean": None}}}
    content = {"format": "slowfast-stdd/table/1", "protocol": "zero_shot", "name": "ours", "cells": cells,
               "titles": {"hmdb51": "HMDB51"},
               "published": [{"name": "P", "source": "S", "note": None, "cells": {}}]}  # fmt: skip
    root = tmp_path / "table"
    (root / "jobs").mkdir(parents=True)
    (root / "results.json").write_text(json.dumps(content))
    tested.rename(root / "jobs" / "hmdb51")
    (root / "jobs" / "empty").mkdir()
    run = read_run(root)
    assert [job.folder.name for job in run.jobs] == ["hmdb51"]
    assert run.table.ours.cells["hmdb51"]["split_mean"].values == (50.0, 60.0)
    assert run.table.ours.cells["hmdb51"]["full"].mean is None
    assert (run.table.published[0].source, run.table.published[0].note) == ("S", "")
    assert [part.folder.name for part in run.members()] == ["table", "hmdb51"]
    assert "empty: not the folder of a run" in run.damages[0]


def test_a_table_of_nonsense_is_empty():
    table = parse_table({"cells": [1], "published": {"a": 1}, "name": None})
    assert (table.ours.name, table.ours.cells, table.published) == ("", {}, ())


def test_no_run_folder_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    for path, reason in (("absent", "no such folder"), ("file", "not a folder"), (".", "not the folder of a run")):
        with pytest.raises(ValueError, match=reason) as caught:
            read_run(tmp_path / path)
        assert "\n" not in str(caught.value)


def test_flatten_keeps_empty_values():
    assert flatten({"A": {"B": "", "C": {}}, "D": [1, 2], "E": None}) == {
        "A.B": '""', "A.C": "{}", "D": "[1, 2]", "E": "null"
    }  # fmt: skip


def test_videos_of_pairs_are_found_up_to_the_damage(tested):
    path = tested / "splits" / "split1" / "predictions.csv"
    with path.open("ab") as file:
        file.write(b"/nowhere/\xff.mp4,clap,wave,0\n/nowhere/3.mp4,clap,wave,0\n/x,clap\n")
    found = find_videos(path, {("clap", "wave"), ("clap", ANY), ("sit", "clap")}, limit=2)
    assert found["clap", "wave"] == ["/nowhere/clap_1.mp4", "/nowhere/\udcff.mp4"]
    assert found["clap", ANY][0] == "/nowhere/clap_1.mp4"
    assert found["sit", "clap"] == []
