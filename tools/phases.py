"""The phases of a run, and how their errors reach the shell."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable

import demo_net
import dry_run_net
import test_net
import train_net

from slowfast.config.node import CfgNode, ConfigError
from slowfast.engine.build import build_launch_plan
from slowfast.engine.interrupts import Interrupted
from slowfast.engine.launch import ProcessContext, is_first_process, launch
from slowfast.utils.distributed import barrier
from slowfast.utils.errors import USER_ERRORS, error_line
from slowfast.utils.logging import get_logger, setup_logging
from slowfast.utils.parser import cfg_to_yaml
from slowfast.utils.run_lock import run_lock

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
    setup_logging(None, rank=0 if is_first_process(shard_id=cfg.SHARD_ID) else 1)
    launch(build_launch_plan(cfg, init_method=init_method), run_enabled, cfg)


def run_enabled(context: ProcessContext, cfg: CfgNode) -> None:
    """Run the enabled phases in every process of the run.

    Raises:
        ValueError: if another run is in OUTPUT_DIR, or a phase fails.
    """
    with contextlib.ExitStack() as stack:
        if context.rank == 0 and (cfg.TRAIN.ENABLE or cfg.TEST.ENABLE):
            stack.enter_context(run_lock(cfg.OUTPUT_DIR))
            _announce(cfg)
        barrier()  # nobody writes before the folder is ours
        for phase in enabled_phases(cfg):
            phase(context, cfg)
            # What rank 0 wrote is there before another rank looks for it.
            barrier()


def _announce(cfg: CfgNode) -> None:
    """Print the resolved configuration; a training saves it once it knows that its checkpoints have the same."""
    setup_logging(cfg.OUTPUT_DIR)
    logger.info("Resolved configuration:\n%s", cfg_to_yaml(cfg))
    if not cfg.TRAIN.ENABLE:
        train_net.save_config(cfg)


def guard(action: Callable[[], None]) -> int:
    """Turn an error that a user can mend, or a signal, into one line; anything else keeps its traceback."""
    try:
        action()
    except ConfigError:
        raise  # main() tells it, with a status of its own
    except USER_ERRORS as error:
        sys.stderr.write(f"{error_line(error)}\n")
        return FAILED
    except Interrupted as end:
        sys.stderr.write(f"{end}\n")
        return end.status
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return INTERRUPTED
    return 0
