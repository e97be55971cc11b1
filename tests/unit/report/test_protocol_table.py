import json

import pytest

from slowfast.protocols.base import Figure
from slowfast.report.protocol_table import JobRecord, ProtocolTable, refuse_other_table
from slowfast.report.published import PublishedEntry, PublishedFigure
from slowfast.report.run_folder import parse_table

ENTRY = PublishedEntry(
    name="CLIP & co_1",
    source="a README",
    backbone="ViT-B/16",
    protocol="zero_shot",
    cells={"ucf101": {"split_mean": PublishedFigure(mean=73.8, std=0.6)}, "k600": {}},
    note="32 frames",
)
UNKNOWN = PublishedEntry(
    name="STDD",
    source="not available",
    backbone="ViT-B/16",
    protocol="zero_shot",
    cells={"ucf101": {"split_mean": PublishedFigure(mean=None)}},
)


def table(**changes):
    values = {
        "protocol": "zero_shot",
        "name": "ours",
        "titles": {"ucf101": "UCF101", "hmdb51": "HMDB51", "k600": "K600"},
        "columns": {"full": "all", "split_mean": "3 splits", "half_mean": "10 halves"},
        "cells": {
            "ucf101": {"full": Figure(mean=84.96, values=(84.96,)), "split_mean": Figure(mean=1.0, std=0.25)},
            "k600": {"split_mean": Figure(mean=70.0, std=0.0)},
        },
        "published": [ENTRY, UNKNOWN],
        "jobs": [
            JobRecord(name="ucf101", dataset="ucf101", folder="jobs/ucf101", coverage=99.5),
            JobRecord(
                name="k600",
                dataset="k600",
                folder="jobs/k600",
                coverage=100.0,
                unlike_official={"split1": (90, 100), "split2": (80, 100)},
            ),
            JobRecord(name="hmdb51", dataset="hmdb51", folder="jobs/hmdb51"),
        ],
    }
    return ProtocolTable(**{**values, **changes})


def test_columns_that_nothing_fills_are_left_out():
    assert table().used_columns() == [("ucf101", "full"), ("ucf101", "split_mean"), ("k600", "split_mean")]
    assert table(cells={}).used_columns() == [("ucf101", "split_mean")]


def test_ours_comes_first_and_an_unknown_figure_stays_empty():
    assert table().rows() == [
        ("ours", ["85.0", "1.0 ± 0.2", "70.0 ± 0.0"]),
        ("CLIP & co_1", ["-", "73.8 ± 0.6", "-"]),
        ("STDD", ["-", "-", "-"]),
    ]


def test_other_shares_of_raw_clip_are_rows_of_ours(tmp_path):
    mixed = table(variants={"ours, 0.3 of raw CLIP": {"ucf101": {"half_mean": Figure(mean=2.0)}}})
    assert mixed.used_columns()[2] == ("ucf101", "half_mean")
    assert [name for name, _ in mixed.rows()] == ["ours", "ours, 0.3 of raw CLIP", "CLIP & co_1", "STDD"]
    assert "**ours, 0.3 of raw CLIP** (ours)" in mixed.markdown()
    content = json.loads(mixed.write(tmp_path).read_text(encoding="utf-8"))
    (row,) = parse_table(content).variants
    assert (row.name, row.cells["ucf101"]["half_mean"].mean) == ("ours, 0.3 of raw CLIP", 2.0)


def test_markdown_names_sources_and_what_was_not_scored():
    lines = table().markdown().splitlines()
    assert lines[0].split("|")[1].strip() == "accuracy, %"
    assert "**ours** (ours)" in lines[2]
    assert "- CLIP & co_1: a README (32 frames)" in lines
    assert "- ucf101: only 99.50 % of the listed videos were scored" in lines
    assert not any("k600: only" in line for line in lines)
    assert "- k600: split1 lists 90 of 100, split2 lists 80 of 100 official videos" in lines
    assert sum("official videos" in line for line in lines) == 1


def test_latex_is_escaped():
    lines = table().latex().splitlines()
    assert lines[0] == "% method & UCF101 all & UCF101 3 splits & K600 3 splits"
    assert lines[1] == r"ours & 85.0 & 1.0 $\pm$ 0.2 & 70.0 $\pm$ 0.0 \\"
    assert lines[2] == r"CLIP \& co\_1 & -- & 73.8 $\pm$ 0.6 & -- \\"


def test_files(tmp_path):
    path = table().write(tmp_path / "new")
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["format"] == "slowfast-stdd/table/1"
    assert content["cells"]["ucf101"]["split_mean"] == {"mean": 1.0, "std": 0.25, "values": []}
    assert content["published"][1]["cells"]["ucf101"]["split_mean"] == {"mean": None, "std": None}
    assert content["jobs"][2]["coverage"] is None
    assert [job["unlike_official"] for job in content["jobs"]] == [{}, {"split1": [90, 100], "split2": [80, 100]}, {}]
    assert sorted(file.name for file in path.parent.iterdir()) == ["results.json", "table.md", "table.tex"]


def test_a_table_replaces_only_its_own_kind(tmp_path):
    path = table().write(tmp_path)
    refuse_other_table(path, "zero_shot")
    refuse_other_table(tmp_path / "absent.json", "few_shot")
    with pytest.raises(ValueError, match=r"results\.json: is zero_shot, which a table of few_shot would replace"):
        refuse_other_table(path, "few_shot")
    path.write_text('{"format": "slowfast-stdd/results/2", "protocol": "few_shot"}')
    with pytest.raises(ValueError, match=r"is a result of format slowfast-stdd/results/2, which"):
        refuse_other_table(path, "few_shot")
    path.write_text("[")
    with pytest.raises(ValueError, match=r"results\.json: is not a table, which"):
        refuse_other_table(path, "few_shot")
