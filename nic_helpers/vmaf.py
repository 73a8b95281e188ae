"""VMAF of still images, by ffmpeg's libvmaf (Netflix's model v0.6.1): the metric of video streaming.

Slower than the others and needing an external program, it is no part of :data:`nic_helpers.metrics.QUALITIES`: who wants
it calls it. The program is the one that imageio-ffmpeg brings; IMAGEIO_FFMPEG_EXE names another.
"""

from __future__ import annotations

import json
import math
import subprocess
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from nic_helpers.codecs.files import ffmpeg
from nic_helpers.images import check_images, to_uint8
from nic_helpers.metrics import on_lists

VMAF_SMALLEST = 33  # pixels; below, libvmaf's coarsest scale has nothing left and its score jumps; below 17 it crashes
VMAF_SAME = 97.43  # what the model gives identical still images: its 100 is for video that moves
TIMEOUT = 300  # seconds
# full-range RGB to the limited-range YCbCr (BT.601, as in JPEG; luma 16–235) that the model knows, 4:4:4: it sees luma
# alone, so the chroma's resolution does not matter
_CONVERT = "scale=in_range=full:out_range=limited:out_color_matrix=bt601:flags=accurate_rnd+full_chroma_int,format=yuv444p"
# each frame is a picture of its own: no motion between them
_MODEL = r"model=version=vmaf_v0.6.1\\:motion.motion_force_zero=true"
_GRAPH = f"[0:v]{_CONVERT}[other];[1:v]{_CONVERT}[reference];[other][reference]libvmaf=log_fmt=json:log_path=log:{_MODEL}"


@on_lists
def vmaf(a: Tensor, b: Tensor) -> Tensor:
    """VMAF per image [B] of b against the reference a, two batches [B, 3, H, W] in [0, 1], as 8-bit images.

    From 0 to 100, not symmetric, and 97.43, not 100, for identical images; NaN where a side is below 33 pixels. It sees
    only the luma. RuntimeError if there is no ffmpeg, it lacks libvmaf, or it fails or takes more than five minutes.
    """
    check_images(a)
    check_images(b)
    if a.shape != b.shape:
        raise ValueError(f"images of different shapes cannot be compared: {tuple(a.shape)} and {tuple(b.shape)}")
    if min(a.shape[2:]) < VMAF_SMALLEST:
        return torch.full((len(a),), math.nan, dtype=torch.float64)
    size = f"{a.size(3)}x{a.size(2)}"
    command = [ffmpeg(), "-hide_banner", "-nostdin", "-loglevel", "error"]
    for name in ("other", "reference"):
        command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-video_size", size, "-framerate", "1", "-i", name]
    command += ["-lavfi", _GRAPH, "-f", "null", "-"]
    with tempfile.TemporaryDirectory(prefix="vmaf_") as folder:
        for name, images in (("other", b), ("reference", a)):
            (Path(folder) / name).write_bytes(b"".join(to_uint8(image).tobytes() for image in images))
        log = _run(command, Path(folder))
    scores = [frame["metrics"]["vmaf"] for frame in log["frames"]]
    if len(scores) != len(a):
        raise RuntimeError(f"ffmpeg's libvmaf scored {len(scores)} images of {len(a)}")
    return torch.tensor(scores, dtype=torch.float64)


def _run(command: list[str], folder: Path) -> dict:
    """Run ffmpeg in a folder, and read the log it leaves there (named relatively: a path would need escaping)."""
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=TIMEOUT)
    except OSError as error:
        raise RuntimeError(f"VMAF needs ffmpeg, and {command[0]} does not start: {error}") from error
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"ffmpeg's libvmaf took more than {TIMEOUT} s: give it fewer images at once") from error
    if done.returncode == 0:
        try:
            return json.loads((folder / "log").read_text())
        except (OSError, ValueError) as error:
            raise RuntimeError(f"ffmpeg's libvmaf left no log that can be read: {error}") from error
    if "No such filter" in done.stderr and "libvmaf" in done.stderr:
        raise RuntimeError(f"{command[0]} was built without libvmaf: name one that has it in IMAGEIO_FFMPEG_EXE")
    raise RuntimeError(f"ffmpeg's libvmaf failed ({done.returncode}): {done.stderr.strip()[-500:]}")
