"""Readers of the official annotation files of each dataset, as they are downloaded.

A reader takes an `AnnotationRequest` and returns `dict[str, DraftList]`; the names of the lists are those of
`slowfast/datasets/prepared.py`. docs/data.md says where the files come from.
"""

OFFICIAL = {
    "ucf101": "slowfast.datasets.annotations.ucf101:read_ucf101",
    "hmdb51": "slowfast.datasets.annotations.hmdb51:read_hmdb51",
    "k400": "slowfast.datasets.annotations.kinetics:read_kinetics400",
    "k600": "slowfast.datasets.annotations.kinetics:read_kinetics600",
    "ssv2": "slowfast.datasets.annotations.ssv2:read_ssv2",
}
"""Dataset -> reader."""

SUBSETS = {
    "k400": ("train", "val", "test"),
    "k600": ("train", "val", "test"),
    "ssv2": ("train", "val"),
}
"""Dataset -> subsets that one can choose from; the others have splits instead."""
