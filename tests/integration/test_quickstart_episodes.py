"""The quickstart's episodes, much reduced: the commands that it prints, the files that it leaves."""

import json
import sys

import pytest


@pytest.fixture
def quickstart(monkeypatch, repository):
    monkeypatch.syspath_prepend(str(repository / "tools"))
    import quickstart
    import quickstart_episodes as episodes

    fsar = episodes.Encoder(
        config=episodes.ENCODERS["CLIP-FSAR"].config,
        heads=("own",),
        options={"EPISODES.NUM_TRAIN": "4", "SOLVER.MAX_EPOCH": "1", "DATA_LOADER.NUM_WORKERS": "0"},
    )
    monkeypatch.setattr(episodes, "ENCODERS", {"CLIP-FSAR": fsar})
    monkeypatch.setattr(episodes, "PER_CLASS", {"train": 3, "val": 3, "test": 3})
    monkeypatch.setattr(episodes, "COUNTS", {"EPISODES.NUM_VAL": "10", "EPISODES.NUM_TEST": "20"})
    monkeypatch.setattr(episodes, "SHOTS", (1,))
    yield quickstart
    for name in ("quickstart", "quickstart_episodes", "quickstart_work"):
        sys.modules.pop(name, None)


def test_the_whole_of_it(quickstart, tmp_path, capsys):
    status = quickstart.main(["--episodes", "--seed", "1", "--out", str(tmp_path)])
    printed = capsys.readouterr()
    assert printed.err == ""
    lists = tmp_path / "label_db" / "motion_shapes" / "splits" / "episodic" / "motion_shapes"
    counts = {path.stem: len(path.read_text(encoding="utf-8").splitlines()) for path in lists.glob("*.csv")}
    assert counts == {"train": 3 * 29, "val": 3 * 8, "test": 3 * 8}
    results = json.loads((tmp_path / "clip-fsar_own_1shot" / "results.json").read_text(encoding="utf-8"))
    accuracy, interval = results["metrics"]["top1_acc"], results["metrics"]["top1_ci95"]
    assert results["metrics"]["num_episodes"] == 20
    assert f"{accuracy:.1f} +- {interval:.1f} %" in printed.out
    assert status == (0 if accuracy >= 40 else 1)
    assert [line.split()[1] for line in printed.out.splitlines() if line.startswith("    python")] == [
        "tools/prepare_data.py", "tools/run_net.py", "tools/run_net.py",
    ]  # fmt: skip
    assert quickstart.main(["--episodes", "--out", str(tmp_path)]) == 1
    assert "the folder is not empty" in capsys.readouterr().err
