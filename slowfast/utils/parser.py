"""The command line of the tools: arguments, loading a config, one-line errors. Imports no torch."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import socket
import sys
from collections.abc import Iterator, Sequence

import yaml

from slowfast.config.defaults import assert_and_infer_cfg, get_cfg
from slowfast.config.node import CfgNode, ConfigError

__all__ = [
    "ConfigError",
    "assert_and_infer_cfg",
    "cfg_hash",
    "cfg_to_yaml",
    "console_errors",
    "load_config",
    "numbers_config",
    "numbers_hash",
    "parse_args",
]

_EPILOG = """examples:
  python tools/run_net.py --cfg configs/Kinetics/STDD_vitb16_8x16_zeroshot.yaml --opts NUM_GPUS 4
  python tools/run_net.py --cfg a.yaml --print-config --opts SOLVER.MAX_EPOCH 5
exit codes: 0 done, 1 the run failed, 2 a mistake in the command line or the config
"""

TORCHRUN_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
"""What torchrun tells each of its processes; present all together or not at all."""

_SWITCHES = ("--print-config", "--dry-run")

_NO_MATTER = {
    "OUTPUT_DIR": "",
    "NUM_GPUS": 0,
    "NUM_SHARDS": 1,
    "SHARD_ID": 0,
    "DIST_BACKEND": "nccl",
    "LOG_PERIOD": 1,
    "LOG_MODEL_INFO": False,
    "DATA_LOADER.NUM_WORKERS": 0,
    "DATA_LOADER.TIMEOUT_SECONDS": 900,
    "DATA.CACHE_DIR": "",
    "DATA.CACHE_GB": 0.0,
    "MODEL.CLIP_CACHE_DIR": "",
    "SPLITS.LABEL_DB": "label_db",
    "DATA.TEXT_AUG_FEATURE_FILE": "",
    "TRAIN.CUSTOM_LOAD_FILE": None,
    "TEST.CUSTOM_LOAD_FILE": None,
}
"""Keys that change nothing about the numbers, but for rounding: a run that continues may do so elsewhere.

Of files the content counts, and whoever compares hashes compares that too.
"""


def build_parser(description: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of the options that every tool shares."""
    parser = argparse.ArgumentParser(
        description=description or "Train and test video models: one run for each config file.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--cfg", dest="cfg_files", metavar="F", nargs="+", default=[], help="config files, one run each"
    )
    parser.add_argument("--shard_id", type=int, default=0, metavar="N", help="number of this machine, from 0")
    parser.add_argument("--num_shards", type=int, default=1, metavar="N", help="number of machines (default 1)")
    parser.add_argument(
        "--init_method",
        default=None,
        metavar="URL",
        help="where processes meet, such as tcp://localhost:9998; default: a free port of this machine, so that runs "
        "side by side do not collide. Several machines need the address of the first; torchrun brings its own",
    )
    parser.add_argument("--print-config", action="store_true", help="print the resolved config as YAML and exit")
    parser.add_argument(
        "--dry-run", action="store_true", help="build everything, run one synthetic batch, report, exit 0"
    )
    parser.add_argument(
        "--opts",
        nargs=argparse.REMAINDER,
        default=None,
        metavar="KEY VALUE",
        help="overrides of config keys, after all other options; see docs/configs.md",
    )
    return parser


