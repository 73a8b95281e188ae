"""How neural image codecs break under attack, and what helps: the helpers behind the course's notebooks."""

import warnings

# compressai 1.2.8 scripts a helper at import with what this torch calls deprecated: nothing a reader can act on
warnings.filterwarnings("ignore", message="`torch.jit.script` is deprecated", category=FutureWarning)

__version__ = "0.1.0"

from nic_helpers import analysis, attacks, defences, metrics, objectives  # noqa: E402
from nic_helpers.codecs import load_codec  # noqa: E402
from nic_helpers.image_sets import load_images  # noqa: E402

__all__ = ["analysis", "attacks", "defences", "load_codec", "load_images", "metrics", "objectives"]
