"""Methods: a model, its text and its losses, each in a folder of its own."""

METHODS: dict[str, str] = {
    "stdd": "slowfast.methods.stdd.build:build",
    "tc_clip": "slowfast.methods.tc_clip.build:build",
    "ost": "slowfast.methods.ost.build:build",
    "vifi_clip": "slowfast.methods.vifi_clip.build:build",
    "clip_fsar": "slowfast.methods.clip_fsar.build:build",
}
"""METHOD -> the function that builds it from (cfg, label_set, training=..., device=...).

Its module has beside it ``text_files(cfg, label_set)``, the files that the texts of the classes are read from.
"""
