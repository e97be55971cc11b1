"""Train, test and demonstrate video models: the one command of this project."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from slowfast.config.node import CfgNode
from slowfast.config.redaction import redact_tracebacks
from slowfast.utils.parser import (
    assert_and_infer_cfg,
    cfg_to_yaml,
    console_errors,
    load_config,
    parse_args,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run every config file of the command line in turn.

    Returns:
        Exit status: 0 done, 1 the run failed, 2 a mistake in the configuration, 130 or 143 interrupted.
    """
    with console_errors():
        args = parse_args(argv)
        configs = [assert_and_infer_cfg(load_config(args, path)) for path in args.cfg_files]
    for cfg in configs:
        cfg.freeze()
        status = start(cfg, args)
        if status:
            return status
    return 0


def start(cfg: CfgNode, args: argparse.Namespace) -> int:
    """Print a configuration, try it, or run it, as the command line asks.

    Returns:
        Exit status.
    """
    if args.print_config:
        sys.stdout.write(cfg_to_yaml(cfg))
        return 0
    # Here because it loads torch, which --help and --print-config do without.
    import phases

    return phases.dry_run(cfg) if args.dry_run else phases.run(cfg, init_method=args.init_method)


if __name__ == "__main__":
    redact_tracebacks()
    sys.exit(main())