def parse_args(
    argv: Sequence[str] | None = None, *, parser: argparse.ArgumentParser | None = None
) -> argparse.Namespace:
    """Read a command line, as PySlowFast's ``parse_args``; without arguments the help is printed.

    Args:
        argv: arguments without the program's name; None reads ``sys.argv``.
        parser: a parser made by :func:`build_parser` with options added to it.

    Under torchrun the machines and their meeting point come from its environment variables.

    Returns:
        ``cfg_files``, ``opts``, ``shard_id``, ``num_shards``, ``init_method``, ``print_config``, ``dry_run``.
    """
    parser = parser or build_parser()
    argv = sys.argv[1:] if argv is None else list(argv)
    if not argv:
        parser.print_help()
        raise SystemExit(0)
    args = parser.parse_args(argv)
    if not args.cfg_files:
        parser.error("--cfg: name at least one config file")
    for switch in _SWITCHES:
        # --opts takes the rest of the line, so a switch written last lands among the overrides.
        if args.opts and switch in args.opts:
            args.opts.remove(switch)
            setattr(args, switch[2:].replace("-", "_"), True)
    stray = next((word for word in (args.opts or [])[::2] if word.startswith("--")), None)
    if stray is not None:
        parser.error(f"{stray}: --opts takes the rest of the line, write {stray} before it")
    if all(name in os.environ for name in TORCHRUN_VARIABLES):
        # torchrun knows the machines, and how their processes meet.
        args.num_shards = int(os.environ["WORLD_SIZE"]) // int(os.environ["LOCAL_WORLD_SIZE"])
        args.shard_id = int(os.environ["RANK"]) // int(os.environ["LOCAL_WORLD_SIZE"])
        args.init_method = "env://"
    if args.init_method is None:
        if args.num_shards > 1:
            parser.error("--init_method: several machines need the first one's address, such as tcp://host:9998")
        args.init_method = f"tcp://localhost:{_free_port()}"
    return args


def load_config(args: argparse.Namespace, path_to_config: str | None = None) -> CfgNode:
    """Resolve a configuration: defaults, then the YAML file and its bases, then ``--opts``. Nothing is written.

    Args:
        args: result of :func:`parse_args`, or any namespace with some of its fields.
        path_to_config: the YAML file; None for none.

    Returns:
        A tree that can still be changed; :func:`slowfast.config.defaults.assert_and_infer_cfg` checks it.

    Raises:
        ConfigError: if a file, a key or a value is wrong.
    """
    cfg = get_cfg()
    if path_to_config is not None:
        cfg.merge_from_file(path_to_config)
    given = vars(args)
    if given.get("opts"):
        cfg.merge_from_list(given["opts"])
    _apply_shards(cfg, given)
    return cfg


def _apply_shards(cfg: CfgNode, given: dict[str, object]) -> None:
    overrides = list(given.get("opts") or [])  # type: ignore[call-overload]
    for key, option in (("NUM_SHARDS", "num_shards"), ("SHARD_ID", "shard_id")):
        if option not in given:
            continue
        # The files name the machines their authors had; the command line knows the machines of this run.
        if key in overrides[::2] and cfg[key] != given[option]:
            raise ConfigError(f"--opts: {key}: is set by --{option}, which is {given[option]}, found {cfg[key]}")
        cfg[key] = given[option]


def cfg_to_yaml(cfg: CfgNode) -> str:
    """Write a configuration as YAML; loading the text gives the same configuration."""
    return str(yaml.dump(cfg.to_dict(), Dumper=_ConfigDumper, sort_keys=True, width=10**6, allow_unicode=True))


class _ConfigDumper(yaml.SafeDumper):
    """Writes sections as blocks and each list on the line of its key."""


def _inline(dumper: yaml.SafeDumper, values: Sequence[object]) -> yaml.Node:
    return dumper.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=True)


_ConfigDumper.add_representer(list, _inline)
_ConfigDumper.add_representer(tuple, _inline)


def cfg_hash(cfg: CfgNode) -> str:
    """Return the sha256, in hexadecimal, of a configuration's YAML text; equal trees have equal hashes."""
    return hashlib.sha256(cfg_to_yaml(cfg).encode("utf-8")).hexdigest()


def numbers_config(cfg: CfgNode) -> CfgNode:
    """Return a copy of a configuration in which the keys that say where and how fast it runs have fixed values."""
    changed = cfg.clone()
    changed.defrost()
    for key, value in _NO_MATTER.items():
        changed.merge_from_list([key, value])
    return changed


def numbers_hash(cfg: CfgNode) -> str:
    """Return the hash of a configuration without the keys that say where and how fast it runs."""
    return cfg_hash(numbers_config(cfg))


@contextlib.contextmanager
def console_errors() -> Iterator[None]:
    """Turn a configuration error into one line on stderr and exit status 2."""
    try:
        yield
    except ConfigError as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(2) from None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return int(probe.getsockname()[1])
