import re
from pathlib import Path

import pytest

from slowfast.report.published import METRICS, PublishedFigure, published_for, read_published

LABEL_DB = Path(__file__).resolve().parents[3] / "label_db"
B16 = "ViT-B/16"
KEYS = "name, source, backbone, protocol, cells"
PROTOCOLS = "zero_shot, few_shot, base_to_novel, fully_supervised, episodic"

ZERO_SHOT = {
    "Frozen CLIP": {"k600": (68.1, 1.1), "ucf101": (73.8, 0.6), "hmdb51": (47.9, 0.5)},
    "ViFi-CLIP": {"k600": (71.2, 1.0), "ucf101": (76.8, 0.7), "hmdb51": (51.3, 0.6)},
    "Open-VCLIP": {"k600": (73.0, 0.8), "ucf101": (83.4, 1.2), "hmdb51": (53.9, 1.2)},
    "FROSTER": {"k600": (74.8, 0.9), "ucf101": (84.8, 1.1), "hmdb51": (54.8, 1.3)},
    "OST": {"k600": (75.1, None), "ucf101": (79.7, None), "hmdb51": (55.9, None)},
    "TC-CLIP": {"k600": (75.8, 0.5), "ucf101": (82.9, 0.6), "hmdb51": (54.2, 0.7)},
    "TC-CLIP (LLM)": {"k600": (78.1, 1.0), "ucf101": (85.4, 0.8), "hmdb51": (56.0, 0.3)},
    "STDD": {"k600": (None, None), "ucf101": (None, None), "hmdb51": (None, None)},
}
ZERO_SHOT_FULL = {
    "Frozen CLIP": (74.2, 46.3),
    "Open-VCLIP": (83.5, 53.2),
    "FROSTER": (85.0, 54.5),
    "STDD": (None, None),
}
FEW_SHOT = {
    "ViFi-CLIP": {
        "ucf101": (80.7, 85.1, 90.0, 92.7),
        "hmdb51": (57.2, 62.7, 64.5, 66.8),
        "ssv2": (6.2, 7.4, 8.5, 12.4),
    },
    "ViFi-CLIP (VL prompting)": {
        "ucf101": (91.0, 93.7, 95.0, 96.4),
        "hmdb51": (63.0, 65.1, 69.6, 72.0),
        "ssv2": (6.7, 7.9, 10.2, 13.5),
    },
    "OST (from CLIP)": {
        "ucf101": (82.5, 87.5, 91.7, 93.9),
        "hmdb51": (59.1, 62.9, 64.9, 68.2),
        "ssv2": (7.0, 7.7, 8.9, 12.2),
    },
    "OST (from K400)": {
        "ucf101": (90.3, 92.6, 94.4, 96.2),
        "hmdb51": (64.8, 66.7, 69.2, 71.6),
        "ssv2": (8.0, 8.9, 10.5, 12.6),
    },
    "TC-CLIP": {
        "ucf101": (85.9, 89.9, 92.5, 94.6),
        "hmdb51": (57.3, 62.3, 67.3, 68.6),
        "ssv2": (7.3, 8.6, 9.3, 14.0),
    },
    "TC-CLIP (LLM)": {
        "ucf101": (86.8, 90.1, 92.0, 94.3),
        "hmdb51": (58.6, 63.3, 65.5, 68.8),
        "ssv2": (7.3, 8.6, 9.3, 14.0),
    },
    "TC-CLIP (P)": {
        "ucf101": (94.1, 95.6, 96.6, 97.3),
        "hmdb51": (65.3, 68.5, 71.4, 73.0),
        "ssv2": (8.7, 10.1, 12.1, 15.2),
    },
}
BASE_TO_NOVEL = {
    "Frozen CLIP": {
        "k400": (62.3, 53.4, 57.5),
        "ucf101": (78.5, 63.6, 70.3),
        "hmdb51": (53.3, 46.8, 49.8),
        "ssv2": (4.9, 5.3, 5.1),
    },
    "ViFi-CLIP": {
        "k400": (76.4, 61.1, 67.9),
        "ucf101": (92.9, 67.7, 78.3),
        "hmdb51": (73.8, 53.3, 61.9),
        "ssv2": (16.2, 12.1, 13.9),
    },
    "ViFi-CLIP (VL prompting)": {
        "ucf101": (95.9, 74.1, 83.6),
        "hmdb51": (77.1, 54.9, 64.1),
        "ssv2": (15.8, 11.5, 13.3),
    },
    "Open-VCLIP": {
        "k400": (76.5, 62.6, 68.9),
        "ucf101": (94.8, 77.5, 85.3),
        "hmdb51": (70.3, 50.4, 58.7),
        "ssv2": (16.0, 11.0, 13.0),
    },
    "FROSTER": {
        "k400": (77.8, 64.3, 70.4),
        "ucf101": (95.3, 80.0, 87.0),
        "hmdb51": (74.1, 58.0, 65.1),
        "ssv2": (18.3, 12.2, 14.6),
    },
    "TC-CLIP": {
        "k400": (78.9, 63.6, 70.4),
        "ucf101": (95.5, 78.0, 85.9),
        "hmdb51": (73.3, 54.1, 62.2),
        "ssv2": (17.5, 13.4, 15.2),
    },
    "TC-CLIP (LLM)": {
        "k400": (79.1, 65.4, 71.6),
        "ucf101": (95.4, 81.6, 88.0),
        "hmdb51": (73.3, 59.1, 65.5),
        "ssv2": (17.5, 13.4, 15.2),
    },
    "TC-CLIP (P)": {"ucf101": (97.5, 84.5, 90.5), "hmdb51": (79.4, 58.3, 67.2), "ssv2": (19.6, 15.6, 17.4)},
    "STDD": {"k400": (None,) * 3, "ucf101": (None,) * 3, "hmdb51": (None,) * 3, "ssv2": (None,) * 3},
}
FULLY_SUPERVISED = {
    "ViFi-CLIP": {"k400": (83.9, 96.3)},
    "ViFi-CLIP (image tower tuned)": {"k400": (82.8,)},
    "ViFi-CLIP (text tower tuned)": {"k400": (73.1,)},
    "TC-CLIP": {"k400": (85.2, 96.9)},
}
EPISODIC = {
    "CLIP-FSAR": {
        "hmdb51": {"shot1": 75.8, "shot5": 87.7},
        "ucf101": {"shot1": 96.6},
        "k400": {"kinetics100_shot1": 89.7},
        "ssv2": {"ssv2_small_shot1": 54.5, "ssv2_full_shot1": 61.9},
    },
    "CLIP-FSAR (dagger)": {
        "hmdb51": {"shot1": 77.1, "shot5": 87.7},
        "ucf101": {"shot1": 97.0},
        "k400": {"kinetics100_shot1": 94.8},
        "ssv2": {"ssv2_small_shot1": 54.6, "ssv2_small_shot5": 61.8, "ssv2_full_shot1": 62.1, "ssv2_full_shot5": 72.1},
    },
}


