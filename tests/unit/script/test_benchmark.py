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
