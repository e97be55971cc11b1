"""Configuration files with mistakes in them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from corpus_case import Case
from corpus_texts import file, special_files

VALID = b"MODEL:\n  MODEL_NAME: TemporalClipVideo\n  ARCH: vitb16\nDATA:\n  TEST_CROP_SIZE: 224\n"
"""The least that a configuration must say."""


def _with(text: str) -> Callable[[Path], Path]:
    return file("run.yaml", VALID + text.encode("utf-8", "surrogatepass"))


def _files(files: dict[str, str]) -> Callable[[Path], Path]:
    """Several files; the first is the one to read."""

    def write(folder: Path) -> Path:
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
        return folder / next(iter(files))

    return write


def _chain(folder: Path, *, length: int) -> Path:
    for number in range(length):
        (folder / f"{number}.yaml").write_text(f"_BASE_: {number + 1}.yaml\n", encoding="utf-8")
    (folder / f"{length}.yaml").write_bytes(VALID)
    return folder / "0.yaml"


def _doubling(folder: Path) -> Path:
    """Each of 40 files names the next one twice: 2^40 readings."""
    for number in range(40):
        (folder / f"{number}.yaml").write_text(f"_BASE_: [{number + 1}.yaml, {number + 1}.yaml]\n", encoding="utf-8")
    (folder / "40.yaml").write_bytes(VALID)
    return folder / "0.yaml"


def _bomb(levels: int) -> str:
    """The billion laughs: each list holds the one before nine times."""
    lines = ["x0: &x0 [a, a, a, a, a, a, a, a, a]"]
    lines += [f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "\n".join(lines) + "\n"


def _errors() -> list[Case]:
    mark = "import os; os.mkdir('executed')"
    texts: dict[str, tuple[str, str, str]] = {
        "evil-os-system": (
            "a tag that runs a command",
            "OUTPUT_DIR: !!python/object/apply:os.mkdir [executed]\n",
            "could not determine a constructor",
        ),
        "evil-eval": (
            "a tag that evaluates code",
            f'OUTPUT_DIR: !!python/object/apply:builtins.eval ["{mark}"]\n',
            "could not determine a constructor",
        ),
        "evil-new": ("a tag that makes an object", "OUTPUT_DIR: !!python/object/new:os.mkdir [executed]\n",
                     "could not determine a constructor"),
        "evil-module": ("a tag that imports a module", "OUTPUT_DIR: !!python/module:antigravity\n",
                        "could not determine a constructor"),
        "evil-name": ("a tag that names a function", "OUTPUT_DIR: !!python/name:os.system\n",
                      "could not determine a constructor"),
        "tag-tuple": ("a tag of Python's", "SOLVER:\n  BETAS: !!python/tuple [0.9, 0.999]\n",
                      "could not determine a constructor"),
        "tag-unknown": ("a tag of its own", "OUTPUT_DIR: !mine x\n", "could not determine a constructor"),
        "tag-int-empty": ("an integer without digits", "NUM_GPUS: !!int ''\n", "a value is not what it looks like"),
        "tag-int-text": ("an integer of letters", "NUM_GPUS: !!int many\n", "a value is not what it looks like"),
        "tag-bool-text": ("a truth value of letters", "TUNE_HEAD: !!bool many\n", "a value is not what it looks like"),
        "tag-date-text": ("a date of letters", "OUTPUT_DIR: !!timestamp many\n", "a value is not what it looks like"),
        "tag-binary": ("bytes", "OUTPUT_DIR: !!binary aGVsbG8=\n", "OUTPUT_DIR: expected str"),
        "tag-set": ("a set", "SOLVER:\n  STEPS: !!set {1, 2}\n", "SOLVER.STEPS: expected list"),
        "duplicate-key": ("a key twice in a section", "SOLVER:\n  MAX_EPOCH: 1\n  MAX_EPOCH: 2\n",
                          "key 'MAX_EPOCH' occurs twice"),
        "duplicate-section": ("a section twice", "SOLVER:\n  MAX_EPOCH: 1\nSOLVER:\n  BASE_LR: 1.0\n",
                              "key 'SOLVER' occurs twice"),
        "duplicate-flow": ("a key twice in braces", "SOLVER: {MAX_EPOCH: 1, MAX_EPOCH: 2}\n", "occurs twice"),
        "alias-bomb": ("aliases that stand for 9^9 values", _bomb(9), "more than 100000 values"),
        "alias-bomb-value": ("aliases that stand for 9^9 values, in a known key", _bomb(9) + "DEMO:\n  VIDEOS: *x8\n",
                             "more than 100000 values"),
        "alias-circle": ("a list that holds itself", "DEMO:\n  VIDEOS: &a [*a]\n", "stands inside"),
        "alias-circle-key": ("a mapping that holds itself", "DEMO: &a\n  VIDEOS: *a\n", "stands inside"),
        "alias-unknown": ("an alias that nothing stands for", "OUTPUT_DIR: *a\n", "undefined alias"),
        "merge-circle": ("a mapping that merges itself", "DEMO: &a\n  <<: *a\n", "stands inside"),
        "merge-text": ("a merge of a text", "DEMO:\n  <<: x\n", "expected a mapping"),
        "nested-lists": ("20 000 lists in each other", "DEMO:\n  VIDEOS: " + "[" * 20_000, "nested too deeply"),
        "nested-sections": ("3000 sections in each other", "A: " + "{A: " * 3000 + "1" + "}" * 3000,
                            "nested too deeply"),
        "tabs": ("a tab in place of blanks", "SOLVER:\n\tMAX_EPOCH: 1\n", "cannot start any token"),
        "no-colon": ("a line without a colon", "SOLVER\n", "could not find expected ':'"),
        "colon-without-blank": ("no blank behind a colon", "SOLVER:{MAX_EPOCH:1}\n", ""),
        "control-character": ("a control character", "OUTPUT_DIR: a\x07b\n", "invalid YAML"),
        "nul": ("a NUL character in a text", 'OUTPUT_DIR: "a\\0b"\n', "OUTPUT_DIR: 'a\\x00b' holds a NUL"),
        "two-documents": ("two documents", "---\nNUM_GPUS: 1\n---\nNUM_GPUS: 2\n", "found another document"),
        "unknown-key": ("a mistyped key", "SOLVER:\n  MAX_EPOCHS: 3\n", "nearest key: SOLVER.MAX_EPOCH"),
        "unknown-key-lines": ("a key of two lines", '"a\\nb": 1\n', "unknown key"),
        "unknown-key-long": ("a key of 1000 letters", f'"{"k" * 1000}": 1\n', ""),
        "unknown-section": ("a section of PySlowFast's", "RESNET:\n  DEPTH: 50\n", "not part of this project"),
        "unknown-huge-value": ("an unknown key with 50 000 values", f"FOO: [{'1, ' * 50_000}]\n", "unknown key"),
        "section-null": ("a section without keys", "SOLVER:\n", "expected a section"),
        "section-number": ("a number for a section", "SOLVER: 3\n", "expected a section"),
        "section-list": ("a list for a section", "SOLVER: [1, 2]\n", "expected a section"),
        "key-list": ("a list for a number", "SOLVER:\n  MAX_EPOCH: [1]\n", "SOLVER.MAX_EPOCH: expected int"),
        "key-mapping": ("a mapping for a number", "SOLVER:\n  MAX_EPOCH: {a: 1}\n", "SOLVER.MAX_EPOCH: expected int"),
        "key-null": ("nothing for a number", "SOLVER:\n  MAX_EPOCH:\n", "SOLVER.MAX_EPOCH: expected int"),
        "key-date": ("a date for a text", "OUTPUT_DIR: 2026-01-02\n", "OUTPUT_DIR: expected str"),
        "key-on": ("on, which is a truth value, for a text", "OUTPUT_DIR: on\n", "OUTPUT_DIR: expected str"),
        "key-truth": ("a truth value for a number", "NUM_GPUS: yes\n", "NUM_GPUS: expected int"),
        "key-number": ("a number for a truth value", "TUNE_HEAD: 1\n", "TUNE_HEAD: expected bool"),
        "key-fraction": ("a fraction for a count", "SOLVER:\n  MAX_EPOCH: 1.5\n", "SOLVER.MAX_EPOCH: expected int"),
        "date-impossible": ("February 30", "OUTPUT_DIR: 2026-02-30\n", "a value is not what it looks like"),
        "integer-endless": ("an integer of 6000 digits", f"NUM_GPUS: {'9' * 6000}\n",
                            "a value is not what it looks like"),
        "integer-huge": ("an integer of 400 digits", f"SOLVER:\n  MAX_EPOCH: {'9' * 400}\n", "out of range"),
        "float-huge": ("an integer of 400 digits for a fraction", f"SOLVER:\n  BASE_LR: {'9' * 400}\n",
                       "SOLVER.BASE_LR: expected float"),
        "float-infinite": ("an infinite number", "SOLVER:\n  BASE_LR: .inf\n", "SOLVER.BASE_LR"),
        "float-nan": ("not a number", "SOLVER:\n  WEIGHT_DECAY: .nan\n", "SOLVER.WEIGHT_DECAY"),
        "mean-nan": ("not a number in a list", "DATA:\n  MEAN: [.nan, 0.5, 0.5]\n", "occurs twice"),
        "std-infinite": ("an infinite number in a list", 'SOLVER:\n  LRS: [.inf]\n', "SOLVER.LRS"),
        "literal-deep": ("a text of 20 000 signs for a number", f'NUM_GPUS: "{"-" * 20_000}1"\n', "NUM_GPUS: expected"),
        "literal-brackets": ("a text of 20 000 brackets for a list", f'DEMO:\n  VIDEOS: "{"[" * 20_000}"\n',
                             "DEMO.VIDEOS: expected list"),
        "base-absent": ("a _BASE_ that does not exist", "_BASE_: absent.yaml\n", "file not found"),
        "base-number": ("a number for _BASE_", "_BASE_: 3\n", "must be a file name"),
        "base-itself": ("a _BASE_ that is the file itself", "_BASE_: run.yaml\n", "is cyclic"),
        "base-directory": ("a folder for _BASE_", "_BASE_: .\n", "cannot read"),
        "base-device": ("a device for _BASE_", "_BASE_: /dev/zero\n", "cannot read"),
        "base-unknown-user": ("a home folder that does not exist", "_BASE_: ~nobody-of-this-name/a.yaml\n",
                              "file not found"),
        "base-nul": ("a NUL character in _BASE_", '_BASE_: "a\\0.yaml"\n', "must be a file name"),
    }  # fmt: skip
    cases = [
        Case(id=f"config/{name}", text=text, expected="error", write=_with(content), message=message)
        for name, (text, content, message) in texts.items()
        if name != "mean-nan"
    ]
    whole: dict[str, tuple[str, str | bytes, str]] = {
        "list": ("a list", "- a\n- b\n", "found list"),
        "text": ("a text", "hello\n", "found str"),
        "null": ("null", "null\n", "found an empty file"),
        "comments": ("comments alone", "# nothing\n", "found an empty file"),
        "json-list": ("a JSON list", "[1, 2]", "found list"),
        "mean-nan": ("not a number in a list", VALID + b"  MEAN: [.nan, 0.5, 0.5]\n", "DATA.MEAN"),
        "no-model": ("a file that does not choose a model", "NUM_GPUS: 1\n", "MODEL.MODEL_NAME"),
        "wide": ("120 000 values", "[" + "1," * 120_000 + "]", "100000 values"),
    }
    cases += [
        Case(id=f"config/{name}", text=text, expected="error", write=file("run.yaml", content), message=message)
        for name, (text, content, message) in whole.items()
    ]
    several: dict[str, tuple[str, Callable[[Path], Path], str]] = {
        "base-circle": ("two files in a circle", _files({"a.yaml": "_BASE_: b.yaml", "b.yaml": "_BASE_: a.yaml"}),
                        "is cyclic"),
        "base-chain": ("150 files, each naming the next", lambda place: _chain(place, length=150), "and more; allowed"),
        "base-doubling": ("40 files, each naming the next twice", _doubling, "and more; allowed"),
        "base-broken": ("a _BASE_ that is no YAML", _files({"a.yaml": "_BASE_: b.yaml", "b.yaml": "a: [1"}), "b.yaml"),
    }  # fmt: skip
    cases += [
        Case(id=f"config/{name}", text=text, expected="error", write=write, message=message)
        for name, (text, write, message) in several.items()
    ]
    return cases


def _reads() -> list[Case]:
    texts: dict[str, tuple[str, str, dict[str, object]]] = {
        "plain": ("a plain file", "NUM_GPUS: 0\n", {"NUM_GPUS": 0}),
        "on-off": ("on and off for truth values", "TUNE_HEAD: on\nVAL_MODE: off\n",
                   {"TUNE_HEAD": True, "VAL_MODE": False}),
        "exponent": ("1e-5, which YAML calls a text", "SOLVER:\n  WEIGHT_DECAY: 1e-5\n", {"SOLVER.WEIGHT_DECAY": 1e-5}),
        "integer-for-fraction": ("an integer for a fraction", "SOLVER:\n  WARMUP_EPOCHS: 2\n",
                                 {"SOLVER.WARMUP_EPOCHS": 2.0}),
        "octal": ("010, which YAML 1.1 calls 8", "NUM_GPUS: 010\n", {"NUM_GPUS": 8}),
        "underscore": ("1_000, which YAML 1.1 calls 1000", "LOG_PERIOD: 1_000\n", {"LOG_PERIOD": 1000}),
        "merge": ("a merge of another section", "_BASE_: []\nDEMO: &a\n  TOPK: 3\nAUG:\n  <<: {NUM_SAMPLE: 2}\n",
                  {"DEMO.TOPK": 3, "AUG.NUM_SAMPLE": 2}),
        "alias": ("an alias", "TRAIN_FILE: &a x.csv\nVAL_FILE: *a\n", {"TRAIN_FILE": "x.csv", "VAL_FILE": "x.csv"}),
        "text-null": ("nothing for a text", "OUTPUT_DIR:\n", {"OUTPUT_DIR": ""}),
        "text-number": ("a quoted number for a text", 'OUTPUT_DIR: "7"\n', {"OUTPUT_DIR": "7"}),
        "unicode": ("a path in another script", "OUTPUT_DIR: Läufe/踊り\n", {"OUTPUT_DIR": "Läufe/踊り"}),
        "crlf": ("line ends of Windows", "NUM_GPUS: 0\r\nLOG_PERIOD: 2\r\n", {"NUM_GPUS": 0, "LOG_PERIOD": 2}),
    }  # fmt: skip
    cases = [
        Case(id=f"config/{name}", text=text, expected="reads", write=_with(content), settings=tuple(settings.items()))
        for name, (text, content, settings) in texts.items()
    ]
    cases.append(
        Case(
            id="config/byte-order-mark",
            text="a byte order mark",
            expected="reads",
            write=file("run.yaml", b"\xef\xbb\xbf" + VALID),
            settings=(("MODEL.ARCH", "vitb16"),),
        )
    )
    return cases


CONFIG_CASES: tuple[Case, ...] = (*special_files("config", "run.yaml", content=VALID), *_errors(), *_reads())
