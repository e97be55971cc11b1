"""Videos whose frames carry their own number."""

from fractions import Fraction

import av
import numpy as np
import pytest

BLOCK = 16
COLUMNS, ROWS = 4, 3  # 12 bits


def _numbered_picture(number):
    bits = [(number >> bit) & 1 for bit in range(COLUMNS * ROWS)]
    grid = np.array(bits, np.uint8).reshape(ROWS, COLUMNS) * 190 + 30
    return np.repeat(np.kron(grid, np.ones((BLOCK, BLOCK), np.uint8))[..., None], 3, axis=2)


def _number_of(picture):
    blocks = picture.astype(np.float32).mean(axis=2).reshape(ROWS, BLOCK, COLUMNS, BLOCK).mean(axis=(1, 3))
    return sum(int(value > 125) << bit for bit, value in enumerate(blocks.ravel()))


def _write_numbered(path, count, *, codec="libx264", rate=25, gop=250, bframes=0, options=None, pts=None):
    """Encode `count` numbered frames; `pts` replaces the even time stamps."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height = COLUMNS * BLOCK, ROWS * BLOCK
        stream.pix_fmt = "yuv420p"
        stream.codec_context.gop_size = gop
        stream.codec_context.max_b_frames = bframes
        stream.codec_context.bit_rate = 2_000_000
        stream.options = {
            **({"sc_threshold": "0", "preset": "veryfast", "threads": "1"} if codec == "libx264" else {}),
            **(options or {}),
        }
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(_numbered_picture(number), format="rgb24")
            frame.pts = pts[number] if pts else number
            frame.time_base = Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="session")
def number_of():
    """Reads the number off a picture."""
    return _number_of


@pytest.fixture(scope="session")
def write_numbered():
    """Encodes numbered frames into a file."""
    return _write_numbered


@pytest.fixture(scope="session")
def numbered_mp4(tmp_path_factory):
    """90 frames, h264 with B-frames, a keyframe every 12."""
    return _write_numbered(tmp_path_factory.mktemp("numbered") / "numbered.mp4", 90, gop=12, bframes=3)
