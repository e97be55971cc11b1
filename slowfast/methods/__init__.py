"""Methods: a model, its text and its losses, each in a folder of its own."""

METHODS: dict[str, str] = {
    "stdd": "slowfast.methods.stdd.build:build",
    "tc_clip": "slowfast.methods.tc_clip.build:build",
}
"""METHOD -> the function that builds it from (cfg, label_set, training=..., device=...)."""
