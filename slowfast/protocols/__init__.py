"""Evaluation protocols: what to train on, what to score, how to aggregate."""

PROTOCOLS: dict[str, str] = {
    "single_dataset": "slowfast.protocols.single_dataset:SingleDataset",
}
"""PROTOCOL -> the class that implements it."""
