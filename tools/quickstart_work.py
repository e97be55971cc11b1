"""What both quickstarts share: the run's folder, the commands that it prints and runs, and the shipped CLIP."""

from __future__ import annotations

import itertools
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CLIP_FILE = ROOT / "assets" / "quickstart_clip.safetensors"


class StageError(RuntimeError):
    """A command failed."""


@dataclass
class Workspace:
    """The run's folder, its seed and its clock."""

    folder: Path
    seed: int
    threads: int = 2
    """Of a command; more slow a model of this size down."""
    start: float = field(default_factory=time.perf_counter)
    num_commands: int = 0

    @property
    def data(self) -> Path:
        """The rendered dataset."""
        return self.folder / "data"

    def say(self, text: str) -> None:
        """Print a line with the time passed."""
        print(f"[{time.perf_counter() - self.start:4.0f} s] {text}", flush=True)

    def command(self, name: str, arguments: Sequence[str]) -> None:
        """Print and run one of the project's commands; its output goes to a file.

        Raises:
            StageError: if the command fails.
        """
        self.num_commands += 1
        log = self.folder / "logs" / f"{self.num_commands:02d}_{name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        self.say(name.replace("_", " "))
        print("    python " + shlex.join(arguments), flush=True)
        environment = {"OMP_NUM_THREADS": str(self.threads), **os.environ}
        with log.open("w", encoding="utf-8") as output:
            status = subprocess.run(
                [sys.executable, *arguments],
                cwd=ROOT,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
            ).returncode
        if status:
            tail = "\n".join(log.read_text(encoding="utf-8").splitlines()[-15:])
            raise StageError(f"{name}: exit status {status}; end of {log}:\n{tail}")


def expand(source: Path, target: Path, *, seed: int) -> None:
    """Write the shipped CLIP in OpenAI's full layout.

    The file holds the embeddings of the tokens that its texts use; all others were never trained and are random.
    """
    import torch
    from safetensors.torch import load_file

    from slowfast.models.clip.arch import ClipSizes
    from slowfast.models.clip.weights import random_clip_state_dict
    from slowfast.text.tokenizer import Tokenizer

    state = {name: tensor.float() for name, tensor in load_file(str(source)).items()}
    rows, values = state.pop("token_embedding.rows").long(), state.pop("token_embedding.values")
    state["token_embedding.weight"] = torch.empty(len(Tokenizer()), values.shape[1])
    sizes = ClipSizes.from_state_dict(state, source=str(source))
    state["token_embedding.weight"] = random_clip_state_dict(sizes, seed=seed)["token_embedding.weight"]
    state["token_embedding.weight"][rows] = values
    torch.save(state, target)


def free_folder(folder: Path) -> Path:
    """The folder, or the first of folder-2, folder-3, ... that does not exist."""
    candidates = (folder if i == 1 else folder.with_name(f"{folder.name}-{i}") for i in itertools.count(1))
    return next(candidate for candidate in candidates if not candidate.exists())


def print_bars(bars: Sequence[tuple[str, bool]]) -> bool:
    """Print what was asked for and whether it was met.

    Returns:
        Whether all of it was.
    """
    for text, met in bars:
        print(f"{'met   ' if met else 'MISSED'}  {text}")
    print()
    return all(met for _, met in bars)
