"""The command that writes a page about runs, called as a user calls it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parents[3] / "tools" / "report.py"


@pytest.fixture
def run(tmp_path):
    def call(*arguments):
        command = [sys.executable, str(TOOL), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)

    return call


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "run"
    path.mkdir()
    (path / "config.yaml").write_text("SOLVER: {MAX_EPOCH: 2}\n")
    line = {"_type": "train_epoch", "epoch": "1/2", "loss": 2.5, "lr": 0.001}
    (path / "json_stats.log").write_text(f"json_stats: {json.dumps(line)}\n")
    return path


def test_page_is_written(run, folder, tmp_path):
    done = run(folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("wrote report.html, 0.")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "keys differ from the defaults" in page
    assert page == _again(run, folder, tmp_path)


def _again(run, folder, tmp_path):
    assert run(folder, "--output", "new/again.html").returncode == 0
    return (tmp_path / "new" / "again.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["absent"], 1, "error: absent: no such folder; expected an OUTPUT_DIR\n"),
        (["."], 1, "error: .: not the folder of a run"),
        (["run", "./run"], 1, "error: run: given twice\n"),
        (["run", "--output", "dir.html"], 1, "error: --output dir.html: is a folder"),
        (["run", "--output", "run/config.yaml"], 2, "expected a file that ends in .html"),
        (["run", "--pairs", "-1"], 2, "--pairs"),
        ([], 2, "OUTPUT_DIR"),
    ],
)
def test_mistakes_are_one_line(run, folder, tmp_path, arguments, status, message):
    (tmp_path / "dir.html").mkdir()
    done = run(*arguments)
    assert done.returncode == status
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert status == 2 or done.stderr.count("\n") == 1
    assert not (tmp_path / "report.html").exists()
