r"""Kill a training again and again, also while it saves, and see that it ends as if nothing had happened.

    python tests/soak/soak.py --kills 50 --workers 2 --world 1

A small model is trained twice on videos of noise: once undisturbed, once through a number of ends of different kinds
at random moments, each followed by the same command again. Weights, optimiser, place and the figures of all epochs must
be equal to the bit, and no process and no unfinished file may be left. Bounded: --minutes ends it with a failure.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch
import yaml

from slowfast.datasets.synthetic import write_video
from slowfast.models.clip.arch import ClipSizes
from slowfast.models.clip.weights import random_clip_state_dict

ROOT = Path(__file__).resolve().parents[2]
CLASSES = ("a", "b", "c")
VIDEOS, BATCH, SIDE = 96, 4, 32
STEPS_PER_EPOCH = VIDEOS // BATCH
CLOCK = {"dt", "dt_data", "dt_net", "eta", "RAM", "gpu_mem", "time_diff"}
SIZES = ClipSizes(
    image_size=SIDE, patch_size=8, vision_width=64, vision_layers=2, embed_dim=32, text_width=64, text_layers=1
)
# Kind of end -> how often. "save": while a file is being written. "rank": one process of several.
KINDS = {"group": 8, "main": 4, "save": 8, "start": 2, "term": 3, "usr1": 1, "int": 1, "rank": 4}


def main() -> int:
    """Run both trainings and compare them."""
    args = parse_args()
    folder = args.folder or Path(tempfile.mkdtemp(prefix="soak-"))
    recipe = prepare(folder, args)
    rng = random.Random(args.seed)
    deadline = time.monotonic() + 60 * args.minutes
    print(f"undisturbed training in {folder / 'straight'}", flush=True)
    straight = Life(recipe, folder / "straight", args)
    assert straight.wait(deadline) == 0, straight.tail()
    print(f"training with {args.kills} interruptions in {folder / 'killed'}", flush=True)
    counts, places = torment(recipe, folder / "killed", args, rng, deadline)
    last = Life(recipe, folder / "killed", args)
    assert last.wait(deadline) == 0, last.tail()
    compare(folder / "straight", folder / "killed", epochs=args.epochs)
    print(f"{sum(counts.values())} interruptions ({dict(counts)}), at {len(places)} different steps: equal to the bit")
    if args.folder is None:
        shutil.rmtree(folder)
    return 0


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--workers", type=int, default=2, help="loader processes")
    parser.add_argument("--world", type=int, default=1, help="training processes")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--steps", type=int, default=5, help="TRAIN.CHECKPOINT_STEPS")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and kinds")
    parser.add_argument("--minutes", type=float, default=60.0, help="longest time for all of it")
    parser.add_argument("--folder", type=Path, help="kept; default: a temporary one that goes if all is well")
    return parser.parse_args()


def prepare(folder: Path, args: argparse.Namespace) -> Path:
    """Render the videos, make weights and text features, and write the recipe."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "videos").mkdir(parents=True)
    rows = []
    for number in range(VIDEOS):
        pixels = np.random.default_rng(number).integers(0, 255, (16, SIDE, SIDE + 8, 3), dtype=np.uint8)
        name = f"{number}.{'avi' if number % 2 else 'mp4'}"
        write_video(folder / "videos" / name, pixels, fps=16)
        rows.append(f"{name},{number % len(CLASSES)}\n")
    (folder / "train.csv").write_text("".join(rows), encoding="utf-8")
    (folder / "val.csv").write_text("".join(rows[:6]), encoding="utf-8")
    (folder / "classes.json").write_text(json.dumps(dict(enumerate(CLASSES))), encoding="utf-8")
    torch.save(random_clip_state_dict(SIZES, seed=1), folder / "clip.pt")
    torch.save(torch.randn(len(CLASSES), 4, 32, generator=torch.Generator().manual_seed(2)), folder / "text.pt")
    content = {
        "NUM_GPUS": args.world if args.world > 1 else 0,
        "DIST_BACKEND": "gloo",
        "RNG_SEED": 3,
        "LOG_PERIOD": 1,
        "LOG_MODEL_INFO": False,
        "TRAIN": {
            "BATCH_SIZE": BATCH, "EVAL_PERIOD": 7, "CHECKPOINT_PERIOD": 3, "CHECKPOINT_STEPS": args.steps,
            "KEEP_LAST_CHECKPOINTS": 2,
        },
        "TEST": {"ENABLE": False},
        "DATA": {
            "PATH_TO_DATA_DIR": str(folder), "PATH_PREFIX": str(folder / "videos"), "PATH_LABEL_SEPARATOR": ",",
            "INDEX_LABEL_MAPPING_FILE": str(folder / "classes.json"), "TEXT_AUG": True,
            "TEXT_AUG_FEATURE_FILE": str(folder / "text.pt"), "NUM_FRAMES": 4, "SAMPLING_RATE": 2, "TARGET_FPS": 16,
            "TRAIN_JITTER_SCALES": [SIDE, SIDE + 4], "TRAIN_CROP_SIZE": SIDE, "TEST_CROP_SIZE": SIDE,
        },
        "DATA_LOADER": {"NUM_WORKERS": args.workers},
        "MODEL": {
            "MODEL_NAME": "TemporalClipVideo", "ARCH": "custom", "CLIP_WEIGHTS": str(folder / "clip.pt"),
            "NUM_CLASSES": len(CLASSES), "TEMPORAL_MODELING_TYPE": "stcross_attend", "CHANNEL_FOLD": 8,
            "KEEP_RAW_MODEL": True, "RAW_MODEL_DISTILLATION": True,
        },
        "SOLVER": {
            "OPTIMIZING_METHOD": "adamw", "BASE_LR": 1e-3, "WARMUP_START_LR": 1e-4, "WARMUP_EPOCHS": 1.0,
            "MAX_EPOCH": args.epochs,
        },
    }  # fmt: skip
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


