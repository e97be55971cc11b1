"""Every case of tests/corpus: one line, a counted skip, or the right numbers; never a hang, a crash or a traceback.

What came of each is in docs/robustness.md, which tests/corpus/report.py writes.
"""

import json
import multiprocessing
import sys
import time
from pathlib import Path

import pytest

from slowfast.datasets import build
from slowfast.datasets.decode import decode_frames

CORPUS = Path(__file__).resolve().parents[1] / "corpus"
DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "robustness.md"
KINDS = ("video", "annotation", "labels", "features", "weights", "config")
EVERY_KIND_HAS_ONE_OF = {"video": {"skip", "reads"}}


@pytest.fixture(scope="module")
def corpus():
    """The modules of tests/corpus, which import each other by name, as do the processes that try the cases."""
    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(CORPUS))
        import corpus_run
        import report

        yield corpus_run, report
        for name in set(sys.modules) - before:
            if getattr(sys.modules[name], "__file__", None) and Path(sys.modules[name].__file__).parent == CORPUS:
                del sys.modules[name]


@pytest.fixture(scope="module")
def paths(corpus, tmp_path_factory):
    """Case -> the path to read."""
    return corpus[0].build_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def results(corpus, paths, tmp_path_factory):
    """Case -> what came of it."""
    found = corpus[0].run_corpus(tmp_path_factory.mktemp("scratch"), paths)
    return {result.id: result for result in found}


def test_enough_cases(corpus):
    cases = corpus[0].CASES.values()
    assert len(cases) >= 200
    assert len({case.id for case in cases}) == len(cases)
    for kind in KINDS:
        expected = {case.expected for case in cases if case.kind == kind}
        assert expected >= EVERY_KIND_HAS_ONE_OF.get(kind, {"error", "reads"})


@pytest.mark.parametrize("kind", KINDS)
def test_every_case(results, corpus, kind):
    tried = [result for name, result in results.items() if corpus[0].CASES[name].kind == kind]
    assert len(tried) == sum(case.kind == kind for case in corpus[0].CASES.values())
    assert {result.id: result.problem for result in tried if result.problem} == {}


def test_the_document_lists_every_case(corpus):
    run, report = corpus
    assert sorted(report.listed(DOCUMENT.read_text(encoding="utf-8"))) == sorted(run.CASES)


def test_equal_bytes_every_time(corpus, paths, tmp_path):
    names = [name for name in paths if name.startswith("video/") and name.endswith(("-h264", "-200", "-8-1", "-webm"))]
    again = corpus[0].build_corpus(tmp_path, names)
    assert names
    assert all(again[name].read_bytes() == paths[name].read_bytes() for name in names if paths[name].is_file())


def test_the_report_keeps_the_chapters_of_others(corpus):
    _, report = corpus
    first = report.document("", "new\n")
    assert report.document(f"{first}## Resuming\n", "newer\n") == f"{first}## Resuming\n".replace("new\n", "newer\n")


# ------------------------------------------------------------------------------------------------ by the command line


@pytest.fixture
def refused(net, tmp_path):
    """Runs the command and returns its one error line."""

    def run(options, *, status=1, **more):
        found, _, err = net({"OUTPUT_DIR": tmp_path / "out", **options}, **more)
        assert found == status, err
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        return err

    return run


@pytest.mark.parametrize("name", ["missing-label", "contradiction", "long-line", "utf-16", "pipe", "label-full-width"])
def test_annotation_files(refused, paths, tmp_path, name):
    (tmp_path / "train.csv").symlink_to(paths[f"annotation/{name}"])
    assert str(tmp_path / "train.csv") in refused({"DATA.PATH_TO_DATA_DIR": tmp_path})


@pytest.mark.parametrize("name", ["nested-lists", "gap", "endless-number", "endless-device"])
def test_label_maps(refused, paths, name):
    path = paths[f"labels/{name}"]
    assert str(path) in refused({"DATA.INDEX_LABEL_MAPPING_FILE": path})


