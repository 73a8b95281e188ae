"""What the tests share: small images, bundled codecs, and untrained codecs of every architecture."""

from __future__ import annotations

import contextlib
import functools
import http.server
import threading
from unittest import mock

import pytest
import torch
from channelwise import ChannelWise

from nic_helpers import load_codec, load_images
from nic_helpers.codecs.checkpoints import Weights
from nic_helpers.codecs.neural import NeuralCodec
from nic_helpers.codecs.registry import ARCHITECTURES
from nic_helpers.training.kinds import has_other_transforms
from nic_helpers.training.start import pca_initialise, random_initialise

#: The architectures, and one written as a user would.
KINDS_OF_CODECS = ARCHITECTURES | {ChannelWise.name: ChannelWise}
WIDTHS = {
    "cheng2020-anchor": (12,),
    "cheng2020-attn": (12,),
    "cai2022": (12, 16, 4, 1),
    "zou2022-wacnn": (8, 16, 4, 2, 8),
    "zou2022-stf": (3, 4, 2, 8, 2),
    "liu2023": (4, 16, 4, 2, 8, 8),
}

#: Slow, and alike zou2022-wacnn in all that tests outside the conformance test are about.
LIKE_WACNN = ("zou2022-stf", "liu2023")


@pytest.fixture(scope="session")
def x() -> torch.Tensor:
    """Three different 64×64 crops [3, 3, 64, 64] of the bundled images."""
    return torch.stack([im[:, 64:128, 64:128] for im in load_images("bundled")[:3]])


@pytest.fixture(scope="session")
def hyperprior() -> NeuralCodec:
    """The bundled hyperprior at quality 3."""
    return load_codec("bmshj2018-hyperprior", 3, device="cpu")


@pytest.fixture(scope="session")
def cheng() -> NeuralCodec:
    """The bundled cheng2020-anchor at quality 3."""
    return load_codec("cheng2020-anchor", 3, device="cpu")


@functools.cache
def untrained(arch: str) -> NeuralCodec:
    """A small codec of an architecture with its principal-component start, where it has one, and no training."""
    torch.manual_seed(0)
    kind = KINDS_OF_CODECS[arch]
    model = kind.build(*WIDTHS.get(arch, (12, 16)))
    crops = torch.stack([im[:, :128, :128] for im in load_images("bundled")])
    start = random_initialise if has_other_transforms(kind) else pca_initialise
    start(arch if arch in ARCHITECTURES else "mbt2018-mean", model, crops, 0.0067)
    with mock.patch.dict(ARCHITECTURES, {arch: kind}):
        return NeuralCodec(arch, 3, Weights(model.state_dict(), "test", arch, "ab" * 32, 0.0067), torch.device("cpu"))


@pytest.fixture(params=[name for name in KINDS_OF_CODECS if name not in LIKE_WACNN])
def any_codec(request) -> NeuralCodec:
    """An untrained codec of each architecture, of one that the package has not got, and of one for those that are much alike."""
    return untrained(request.param)


@contextlib.contextmanager
def default_dtype(dtype):
    """Another default for new tensors, as numerical programs set it."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


#: What a caller may have set for its own part, and a codec or an attack must not mind.
MODES = {
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "default float64": lambda: default_dtype(torch.float64),
    "default bfloat16": lambda: default_dtype(torch.bfloat16),
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
}


@torch.inference_mode()
def inference_tensor(x):
    """x as a tensor of which torch keeps no history."""
    return x.clone()


#: Other tensors of the same picture.
KINDS = {
    "float64": lambda x: x.double(),
    "requires grad": lambda x: x.clone().requires_grad_(True),
    "inference tensor": inference_tensor,
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "transposed": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
}


@pytest.fixture
def serve(tmp_path):
    """A function that serves a folder over HTTP on the loopback interface; returns the address."""
    servers = []

    def start(folder) -> str:
        class Quiet(http.server.SimpleHTTPRequestHandler):
            def log_message(self, *args):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def closed_port() -> str:
    """An address where nothing listens."""
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
    port = server.server_port
    server.server_close()
    return f"http://127.0.0.1:{port}"
