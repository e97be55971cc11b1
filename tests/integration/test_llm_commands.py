"""The commands that ask a language model, against a server of our own."""

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from slowfast.text.prompt_bank import ClassFile, read_graphs, read_prompts, write_class_file

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = {
    "ASKG": "ASKG_text_prompt",
    "xprompt": "extended_text_prompt",
    "rephrased": "rephrase_text_prompt",
    "descriptors": "descriptor_text_prompt",
}
# One has to be quoted in YAML.
CLASSES = ("surfing", "yes", "pouring tea", "climbing stairs", "juggling")
GRAPHS = "classes_ASKG_x.yml"


@pytest.fixture
def folder(tmp_path, monkeypatch, fake_llm):
    """An empty working folder with a class file; the environment names the fake server."""
    write_class_file(tmp_path / "labels.yml", ClassFile(classes=CLASSES, templates=("a photo of {}.",)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPENAI_API_BASE", raising=False)
    monkeypatch.setenv("OPENAI_BASE_URL", fake_llm.url)
    monkeypatch.setenv("OPENAI_API_KEY", fake_llm.KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path


def arguments(key, *options):
    fixed = ["--label-file", "labels.yml", "--model", "fake", "--output", output_of(key), "--backoff", "0"]
    return [*fixed, *(["--graphs", GRAPHS] if key == "xprompt" else []), *map(str, options)]


def output_of(key):
    return {"ASKG": GRAPHS, "xprompt": "classes_xprompt_x.yml", "rephrased": "names.json", "descriptors": "texts"}[key]


@pytest.fixture
def run(folder, capsys):
    """Runs a command in this process: its status, output and errors."""

    def call(key, *options):
        spec = importlib.util.spec_from_file_location(COMMANDS[key], ROOT / "utils" / f"{COMMANDS[key]}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        status = module.main(arguments(key, *options))
        return (status, *capsys.readouterr())

    return call


def start(key, *options):
    command = [sys.executable, ROOT / "utils" / f"{COMMANDS[key]}.py", *arguments(key, *options)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def content(key):
    path = Path(output_of(key))
    if key == "descriptors":
        path = path / "temporal_descriptors" / "4_descriptors.json"
    return (yaml.safe_load if path.suffix == ".yml" else json.loads)(path.read_text())


@pytest.mark.parametrize("key", ["ASKG", "rephrased", "descriptors"])
def test_a_run_and_its_repetition(fake_llm, run, key):
    status, out, err = run(key, "--price-in", 10, "--price-out", 100)
    assert (status, err) == (0, "")
    assert out == (
        f"{output_of(key)}: 0 classes kept, 0 from the cache, 5 answered, 0 failed\n"
        "5 answers, 500 tokens in, 50 out, cost 0.0100\n"
    )
    assert sorted(fake_llm.names()) == sorted(CLASSES)
    labels = CLASSES if key == "ASKG" else tuple("01234")
    assert tuple(content(key)) == labels
    first = content(key)
    assert run(key)[1].startswith(
        f"{output_of(key)}: 5 classes kept, 0 from the cache, 0 answered, 0 failed\n0 answers"
    )
    assert run(key, "--redo")[1].startswith(f"{output_of(key)}: 0 classes kept, 5 from the cache, 0 answered")
    assert (len(fake_llm.requests), content(key)) == (5, first)
    run(key, "--redo", "--seed", 1, "--classes", "yes")
    assert fake_llm.names()[5:] == ["yes"]


def test_descriptors_of_another_number(fake_llm, run):
    """Asked for and kept on their own; the files of four and their answers stay as they are."""
    run("descriptors")
    four = content("descriptors")
    for count in (2, 8):
        assert "5 answered, 0 failed" in run("descriptors", "--count", count)[1]
        for kind in ("spatio", "temporal"):
            texts = json.loads(Path(f"texts/{kind}_descriptors/{count}_descriptors.json").read_text())
            assert {len(entry) for entry in texts.values()} == {count}
        Path(f"texts/spatio_descriptors/{count}_descriptors.json").unlink()
        Path(f"texts/temporal_descriptors/{count}_descriptors.json").unlink()
        assert "5 from the cache, 0 answered" in run("descriptors", "--count", count)[1]
        assert "5 classes kept" in run("descriptors", "--count", count)[1]
    assert "5 classes kept" in run("descriptors")[1]
    assert (len(fake_llm.requests), content("descriptors")) == (15, four)


def test_descriptors_of_an_unknown_number(run):
    with pytest.raises(SystemExit) as end:
        run("descriptors", "--count", 3)
    assert end.value.code == 2


def test_prompts_for_graphs(fake_llm, run):
    assert run("ASKG")[0] == 0
    assert run("xprompt")[0] == 0
    assert list(read_graphs(GRAPHS)) == list(read_prompts("classes_xprompt_x.yml")) == list(CLASSES)
    assert fake_llm.requests[-1]["temperature"] == 0.7


def test_prompts_without_a_graph(fake_llm, run):
    run("ASKG", "--limit", 2)
    graphs = Path(GRAPHS)
    graphs.write_text(graphs.read_text().replace("board", "boärd", 1))
    status, out, err = run("xprompt")
    assert status == 1
    assert "failed: surfing: its graph breaks a rule: objects.0: 'boärd': expected words" in err
    assert "failed: juggling: it has no graph; write that first" in err
    assert "1 answered, 4 failed" in out
    assert list(read_prompts("classes_xprompt_x.yml")) == ["yes"]


def test_a_bad_answer_is_never_written(fake_llm, run):
    bad = {"content": json.dumps(fake_llm.good_answer("ASKG", "juggling"))}
    fake_llm.plans["yes"] = [bad] * 4
    status, out, err = run("ASKG")
    assert status == 1
    assert re.fullmatch(r"failed: yes: 3 answers were not accepted; the last one: name: is 'juggling'; .*\n", err)
    assert "4 answered, 1 failed" in out
    assert list(read_graphs(GRAPHS)) == [name for name in CLASSES if name != "yes"]
    assert run("ASKG")[0] == 0
    assert list(read_graphs(GRAPHS)) == list(CLASSES)
    assert len(fake_llm.requests) == 4 + 3 + 2


def test_what_the_output_holds_is_kept_or_asked_for_again(fake_llm, run):
    run("rephrased")
    path = Path("names.json")
    path.write_text(path.read_text().replace("juggling: somebody moves", "juggling: somebody who moves"))
    path.write_text(path.read_text().replace("yes: somebody moves", "yes: Somebody moves"))
    status, out, err = run("rephrased", "--classes", "surfing")
    assert (status, "4 classes kept" in out) == (0, True)
    assert re.fullmatch("left as it is, though it breaks a rule: yes: .*begins with a capital letter.*\n", err)
    assert "4 classes kept, 1 from the cache" in run("rephrased")[1]
    assert content("rephrased")["4"].startswith("juggling: somebody who moves")
    assert content("rephrased")["1"].startswith("yes: somebody moves")


def test_an_entry_stays_where_no_good_answer_replaces_it(fake_llm, run):
    run("rephrased")
    Path("runs/llm/rephrased.jsonl").unlink()
    path = Path("names.json")
    path.write_text(path.read_text().replace("yes: somebody moves", "yes: Somebody moves"))
    before = path.read_text()
    fake_llm.plans["yes"] = [{"content": "no"}] * 3
    assert run("rephrased")[0] == 1
    assert path.read_text() == before


def test_limit(fake_llm, run):
    assert "2 answered, 0 failed" in run("ASKG", "--limit", 2)[1]
    assert "2 classes kept, 0 from the cache, 2 answered" in run("ASKG", "--limit", 2)[1]
    assert list(read_graphs(GRAPHS)) == list(CLASSES[:4])


@pytest.mark.parametrize("form", ["json_object", "text"])
def test_servers_without_json_schema(fake_llm, run, form):
    refusal = {"status": 400, "body": '{"error": {"message": "unknown response_format json_schema"}}'}
    fake_llm.plans |= {name: [refusal] for name in CLASSES}
    status, _, err = run("ASKG", "--concurrency", 1)
    assert (status, err) == (1, "error: stopped: the server refuses: 400 unknown response_format json_schema\n")
    assert not Path(GRAPHS).exists()
    fake_llm.plans.clear()
    fake_llm.requests.clear()
    assert run("ASKG", "--response-format", form)[0] == 0
    assert {json.dumps(request.get("response_format")) for request in fake_llm.requests} == {
        '{"type": "json_object"}' if form == "json_object" else "null"
    }


def test_dry_run_needs_no_key_and_no_server(fake_llm, run, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.delenv("OPENAI_BASE_URL")
    status, out, _ = run("ASKG", "--dry-run")
    assert status == 0
    assert [line for line in out.splitlines() if line.startswith("Class name: ")] == [
        "Class name: repotting a houseplant",
        "Class name: surfing",
    ]
    assert run("ASKG", "--dry-run", "--classes", "yes", "juggling")[1].count("--- system") == 2
    assert fake_llm.requests == []
    assert {path.name for path in Path().iterdir()} == {"labels.yml"}


def test_a_cached_run_needs_no_key(run, monkeypatch):
    run("ASKG")
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.delenv("OPENAI_BASE_URL")
    Path(GRAPHS).unlink()
    assert "5 from the cache" in run("ASKG")[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--classes", "surfin"], "--classes: 'surfin' is not in labels.yml; the nearest is 'surfing'"),
        (["--label-file", "absent.yml"], "absent.yml: no such file"),
        (["--label-file", "absent.json"], "absent.json: cannot read the label file (No such file or directory)"),
        (["--output", "."], "--output .: is a folder"),
        (["--cache", "."], ".: Is a directory"),
        (["--output", "labels.yml"], "labels.yml: classes: holds list; expected a mapping"),
    ],
)
def test_errors_in_one_line(fake_llm, run, options, message):
    assert run("ASKG", *options) == (1, "", f"error: {message}\n")
    assert fake_llm.requests == []


def test_no_key(run, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.delenv("OPENAI_BASE_URL")
    error = "error: OPENAI_API_KEY is not set, neither in the environment nor in .env\n"
    assert run("ASKG") == (1, "", error)


@pytest.mark.parametrize("package", ["openai", "pydantic", "dotenv"])
def test_missing_package(run, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    for name in [name for name in sys.modules if name.startswith("slowfast.text.llm.") and "command" not in name]:
        monkeypatch.delitem(sys.modules, name)
        # The package keeps its modules as attributes too; both are put back afterwards.
        monkeypatch.delattr(sys.modules["slowfast.text.llm"], name.rpartition(".")[2], raising=False)
    status, out, err = run("ASKG")
    assert (status, out) == (1, "")
    assert re.fullmatch(r"error: [a-z-]+ is not installed; run: pip install -e '\.\[llm\]'\n", err)


@pytest.mark.parametrize(
    "options",
    [["--limit", "0"], ["--tries", "x"], ["--timeout", "inf"], ["--price-in", "1"], ["--response-format", "x"]],
)
def test_wrong_command_lines(run, options):
    with pytest.raises(SystemExit) as caught:
        run("ASKG", *options)
    assert caught.value.code == 2


def test_a_killed_run_goes_on(fake_llm, folder):
    fake_llm.serve_only = 3
    process = start("ASKG", "--concurrency", 2)
    cache = folder / "runs" / "llm" / "ASKG.jsonl"
    deadline = time.monotonic() + 120
    while not (cache.exists() and cache.read_bytes().count(b"\n") == 3 and len(fake_llm.requests) == 5):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (folder / GRAPHS).exists()
    answered = {json.loads(line)["name"] for line in cache.read_text().splitlines()}
    fake_llm.serve_only = None
    fake_llm.requests.clear()
    process = start("ASKG", "--concurrency", 2)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    assert "3 from the cache, 2 answered, 0 failed" in out
    assert sorted(fake_llm.names()) == sorted(set(CLASSES) - answered)
    assert list(read_graphs(GRAPHS)) == list(CLASSES)


def test_an_interrupted_run_says_where_its_answers_are(fake_llm, folder):
    fake_llm.plans["yes"] = [{"status": 503, "body": "busy", "headers": {"Retry-After": "100"}}]
    process = start("ASKG", "--concurrency", 1)
    deadline = time.monotonic() + 120
    while len(fake_llm.requests) < 2:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err == "interrupted; run again to go on: answers so far are in runs/llm/ASKG.jsonl\n"


def test_no_secret_is_in_any_file_or_output(fake_llm, folder, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.setenv("OPENAI_LOG", "debug")
    (folder / ".env").write_text(f"OPENAI_API_KEY={fake_llm.KEY}\n")
    echo = json.dumps({"error": {"message": f"wrong key {fake_llm.KEY}"}})
    fake_llm.plans["surfing"] = [{"status": 500, "body": echo}]
    fake_llm.plans["yes"] = [{"content": json.dumps({"name": "yes", "note": fake_llm.KEY})}] * 3
    answer = fake_llm.good_answer("ASKG", "climbing stairs")
    fake_llm.plans["climbing stairs"] = [
        {"content": json.dumps(answer | {"objects": [*answer["objects"], fake_llm.KEY]})} for _ in range(3)
    ]
    fake_llm.plans["juggling"] = [{"status": 401, "body": echo}]
    process = start("ASKG", "--concurrency", 1, "--verbose")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "error: stopped: the server refuses: 401 wrong key ***" in err
    assert "failed: climbing stairs: 3 answers were not accepted" in err
    assert set(fake_llm.authorizations) == {f"Bearer {fake_llm.KEY}"}
    secret = fake_llm.KEY.removeprefix("sk-test-")
    assert secret not in out + err
    written = [path for path in folder.rglob("*") if path.is_file() and path.name != ".env"]
    assert {path.name for path in written} >= {GRAPHS, "ASKG.jsonl"}
    for path in written:
        assert secret.encode() not in path.read_bytes()
    assert os.environ.get("OPENAI_API_KEY") is None
