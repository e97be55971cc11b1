import base64
import hashlib
import json
import re

import numpy as np
import pytest

from slowfast.datasets.synthetic import write_video
from slowfast.report.html import build_page, run_names
from slowfast.report.html_config import hide
from slowfast.report.html_element import Markup, element, escape, shorten
from slowfast.report.html_frames import FrameAlbum, jpeg_uri, middle_frame
from slowfast.report.html_style import SCRIPT, STYLE, content_policy
from slowfast.report.run_folder import read_run

NASTY = [
    "<script>alert(1)</script>",
    "\"><img src=x onerror='alert(1)'>",
    "</title></svg></style><b>",
    "מחיאות כפיים",
    "\u202eevil\u202c & 'q' 舞\x00\x1b",
]

TAGS = {
    *("html", "head", "meta", "title", "style", "body", "script", "header", "main", "footer", "section", "nav", "a"),
    *(
        "h1",
        "h2",
        "h3",
        "h4",
        "p",
        "b",
        "strong",
        "div",
        "span",
        "bdi",
        "code",
        "ul",
        "ol",
        "li",
        "figure",
        "figcaption",
    ),
    *("table", "thead", "tbody", "tr", "th", "td", "details", "summary", "svg", "path", "line", "rect", "text", "g"),
}


@pytest.fixture
def page_of(read_page):
    def build(*folders, **options):
        text = build_page([read_run(folder) for folder in folders], **options)
        return read_page(text), text

    return build


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("videos") / "clip.mp4"
    frames = np.zeros((9, 48, 64, 3), np.uint8)
    frames[4] = 255
    write_video(path, frames, fps=8)
    return path


def test_text_is_escaped_and_markup_is_not():
    assert element("b", "<i> & \"'") == "<b>&lt;i&gt; &amp; &quot;&#39;</b>"
    marked = element("b", element("i", "x"), None, title='"', hidden=True, id=None)
    assert marked == '<b title="&quot;" hidden><i>x</i></b>'
    assert escape("a\x00b\udcffc") == "a\ufffdb\ufffdc"
    assert isinstance(escape("a"), Markup)
    assert shorten("abcdef", 4) == "abc\u2026"


def test_nothing_from_outside_and_no_script_but_ours(page_of, trained, tested):
    page, text = page_of(trained, tested)
    assert page.all("script") == [{}]
    assert page.all("link") == page.all("iframe") == page.all("base") == []
    for _, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        assert attributes.get("src", "data:").startswith("data:")
        assert attributes.get("href", "#").startswith(("#", "data:"))
    assert not re.search(r"url\(|@import|https?://", STYLE + SCRIPT)
    assert text.startswith("<!DOCTYPE html>")


def test_policy_allows_our_script_and_style_alone(page_of, trained):
    page, text = page_of(trained)
    (policy,) = [entry["content"] for entry in page.all("meta") if entry.get("http-equiv") == "Content-Security-Policy"]
    assert policy == content_policy()
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for tag in ("script", "style"):
        (content,) = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


def test_names_from_outside_stay_text(page_of, tested, split_files, results_of):
    split = {"top1_acc": 20.0, "num_videos": 20, "num_scored": 20}
    content = results_of(
        splits={NASTY[0]: split, "n": split},
        dataset=NASTY[1],
        protocol=NASTY[2],
        weights=NASTY[1],
        versions={NASTY[0]: NASTY[1]},
        missing=[NASTY[1]],
        num_scored=39,
    )
    (tested / "results.json").write_text(json.dumps(content))
    counts = (np.eye(5, dtype=int) * 2 + 1).tolist()
    names = [name.replace("\x00", "") for name in NASTY]  # csv refuses NUL on some versions of Python
    split_files(tested / "splits" / "n", names, counts, {(NASTY[0], NASTY[1]): [NASTY[1]]})
    (tested / "config.yaml").write_text(json.dumps({NASTY[0]: {"X": NASTY[1]}}))
    line = {"_type": "train_epoch", "epoch": "1/1", "loss": 1.0, NASTY[0]: 2.0, f"loss_{NASTY[2]}": 1.0}
    (tested / "json_stats.log").write_text(json.dumps(line))
    page, text = page_of(tested)
    assert page.all("script") == [{}]
    assert page.all("img") == []
    assert {tag for tag, _ in page.elements} <= TAGS
    for name in NASTY[:4]:
        assert name in "".join(page.text)
    assert "\x00" not in text
    assert "\x1b" not in text
    text.encode("utf-8")