class Life:
    """One start of the command, until its end."""

    def __init__(self, recipe: Path, output: Path, args: argparse.Namespace) -> None:
        self.output = output
        command = [sys.executable, str(ROOT / "tools" / "run_net.py"), "--cfg", str(recipe)]
        command += ["--opts", "OUTPUT_DIR", str(output)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "CUDA_VISIBLE_DEVICES": ""}
        self.process = subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.lines: list[str] = []
        self.steps: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self.process.stdout or ():
            self.lines.append(line)
            if '"train_iter_"' in line:
                stats = json.loads(line.partition("json_stats: ")[2])
                self.steps.put(f"{stats['epoch']} {stats['iter']}")

    def tail(self) -> str:
        """The end of what it said."""
        return "".join(self.lines[-30:])

    def wait(self, deadline: float) -> int:
        """Wait for its end; returns the status."""
        try:
            return self.process.wait(timeout=max(1.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.signal_group(signal.SIGKILL)
            raise AssertionError("out of time: " + self.tail()) from None

    def await_steps(self, count: int, deadline: float) -> str | None:
        """Wait until some steps are done; returns the last one's name, None if it ended before."""
        step = ""
        while count and time.monotonic() < deadline:
            try:
                step, count = self.steps.get(timeout=0.2), count - 1
            except queue.Empty:
                if self.process.poll() is not None:
                    return None
        return step

    def signal_group(self, signum: int) -> None:
        """Send a signal to all its processes."""
        try:
            os.killpg(self.process.pid, signum)
        except ProcessLookupError:
            return

    def await_silence(self) -> None:
        """Wait until every process of its group is gone."""
        for _ in range(600):
            try:
                os.killpg(self.process.pid, 0)
            except ProcessLookupError:
                return
            time.sleep(0.1)
        raise AssertionError(f"processes of {self.process.pid} outlive it: " + self.tail())

    def ranks(self) -> list[int]:
        """The training processes that the main process started."""
        found = []
        for child in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split():
            words = Path(f"/proc/{child}/cmdline").read_bytes()
            found += [int(child)] if b"spawn_main" in words else []
        return found


def torment(
    recipe: Path, output: Path, args: argparse.Namespace, rng: random.Random, deadline: float
) -> tuple[Counter[str], set[str]]:
    """Start and end the training `kills` times."""
    counts: Counter[str] = Counter()
    places: set[str] = set()
    kinds = {kind: weight for kind, weight in KINDS.items() if kind != "rank" or args.world > 1}
    total = args.epochs * STEPS_PER_EPOCH
    lost = 0
    while sum(counts.values()) < args.kills:
        left = args.kills - sum(counts.values())
        kind = rng.choices(list(kinds), list(kinds.values()))[0]
        # Steps since the last checkpoint are computed again, so that lives may be a little longer than their share.
        life = Life(recipe, output, args)
        budget = max(2, int(1.6 * (total - place_of(output)) / (left + 2)))
        if kind == "start":
            time.sleep(rng.uniform(0.2, 6.0))
            step: str | None = "start"
        else:
            step = life.await_steps(rng.randint(1, budget), deadline)
        assert step is not None, "it ended by itself before it was interrupted often enough: " + life.tail()
        if kind == "save":
            await_part(output, deadline)
        elif kind != "start":
            time.sleep(rng.uniform(0, 0.05))
        status = end(life, kind, deadline, rng)
        life.await_silence()
        counts[kind] += 1
        places.add(step)
        lost += kind not in ("term", "usr1", "int")
        print(
            f"{sum(counts.values()):3d} {kind:6s} at {step or 'start'} -> exit {status}, {place_of(output)}/{total}",
            flush=True,
        )
    return counts, places


def await_part(output: Path, deadline: float) -> None:
    """Wait until a checkpoint is being written."""
    while time.monotonic() < deadline:
        try:
            if any(path.suffix == ".part" for path in (output / "checkpoints").iterdir()):
                return
        except FileNotFoundError:
            pass
        time.sleep(0.0005)


def end(life: Life, kind: str, deadline: float, rng: random.Random) -> int:
    """End a life in one of the ways, and check what it leaves and says."""
    expected: set[int]
    if kind in ("group", "save", "start"):
        life.signal_group(signal.SIGKILL)
        expected = {-signal.SIGKILL}
    elif kind == "main":
        life.process.kill()
        expected = {-signal.SIGKILL}
    elif kind == "rank":
        os.kill(rng.choice(life.ranks()), signal.SIGKILL)
        expected = {1}
    else:
        signum = {"term": signal.SIGTERM, "usr1": signal.SIGUSR1, "int": signal.SIGINT}[kind]
        if rng.random() < 0.5:
            life.signal_group(signum)
        else:
            life.process.send_signal(signum)
        expected = {130 if kind == "int" else 143}
    status = life.wait(deadline)
    assert status in expected, f"{kind}: exit {status} instead of {expected}: " + life.tail()
    # A worker whose process was killed while it handed a batch over tells so, in the words of Python's library.
    assert f'File "{ROOT / "slowfast"}' not in life.tail(), life.tail()
    if kind == "rank":
        assert "was killed by SIGKILL" in life.tail(), life.tail()
    return status


def place_of(output: Path) -> int:
    """Steps that the checkpoints of a run reach."""
    places = [0]
    for path in (output / "checkpoints").glob("*.pyth") if (output / "checkpoints").is_dir() else ():
        numbers = [int(part) for part in path.stem.split("_") if part.isdigit()]
        within = len(numbers) == 2
        places.append((numbers[0] - within) * STEPS_PER_EPOCH + (numbers[1] // BATCH if within else 0))
    return max(places)


def compare(straight: Path, killed: Path, *, epochs: int) -> None:
    """Compare what two runs left, bit for bit."""
    contents = [
        torch.load(folder / "checkpoints" / f"checkpoint_epoch_{epochs:05d}.pyth", weights_only=True)
        for folder in (straight, killed)
    ]
    for content in contents:
        content.pop("cfg")  # names the folder
    assert_same(*contents, where="checkpoint")
    epochs_of = [epoch_lines(folder / "json_stats.log") for folder in (straight, killed)]
    assert_same(*epochs_of, where="json_stats.log")
    names = [sorted(path.name for path in (folder / "checkpoints").iterdir()) for folder in (straight, killed)]
    assert names[0] == names[1], names
    assert not [*killed.rglob("*.part"), *killed.rglob(".lock")]


def epoch_lines(path: Path) -> dict[str, dict[str, object]]:
    """The last line of every epoch, without the clock."""
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        stats = json.loads(line.partition("json_stats: ")[2])
        found[f"{stats['_type']} {stats['epoch']}"] = {key: v for key, v in stats.items() if key not in CLOCK}
    return found


def assert_same(a: object, b: object, *, where: str) -> None:
    """Compare nested containers of tensors bit for bit."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict) and isinstance(b, dict):
        assert a.keys() == b.keys(), f"{where}: {sorted(map(str, a.keys() ^ b.keys()))}"
        for key in a:
            assert_same(a[key], b[key], where=f"{where}.{key}")
    elif isinstance(a, list | tuple) and isinstance(b, list | tuple):
        assert len(a) == len(b), where
        for number, (left, right) in enumerate(zip(a, b, strict=True)):
            assert_same(left, right, where=f"{where}[{number}]")
    else:
        assert a == b, f"{where}: {a!r} is not {b!r}"


if __name__ == "__main__":
    sys.exit(main())