@pytest.mark.parametrize("name", ["sparse", "expanded", "nan", "evil-eval", "pipe"])
def test_features(refused, paths, name):
    path = paths[f"features/{name}"]
    assert str(path) in refused({"DATA.TEXT_AUG_FEATURE_FILE": path})


@pytest.mark.parametrize("key", ["MODEL.CLIP_WEIGHTS", "TEST.CHECKPOINT_FILE_PATH"])
@pytest.mark.parametrize("name", ["nan", "one-sparse", "bomb", "foreign-yacs", "evil-system", "pipe", "cut-zip-0.500"])
def test_weights(refused, paths, key, name):
    path = paths[f"weights/{name}"]
    assert str(path) in refused({"TRAIN.ENABLE": False, key: path})


@pytest.mark.parametrize(
    "name", ["evil-os-system", "alias-bomb", "duplicate-key", "base-doubling", "link-loop", "pipe"]
)
def test_configurations(refused, paths, name):
    path = paths[f"config/{name}"]
    refused({}, status=2, cfg=path)


SKIPPED = (
    "empty",
    "link-loop",
    "pipe",
    "directory",
    "playlist-http",
    "audio-mp4",
    "claims-15000x15000",
    "claims-narrow",
)
READ = ("rotated", "name-unicode", "size-1x1", "codec-av1", "codec-alpha-png", "no-duration", "uneven-mp4", "one-frame")


@pytest.mark.parametrize("workers", [0, 2])
def test_videos(net, paths, dataset, tmp_path, json_lines, workers):
    """A list of odd videos: those that cannot be read are named, in training and in the test, and only those."""
    videos = {name: paths[f"video/{name}"] for name in (*SKIPPED, *READ)}
    rows = "".join(f"{path},{number % 3}\n" for number, path in enumerate(videos.values()))
    for split in ("train", "val", "test"):
        (tmp_path / f"{split}.csv").write_text(rows, encoding="utf-8")
    options = {
        "OUTPUT_DIR": tmp_path / "out",
        "DATA.PATH_TO_DATA_DIR": tmp_path,
        "DATA.PATH_PREFIX": "",
        "DATA.MAX_BAD_FRACTION": 1.0,
        "DATA_LOADER.NUM_WORKERS": workers,
    }
    status, out, err = net(options)
    assert (status, err) == (0, "")
    bad = {str(videos[name]) for name in SKIPPED}
    replaced = {
        line.partition("replaced in training: ")[2] for line in out.splitlines() if "replaced in training: " in line
    }
    assert {line.partition(": ")[0] for line in replaced} == bad
    results = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert (results["num_videos"], results["num_scored"]) == (len(videos), len(READ))
    assert {line.partition(": ")[0] for line in results["missing"]} == bad


@pytest.mark.parametrize("phase", ["TRAIN", "TEST"])
def test_a_decoder_that_hangs(refused, dataset, monkeypatch, phase):
    """Nothing in a worker's own process can notice; the run ends with the name of the video, and so does the worker."""
    split = "train" if phase == "TRAIN" else "test"

    def decode(path, plan, *, stamps=False):
        if path.endswith(f"{split}1.avi"):
            time.sleep(3600)
        return decode_frames(path, plan, stamps=stamps)

    monkeypatch.setattr(build, "resolve", lambda table, name, *, key: decode)
    only = {"TRAIN.ENABLE": phase == "TRAIN", "TEST.ENABLE": phase == "TEST"}
    message = refused({**only, "DATA_LOADER.NUM_WORKERS": 1, "DATA_LOADER.TIMEOUT_SECONDS": 3})
    path = dataset / "videos" / f"{split}1.avi"
    assert message == f"error: {path}: reading took longer than DATA_LOADER.TIMEOUT_SECONDS, which is 3 s\n"
    assert multiprocessing.active_children() == []