def test_a_training_run_says_what_it_lacks(page_of, trained):
    page, _ = page_of(trained)
    assert "No accuracies" in page.words
    assert "Nothing on single classes" in page.words
    assert "training up to epoch 2, no test results yet" in page.words
    charts = {"Training loss, all terms", "Loss term: classification", "Learning rate", "Validation accuracy"}
    assert charts <= set(page.text)
    assert "54.50 in epoch 2" in page.words


def test_a_tested_run_says_what_it_lacks(page_of, tested):
    page, _ = page_of(tested)
    assert "No learning curves" in page.words
    assert "55.00 ± 5.00" in page.words
    assert "1 of 3 classes have no scored video" in page.words
    assert "Most confused pairs" in page.words


def test_runs_stand_side_by_side(page_of, trained, tested, tmp_path, results_of):
    other = tmp_path / "other"
    other.mkdir()
    splits = {"split1": {"top1_acc": 62.5}, "split2": {"top1_acc": 49.0}}
    (other / "results.json").write_text(json.dumps(results_of(splits=splits)))
    (other / "json_stats.log").write_text((trained / "json_stats.log").read_text())
    page, _ = page_of(tested, other, trained)
    assert "62.50 +2.50" in page.words
    assert "49.00 \u22121.00" in page.words
    assert "1 of 3 runs have no test results" in page.words
    assert "1 of 2 keys differ" in page.words
    legend = [attributes for attributes in page.all("ul") if attributes.get("class") == "legend"]
    assert len(legend) == 1


def test_table_with_published_rows(page_of, tmp_path):
    content = {
        "format": "slowfast-stdd/table/1",
        "protocol": "zero_shot",
        "name": "ours",
        "titles": {"hmdb51": "HMDB51"},
        "columns": {"split_mean": "splits"},
        "cells": {"hmdb51": {"split_mean": {"mean": 55.04, "std": 5.0, "values": [50.0, 60.0]}}},
        "published": [
            {"name": "Other", "source": "paper", "cells": {"hmdb51": {"full": {"mean": 44.0, "std": None}}}},
            {"name": "Unread", "source": "b", "cells": {"k600": {"split_mean": {"mean": None}}}},
        ],
    }
    (tmp_path / "results.json").write_text(json.dumps(content))
    page, _ = page_of(tmp_path)
    assert "55.0 ± 5.0" in page.words
    assert "44.0" in page.words
    assert "Unread" in page.words
    assert "k600" not in page.words
    assert page.words.index("HMDB51") < page.words.index("55.0")


def test_lost_videos_are_told_first(page_of, tested, results_of):
    lost = [f"/videos/{i}.mp4: the file is empty" for i in range(3)]
    content = results_of(num_scored=37, missing=lost, git_revision="0123abc-dirty")
    content["splits"]["split1"]["num_official"] = 25
    content["metrics"]["split2_trained_on"] = 7.0
    (tested / "results.json").write_text(json.dumps(content))
    page, _ = page_of(tested)
    coverage = "Coverage 92.50 %: 3 of 40 videos were not scored"
    assert page.words.index(coverage) < page.words.index("mean of classes")
    assert "/videos/2.mp4: the file is empty" in page.words
    assert "20 videos listed, 25 in the official list" in page.words
    assert "7 of its videos were trained on" in page.words
    assert "changes that no commit holds" in page.words


