"""Build the chosen protocol."""

from __future__ import annotations

from slowfast.config.node import CfgNode
from slowfast.protocols import PROTOCOLS
from slowfast.protocols.base import EvalProtocol, SplitPaths
from slowfast.utils.registry import resolve

_OPENSET_FILE = "test_openset.csv"


def test_file(cfg: CfgNode) -> str:
    """Name of the annotation file that a test reads."""
    return _OPENSET_FILE if cfg.TEST.OPENSET else cfg.TEST_FILE


def build_protocol(cfg: CfgNode, *, views: int | None = None) -> EvalProtocol:
    """Build the protocol that PROTOCOL names.

    Args:
        cfg: the frozen configuration.
        views: temporal views per test video; None means TEST.NUM_ENSEMBLE_VIEWS.

    Returns:
        The protocol.

    Raises:
        ValueError: if the protocol is unknown or its files are not usable.
    """
    paths = SplitPaths(
        data_dir=cfg.DATA.PATH_TO_DATA_DIR,
        train_file=cfg.TRAIN_FILE,
        val_file=cfg.VAL_FILE,
        test_file=test_file(cfg),
        label_map=cfg.DATA.INDEX_LABEL_MAPPING_FILE,
        views=cfg.TEST.NUM_ENSEMBLE_VIEWS if views is None else views,
        crops=cfg.TEST.NUM_SPATIAL_CROPS,
    )
    return resolve(PROTOCOLS, cfg.PROTOCOL, key="PROTOCOL")(paths)
