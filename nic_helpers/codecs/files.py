"""Codecs that live in files and programs: the protocol of all codecs without a gradient, and any external program's pair.

vtm = CommandCodec("vtm", encode=["./encode.sh", "{source}", "{stream}", "{quality}"],
                   decode=["./decode.sh", "{stream}", "{picture}"], quality=32)

Every table, and every attack that needs no gradient, takes it like any other codec.
"""

from __future__ import annotations

import math
import os
import re
import signal
import struct
import subprocess
import tempfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import imageio_ffmpeg
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from nic_helpers.codecs.base import Codec, Coded, Images, by_size, check_streams, stack
from nic_helpers.codecs.bitstream import DECODED_PIXELS, LARGEST_SIDE, MOST_PIXELS, BitstreamError, check_pixels
from nic_helpers.images import check_images, load_image, to_pil

TIMEOUT = 300.0  # seconds, of one image


class FileCodec(Codec, ABC):
    """A codec of whole files: ``encode``, ``decode``, ``reconstruct``, ``roundtrip`` as a neural codec has them, and no
    gradient. A subclass gives ``_encode(image [3, H, W]) -> bytes`` and ``_decode(bytes, most_pixels) -> image``."""

    differentiable = False
    #: Pixels that its encoder puts into a byte at most: a stream that claims more is refused.
    densest: float = math.inf

    def __call__(self, x, surrogate=None, rate=True):
        """Not available: says what to use instead."""
        raise TypeError(f"{self.name} is not differentiable: attack it through BPDA (identity backward) or with Square")

    forward = __call__

    def encode(self, x: Images) -> list[bytes]:
        """One complete file per image."""
        if isinstance(x, Tensor):
            check_images(x)
        for image in x:
            check_images(image[None])
        return [self._encode(image) for image in x]

    def decode(self, streams: Sequence[bytes], most_pixels: float = DECODED_PIXELS) -> Images:
        """Files -> images: [B, 3, H, W] in [0, 1], or a list where sizes differ; BitstreamError for what is no file, and for one that
        claims more than ``most_pixels``."""
        check_streams(streams)
        return stack([self._decode(s, most_pixels) for s in streams])

    @by_size
    def reconstruct(self, x: Images, surrogate: str | None = None) -> Images:
        """The decoded image, [B, 3, H, W] in [0, 1]."""
        if surrogate is not None:
            self(x)
        return self.roundtrip(x).x_hat

    def roundtrip(self, x: Images) -> Coded:
        """The files and what they decode to."""
        streams = self.encode(x)
        images = [self._decode(s, math.inf).to(image.device) for s, image in zip(streams, x, strict=True)]
        return Coded(streams, torch.stack(images) if isinstance(x, Tensor) else images)

    @abstractmethod
    def _encode(self, image: Tensor) -> bytes:
        """One image [3, H, W] as a file."""

    @abstractmethod
    def _decode(self, stream: bytes, most_pixels: float) -> Tensor:
        """A file as an image [3, H, W]; BitstreamError for what is none, or is one of more than ``most_pixels``."""


