"""JPEG AI for real: the trained networks of its verification model 3.3, read from a folder of ONNX files, as a codec.

The files are no part of this repository: ``NIC_JPEGAI_DIR`` names the folder (see :data:`ORIGIN`). They hold the transforms and the
hyper networks. The context model, the gain units, the quantiser's tables and the entropy coder are in none of them, so that there is
a reconstruction and neither a stream nor a rate: an auto-encoder with a quantiser of a stated step.
"""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Iterable
from numbers import Real
from pathlib import Path
from typing import NoReturn

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nic_helpers.codecs.base import SMALLEST_SIDE, Codec, CodecOutput, Coded, Images, NoRate, by_size, has_bfloat16
from nic_helpers.codecs.bitstream import DECODED_PIXELS
from nic_helpers.codecs.checkpoints import Weights
from nic_helpers.codecs.quantisers import quantiser_of
from nic_helpers.images import check_images
from nic_helpers.memory import keep_freed_memory
from nic_helpers.settings import get_device, jpegai_dir

#: The codecs' names, and whether each is the luma's alone.
NAMES = {"jpegai-vm33": False, "jpegai-vm33-luma": True}
ORIGIN = (
    "the public repository github.com/SmartHarmony/JPEG-AI-OPT, folder Verification_Models (its encoder/ and decoder/; "
    "© 2023 Smart Harmony LLC, CC BY 4.0)"
)
#: Network -> SHA-256 of its file, NAME.onnx, in the order in which sha256sum lists them.
SHA256 = {
    "decoder_uv": "e0748126183d86083c82ba96720febe371ce4340f8d5a0b2a04106d9fbf40630",
    "decoder_y": "814fa6b3c5c5bf96175748acb24a53244196476e733b7d3ddcc1828464d2b0d4",
    "hyper_decoder_uv": "b7151000405961bc7025f259536001c8e6f28ebbeba377c24766985cc4084564",
    "hyper_decoder_y": "a6e80c6e6d3ec3ae1c6aafa0eaf5ffcb25149422f9a31948b76dab4507c6c0bf",
    "hyper_encoder_uv": "215c01980e0c6316d577e641aeb9e24dc04a3daa9a5aebc47f6130f3c78f07cd",
    "hyper_encoder_y": "2a80bf786ac5ff8c063e61953fcd48d3f8bac3ae342c5b789eba0eceac88acee",
    "hyper_scale_decoder_uv": "df16e0dfb8fed4012d20b48814267accde51c753a480ec90ec5c1684db182bcd",
    "hyper_scale_decoder_y": "2e20a948db5510ccabbd4c872369d1be6582e468e28f02b96d0c84b9d96aa011",
    "single_encode_uv": "69fde4c6af8ce96f06088ea56f29681218503e0cb774eb4a6d9b10c88243b88e",
    "single_encode_y": "c9263001f15eed32d4856018fa4ea79ba1835bef6be8449ecf27cc055e0a787e",
}
LUMA, COLOUR = ("single_encode_y", "decoder_y"), ("single_encode_uv", "decoder_uv")  # what a picture passes
#: The quantiser's step where none is given: coarse enough to be one (two thirds of the luma's latents become zero), and on four
#: crops of Kodak it takes 0.2 dB from the luma, where 0.5 takes 1.8 and 1 takes 4.6. It stands for no rate of the standard's.
DEFAULT_STEP = 0.25
SMALLEST_STEP = 1e-6  # finer than float32 tells the latents apart; far below it the quotient would overflow
STRIDE = 64  # pixels: the networks' of colour, with those of the luma at half of that
KR, KB = 0.2126, 0.0722  # ITU-R BT.709: the luma's weights of red and blue
_CENTRE, _SCALE = 127.5, 128.0  # what the networks subtract and divide by at the input, and leave out at the output
_NO_STREAM = (
    "{} has no {}: the files hold the transforms and hyper networks alone, and JPEG AI's context model, gain units, "
    "quantiser tables and entropy coder are not among them. Ask for reconstructions, with objectives.Distortion and "
    "metrics.before_after(…, real_rate=False), or take a codec with real bitstreams"
)


def _checked(folder: Path | None) -> dict[str, bytes]:
    """The contents of all ten files, each found to be what it should be."""
    what = f"the ten .onnx files of {ORIGIN}, all in one folder, and NIC_JPEGAI_DIR set to it"
    if folder is None:
        raise FileNotFoundError(f"NIC_JPEGAI_DIR is not set: JPEG AI's networks are not in this repository. Needed are {what}")
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder: needed are {what}")
    missing = [f"{name}.onnx" for name in SHA256 if not (folder / f"{name}.onnx").is_file()]
    if missing:
        raise FileNotFoundError(f"{folder} lacks {', '.join(missing)}: needed are {what}")
    contents = {name: (folder / f"{name}.onnx").read_bytes() for name in SHA256}
    for name, content in contents.items():
        found = hashlib.sha256(content).hexdigest()
        if found != SHA256[name]:
            raise ValueError(
                f"{folder / name}.onnx is damaged or another version: its SHA-256 begins {found[:12]}, expected "
                f"{SHA256[name][:12]}. Fetch it again from {ORIGIN}"
            )
    return contents


