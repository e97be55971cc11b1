"""A small dataset, a small CLIP, and the command line, in this process or in one of its own."""

import importlib.util
import json
import logging
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import av
import numpy as np
import pytest
import torch
import yaml

from slowfast.datasets.prepared import read_manifest

REPOSITORY = Path(__file__).resolve().parents[2]
TOOLS = REPOSITORY / "tools"
CLASSES = ("moving left", "moving right", "standing still")
SPLITS = {"train": 12, "val": 3, "test": 5}
WIDTH, HEIGHT, FRAMES = 40, 32, 16

RECIPE = {
    "NUM_GPUS": 0,
    "RNG_SEED": 7,
    "LOG_PERIOD": 1,
    "LOG_MODEL_INFO": False,
    "TRAIN": {"BATCH_SIZE": 4, "CHECKPOINT_PERIOD": 1, "EVAL_PERIOD": 2},
    "TEST": {"BATCH_SIZE": 4, "NUM_ENSEMBLE_VIEWS": 2, "NUM_SPATIAL_CROPS": 1},
    "DATA": {
        "PATH_LABEL_SEPARATOR": ",",
        "NUM_FRAMES": 4,
        "SAMPLING_RATE": 3,
        "TARGET_FPS": 16,
        "TRAIN_JITTER_SCALES": [32, 36],
        "TRAIN_CROP_SIZE": 32,
        "TEST_CROP_SIZE": 32,
        "TEXT_AUG": True,
    },
    "DATA_LOADER": {"NUM_WORKERS": 0},
    "MODEL": {
        "MODEL_NAME": "TemporalClipVideo",
        "ARCH": "custom",
        "NUM_CLASSES": len(CLASSES),
        "LOSS_FUNC": "soft_cross_entropy",
        "TEMPORAL_MODELING_TYPE": "stcross_attend",
        "CHANNEL_FOLD": 8,
        "TEMPORAL_SCALE": [1, 2],
        "KEEP_RAW_MODEL": True,
        "RAW_MODEL_DISTILLATION": True,
        "DISTILLATION_RATIO": 2.0,
        "DISTILLATION_MODE": "intended",
    },
    "SOLVER": {
        "OPTIMIZING_METHOD": "adamw",
        "BASE_LR": 1e-3,
        "WARMUP_START_LR": 1e-4,
        "WARMUP_EPOCHS": 0.5,
        "MAX_EPOCH": 2,
        "CLIP_GRAD_L2NORM": 1.0,
    },
}


OF_METHOD = {
    "stdd": {},
    "tc_clip": {
        "METHOD": "tc_clip",
        "DATA": {"TEXT_AUG": False},
        "MODEL": {"TEMPORAL_MODELING_TYPE": None, "KEEP_RAW_MODEL": False, "RAW_MODEL_DISTILLATION": False},
        "TC_CLIP": {"CONTEXT_TOKEN_K": 5, "TOME_R": 4},
    },
    "ost": {
        "METHOD": "ost",
        "DATA": {"TEXT_AUG": False},
        "MODEL": {"TEMPORAL_MODELING_TYPE": None, "KEEP_RAW_MODEL": False, "RAW_MODEL_DISTILLATION": False},
    },
    "vifi_clip": {
        "METHOD": "vifi_clip",
        "DATA": {"TEXT_AUG": False},
        "MODEL": {"TEMPORAL_MODELING_TYPE": None, "KEEP_RAW_MODEL": False, "RAW_MODEL_DISTILLATION": False},
        "VIFI_CLIP": {"N_CTX_VISION": 3, "PROMPT_DEPTH_VISION": 2, "N_CTX_TEXT": 4, "PROMPT_DEPTH_TEXT": 2},
    },
    "clip_fsar": {
        "METHOD": "clip_fsar",
        "DATA": {"TEXT_AUG": False},
        "MODEL": {"TEMPORAL_MODELING_TYPE": None, "KEEP_RAW_MODEL": False, "RAW_MODEL_DISTILLATION": False},
    },
}
"""What a method changes in the recipe; tests run for all of them with `every_method`."""


def pytest_collection_modifyitems(items):
    # Runs share the cores with their own processes.
    for item in items:
        if Path(item.path).parent == Path(__file__).parent:
            item.add_marker(pytest.mark.slow)


def _write_video(path, label, seed):
    """Noise with a bright bar that moves as the class says."""
    rng = np.random.default_rng(seed)
    backdrop = rng.integers(0, 120, (HEIGHT, WIDTH, 3))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264" if path.suffix == ".mp4" else "mpeg4", rate=16)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.thread_count = 1
        for number in range(FRAMES):
            picture = backdrop.copy()
            column = (20 + (number if label == 1 else -number if label == 0 else 0)) % (WIDTH - 6)
            picture[:, column : column + 6] = (250, 40 + 60 * label, 30)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture.astype(np.uint8), format="rgb24")))
        container.mux(stream.encode(None))


