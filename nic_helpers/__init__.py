"""How neural image codecs break under attack, and what helps: the helpers behind the course's notebooks."""

import warnings

# compressai 1.2.8 scripts a helper at import with what this torch calls deprecated: nothing a reader can act on
warnings.filterwarnings("ignore", message="`torch.jit.script` is deprecated", category=FutureWarning)

from nic_helpers import attacks, defences, metrics  # noqa: E402
from nic_helpers.codecs import load_codec  # noqa: E402
from nic_helpers.images import load_images  # noqa: E402

__all__ = ["attacks", "defences", "load_codec", "load_images", "metrics"]
__version__ = "0.1.0"
