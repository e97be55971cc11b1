"""What compressed packets tell before a frame is decoded: which give a picture, and where decoding may start."""

from __future__ import annotations

import bisect
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

_VOP_START = b"\x00\x00\x01\xb6"
_VOP_HEADER_BYTES = 8
_MACROBLOCK_PIXELS = 256


class PacketInfo(NamedTuple):
    """A packet without its data.

    Attributes:
        pts, dts: time stamps; None if the container states none.
        is_key: decoding may start here.
        is_shown: a picture comes of it.
        size: in bytes.
    """

    pts: int | None
    dts: int | None
    is_key: bool
    is_shown: bool
    size: int


class Segment(NamedTuple):
    """A run of packets to decode.

    Attributes:
        start: ordinal of the first packet to feed, a keyframe.
        pts: time stamps to collect, ascending.
    """

    start: int
    pts: list[int]


def plan_segments(wanted: Sequence[int], packets: Sequence[tuple[int, bool]]) -> list[Segment]:
    """Cut the wanted frames into runs, each decoded from the latest keyframe before it.

    A new run begins only where a keyframe lies after the last packet that the run before it needs; a seek inside one
    group of pictures would decode the same frames again.

    Args:
        wanted: time stamps, ascending, unique.
        packets: (time stamp, is a keyframe) in decoding order.
    """
    keys = sorted((pts, ordinal) for ordinal, (pts, is_key) in enumerate(packets) if is_key)
    ordinals = {pts: ordinal for ordinal, (pts, _) in enumerate(packets)}
    segments: list[Segment] = []
    position = -1
    for pts in wanted:
        at = bisect.bisect_right(keys, (pts, len(packets))) - 1
        start = keys[at][1] if at >= 0 else 0
        if not segments or start > position + 1:
            segments.append(Segment(start, [pts]))
        else:
            segments[-1].pts.append(pts)
        position = max(position, ordinals[pts])
    return segments


def is_hidden(packet: Any, codec: str) -> bool:  # noqa: ANN401 - av has no useful stubs
    """Whether a packet's picture is only ever referred to; VP8 stores such pictures in packets of their own."""
    return codec == "vp8" and not bytes(packet)[0] & 0x10


def is_entry(packet: Any, codec: str) -> bool:  # noqa: ANN401 - av has no useful stubs
    """Whether a packet that the container calls a keyframe is one; the index of an AVI file may be wrong."""
    if codec != "mpeg4":
        return True
    data = bytes(packet)
    start = data.find(_VOP_START)
    at = start + len(_VOP_START)
    return start >= 0 and b"" < data[at : at + 1] < b"\x40"  # the first two bits are 0: an I-VOP


def is_coded(size: int, pixels: int) -> bool:
    """Whether an MPEG-4 packet is too large to say only "as before", of which no frame comes.

    A coded picture spends at least a bit on every macroblock.

    Args:
        size: of the packet, in bytes.
        pixels: of the picture.
    """
    return size >= _VOP_HEADER_BYTES + pixels // _MACROBLOCK_PIXELS // 8


def bytes_missing(path: Path) -> bool:
    """Whether an AVI or Matroska file is shorter than its outermost chunk says."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(64)
    if head[:4] == b"RIFF":
        (length,) = struct.unpack("<I", head[4:8])
        return bool(size < 8 + length)
    at = head.find(b"\x18\x53\x80\x67")
    if at < 0:
        return False
    width = 9 - head[at + 4].bit_length()
    unknown = (1 << 7 * width) - 1
    length = int.from_bytes(head[at + 4 : at + 4 + width], "big") & unknown
    return length != unknown and size < at + 4 + width + length
