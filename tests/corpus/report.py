"""Try the whole corpus and bring its chapter of docs/robustness.md up to date; the other chapters stay as they are."""

from __future__ import annotations

import platform
import re
import sys
import tempfile
import warnings
from pathlib import Path

import av
import torch
from corpus_case import KINDS
from corpus_run import CASES, Result, build_corpus, run_corpus

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "robustness.md"
TITLE = "# Robustness"
BEGIN, END = "<!-- bad input: begin -->", "<!-- bad input: end -->"
MOST_CHARACTERS = 160
_ROW = re.compile(r"^\| `([\w/.-]+)` \|", re.MULTILINE)

HEADER = """## Bad input
What happens with damaged, odd and malicious files, found out by trying {count} of them. `tests/corpus/` writes them.
`tests/integration/test_corpus.py` reads each in a process that is watched for hangs and crashes, and compares what is
read with a plain decode of the undamaged video or with what was written. This chapter is what
`python tests/corpus/report.py` wrote, with PyAV {av}, PyTorch {torch} and Python {python}; other versions of FFmpeg
word some lines differently, and may read a damaged video further or less far.

- **error**: the run ends with one line that names the file or the key, and exit status 1, or 2 for a configuration.
- **skipped**: a video that cannot be read. Training replaces it by another, names it and counts it
  (`DATA.MAX_BAD_FRACTION`); a test leaves it out and lists it under `missing` in `results.json`.
- **read in part; else skipped**: clips that need nothing behind the damage are read.
- **read**: with the right content. Of a damaged picture nobody knows that; of a cut video each frame that is given is
  the one that the whole video has under that number.

Rules:

- A video is a regular file. Pipes, devices and folders are skipped without being opened, playlists with nothing of
  what they name; no network is used. A name is a name, also `http:a.mp4` or one with a line break.
- Pictures count as they are stored: rotation and pixel shape in a header are ignored, as in PySlowFast; 10 bits
  become 8, alpha is dropped. Where the picture size changes, frames are scaled to the first. Pictures of more than 2^26
  pixels, or with sides of a ratio above 64, are skipped. The picture of a song's cover is no video.
- A container that states its length (mp4, avi, mkv, webm) is known to be cut, and clips beyond the cut are skipped; a
  cut transport stream is a shorter video.
- Annotation files are UTF-8 with any line ends. Labels are plain decimal numbers: `+1`, `1.0`, `1_0` and digits of
  other scripts are refused. A file has labels in all of its rows or in none. Paths are not quoted and do not contain
  the separator. A row that repeats counts twice; two labels of one video are an error. Lines have at most 8192
  characters.
- A label map has the numbers 0 to K-1, each once. Two classes may have one name, as two of SSv2 do.
- Of a file of tensors nothing is executed. Weights that are NaN or infinite, sparse, quantised or complex are refused,
  naming the first; so is an archive whose checksums do not fit, or that unpacks to more than four times its size.
  Safetensors and what torch saved before 1.6 have no checksums: a flipped bit there is another weight.
- A TorchScript archive that is none of the published CLIPs is refused, whatever it holds; the table says what happens
  to it where `MODEL.CLIP_ALLOW_TORCHSCRIPT` lets it in.
- A YAML file has each key once, at most 256 kB, 100 000 values with its aliases written out, and 100 files by `_BASE_`.
  Numbers are finite.
- A decoder that hangs is ended after `DATA_LOADER.TIMEOUT_SECONDS`, and the line names the video; without workers
  nothing watches.

Beyond this table, `tests/unit/config/test_mistyped.py` misspells every key, and gives every key values of other types,
out of range and not finite.
"""


def chapter(results: dict[str, Result]) -> str:
    """Write the chapter."""
    head = HEADER.format(
        count=len(CASES),
        av=av.__version__,
        torch=torch.__version__.partition("+")[0],
        python=platform.python_version(),
    )
    parts = [head]
    for kind, title in KINDS.items():
        names = [name for name, case in CASES.items() if case.kind == kind]
        rows = [f"| `{name}` | {_cell(CASES[name].text)} | {_outcome(results[name])} |" for name in names]
        parts.append(
            "\n".join([f"### {title} ({len(names)})", "| case | what it is | outcome |", "|---|---|---|", *rows, ""])
        )
    return "\n".join(parts)


def _outcome(result: Result) -> str:
    word, _, rest = result.outcome.partition(": ")
    text = f"**{word}**" + (f": {rest}" if rest else "")
    return _cell(text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]}...")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def listed(document: str) -> list[str]:
    """The cases that a document has rows for, in its order."""
    return _ROW.findall(document)


def document(old: str, new: str) -> str:
    """Put the chapter into a document, in place of the one that it has; what others wrote stays."""
    before, begin, rest = (old or f"{TITLE}\n\n").partition(BEGIN)
    after = rest.partition(END)[2] if begin else "\n"
    return f"{before}{BEGIN}\n{new}{END}{after}"


def main() -> int:
    """Try all cases; returns 1 if one of them goes wrong."""
    warnings.simplefilter("ignore")
    old = DOCUMENT.read_text(encoding="utf-8") if DOCUMENT.is_file() else ""
    with tempfile.TemporaryDirectory() as folder:
        results = {result.id: result for result in run_corpus(Path(folder), build_corpus(Path(folder)))}
    wrong = [result for result in results.values() if result.problem]
    for result in wrong:
        sys.stderr.write(f"{result.id}: {result.problem}\n")
    if wrong:
        return 1
    DOCUMENT.write_text(document(old, chapter(results)), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
