"""Build the chosen protocol."""

from __future__ import annotations

from slowfast.config.node import CfgNode
from slowfast.datasets.types import EpisodeSpec, Mode
from slowfast.protocols import PROTOCOLS
from slowfast.protocols.base import EpisodeOptions, EvalProtocol, PreparedOptions, ProtocolOptions, SplitPaths
from slowfast.utils.registry import resolve
from slowfast.utils.seed import derive_seed

_OPENSET_FILE = "test_openset.csv"


def test_file(cfg: CfgNode) -> str:
    """Name of the annotation file that a test reads."""
    return _OPENSET_FILE if cfg.TEST.OPENSET else cfg.TEST_FILE


def protocol_class(name: str) -> type[EvalProtocol]:
    """The class of a protocol.

    Raises:
        ValueError: if there is none of that name.
    """
    found: type[EvalProtocol] = resolve(PROTOCOLS, name, key="PROTOCOL")
    return found


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
    splits = cfg.SPLITS
    paths = SplitPaths(
        data_dir=cfg.DATA.PATH_TO_DATA_DIR,
        train_file=cfg.TRAIN_FILE,
        val_file=cfg.VAL_FILE,
        test_file=test_file(cfg),
        label_map=cfg.DATA.INDEX_LABEL_MAPPING_FILE,
    )
    prepared = PreparedOptions(
        label_db=splits.LABEL_DB,
        dataset=splits.DATASET,
        source=splits.SOURCE,
        names=splits.NAMES,
        shots=splits.SHOTS,
        seed=splits.SEED,
        number=splits.NUMBER,
        halves=splits.HALVES,
        all_tests=splits.ALL_TESTS,
        root=cfg.DATA.PATH_PREFIX,
    )
    options = ProtocolOptions(
        paths=paths,
        prepared=prepared,
        episodes=_episode_options(cfg),
        views=cfg.TEST.NUM_ENSEMBLE_VIEWS if views is None else views,
        crops=cfg.TEST.NUM_SPATIAL_CROPS,
    )
    return protocol_class(cfg.PROTOCOL)(options)


def _episode_options(cfg: CfgNode) -> EpisodeOptions:
    episodes = cfg.EPISODES
    way, shot = episodes.WAY_TEST or episodes.WAY, episodes.SHOT_TEST or episodes.SHOT
    keys = (
        "WAY_TEST" if episodes.WAY_TEST else "WAY", "SHOT_TEST" if episodes.SHOT_TEST else "SHOT", "QUERY_TEST"
    )  # fmt: skip

    def spec(mode: Mode, count: int) -> EpisodeSpec:
        if mode == "train":
            seed = derive_seed("episodes", mode, cfg.RNG_SEED)
            return EpisodeSpec(way=episodes.WAY, shot=episodes.SHOT, query=episodes.QUERY, count=count, seed=seed)
        seed = derive_seed("episodes", mode, episodes.SEED)
        return EpisodeSpec(
            way=way, shot=shot, query=episodes.QUERY_TEST, count=count, seed=seed, keys=keys,
            random_frames=mode == "test" and episodes.TEST_FRAMES == "random",
        )  # fmt: skip

    return EpisodeOptions(
        benchmark=episodes.BENCHMARK,
        val_classes=episodes.VAL,
        train=spec("train", episodes.NUM_TRAIN) if episodes.TRAIN else None,
        val=spec("val", episodes.NUM_VAL),
        test=spec("test", episodes.NUM_TEST),
    )
