"""Frames of videos as pictures inside a page."""

from __future__ import annotations

import base64
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from slowfast.datasets.decode import DecodeError, decode_frames
from slowfast.report.html_element import Markup, element, name_of

WIDTH_PX = 240
"""Wider pictures are made smaller; narrower ones are enlarged by the browser."""
_TALLEST_PX = 320
_QUALITY = "4"


class FrameAlbum:
    """Makes pictures until a limit is reached, so that the size of a page is bounded.

    Args:
        limit: pictures in all.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.num_images = 0
        self.num_failed = 0
        self._known: dict[str, Markup] = {}

    def picture(self, video: str, *, alt: str) -> Markup:
        """The middle frame of a video, or a box that says why there is none.

        Args:
            video: the file.
            alt: what the picture shows.
        """
        if video in self._known:
            return self._known[video]
        if self.num_images >= self.limit:
            return element("div", f"not shown: the page is limited to {self.limit} frames", class_="no-frame")
        try:
            uri = jpeg_uri(middle_frame(video))
        except (DecodeError, ValueError) as error:  # ValueError: a name that no file can have
            self.num_failed += 1
            reason = error.reason if isinstance(error, DecodeError) else str(error)
            shown = element("div", "no frame: ", name_of(reason), class_="no-frame")
        else:
            self.num_images += 1
            shown = element("img", src=uri, alt=alt, loading="lazy")
        self._known[video] = shown
        return shown


def middle_frame(video: str | Path) -> NDArray[np.uint8]:
    """The frame in the middle of a video, (H, W, 3) RGB.

    Raises:
        DecodeError: if the video cannot be read.
    """
    return decode_frames(video, lambda info: [info.num_frames // 2])[0]


def jpeg_uri(image: NDArray[np.uint8]) -> Markup:
    """Data URI of a picture made small.

    Args:
        image: (H, W, 3) RGB.
    """
    height, width = image.shape[:2]
    scale = min(1.0, WIDTH_PX / width, _TALLEST_PX / height)
    # JPEG of video halves the resolution of colour, so sides are even
    width, height = (max(2, 2 * round(side * scale / 2)) for side in (width, height))
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
    frame = frame.reformat(width=width, height=height, format="yuvj420p", interpolation="AREA")
    codec = av.CodecContext.create("mjpeg", "w")
    codec.width, codec.height, codec.pix_fmt, codec.time_base = width, height, "yuvj420p", Fraction(1, 25)
    codec.options = {"qmin": _QUALITY, "qmax": _QUALITY}
    data = b"".join(bytes(packet) for packet in [*codec.encode(frame), *codec.encode(None)])
    return Markup("data:image/jpeg;base64," + base64.b64encode(data).decode("ascii"))
