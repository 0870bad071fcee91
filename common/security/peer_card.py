"""A site's public key on its way to the other sites, and words that two people compare.

A card is a line of JSON that may travel by any way, the server's included: whoever takes it in
first hears its words from a person of that site. The words are proquints (Wilkerson 2009, "A
proposal for proquints"), of 16 bits each, which can be spelt aloud in most languages.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from wardround.common.errors import InputError
from wardround.common.files.atomic import BY_UMASK, replace_file
from wardround.common.runtime.printable import is_plain

LARGEST_CARD = 10_000  # bytes
_LONGEST_NAME = 200
_DOMAIN = b"wardround peer 1\n"
_CONSONANTS, _VOWELS = "bdfghjklmnprstvz", "aiou"
_WORDS = 8  # 128 bits: nobody finds another key with the same words


@dataclass(frozen=True, slots=True)
class PeerCard:
    """What a site says of itself to the others.

    Attributes:
        site: Its name in studies and at the server.
        key: Its Ed25519 public key.
    """

    site: str
    key: Ed25519PublicKey

    @property
    def words(self) -> str:
        """The words of this name and this key together."""
        return key_words({self.site: self.key})

    def signed(self, key: Ed25519PrivateKey) -> str:
        """Return the card as a line of text, signed by the key that it names."""
        said = {"peer": self.site, "key": self.key.public_bytes_raw().hex()}
        signature = key.sign(_DOMAIN + self.site.encode())
        return json.dumps({**said, "signature": signature.hex()}) + "\n"

    def facts(self, is_own: bool = False) -> dict[str, object]:
        """Return what ``--json`` prints of it.

        Args:
            is_own: Whether it is of the site whose list it stands in.
        """
        key = self.key.public_bytes_raw().hex()
        return {"site": self.site, "own": is_own, "key": key, "words": self.words}


def write_card(path: Path, text: str) -> None:
    """Write a card to a file that everybody may read.

    Raises:
        InputError: It cannot be written.
    """
    try:
        replace_file(path, text, BY_UMASK)
    except OSError as error:
        msg = f"{path} cannot be written ({error.strerror}): name another file."
        raise InputError(msg) from None


def read_card(path: Path) -> PeerCard:
    """Return the card in a file.

    Raises:
        InputError: There is none, or who made it does not have the key that it names.
    """
    try:
        with path.open("rb") as stream:
            return _card_of(stream.read(LARGEST_CARD))
    except OSError as error:
        msg = f"{path} cannot be read ({error.strerror}): give what the other site exported."
        raise InputError(msg) from None


def _card_of(text: bytes) -> PeerCard:
    """Return the card that a text holds.

    Raises:
        InputError: It holds none.
    """
    try:
        said = json.loads(text)
        site, key = said["peer"], Ed25519PublicKey.from_public_bytes(bytes.fromhex(said["key"]))
        if not isinstance(site, str) or not 0 < len(site) <= _LONGEST_NAME or not is_plain(site):
            raise ValueError
        key.verify(bytes.fromhex(said["signature"]), _DOMAIN + site.encode())
    except (ValueError, TypeError, KeyError, RecursionError, InvalidSignature):
        msg = (
            "this is no site's public key as 'wardround site peers export' writes it, or it was "
            "changed on its way: have the site export it again."
        )
        raise InputError(msg) from None
    return PeerCard(site, key)


def key_words(keys: dict[str, Ed25519PublicKey]) -> str:
    """Return the words of some sites' names and keys, in the order of the names."""
    said = json.dumps([[name, keys[name].public_bytes_raw().hex()] for name in sorted(keys)])
    found = hashlib.sha256(_DOMAIN + said.encode()).digest()
    return "-".join(_proquint(found[2 * i] << 8 | found[2 * i + 1]) for i in range(_WORDS))


def same_words(heard: str, words: str) -> bool:
    """Return whether somebody has typed these words, whatever stands between them."""
    letters = "".join(sign for sign in heard.lower() if sign.isalpha())
    return letters == words.replace("-", "")


def _proquint(value: int) -> str:
    """Return 16 bits as a word of five letters."""
    return (
        _CONSONANTS[value >> 12]
        + _VOWELS[value >> 10 & 3]
        + _CONSONANTS[value >> 6 & 15]
        + _VOWELS[value >> 4 & 3]
        + _CONSONANTS[value & 15]
    )