@pytest.fixture(scope="module")
def shipped():
    return read_published(LABEL_DB / "published.yaml")


def test_zero_shot(shipped):
    found = {entry.name: entry.cells for entry in published_for(shipped, "zero_shot", backbone=B16)}
    splits = {
        name: {dataset: (cell["split_mean"].mean, cell["split_mean"].std) for dataset, cell in cells.items()}
        for name, cells in found.items()
    }
    assert splits == ZERO_SHOT
    full = {
        name: tuple(cells[dataset]["full"].mean for dataset in ("ucf101", "hmdb51"))
        for name, cells in found.items()
        if "full" in cells["ucf101"]
    }
    assert full == ZERO_SHOT_FULL
    assert not any("full" in cells["k600"] for cells in found.values())


@pytest.mark.parametrize(
    ("protocol", "expected"),
    [("few_shot", FEW_SHOT), ("base_to_novel", BASE_TO_NOVEL), ("fully_supervised", FULLY_SUPERVISED)],
)
def test_other_protocols(shipped, protocol, expected):
    found = {
        entry.name: {
            dataset: tuple(cell[metric].mean for metric in METRICS[protocol] if metric in cell)
            for dataset, cell in entry.cells.items()
        }
        for entry in published_for(shipped, protocol, backbone=B16)
    }
    assert found == expected


def test_episodic(shipped):
    found = {
        entry.name: {
            dataset: {metric: figure.mean for metric, figure in cell.items()} for dataset, cell in entry.cells.items()
        }
        for entry in published_for(shipped, "episodic", backbone=B16)
    }
    assert found == EPISODIC
    assert not published_for(shipped, "episodic", backbone="RN50")  # nothing was found that could be quoted