class CommandCodec(FileCodec):
    """Any external encoder and decoder as a codec, such as a standard's reference software.

    ``encode``, ``decode``: the two commands as lists (no shell takes part), in which {source} is the PNG to be coded,
    {stream} the file of the bitstream, {picture} the PNG to be written, {quality}, {width} and {height} the numbers
    (the sizes, as coded; while decoding they are known only with ``multiple``), and, for a decoder that can be held to it,
    {most_pixels} how many pixels it may make on the way: four times what is wanted, as decoders pad.
    They run in a temporary folder that is removed whatever happens. ``multiple``: the sides that the program takes are
    multiples of this (and at least ``smallest``); the image is padded by its edge, and the true size stored in 8 bytes
    that count, with a checksum, which also keeps damaged streams from decoders that take anything. None: the program
    knows sizes itself: then only ``timeout`` and {most_pixels} bound what a crafted stream can cost before its picture is refused.
    ``suffix`` of the bitstream's file. ``timeout``: seconds for one image.

    A program that is missing, fails, or takes too long raises RuntimeError with the end of what it said; while decoding,
    BitstreamError.
    """

    def __init__(
        self,
        name: str,
        encode: Sequence[str],
        decode: Sequence[str],
        quality: float = 0,
        *,
        suffix: str = "bin",
        multiple: int | None = None,
        smallest: int = 1,
        timeout: float = TIMEOUT,
    ):
        for what, command, needed in (("encode", encode, "{stream}"), ("decode", decode, "{picture}")):
            if isinstance(command, str) or not command:
                raise TypeError(f"{what} is a command as a list of its words, such as ['program', '{{stream}}']")
            if not any(needed in word for word in command):
                raise ValueError(f"the {what} command names no {needed}, which is where its result goes: {list(command)}")
        if multiple is not None and multiple < 1:
            raise ValueError(f"multiple must be at least 1, got {multiple}")
        self.name, self.quality, self.timeout = name, quality, timeout
        self._commands, self._suffix = {"encode": encode, "decode": decode}, suffix
        self._multiple, self._smallest = multiple, smallest

    def _encode(self, image: Tensor) -> bytes:
        height, width = image.shape[1:]
        if self._multiple:
            if max(height, width) > LARGEST_SIDE or height * width > MOST_PIXELS:
                raise ValueError(f"{self.name} takes sides up to {LARGEST_SIDE} and {MOST_PIXELS} pixels")
            padding = (0, self._padded(width) - width, 0, self._padded(height) - height)
            image = F.pad(image[None].float(), padding, mode="replicate")[0]
        with tempfile.TemporaryDirectory(prefix="codec_") as folder:
            to_pil(image).save(Path(folder) / "source.png")
            self._run("encode", folder, tuple(image.shape[1:]), math.inf)
            stream = Path(folder) / f"stream.{self._suffix}"
            if not stream.is_file() or not stream.stat().st_size:
                raise RuntimeError(f"{self.name}'s encoder ended well and wrote no {stream.name}")
            body = stream.read_bytes()
        if not self._multiple:
            return body
        body = struct.pack(">HH", height, width) + body
        return struct.pack(">I", zlib.crc32(body)) + body

    def _decode(self, stream: bytes, most_pixels: float) -> Tensor:
        body, size = bytes(stream), None
        if self._multiple:
            if len(body) <= 8 or zlib.crc32(body[4:]) != struct.unpack_from(">I", body)[0]:
                raise BitstreamError(f"not a whole, undamaged bitstream of {self.name}: its checksum does not match")
            size, body = struct.unpack_from(">HH", body, 4), body[8:]
            check_pixels(*size, most_pixels, len(stream), self.densest)
            most_pixels = self._padded(size[0]) * self._padded(size[1])  # whatever the program's own header says
        with tempfile.TemporaryDirectory(prefix="codec_") as folder:
            (Path(folder) / f"stream.{self._suffix}").write_bytes(body)
            try:
                self._run("decode", folder, tuple(map(self._padded, size)) if size else (0, 0), most_pixels)
                picture = Path(folder) / "picture.png"
                with Image.open(picture) as header:
                    found = header.height, header.width
                if size is None:
                    check_pixels(*found, most_pixels, len(stream), self.densest)
                elif 0 in size or tuple(map(self._padded, size)) != found:
                    raise BitstreamError(f"{self.name}'s bitstream holds an image of another size than it says")
                image = load_image(picture)
            except (RuntimeError, OSError, Image.DecompressionBombError) as error:
                raise BitstreamError(f"{self.name} cannot decode this: {error}") from error
        return image if size is None else image[:, : size[0], : size[1]].contiguous()

    def _padded(self, side: int) -> int:
        return max(self._smallest, -(-side // self._multiple) * self._multiple)

    def _run(self, which: str, folder: str, size: tuple[int, int], most_pixels: float) -> None:
        height, width = size
        names = {
            "source": "source.png",
            "stream": f"stream.{self._suffix}",
            "picture": "picture.png",
            "quality": f"{self.quality:g}",
            "height": height,
            "width": width,
            "most_pixels": int(min(4 * most_pixels + 2**16, 2**31 - 1)),
        }
        run_command([_filled(word, names) for word in self._commands[which]], folder, self.timeout)


def _filled(word: str, names: dict) -> str:
    """A command's word with what its {placeholders} stand for; other braces are the program's own."""
    return re.sub(r"\{(\w+)\}", lambda m: str(names.get(m[1], m[0])), word)


def run_command(command: Sequence[str], folder: str | Path, timeout: float) -> None:
    """Run a program in a folder, without a shell, and end it and its children after ``timeout`` seconds.

    Raises RuntimeError that names the program and quotes the end of its output.
    """
    program = command[0]
    if os.sep in program and not Path(program).is_absolute():  # as seen from where the codec is used, not the folder
        program = str(Path(program).resolve())
    try:
        process = subprocess.Popen(
            [program, *command[1:]],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        raise RuntimeError(f"{command[0]} does not start: {error}. Install it, or give its whole path") from error
    try:
        said = process.communicate(timeout=timeout)[0]
    except BaseException as error:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        if isinstance(error, subprocess.TimeoutExpired):
            raise RuntimeError(f"{command[0]} took more than {timeout:g} s and was ended") from None
        raise
    if process.returncode:
        tail = said.decode(errors="replace").strip()[-500:]
        raise RuntimeError(f"{command[0]} failed with status {process.returncode}: {tail or 'it said nothing'}")


def ffmpeg() -> str:
    """The path of ffmpeg; RuntimeError, saying what to do, if there is none."""
    try:
        return imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError as error:
        raise RuntimeError(
            "imageio-ffmpeg has no ffmpeg for this machine: install one, and name it in IMAGEIO_FFMPEG_EXE"
        ) from error
