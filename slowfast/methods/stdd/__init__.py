"""STDD, and the baselines that share its model: Open-VCLIP, FROSTER, X-CLIP's and ST-Adapter's blocks, plain CLIP."""

DISTILLATIONS: dict[str, str] = {
    "intended": "slowfast.methods.stdd.distillation:FrameDistillation",
    "published": "slowfast.methods.stdd.distillation:ConstantDistillation",
    "froster": "slowfast.methods.stdd.distillation:FrameTextDistillation",
    "kl": "slowfast.methods.stdd.distillation:LogitDistillation",
}
"""MODEL.DISTILLATION_MODE -> what keeps the tuned model near frozen CLIP."""