def test_large_backbone_is_kept_apart(shipped):
    (entry,) = published_for(shipped, "zero_shot", backbone="ViT-L/14")
    assert entry.name == "Open-VCLIP++"
    assert entry.cells == {"k600": {"split_mean": PublishedFigure(mean=81.2)}}
    assert not published_for(shipped, "few_shot", backbone="ViT-L/14")


def test_nothing_is_said_of_stdd(shipped):
    entries = [entry for entry in shipped if entry.name == "STDD"]
    assert {entry.protocol for entry in entries} == {"zero_shot", "base_to_novel"}
    assert all("not available" in entry.note for entry in entries)
    figures = {figure for entry in entries for cell in entry.cells.values() for figure in cell.values()}
    assert figures == {PublishedFigure(mean=None)}


def test_shipped_file_is_consistent(shipped):
    for entry in shipped:
        assert all((LABEL_DB / dataset / "index2cls.json").is_file() for dataset in entry.cells)
        for cell in entry.cells.values() if entry.protocol == "base_to_novel" else ():
            base, novel, mean = (cell[metric].mean for metric in METRICS["base_to_novel"])
            assert base is None or abs(2 * base * novel / (base + novel) - mean) < 0.1


def test_unknown_protocol(shipped):
    with pytest.raises(ValueError, match=f"^protocol: unknown value 'one_shot'; allowed: {PROTOCOLS}$"):
        published_for(shipped, "one_shot", backbone=B16)


ENTRY = """
- name: A
  source: a paper
  backbone: ViT-B/16
  protocol: zero_shot
  cells:
    toys: {split_mean: [70, 1.5], full: null}
"""


def test_integers_deviations_and_nothing(tmp_path):
    (tmp_path / "p.yaml").write_text(ENTRY)
    (entry,) = read_published(tmp_path / "p.yaml")
    cell = {"split_mean": PublishedFigure(mean=70.0, std=1.5), "full": PublishedFigure(mean=None)}
    assert (entry.name, entry.source, entry.backbone, entry.protocol, entry.note) == (
        "A",
        "a paper",
        B16,
        "zero_shot",
        "",
    )
    assert entry.cells == {"toys": cell}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1", "holds dict; expected a list of entries"),
        ("- 1", f"entry 1: is int; expected {KEYS}"),
        (
            ENTRY + "  extra: 1\n",
            f"entry 1: unknown key 'extra'; allowed: {KEYS}, note",
        ),
        (ENTRY.replace("  source: a paper\n", ""), "entry 1: source: expected a text, found None"),
        (ENTRY + "  note: 3\n", "entry 1: note: expected a text, found 3"),
        (
            ENTRY.replace("zero_shot", "zero-shot"),
            f"entry 1: protocol: unknown value 'zero-shot'; allowed: {PROTOCOLS}",
        ),
        (
            ENTRY.replace("split_mean", "mean"),
            "entry 1 (A): cells: toys: unknown metric 'mean'; allowed: split_mean, full",
        ),
        (
            ENTRY.replace("{split_mean: [70, 1.5], full: null}", "70"),
            "entry 1 (A): cells: toys: expected names and their values, found 70",
        ),
        *(
            (
                ENTRY.replace("[70, 1.5]", value),
                f"entry 1 (A): cells: toys: split_mean: expected a percentage, [mean, std] or null, found {found}",
            )
            for value, found in [
                ("[70]", "[70]"),
                ("[70, 1, 2]", "[70, 1, 2]"),
                ("[70, null]", "[70, None]"),
                ("700", "700"),
                ("-1", "-1"),
                (".nan", "nan"),
                ("true", "True"),
                ("'70'", "'70'"),
            ]
        ),
        (ENTRY + ENTRY, "entry 2: 'A' has entry 1 for zero_shot"),
    ],
)
def test_wrong_files_are_refused_in_one_line(tmp_path, text, message):
    path = tmp_path / "p.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"^{re.escape(f'{path}: {message}')}$"):
        read_published(path)


def test_unreadable_files(tmp_path):
    path = tmp_path / "p.yaml"
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: cannot read the published figures"):
        read_published(path)
    path.write_text("- a: [1\n")
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: not readable as YAML .*$"):
        read_published(path)
