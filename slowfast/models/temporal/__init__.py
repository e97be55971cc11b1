"""Temporal modules: blocks of the image tower that exchange information between the frames of a video.

Every block maps (B, T, L, D) to (B, T, L, D) and takes its own frozen ``Options`` dataclass, whose field names are the
lower-case names of the MODEL keys and whose defaults are the configuration's.
"""

TEMPORAL_BLOCKS: dict[str, str] = {
    "None": "slowfast.models.temporal.plain:PlainBlock",
    "stcross_attend": "slowfast.models.temporal.st_cross:SpaceTimeCrossBlock",
    "expand_temporal_view": "slowfast.models.temporal.expand_view:ExpandTemporalViewBlock",
    "expand_temporal_view_step2": "slowfast.models.temporal.expand_view:ExpandTemporalViewStep2Block",
    "expand_temporal_view_step3": "slowfast.models.temporal.expand_view:ExpandTemporalViewStep3Block",
    "channel_shift": "slowfast.models.temporal.channel_shift:ChannelShiftBlock",
    "cross_frame_attend": "slowfast.models.temporal.cross_frame:CrossFrameBlock",
    "stadapt_zeroinit": "slowfast.models.temporal.st_adapter:StAdapterBlock",
}
"""MODEL.TEMPORAL_MODELING_TYPE -> the block that implements it."""
