"""Score a method on the test splits of a protocol."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from train_net import split_loader, start_phase

from slowfast.config.node import CfgNode
from slowfast.datasets.types import Split
from slowfast.engine.build import load_test_weights
from slowfast.engine.evaluator import EvalConfig, evaluate
from slowfast.engine.launch import ProcessContext, first_on_machine
from slowfast.engine.meters import TestMeter
from slowfast.engine.precision import Precision, choose_precision
from slowfast.engine.predictions import Predictions
from slowfast.methods.base import Method
from slowfast.methods.build import build_method
from slowfast.protocols.base import EvalProtocol
from slowfast.protocols.build import build_protocol
from slowfast.report.results import RunResult, save_predictions, write_results
from slowfast.utils.io import sha256_file, sha256_tensors
from slowfast.utils.logging import get_logger, log_json_stats
from slowfast.utils.parser import cfg_hash

logger = get_logger(__name__)

_VIEW_SERIES = (1, 3, 5, 7, 10)
"""What TEST.NUM_ENSEMBLE_VIEWS -1 stands for."""


def test(context: ProcessContext, cfg: CfgNode) -> None:
    """Score every test split, once per number of views, in every process of the run.

    Raises:
        ValueError: if something the run needs is not usable, or no video could be scored.
    """
    start_phase(context, cfg)
    label_set = build_protocol(cfg).eval_splits()[0].label_set
    with first_on_machine(context):
        method = build_method(cfg, label_set, training=False, device=context.device)
    weights = load_test_weights(cfg, method)
    series = num_views(cfg)
    for views in series:
        protocol = build_protocol(cfg, views=views)
        predictions = {split.name: _score(cfg, context, method, split) for split in protocol.eval_splits()}
        if context.rank == 0:
            suffix = f"_{views}views" if len(series) > 1 else ""
            _report(cfg, protocol, predictions, method=method, weights=weights, suffix=suffix)


def num_views(cfg: CfgNode) -> Sequence[int]:
    """Temporal views per video to test with, one test for each."""
    if cfg.TEST.NUM_TEMPORAL_CLIPS:
        return tuple(cfg.TEST.NUM_TEMPORAL_CLIPS)
    return _VIEW_SERIES if cfg.TEST.NUM_ENSEMBLE_VIEWS == -1 else (cfg.TEST.NUM_ENSEMBLE_VIEWS,)


def test_precision(cfg: CfgNode, context: ProcessContext) -> Precision:
    """The dtype of a test: fp32, unless TEST.PRECISION asks for that of training."""
    return choose_precision(context.device, mixed=cfg.TEST.PRECISION == "amp", amp_dtype=cfg.TRAIN.AMP_DTYPE)


def _score(cfg: CfgNode, context: ProcessContext, method: Method, split: Split) -> Predictions:
    loader = split_loader(cfg, context, split)
    meter, start = TestMeter(num_iters=len(loader)), time.perf_counter()

    def report(iteration: int) -> None:
        if (iteration + 1) % cfg.LOG_PERIOD == 0 or iteration + 1 == len(loader):
            seconds = (time.perf_counter() - start) / (iteration + 1)
            log_json_stats(meter.iteration_stats(iteration, seconds=seconds))

    predictions = evaluate(
        method,
        loader,
        precision=test_precision(cfg, context),
        device=context.device,
        config=EvalConfig(
            num_videos=len(loader.dataset),  # type: ignore[arg-type]
            num_classes=len(split.label_set),
            clips_per_forward=max(1, cfg.TEST.BATCH_SIZE // context.local_world_size),
            merge=cfg.DATA.ENSEMBLE_METHOD,
        ),
        on_batch=report,
    )
    if not len(predictions.label):
        raise ValueError(f"{split.csv}: none of its {predictions.num_expected} videos could be decoded")
    return predictions


def _report(
    cfg: CfgNode,
    protocol: EvalProtocol,
    predictions: dict[str, Predictions],
    *,
    method: Method,
    weights: Path | None,
    suffix: str,
) -> None:
    metrics = protocol.summarise(predictions)
    output_dir = Path(cfg.OUTPUT_DIR)
    for name, scored in predictions.items():
        if cfg.TEST.SAVE_RESULTS_PATH:
            path = Path(cfg.TEST.SAVE_RESULTS_PATH)
            save_predictions(scored.logits, scored.label, output_dir / path.with_name(path.stem + suffix + path.suffix))
        result = RunResult(
            metrics=metrics,
            num_videos=scored.num_expected,
            num_scored=len(scored.label),
            missing=scored.bad,
            protocol=cfg.PROTOCOL,
            split=name,
            seed=cfg.RNG_SEED,
            config_sha256=cfg_hash(cfg),
            model_sha256=sha256_tensors(method.checkpoint_state()),
            weights=str(weights) if weights else "",
            weights_sha256=sha256_file(weights) if weights else "",
        )
        path = write_results(result, output_dir / f"results{suffix}.json")
        logger.info("Scored %d of %d videos; wrote %s", len(scored.label), scored.num_expected, path)
    final = TestMeter(num_iters=1).final_stats({1: metrics["top1_acc"], 5: metrics["top5_acc"]})
    log_json_stats(final, output_dir)
