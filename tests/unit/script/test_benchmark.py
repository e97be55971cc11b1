"""The command that measures, run as a user runs it; what it measures is not looked at."""

import subprocess
import sys
from pathlib import Path

import numpy as np

from slowfast.datasets.synthetic import write_video

TOOL = Path(__file__).resolve().parents[3] / "tools" / "benchmark.py"


def run(*arguments):
    return subprocess.run(
        [sys.executable, str(TOOL), *map(str, arguments)], capture_output=True, text=True, check=False
    )


def test_scoring_beside_decoding(tmp_path):
    for name in ("a.avi", "b.mp4"):
        write_video(tmp_path / name, np.zeros((12, 48, 64, 3), np.uint8), fps=12)
    options = ["--seconds", 0.3, "--classes", 3, "--prompts", 2, 4, "--width", 8, "--threads", 1, "--repeat", 1]
    done = run("scoring", *options, "--videos", tmp_path)
    assert done.returncode == 0, done.stderr
    rows = [[cell.strip() for cell in line.split("|")[1:4]] for line in done.stdout.splitlines() if " x 8 " in line]
    rendered, own = "0.3 s, 340 x 256, rendered, mp4", f"2 of {tmp_path.name}"
    assert rows == [[name, f"3 x {prompts} x 8", "1"] for prompts in (2, 4) for name in (rendered, own)]


def test_videos_that_are_not_there():
    done = run("scoring", "--seconds", 0.1, "--videos", "absent")
    assert done.returncode == 1
    assert done.stderr == "error: absent: no such video or folder\n"


def test_reading(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a.avi", "b.mp4"):
        write_video(tmp_path / name, rng.integers(0, 256, (40, 48, 64, 3), dtype=np.uint8), fps=12)
    (tmp_path / "c.mp4").write_bytes(b"not a video")
    options = ["--repeat", 1, "--transcode", 1, "--workers", 3, "--gpu-clips-per-second", 1e6, "--each"]
    done = run("data", "--path", tmp_path, *options)
    assert done.returncode == 0, done.stderr
    assert f"left out: {tmp_path / 'c.mp4'}: " in done.stdout
    assert "3 videos found, 2 measured" in done.stdout
    assert "those of the published way, to the bit, in all 2 videos." in done.stdout
    rows = [line.split("|")[1].strip() for line in done.stdout.splitlines() if line.startswith("| ")]
    assert {"pyav", "kept frames (DATA.CACHE_DIR)", "a.avi", "b.mp4"} <= set(rows)
    assert "with 3, reading limits training" in done.stdout
    assert "1 on trial" in done.stdout


def test_reading_without_videos(tmp_path):
    done = run("data", "--path", tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {tmp_path}: holds no video")


def test_block():
    done = run("block", "--arch", "tiny", "--frames", 3, "--batch", 2, "--repeat", 1, "--eager")
    assert done.returncode == 0, done.stderr
    rows = [line.split("|")[1].strip() for line in done.stdout.splitlines() if line[:2] == "| " and "---" not in line]
    assert rows == 2 * ["", "published-style", "plain CLIP", "STDD, own", "STDD, shared"]
    assert "One block: tiny, 3 frames, batch 2, fp32, scales [1, 2]" in done.stdout


def test_step(tmp_path):
    profile = tmp_path / "profile.txt"
    options = ["--arch", "tiny", "--frames", 4, "--batch", 2, "--classes", 5, "--repeat", 1, "--steps", 2]
    done = run("step", *options, "--ways", "published-style", "ours", "--profile", profile)
    assert done.returncode == 0, done.stderr
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines() if line[:1] == "|"]
    assert [line[0] for line in lines[2:]] == ["published-style", "ours"]
    assert lines[2][2] == "1.00x"
    assert "tiny, 4 frames, batch 2, fp32" in done.stdout
    losses = [line for line in done.stderr.splitlines() if line.startswith("Loss of the first step")]
    assert float(losses[0].rpartition(" ")[2]) < 1e-4
    text = profile.read_text(encoding="utf-8")
    assert text.index("published-style") < text.index(": ours\n")


def test_step_on_a_gpu_that_is_not_there(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    done = run("step", "--device", "cuda", "--sweep")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "error: --device: this machine has no GPU that PyTorch can use"


def test_ost():
    sizes = ["--frames", 2, "--videos", 1, "--batch", 3, "--classes", 3, "--layers", 1, "--arch", "vitb32"]
    done = run("ost", *sizes, "--repeat", 1, "--timed")
    assert done.returncode == 0, done.stderr
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines() if line[:2] == "| "]
    names = [row[:2] for row in rows if "---" not in row[0]]
    for what in ("2 x 3 x 3 plans", "2 x 1 x 400 plans"):
        assert [way for name, way in names if name == what] == ["plain", "ours, each", "ours, batch"]
    assert [row[1] for row in rows if row[0] == "ucf101"] == ["24"]
    for what in ("hmdb51", "k400"):
        assert [way for name, way in names if name == what] == ["24", "plain", "each class once", "and trimmed"]
    assert [way for name, way in names if name == "3 videos, 2 frames"] == ["plain", "ours"]
    losses = done.stdout.partition("Losses of a step: ")[2].splitlines()[0].split(", ")
    assert losses[0] == losses[1]


def test_episodes():
    small = ("--queries", 2, "--way", 3, "--frames", 4, 2, "--episodes", 1, "--videos", 6, "--repeat", 1)
    done = run("episodes", *small)
    assert done.returncode == 0, done.stderr
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines() if line[:2] == "| "]
    names = [row[:2] for row in rows if "---" not in row[0]]
    for what in ("2 x 3 x 4 x 4", "2 x 3 x 2 x 2"):
        ways = [way for name, way in names if name == what]
        assert ways == ["cell by cell", "ours", "ours, both ways in one call"]
    assert all(float(figure) < 1e-5 for row in rows if row[1].startswith("ours") for figure in row[4:])
    assert [row[1:4] for row in rows if "10,000" in row[0]] == [["480000", "19200", "25x"], ["1440000", "19200", "75x"]]
    once = [row for row in rows if row[1] == "every video once"]
    assert len(once) == 2
    assert all(float(row[4]) < 1e-5 for row in once)