def load_networks(names: Iterable[str] = (*LUMA, *COLOUR), folder: str | Path | None = None) -> nn.ModuleDict:
    """Networks of ``folder`` (default: ``NIC_JPEGAI_DIR``) by the names in :data:`SHA256`, frozen, for batches of any size.

    All ten files are checked first, whichever are asked for. FileNotFoundError where the folder or a file is missing, ValueError
    where a file is not the one it should be or there is no network of such a name; both say what is needed.
    """
    import onnx  # only here: nothing else of the package needs them
    import onnx2torch

    names = list(names)
    unknown = [name for name in names if name not in SHA256]
    if unknown:
        raise ValueError(f"no network is named {', '.join(map(repr, unknown))}: there are {', '.join(SHA256)}")
    contents = _checked(Path(folder) if folder else jpegai_dir())
    networks = {name: onnx2torch.convert(onnx.load_model_from_string(contents[name])) for name in names}
    return nn.ModuleDict(networks).eval().requires_grad_(False)


def to_ycbcr(x: Tensor) -> tuple[Tensor, Tensor]:
    """RGB [B, 3, H, W] in [0, 1] -> luma [B, 1, H, W] in [0, 1] and chroma [B, 2, H, W] in [−½, ½] (BT.709, full range)."""
    red, green, blue = x.split(1, 1)
    y = KR * red + (1 - KR - KB) * green + KB * blue
    return y, torch.cat(((blue - y) / (2 - 2 * KB), (red - y) / (2 - 2 * KR)), 1)


def to_rgb(y: Tensor, chroma: Tensor) -> Tensor:
    """The inverse of :func:`to_ycbcr`, not clamped."""
    cb, cr = chroma.split(1, 1)
    red, blue = y + (2 - 2 * KR) * cr, y + (2 - 2 * KB) * cb
    return torch.cat((red, (y - KR * red - KB * blue) / (1 - KR - KB), blue), 1)


