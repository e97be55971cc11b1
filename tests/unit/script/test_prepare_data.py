"""The command that prepares a dataset, run as a user runs it."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from slowfast.datasets.label_set import class_key
from slowfast.datasets.prepared import read_manifest

TOOL = Path(__file__).resolve().parents[3] / "tools" / "prepare_data.py"


@pytest.fixture
def run(tmp_path):
    def call(*arguments):
        return subprocess.run(
            [sys.executable, str(TOOL), *map(str, arguments)], capture_output=True, text=True, check=False, cwd=tmp_path
        )

    return call


@pytest.mark.parametrize("name", ["ucf101", "hmdb51", "k400", "k600", "ssv2"])
def test_miniatures(miniature, run, tmp_path, name):
    made = miniature(name)
    done = run(*made.arguments, "--output", tmp_path / "db")
    assert (done.returncode, done.stderr) == (0, "")
    dataset = read_manifest(tmp_path / "db", name)
    names = {
        title: {str(label): cls for label, cls in enumerate(dataset.label_set(title).names)} for title in dataset.lists
    }
    for title, entry in dataset.lists.items():
        assert entry.missing == 0
        assert any(line.split()[:2] == [title, str(entry.rows)] for line in done.stdout.splitlines())
        for row in dataset.csv(title).read_text(encoding="utf-8").splitlines():
            path, _, label = row.rpartition(",")
            assert (Path(dataset.root) / path).is_file()
            if not title.startswith("base_to_novel"):  # some of its names are spelled otherwise
                assert class_key(made.videos[path]) == class_key(names[title][label])
    absent = "not made: episodic/ssv2_full/val, episodic/ssv2_small/val; a checkout of CLIP-FSAR has them: --from-repo"
    assert (absent in done.stdout) == (name == "ssv2")
    assert "tools/run_protocol.py --cfg configs/" in done.stdout
    config = next(word for word in done.stdout.split() if word.startswith("configs/"))
    assert (TOOL.parents[1] / config).is_file()


def test_folder(miniature, run, tmp_path):
    done = run("folder", "--root", miniature("folder").root, "--name", "mine", "--output", tmp_path / "db")
    assert (done.returncode, done.stderr) == (0, "")
    dataset = read_manifest(tmp_path / "db", "mine")
    assert {name: entry.rows for name, entry in dataset.lists.items()} == {
        "full/train": 21,
        "full/val": 3,
        "full/test": 6,
    }


def test_subsets_and_all_classes(miniature, run, tmp_path):
    done = run(
        *miniature("k600").arguments, "--subset", "val", "--subset", "test", "--full", "--output", tmp_path / "db"
    )
    assert done.returncode == 0, done.stderr
    lists = read_manifest(tmp_path / "db", "k600").lists
    assert lists["zero_shot_split1/test"].rows == 9
    assert (lists["full/val"].rows, lists["full/test"].rows) == (12, 6)


def test_lists_of_a_checkout(miniature, run, tmp_path):
    made = miniature("hmdb51")
    train = [path for path in made.videos if "April_09" in path]
    names = list(json.loads((TOOL.parents[1] / "label_db/hmdb51/index2cls.json").read_text()).values())
    checkout = tmp_path / "checkout"
    (checkout / "datasets_splits/hmdb_splits").mkdir(parents=True)
    (checkout / "labels").mkdir()
    rows = "".join(f"{Path(path).name} {names.index(made.videos[path])}\n" for path in train)
    (checkout / "datasets_splits/hmdb_splits/train1_few_shot_2.txt").write_text(rows)
    labels = "".join(f"{label},{name}\n" for label, name in enumerate(names))
    (checkout / "labels/hmdb_51_labels.csv").write_text(f"id,name\n{labels}")
    alone = ["hmdb51", "--root", made.root, "--from-repo", checkout, "--output", tmp_path / "db"]
    refused = run(*alone)
    assert refused.returncode == 1
    assert "list few_shot/2/train" in refused.stderr
    assert run(*alone, "--any-counts").returncode == 0
    dataset = read_manifest(tmp_path / "db", "hmdb51")
    assert list(dataset.lists) == ["few_shot/2/train"]
    drawn = dataset.csv("few_shot/2/train").read_text()
    assert [row.rpartition(",")[0] for row in drawn.splitlines()] == train
    assert run(*made.arguments, "--from-repo", checkout, "--output", tmp_path / "db").returncode == 0
    dataset = read_manifest(tmp_path / "db", "hmdb51")
    assert dataset.csv("few_shot/2/train").read_text() == drawn
    assert dataset.lists["few_shot/4/train"].origin.startswith("4 per class of")


def test_a_failure_is_one_line_and_status_1(miniature, run, tmp_path):
    made = miniature("ucf101")
    done = run("ucf101", "--root", made.root, "--annotations", made.annotations, "--output", tmp_path / "db")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
    assert "--any-counts accepts it" in done.stderr
    assert not (tmp_path / "db").exists()


def test_missing_videos(miniature, run, tmp_path):
    made = miniature("k600")
    absent = next(path for path in made.videos if path.startswith("val/") and "abseiling" not in path)
    for path in made.videos:
        (tmp_path / "videos" / path).parent.mkdir(parents=True, exist_ok=True)
        if path != absent:
            (tmp_path / "videos" / path).symlink_to(made.root / path)
    arguments = [*made.arguments, "--root", tmp_path / "videos", "--output", tmp_path / "db"]
    done = run(*arguments)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert absent.split("/")[-1].removesuffix(".mp4") in (tmp_path / "db/k600/splits/missing.txt").read_text()
    for policy, rows in (("keep", 6), ("drop", 5)):
        assert run(*arguments, "--missing", policy).returncode == 0
        lists = read_manifest(tmp_path / "db", "k600").lists
        assert sum(entry.missing for entry in lists.values()) > 0
        assert min(entry.rows for entry in lists.values()) == rows


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["kinetics700", "--root", "."],
        ["ucf101", "--root", "."],
        ["ucf101", "--root", ".", "--annotations", ".", "--subset", "val"],
        ["ssv2", "--root", ".", "--annotations", ".", "--subset", "test"],
        ["folder", "--root", ".", "--name", "ucf101"],
        ["folder", "--root", ".", "--name", "../x"],
        ["folder", "--root", "."],
        ["k400", "--root", ".", "--annotations", ".", "--missing", "ignore"],
        ["k400", "--root", ".", "--annotations", ".", "--workers", "0"],
    ],
)
def test_mistakes_in_the_command_line_end_with_2(run, arguments):
    done = run(*arguments)
    assert done.returncode == 2
    assert "usage:" in done.stderr


def test_help_needs_no_torch(run):
    assert "folder --root" in run("--help").stdout
    code = (
        "import runpy, sys\n"
        f"sys.argv = [{str(TOOL)!r}, 'k600', '--help']\n"
        "try:\n    runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit:\n    print(sorted({'torch', 'numpy', 'av'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.rstrip().endswith("[]")


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt(), 130), (OSError(28, "No space left", "x.csv"), 1)])
def test_how_it_ends(monkeypatch, capsys, error, status):
    spec = importlib.util.spec_from_file_location("prepare_data_tool", TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)

    def fail(args):
        raise error

    monkeypatch.setattr(tool, "run", fail)
    assert tool.main(["folder", "--root", ".", "--name", "mine"]) == status
    assert capsys.readouterr().err == ("error: x.csv: No space left\n" if status == 1 else "")
