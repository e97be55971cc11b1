"""Evaluation protocols: what to train on, what to score, how to aggregate."""

PROTOCOLS: dict[str, str] = {
    "single_dataset": "slowfast.protocols.single_dataset:SingleDataset",
    "zero_shot": "slowfast.protocols.zero_shot:ZeroShot",
    "few_shot": "slowfast.protocols.few_shot:FewShot",
    "base_to_novel": "slowfast.protocols.base_to_novel:BaseToNovel",
    "fully_supervised": "slowfast.protocols.fully_supervised:FullySupervised",
    "episodic": "slowfast.protocols.episodic:Episodic",
}
"""PROTOCOL -> the class that implements it."""