class JpegAI(Codec):
    """JPEG AI's verification model 3.3 as an auto-encoder: RGB, its luma by one pair of networks, then its colour (4:2:0) by another,
    which sees the luma too.

    Parameters of every call: ``x`` [B, 3, H, W] in [0, 1], or a list of [3, H, W]; at least 16×16 pixels, any size (the
    padding happens inside and is cropped again). Results come back on ``x``'s device.

    Attributes as a neural codec's: ``name``, ``quality`` (the quantiser's step on all latents, from 1e-6: lower is better
    quality, and 1e-3 as good as no quantisation), ``lmbda`` (NaN: for what rate they were trained is not said), ``model`` (the
    networks by name, frozen), ``weights``, ``device``. What would need a stream or a rate raises TypeError.
    With ``luma_only`` the output is the luma's as a grey picture: the PSNR between two outputs is then the luma's.
    """

    def __init__(self, quality: float | None = None, device=None, *, luma_only: bool = False, folder: str | Path | None = None):
        step = DEFAULT_STEP if quality is None else quality
        if not isinstance(step, Real) or isinstance(step, bool) or not SMALLEST_STEP <= step < math.inf:
            raise ValueError(
                f"JPEG AI's quality here is the step of its latents' quantiser, a number from {SMALLEST_STEP} "
                f"(lower is better; {DEFAULT_STEP} where none is given), got {quality!r}"
            )
        self.name = next(name for name, luma in NAMES.items() if luma == bool(luma_only))
        self.quality, self.lmbda = float(step), math.nan
        self.luma_only, self.device = bool(luma_only), get_device(device)
        if self.device.type == "cpu":
            keep_freed_memory()
        self.model = load_networks(LUMA if luma_only else (*LUMA, *COLOUR), folder).to(self.device)
        listed = "".join(f"{digest}  {name}.onnx\n" for name, digest in SHA256.items())  # what sha256sum prints of them
        digest = hashlib.sha256(listed.encode()).hexdigest()
        self.weights = Weights(self.model.state_dict(), "jpegai", "*.onnx", digest, self.lmbda, {"origin": ORIGIN})
        self._amp: torch.dtype | None = None

    def __repr__(self) -> str:
        return f"JpegAI({self.name}, quality={self.quality}, weights={self.weights.source}, {self.device})"

    @property
    def label(self) -> str:
        """Short name for tables and legends."""
        return f"{self.name} q{self.quality:g}"

    def quick(self, precision: str = "auto") -> JpegAI:
        """The same codec for gradients, its networks in the given precision: "float32" (itself), "bfloat16", or "auto",
        bfloat16 where the hardware computes with it. Report none of its values: use the codec itself."""
        if precision != "bfloat16" and not (precision == "auto" and has_bfloat16(self.device)):
            return self
        twin = copy.copy(self)
        twin._amp = torch.bfloat16
        return twin

    # ------------------------------------------------------------------------------------------------ differentiable
    def _run(self, network: str, v: Tensor) -> Tensor:
        if self._amp is None:
            return self.model[network](v)
        with torch.autocast(v.device.type, dtype=self._amp):
            return self.model[network](v).float()

    def _decoded(self, network: str, latents: Tensor) -> Tensor:
        """A decoder's planes in [0, 1], at 4 times the size of what its network gives."""
        planes = F.pixel_shuffle(self._run(network, latents), 4) * _SCALE + _CENTRE
        return planes.clamp(0, 255) / 255

    def __call__(self, x: Images, surrogate: str | None = "ste", rate: bool = True) -> CodecOutput | list[CodecOutput]:
        """Differentiable pass over x [B, 3, H, W] (for a list of [3, H, W]: a list of outputs); ``bits`` are empty, and asking
        for ``bpp`` is an error, whatever ``rate`` says.

        ``surrogate``: how the gradient gets through rounding, as in :meth:`nic_helpers.codecs.NeuralCodec.__call__`. Samples
        that the clamp to [0, 1] holds have no gradient.
        """
        if not isinstance(x, Tensor):
            return [self(image[None], surrogate, rate) for image in x]
        check_images(x, SMALLEST_SIDE)
        height, width = x.shape[2:]
        padded = F.pad(x.to(self.device, torch.float32), (0, -width % STRIDE, 0, -height % STRIDE), mode="replicate")
        x_hat = self._reconstruct(padded, quantiser_of(surrogate))[..., :height, :width].clamp(0, 1)
        return RatelessOutput(x_hat.to(x.device), {}, height * width)

    forward = __call__

    def _reconstruct(self, x: Tensor, quantise) -> Tensor:
        luma, chroma = to_ycbcr(x)
        y = quantise(self._run("single_encode_y", 255 * luma) / self.quality) * self.quality
        luma_hat = self._decoded("decoder_y", y)
        if self.luma_only:
            return luma_hat.expand(-1, 3, -1, -1)
        planes = F.avg_pool2d(torch.cat((255 * luma, 255 * chroma + 128), 1), 2)
        uv = quantise(self._run("single_encode_uv", planes) / self.quality) * self.quality
        # the files do not say how the luma's latents come to this size, nor which chroma plane is first. Any of mean, every
        # other and bicubic fits within 0.2 dB of chroma; with Cb first the luma's latents help by 0.6 dB (24 crops), else not
        chroma_hat = self._decoded("decoder_uv", torch.cat((F.avg_pool2d(y, 2), uv), 1)) - 128 / 255
        return to_rgb(luma_hat, F.interpolate(chroma_hat, scale_factor=2, mode="bilinear"))

    @by_size
    def reconstruct(self, x: Images, surrogate: str | None = None) -> Images:
        """What the decoder would show, [B, 3, H, W] in [0, 1]: without gradient for ``surrogate=None``, else as :meth:`__call__`."""
        with torch.set_grad_enabled(surrogate is not None and torch.is_grad_enabled()):
            return self(x, surrogate).x_hat

    # ------------------------------------------------------------------------------------------- what the files lack
    def encode(self, x: Images) -> list[bytes]:
        """NoRate, as there is no entropy coder."""
        self._lacks("bitstream")

    def decode(self, streams, most_pixels: float = DECODED_PIXELS) -> Images:
        """NoRate, as there is no entropy decoder."""
        self._lacks("bitstream")

    def roundtrip(self, x: Images) -> Coded:
        """NoRate, as there is no entropy coder: :meth:`reconstruct` is what there is."""
        self._lacks("bitstream")

    def estimated_bpp(self, x: Tensor, surrogate: str | None = "ste") -> Tensor:
        """NoRate, as there is no entropy model."""
        self._lacks("rate")

    def _lacks(self, what: str) -> NoReturn:
        raise NoRate(_NO_STREAM.format(self.name, what))


class RatelessOutput(CodecOutput):
    """A differentiable pass of a codec that has no rate: no bits, which must not be taken for a rate of 0."""

    @property
    def bpp(self) -> Tensor:
        """NoRate."""
        raise NoRate(_NO_STREAM.format("JPEG AI", "rate"))
