"""The phases of a run, and how their errors reach the shell."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import demo_net
import dry_run_net
import test_net
import torch.multiprocessing as mp
import train_net

from slowfast.config.node import CfgNode, ConfigError
from slowfast.engine.launch import LaunchPlan, ProcessContext, is_first_process, launch
from slowfast.utils.distributed import barrier
from slowfast.utils.errors import USER_ERRORS, describe_error
from slowfast.utils.io import atomic_write_text
from slowfast.utils.logging import get_logger, redact, setup_logging
from slowfast.utils.parser import cfg_to_yaml

logger = get_logger(__name__)

Phase = Callable[[ProcessContext, CfgNode], None]

FAILED, INTERRUPTED = 1, 130


def enabled_phases(cfg: CfgNode) -> list[Phase]:
    """The phases that the configuration enables, in order."""
    enabled = (
        (cfg.TRAIN.ENABLE, train_net.train),
        (cfg.TEST.ENABLE, test_net.test),
        (cfg.DEMO.ENABLE, demo_net.demo),
    )
    return [phase for switch, phase in enabled if switch]


def run(cfg: CfgNode, *, init_method: str) -> int:
    """Run the enabled phases.

    Returns:
        Exit status.
    """
    return guard(lambda: _run_phases(cfg, init_method))


def dry_run(cfg: CfgNode) -> int:
    """Build everything and report.

    Returns:
        Exit status.
    """
    return guard(lambda: dry_run_net.dry_run(cfg))


def _run_phases(cfg: CfgNode, init_method: str) -> None:
    plan = LaunchPlan(
        num_gpus=cfg.NUM_GPUS,
        num_shards=cfg.NUM_SHARDS,
        shard_id=cfg.SHARD_ID,
        backend=cfg.DIST_BACKEND,
        init_method=init_method,
    )
    if is_first_process(shard_id=cfg.SHARD_ID):
        _announce(cfg)
    launch(plan, run_enabled, cfg)


def run_enabled(context: ProcessContext, cfg: CfgNode) -> None:
    """Run the enabled phases in every process of the run."""
    for phase in enabled_phases(cfg):
        phase(context, cfg)
        # What rank 0 wrote is there before another rank looks for it.
        barrier()


def _announce(cfg: CfgNode) -> None:
    """Print the resolved configuration and save it, once per run."""
    if not (cfg.TRAIN.ENABLE or cfg.TEST.ENABLE):
        return
    setup_logging(cfg.OUTPUT_DIR)
    path, text = Path(cfg.OUTPUT_DIR) / "config.yaml", cfg_to_yaml(cfg)
    atomic_write_text(path, text)
    logger.info("Resolved configuration, saved as %s:\n%s", path, text)


def guard(action: Callable[[], None]) -> int:
    """Turn an error that a user can mend into one line; anything else is a defect and keeps its traceback."""
    try:
        action()
    except ConfigError:
        raise  # main() tells it, with a status of its own
    except USER_ERRORS as error:
        sys.stderr.write(redact(f"error: {describe_error(error)}\n"))
        return FAILED
    except mp.ProcessExitedException as error:
        sys.stderr.write(f"error: rank {error.error_index} ended with exit status {error.exit_code}\n")
        return FAILED
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return INTERRUPTED
    return 0
