"""How neural image codecs break under attack, and what helps: the helpers behind the course's notebooks."""

from nic_helpers import attacks, metrics
from nic_helpers.codecs import load_codec
from nic_helpers.images import load_images

__all__ = ["attacks", "load_codec", "load_images", "metrics"]
__version__ = "0.1.0"