def test_secrets_are_hidden(page_of, trained):
    (trained / "config.yaml").write_text(
        "LLM: {API_KEY: abc123, NOTE: 'sk-abcdefghij12 and hf_ABCDEFGH12345', MAX_TOKENS: 5}\nURL: https://me:pw@host/x\n"
    )
    page, text = page_of(trained)
    for secret in ("abc123", "abcdefghij12", "ABCDEFGH12345", "me:pw"):
        assert secret not in text
    assert "sk-*** and hf_***" in page.words
    assert hide("5", key="LLM.MAX_TOKENS") == "5"
    assert hide('""', key="LLM.API_KEY") == '""'


def test_configuration_stands_beside_the_defaults(page_of, trained):
    page, _ = page_of(trained, defaults={"SOLVER.MAX_EPOCH": "30", "RNG_SEED": "0"})
    assert "1 of 2 keys differ from the defaults" in page.words
    assert "SOLVER.MAX_EPOCH 2 30" in " ".join(" ".join(page.text).split())


def test_frames_of_confused_videos(page_of, tested, split_files, video, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"nothing")
    videos = {("a", "b"): [str(broken), str(video)], ("b", "a"): ["/nowhere/x.mp4"], ("b", "b"): [str(video)]}
    split_files(tested / "splits" / "split1", ["a", "b"], [[4, 3], [1, 6]], videos)
    page, text = page_of(tested)
    pictures = page.all("img")
    assert [entry["src"][:23] for entry in pictures] == ["data:image/jpeg;base64,"] * len(pictures)
    assert {entry["alt"] for entry in pictures} == {"a, not recognised"}
    assert "no frame: no such file or directory" in page.words
    assert "Frames of videos in this page: 1, of at most 60; videos that gave none: 2." in page.words
    assert page_of(tested, max_frames=0)[0].all("img") == []
    assert "Most confused pairs" not in page_of(tested, max_pairs=0)[0].words
    assert len(text) < 200_000


def test_frames_are_limited(video, tmp_path):
    copies = [tmp_path / f"{number}.mp4" for number in range(3)]
    for path in copies:
        path.write_bytes(video.read_bytes())
    album = FrameAlbum(2)
    shown = [album.picture(str(path), alt="x") for path in [*copies, copies[0]]]
    assert [picture.startswith("<img") for picture in shown] == [True, True, False, True]
    assert "limited to 2 frames" in shown[2]
    assert "no frame" in album.picture("a\0b", alt="x") or "limited" in album.picture("a\0b", alt="x")
    assert FrameAlbum(1).picture("a\0b", alt="x").startswith("<div")


def test_the_frame_is_the_middle_one_and_made_small(video):
    assert middle_frame(video).mean() > 200
    large = jpeg_uri(np.zeros((1080, 1920, 3), np.uint8))
    data = base64.b64decode(large.split(",")[1])
    assert data.startswith(b"\xff\xd8")
    assert len(data) < 5000


def test_many_splits_have_one_open(page_of, tested, split_files, results_of):
    splits = {f"half{i}": {"top1_acc": 50.0} for i in range(5)}
    (tested / "results.json").write_text(json.dumps(results_of(splits=splits)))
    for name in splits:
        split_files(tested / "splits" / name, ["a", "b"], [[4, 3], [1, 6]], {})
    page, _ = page_of(tested)
    blocks = [entry for entry in page.all("details") if entry.get("class") == "split"]
    assert sum("open" in entry for entry in blocks) == 1
    assert len(blocks) == 6


def test_names_of_runs_are_the_shortest_that_differ(tmp_path):
    assert run_names([tmp_path / "a", tmp_path / "b"]) == ["a", "b"]
    assert run_names([tmp_path / "x" / "a", tmp_path / "y" / "a"]) == ["x/a", "y/a"]


def test_an_unfinished_table_is_told(page_of, tmp_path, tested):
    root = tmp_path / "table"
    (root / "jobs").mkdir(parents=True)
    tested.rename(root / "jobs" / "hmdb51")
    page, _ = page_of(root)
    assert "table: the table is not finished" in page.words
    assert "1 jobs, 2 tested split(s)" in page.words
