"""Keys of one round: agreed by X25519 (RFC 7748), derived by HKDF-SHA256 (RFC 5869).

What a key is derived for stands in full in HKDF's ``info``: a key of another study, run, round,
attempt, roster, model or pair of sites has nothing in common with it.
"""

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from wardround.common.privacy.secure_aggregation.refusals import Refusal, refuse

KEY_BYTES = 32
_NONCE = bytes(12)  # no key seals twice
_DOMAIN = b"wardround secure aggregation 1\n"


def public_of(secret: bytes) -> bytes:
    """Return the X25519 public key of 32 secret bytes."""
    return X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()


def agree(secret: bytes, public: bytes) -> bytes:
    """Return the 32 bytes that the owners of two keys share; to be derived from, never used.

    Raises:
        MaskingError: The other key is one of the few that make the result known to everybody.
    """
    mine = X25519PrivateKey.from_private_bytes(secret)
    try:
        return mine.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        refuse(Refusal.SWAPPED_KEY, "a key is of low order, so everybody knows what it agrees on")


def derive(material: bytes, purpose: str, about: bytes) -> bytes:
    """Return a key of 32 bytes.

    Args:
        purpose: What it is for: two purposes share no key.
        about: Canonical bytes of all that the key is for.
    """
    info = _DOMAIN + purpose.encode() + b"\n" + about
    return HKDF(SHA256(), KEY_BYTES, None, info).derive(material)


def seal(key: bytes, plain: bytes, about: bytes) -> bytes:
    """Return bytes that only the key opens (ChaCha20-Poly1305, RFC 8439); it seals once."""
    return ChaCha20Poly1305(key).encrypt(_NONCE, plain, about)


def open_sealed(key: bytes, sealed: bytes, about: bytes, sender: str) -> bytes:
    """Return what was sealed.

    Args:
        sender: Who is said to have sealed it, for the refusal.

    Raises:
        MaskingError: It was sealed with another key, about something else, or changed.
    """
    try:
        return ChaCha20Poly1305(key).decrypt(_NONCE, sealed, about)
    except InvalidTag:
        refuse(Refusal.FALSE_SHARE, f"the share that {sender} sealed cannot be opened")
