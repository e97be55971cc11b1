"""Options of OST: its section of the configuration, and what the method reads of the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from slowfast.config.node import CfgNode
from slowfast.config.shared import STDD_KEYS, ClipOptions, clip_options, refuse_foreign

Trained = Literal["both", "image", "text"]
Solver = Literal["sinkhorn", "uniform", "none"]


def add_config(node: CfgNode) -> None:
    """Declare the keys; names are those of the official code where it has them, defaults the published values."""
    node.OST = CfgNode()
    # What trains: both towers and logit_scale, the image tower alone, or the text tower alone.
    node.OST.USE = "both"
    # Descriptors per class and kind, >= 1: the first N of those in the files. Published: 4; 2 and 8 in ablations.
    node.OST.N = 4
    # Kinds of descriptors that are scored; the scores of several are averaged. Ours.
    node.OST.KINDS = ["spatial", "temporal"]
    # JSON files {"0": ["...", ...], ...} by class number. Empty: N_descriptors.json, else the file with the next larger
    # number, in descriptors/{spatio,temporal}_descriptors of the dataset folder that the class list lies in.
    node.OST.DES_SPATIAL = ""
    node.OST.DES_TEMPORAL = ""
    # JSON class list {"0": "name", ...} that numbers the classes of these two files, which are then found by name;
    # empty: they have the classes that are scored, in the same order. Ours.
    node.OST.DES_CLASSES = ""
    # How frames are matched to descriptors: sinkhorn (a transport plan for every video and class), uniform (every frame
    # with every descriptor alike), none (the pooled score alone, half as large). The latter two for ablations. Ours.
    node.OST.SOLVER = "sinkhorn"
    # Entropy regularisation, > 0, in units of cosine; most iterations, >= 1; mean change of the scaling factors of the
    # frames at which they end, >= 0. Published values, there fixed in the code; the keys are ours.
    node.OST.EPS = 0.1
    node.OST.MAX_ITERATIONS = 100
    node.OST.TOLERANCE = 0.01
    # Where that change is averaged: each (every video and class ends on its own, so that a score depends on nothing
    # else), or batch (over all videos and classes of a batch, as published; scores move by about 1e-3). Ours.
    node.OST.STOP = "each"
    # Iterate on logarithms, which an EPS below 0.025 needs. Ours.
    node.OST.LOG_DOMAIN = False


CHOICES: dict[str, tuple[Any, ...]] = {
    "OST.USE": ("both", "image", "text"),
    "OST.SOLVER": ("sinkhorn", "uniform", "none"),
    "OST.STOP": ("each", "batch"),
}
RANGES: dict[str, tuple[float, float | None]] = {
    "OST.N": (1, None),
    "OST.MAX_ITERATIONS": (1, None),
    "OST.TOLERANCE": (0, None),
}
LISTS: dict[str, tuple[Callable[[Any], bool], tuple[int, ...] | None, str]] = {
    "OST.KINDS": (lambda x: x in ("spatial", "temporal"), (1, 2), "one or both of spatial and temporal"),
}

LEAST_EPS = 0.025
"""Below, exp(-2 / eps) of opposite vectors is no normal float32."""
FOREIGN: dict[str, Any] = {
    **STDD_KEYS,
    "MIXUP.ENABLE": False,
    "SPLITS.NAMES": "index2cls",
}
"""Keys of other methods that would change the model or its targets, and the value under which they do not."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OstConfig(ClipOptions):
    """Options of OST."""

    use: Trained
    num_descriptors: int
    kinds: tuple[str, ...]
    files: dict[str, str]
    """Kind -> its file, "" for the one beside the class list."""
    file_classes: str
    """Class list that numbers the rows of the files, "" for that of the label set."""
    solver: Solver
    eps: float
    max_iterations: int
    tolerance: float
    stop: Literal["each", "batch"]
    log_domain: bool

    def __post_init__(self) -> None:
        ClipOptions.__post_init__(self)
        if self.eps <= 0:
            raise ValueError(f"OST.EPS: is {self.eps}; it must be above 0")
        if self.eps < LEAST_EPS and self.solver == "sinkhorn" and not self.log_domain:
            raise ValueError(
                f"OST.EPS: {self.eps} is too small for exp(-2 / EPS) in float32; allowed: at least {LEAST_EPS}, or "
                "OST.LOG_DOMAIN True"
            )
        if self.loss_func not in ("cross_entropy", "soft_cross_entropy"):
            raise ValueError(
                f"MODEL.LOSS_FUNC: {self.loss_func!r} does nothing under METHOD 'ost', whose loss is its own; allowed: "
                "'cross_entropy' and 'soft_cross_entropy', which do nothing either"
            )
        if len(set(self.kinds)) != len(self.kinds):
            raise ValueError(f"OST.KINDS: {list(self.kinds)} names a kind twice; allowed: one or both, each once")
        if self.file_classes and not all(self.files.values()):
            raise ValueError("OST.DES_CLASSES: is for the files of OST.DES_SPATIAL and DES_TEMPORAL, which are empty")

    @classmethod
    def from_cfg(cls, cfg: CfgNode) -> OstConfig:
        """Pick OST's keys out of the configuration.

        Raises:
            ValueError: if a key of another method is set, or a value is not usable.
        """
        refuse_foreign(cfg, FOREIGN)
        own = cfg.OST
        files = {"spatial": own.DES_SPATIAL, "temporal": own.DES_TEMPORAL}
        return cls(
            **clip_options(cfg),
            use=own.USE,
            num_descriptors=own.N,
            kinds=tuple(own.KINDS),
            files={kind: files[kind] for kind in own.KINDS},
            file_classes=own.DES_CLASSES,
            solver=own.SOLVER,
            eps=own.EPS,
            max_iterations=own.MAX_ITERATIONS,
            tolerance=own.TOLERANCE,
            stop=own.STOP,
            log_domain=own.LOG_DOMAIN,
        )
