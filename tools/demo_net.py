"""Score one's own videos: any video files, any class names, no dataset."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from run_net import start

from slowfast.config.node import CfgNode, ConfigError
from slowfast.config.redaction import redact, redact_tracebacks
from slowfast.utils.parser import (
    assert_and_infer_cfg,
    build_parser,
    console_errors,
    load_config,
    parse_args,
)

if TYPE_CHECKING:
    import torch

    from slowfast.engine.launch import ProcessContext
    from slowfast.methods.base import Method
    from slowfast.visualization.explain_videos import Explainer
    from slowfast.visualization.predictor import Guess


def main(argv: Sequence[str] | None = None) -> int:
    """Score the videos of the command line.

    Returns:
        Exit status, as of run_net.
    """
    parser = build_parser("Score your own videos against your own class names.")
    parser.add_argument("--video", nargs="+", default=[], metavar="PATH", help="video files, or folders of videos")
    parser.add_argument("--classes", nargs="+", default=[], metavar="NAME", help="class names")
    parser.add_argument("--topk", type=int, metavar="K", help="classes to show per video (default DEMO.TOPK)")
    parser.add_argument(
        "--explain",
        nargs="?",
        const="",
        metavar="DIR",
        help="draw what the method looked at in every clip, a picture and a film each (default OUTPUT_DIR/explain)",
    )
    parser.add_argument(
        "--layers", nargs="+", type=int, default=[], metavar="N", help="layers to draw (default first, middle, last)"
    )
    with console_errors():
        args = parse_args(argv, parser=parser)
        if len(args.cfg_files) != 1:
            raise ConfigError(f"--cfg: {len(args.cfg_files)} config files; the demo takes one")
        cfg = load_config(args, args.cfg_files[0])
        cfg.TRAIN.ENABLE, cfg.TEST.ENABLE, cfg.DEMO.ENABLE = False, False, True
        cfg.DEMO.VIDEOS = args.video or cfg.DEMO.VIDEOS
        cfg.DEMO.CLASSES = args.classes or cfg.DEMO.CLASSES
        cfg.DEMO.TOPK = args.topk or cfg.DEMO.TOPK
        if args.explain is not None:
            cfg.DEMO.EXPLAIN = args.explain or str(Path(cfg.OUTPUT_DIR) / "explain")
        cfg.DEMO.EXPLAIN_LAYERS = args.layers or cfg.DEMO.EXPLAIN_LAYERS
        if not cfg.DEMO.VIDEOS:
            raise ConfigError("--video: no video is named; give files or folders")
        if args.layers and not cfg.DEMO.EXPLAIN:
            raise ConfigError("--layers: nothing is drawn without --explain")
        cfg = assert_and_infer_cfg(cfg)
        cfg.freeze()
    return start(cfg, args)


def demo(context: ProcessContext, cfg: CfgNode) -> None:
    """Print the best classes of every video of DEMO.VIDEOS, and draw what the method looked at if DEMO.EXPLAIN is set.

    Raises:
        ValueError: if a path, the weights or the class names are not usable.
    """
    # Here because they load torch, which --help does without.
    from test_net import test_precision

    from slowfast.datasets.build import build_video_loader
    from slowfast.datasets.label_set import LabelSet
    from slowfast.engine.build import load_test_weights
    from slowfast.engine.evaluator import EvalConfig, gather_bad, score_videos
    from slowfast.methods.build import build_method
    from slowfast.utils.distributed import all_gather_objects
    from slowfast.utils.logging import setup_logging
    from slowfast.visualization.predictor import LastBatch, find_videos, top_guesses

    setup_logging(None, rank=context.rank)
    own = list(cfg.DEMO.CLASSES)
    class_list = cfg.DATA.INDEX_LABEL_MAPPING_FILE
    # Texts about one's own classes, if the method reads any, are looked for beside the class list.
    source = Path(class_list) if class_list else None
    label_set = LabelSet.from_names(own, source=source) if own else LabelSet.from_json(class_list)
    videos = find_videos(cfg.DEMO.VIDEOS)
    method = build_method(_with_templates(cfg) if own else cfg, label_set, training=False, device=context.device)
    load_test_weights(cfg, method)
    explainer = _build_explainer(cfg, method, videos, device=context.device) if cfg.DEMO.EXPLAIN else None
    loader = LastBatch(build_video_loader(videos, cfg=cfg, rank=context.rank, world_size=context.world_size))
    views = max(1, cfg.TEST.NUM_ENSEMBLE_VIEWS) * cfg.TEST.NUM_SPATIAL_CROPS
    config = EvalConfig(clips_per_forward=cfg.TEST.BATCH_SIZE)
    found: dict[int, tuple[list[Guess], tuple[str, ...]]] = {}
    bad: list[str] = []
    for batch in score_videos(
        method, loader, precision=test_precision(cfg, context), device=context.device, config=config
    ):
        for video_id, logits in zip(batch.video_id.tolist(), batch.logits, strict=True):
            best = top_guesses(logits / views, label_set.names, k=cfg.DEMO.TOPK)
            drawn = None if explainer is None else explainer.draw(loader.clips(video_id), best=best[0])
            found[video_id] = best, () if drawn is None else drawn.lines
        bad.extend(batch.bad)
    parts, missing = all_gather_objects(found), gather_bad(bad)
    if context.rank != 0:
        return
    for video_id, (best, matches) in sorted(item for part in parts for item in part.items()):
        sys.stdout.write(redact(f"{videos[video_id]}\n"))
        for guess in best:
            sys.stdout.write(f"  {guess.probability:7.2%}  {guess.name}\n")
        for line in matches:
            sys.stdout.write(f"  {line}\n")
    if explainer is not None:
        sys.stdout.write(redact(f"pictures and films of every clip: {explainer.folder}\n"))
    if missing:
        raise ValueError(f"{len(missing)} of {len(videos)} videos cannot be decoded; {missing[0]}")


def _build_explainer(cfg: CfgNode, method: Method, videos: Sequence[Path], *, device: torch.device) -> Explainer:
    """What draws the clips; it has tried the method and the layers on an empty clip."""
    from slowfast.visualization.explain_videos import ClipFormat, Explainer

    clips = ClipFormat(
        num_frames=cfg.DATA.NUM_FRAMES,
        side_px=cfg.DATA.TEST_CROP_SIZE,
        views=max(1, cfg.TEST.NUM_ENSEMBLE_VIEWS),
        crops=cfg.TEST.NUM_SPATIAL_CROPS,
        bgr=cfg.DATA.REVERSE_INPUT_CHANNEL,
    )
    return Explainer(
        method, videos, clips=clips, folder=cfg.DEMO.EXPLAIN, layers=cfg.DEMO.EXPLAIN_LAYERS, device=device
    )  # fmt: skip


def _with_templates(cfg: CfgNode) -> CfgNode:
    """Class names of the command line have no file of prompt features; the templates describe them."""
    changed = cfg.clone()
    changed.defrost()
    changed.DATA.TEXT_AUG = False
    changed.freeze()
    return changed


if __name__ == "__main__":
    redact_tracebacks()
    sys.exit(main())
