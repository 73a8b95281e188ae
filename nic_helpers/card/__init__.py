"""A robustness card: one page about any codec, with what it does on clean images, under attack, and what was not looked at.

python -m nic_helpers.card MODULE:FUNCTION --images FOLDER
"""

from nic_helpers.card.measure import Card, Settings, make_card
from nic_helpers.card.page import body, page, write
from nic_helpers.card.subject import CardError, codec_of

__all__ = ["Card", "CardError", "Settings", "body", "codec_of", "make_card", "page", "write"]
