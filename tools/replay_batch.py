"""Repeat the step that ended a training because it was not finite, and say where the first bad number comes from.

    python tools/replay_batch.py runs/a/nonfinite/epoch_00002_iteration_0000017.pt

The file holds the batch, the weights, the configuration and the seed of the step; what the configuration names (CLIP,
text features, class names) must still be there. Keys may be changed: --opts TRAIN.MIXED_PRECISION False.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from slowfast.utils.parser import console_errors


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="exit codes: 0 repeated, 1 a file is not usable, 2 a mistake in the command line or the config",
    )
    parser.add_argument("file", help="what the run saved")
    parser.add_argument("--cpu", action="store_true", help="compute on the CPU, although there is a GPU")
    parser.add_argument("--opts", nargs=argparse.REMAINDER, default=[], metavar="KEY VALUE", help="changed keys")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Repeat the step; returns the exit status."""
    args = parse_args(argv)
    import phases  # here, because it loads torch

    with console_errors():
        return phases.guard(lambda: _replay(args))


def _replay(args: argparse.Namespace) -> None:
    import torch

    from slowfast.config.identity import config_of_text
    from slowfast.datasets.build import build_mixup
    from slowfast.engine.precision import choose_precision
    from slowfast.engine.replay import read_replay, repeat_step
    from slowfast.engine.tested_weights import load_into
    from slowfast.methods.build import build_method
    from slowfast.protocols.build import build_protocol
    from slowfast.report.table import format_table

    replay = read_replay(args.file)
    cfg = config_of_text(replay.cfg_text)
    cfg.merge_from_list(args.opts)
    cfg.freeze()
    device = torch.device("cuda" if torch.cuda.is_available() and not args.cpu else "cpu")
    label_set = build_protocol(cfg).train_split().label_set
    method = build_method(cfg, label_set, device=device)
    load_into(method, dict(replay.model_state), source=args.file)
    seen = repeat_step(
        method,
        replay,
        mix=build_mixup(cfg, len(label_set)),
        precision=choose_precision(device, mixed=cfg.TRAIN.MIXED_PRECISION, amp_dtype=cfg.TRAIN.AMP_DTYPE),
        device=device,
    )
    print(f"epoch {replay.epoch + 1}, iteration {replay.iteration + 1}, rank {replay.rank} of {replay.world_size}")
    print(f"videos of the training list, from 0: {', '.join(map(str, replay.batch.video_id.tolist()))}")
    for differs, what in (
        (replay.rank, "masks and mixing are drawn as for rank 0"),
        (cfg.TRAIN.ACCUMULATION_STEPS > 1, "the batch is not split into TRAIN.ACCUMULATION_STEPS parts: other masks"),
        (cfg.TRAIN.LINEAR_CONNECT_CLIMB, "the pass at interpolated weights is left out"),
    ):
        if differs:
            print(f"unlike in the run: {what}")
    print(format_table(["term", "value"], [[name, f"{value:.6g}"] for name, value in seen.losses.items()]))
    print(f"first module with an output that is not finite: {seen.modules[0] if seen.modules else 'none'}")
    first = f", the first {seen.parameters[0]}" if seen.parameters else ""
    print(f"parameters with a gradient that is not finite: {len(seen.parameters)}{first}")


if __name__ == "__main__":
    sys.exit(main())
