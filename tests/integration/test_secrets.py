"""A secret, wherever it was planted, is neither printed nor saved."""

import hashlib
import shutil

import pytest

PLANTED = hashlib.sha256(b"a secret of nobody").hexdigest()[:36]
"""Part of every planted secret; in its place it takes the shape of a key or password."""

ENVIRONMENT = ("OPENAI_API_KEY", "WANDB_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY")


@pytest.fixture
def planted(dataset, tiny_weights, tmp_path, monkeypatch):
    """Options of a run with a secret in every name that it takes from outside, and in the environment."""
    for name in ENVIRONMENT:
        monkeypatch.setenv(name, f"sk-{PLANTED}")
    root = tmp_path / f"sk-proj-{PLANTED}"
    shutil.copytree(dataset, root)
    shutil.copy(tiny_weights, root / f"password={PLANTED}.pt")
    bad = root / "videos" / f"api_key={PLANTED}.mp4"
    bad.write_bytes(b"no video at all")
    with (root / "test.csv").open("a", encoding="utf-8") as file:
        file.write(f"{bad.name},0\n")
    return {
        "OUTPUT_DIR": tmp_path / "out",
        "DATA.PATH_TO_DATA_DIR": root,
        "DATA.PATH_PREFIX": root / "videos",
        "DATA.INDEX_LABEL_MAPPING_FILE": root / "classes.json",
        "DATA.TEXT_AUG_FEATURE_FILE": root / "text.pt",
        "MODEL.CLIP_WEIGHTS": root / f"password={PLANTED}.pt",
        "SOLVER.MAX_EPOCH": 1,
        "TEST.SAVE_RESULTS_PATH": "scores.pkl",
        "TENSORBOARD.ENABLE": True,
    }


def assert_clean(text):
    assert PLANTED not in text
    assert "***" in text


def test_nothing_that_a_run_writes_has_the_secret(net, call_tool, planted, tmp_path):
    status, out, err = net(planted)
    assert (status, err) == (0, "")
    assert_clean(out)
    out_dir = planted["OUTPUT_DIR"]
    assert call_tool("report", [out_dir, "--out", out_dir / "report.html"]) == 0
    files = [path for path in out_dir.rglob("*") if path.is_file()]
    assert len(files) > 8
    # PyTorch's archives are not compressed, so that their bytes show what is in them.
    assert [path for path in files if PLANTED.encode() in path.read_bytes()] == []
    assert (out_dir / "config.yaml").read_text(encoding="utf-8").count("sk-proj-***") >= 4
    assert "api_key=***" in (out_dir / "results.json").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("key", "value", "status"),
    [
        ("DATA.PATH_TO_DATA_DIR", f"none/sk-proj-{PLANTED}", 1),
        ("MODEL.CLIP_WEIGHTS", f"https://user:{PLANTED}@host/clip.pt", 1),
        ("DATA.TEXT_AUG_FEATURE_FILE", f"token/ghp_{PLANTED}/text.pt", 1),
        ("MODEL.LOSS_FUNC", f"api_key={PLANTED}", 2),
        ("API_KEY", f"sk-{PLANTED}", 2),
    ],
)
def test_errors_are_clean(net, tmp_path, key, value, status):
    found, out, err = net({"OUTPUT_DIR": tmp_path / "out", key: value})
    assert found == status
    assert err.startswith("error: ")
    assert_clean(out + err)


def test_print_config_is_clean(net, planted):
    status, out, err = net(planted, arguments=["--print-config"])
    assert (status, err) == (0, "")
    assert_clean(out)


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("tools/convert_weights.py", [f"sk-proj-{PLANTED}.pt", "x.pth"]),
        ("weight_average_tool.py", ["--source-dir", f"sk-proj-{PLANTED}", "--output-dir", "x"]),
        (
            "utils/text_prompts.py",
            ["--dataset", "none", "--clip", "x", "--output", ".", "--root", f"sk-proj-{PLANTED}"],
        ),
        ("utils/check_label_db.py", ["--root", f"sk-proj-{PLANTED}"]),
        ("tools/report.py", [f"sk-proj-{PLANTED}"]),
    ],
)
def test_errors_of_other_tools_are_clean(repository, environment, tmp_path, tool, arguments):
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, str(repository / tool), *arguments],
        cwd=tmp_path, env=dict(environment), capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode in (1, 2)
    assert_clean(done.stdout + done.stderr)