@pytest.fixture(scope="session")
def dataset(tmp_path_factory, write_descriptors):
    """Folder with videos/, {train,val,test}.csv, classes.json, descriptors/ and text.pt."""
    root = tmp_path_factory.mktemp("dataset")
    (root / "videos").mkdir()
    for number, (split, count) in enumerate(SPLITS.items()):
        rows = []
        for index in range(count):
            label = index % len(CLASSES)
            name = f"{split}{index}.{'avi' if index % 2 else 'mp4'}"
            _write_video(root / "videos" / name, label, (number, index))
            rows.append(f"{name},{label}\n")
        (root / f"{split}.csv").write_text("".join(rows), encoding="utf-8")
    (root / "classes.json").write_text(json.dumps(dict(enumerate(CLASSES))), encoding="utf-8")
    write_descriptors(root / "descriptors", CLASSES)
    torch.save(torch.randn(len(CLASSES), 5, 32, generator=torch.Generator().manual_seed(1)).half(), root / "text.pt")
    return root


@pytest.fixture(scope="session")
def recipe(request, dataset, tiny_weights, tmp_path_factory):
    """The YAML file of a complete small run; options go on top. Of STDD, unless a test is parametrised otherwise."""
    content = json.loads(json.dumps(RECIPE))
    content["DATA"] |= {
        "PATH_TO_DATA_DIR": str(dataset),
        "PATH_PREFIX": str(dataset / "videos"),
        "INDEX_LABEL_MAPPING_FILE": str(dataset / "classes.json"),
        "TEXT_AUG_FEATURE_FILE": str(dataset / "text.pt"),
    }
    content["MODEL"]["CLIP_WEIGHTS"] = str(tiny_weights)
    method = getattr(request, "param", "stdd")
    for section, value in OF_METHOD[method].items():
        content[section] = {**content.get(section, {}), **value} if isinstance(value, dict) else value
    path = tmp_path_factory.mktemp("recipe") / f"{method}.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def repository():
    """Root of the checkout."""
    return REPOSITORY


def _words(options):
    return [str(word) for pair in options.items() for word in pair]


@pytest.fixture(scope="session")
def environment():
    """Of processes of their own: one thread each, no GPU, no coloured or buffered output, no launcher's variables."""
    launcher = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
    inherited = {name: value for name, value in os.environ.items() if name not in launcher}
    return {**inherited, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONUNBUFFERED": "1"}


@pytest.fixture(scope="session")
def shell(recipe, environment):
    """Runs a tool in a process of its own: shell(output_dir, KEY=value, ...) -> CompletedProcess."""

    def run(options, *, tool="tools/run_net.py", arguments=(), launcher=(), env=None, cfg=recipe):
        command = [sys.executable, *launcher, str(REPOSITORY / tool), "--cfg", str(cfg), *map(str, arguments)]
        command += ["--opts", *_words(options)] if options else []
        return subprocess.run(
            command, env={**environment, **(env or {})}, capture_output=True, text=True, timeout=240, check=False
        )

    return run


@pytest.fixture(scope="session")
def call_tool():
    """Runs a tool in this process, which loads torch once: call_tool(name, [word, ...]) -> status."""

    def call(tool, arguments):
        with pytest.MonkeyPatch.context() as patch:
            for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
                patch.delenv(name, raising=False)
            patch.syspath_prepend(str(TOOLS))
            spec = importlib.util.spec_from_file_location(tool, TOOLS / f"{tool}.py")
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            try:
                return module.main([str(word) for word in arguments])
            except SystemExit as end:
                return end.code
            finally:
                _close_logs()

    return call


@pytest.fixture
def net(recipe, call_tool, capfd):
    """Runs tools/run_net.py in this process: net({KEY: value}) -> (status, stdout, stderr)."""

    def run(options, *, tool="run_net", arguments=(), cfg=recipe):
        capfd.readouterr()
        status = call_tool(tool, ["--cfg", cfg, *arguments, "--opts", *_words(options)])
        captured = capfd.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture(scope="session")
def prepared(miniature, call_tool, write_descriptors, tmp_path_factory):
    """Prepares a miniature dataset, once each: prepared(name, **options of write_miniature) -> PreparedDataset.

    All with the same options lie in one folder.

    Its descriptors are those of label_db, or made up where that has none.
    """
    folder = cache(lambda **options: tmp_path_factory.mktemp("prepared"))

    @cache
    def prepare(name, **options):
        made, label_db = miniature(name, **options), folder(**options)
        assert call_tool("prepare_data", [*made.arguments, "--output", label_db]) == 0
        dataset = read_manifest(label_db, made.dataset)
        if not (dataset.folder / "descriptors").exists():
            write_descriptors(dataset.folder / "descriptors", dataset.label_set("full/train").names)
        return dataset

    return prepare


def _close_logs():
    logger = logging.getLogger("slowfast")
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()


@pytest.fixture(scope="session")
def json_lines():
    """Reads the `json_stats:` lines of a log, without what differs between two equal runs."""
    clock = {"dt", "dt_data", "dt_net", "eta", "RAM", "gpu_mem", "time_diff"}

    def read(path):
        found = []
        for line in Path(path).read_text(encoding="utf-8").splitlines():
            _, mark, text = line.partition("json_stats: ")
            if mark:
                found.append({key: value for key, value in json.loads(text).items() if key not in clock})
        return found

    return read
