"""The primitives against the numbers that their standards print."""

import hashlib
import hmac

import numpy as np
import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from wardround.common.privacy.secure_aggregation.keys import agree, derive, public_of
from wardround.common.privacy.secure_aggregation.masks import add_mask
from wardround.common.privacy.secure_aggregation.refusals import MaskingError

BOB = "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"


def test_x25519_gives_the_numbers_of_rfc_7748() -> None:
    scalar = "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4"
    point = "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c"
    result = "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552"
    assert agree(bytes.fromhex(scalar), bytes.fromhex(point)).hex() == result  # section 5.2
    public = "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
    assert public_of(bytes.fromhex(BOB)).hex() == public  # section 6.1
    alice = "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"
    shared = "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"
    assert agree(bytes.fromhex(BOB), bytes.fromhex(alice)).hex() == shared


@pytest.mark.parametrize("point", [bytes(32), bytes([1]) + bytes(31)])
def test_a_key_of_low_order_is_refused(point: bytes) -> None:
    with pytest.raises(MaskingError, match="swapped-key"):
        agree(bytes.fromhex(BOB), point)


def test_hkdf_gives_the_numbers_of_rfc_5869() -> None:
    okm = "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
    salt, info = bytes(range(13)), bytes(range(0xF0, 0xFA))
    assert HKDF(SHA256(), 42, salt, info).derive(b"\x0b" * 22).hex() == okm  # test case 1
    okm = "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"
    assert HKDF(SHA256(), 42, None, None).derive(b"\x0b" * 22).hex() == okm  # test case 3


def test_a_derived_key_is_hkdf_over_the_purpose_and_the_whole_context() -> None:
    material, about = bytes(range(32)), b"context"
    extracted = hmac.digest(bytes(32), material, "sha256")
    info = b"wardround secure aggregation 1\nmask\ncontext"
    expected = hmac.digest(extracted, info + b"\x01", "sha256")
    assert derive(material, "mask", about) == expected
    assert derive(material, "channel", about) != expected


def test_a_mask_is_the_stream_of_chacha20_of_rfc_8439() -> None:
    first = (  # appendix A.1, test vectors 1 and 2: the blocks of counters 0 and 1
        "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7"
        "da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586"
        "9f07e7be5551387a98ba977c732d080dcb0f29a048e3656912c6533e32ee7aed"
        "29b721769ce64e43d57133b074d839d531ed1f28510afb45ace10a1f4b794d6f"
    )
    for word in ("<u2", "<u4", "<u8"):
        vector = np.zeros(128 // np.dtype(word).itemsize, dtype=word)
        add_mask(vector, bytes(32))
        assert vector.tobytes().hex() == first


def test_a_long_mask_is_one_stream_without_a_seam() -> None:
    from cryptography.hazmat.primitives.ciphers import Cipher
    from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

    key, words = hashlib.sha256(b"a key").digest(), np.zeros(700_001, dtype="<u4")
    add_mask(words, key)
    stream = Cipher(ChaCha20(key, bytes(16)), None).encryptor().update(bytes(words.nbytes))
    assert words.tobytes() == stream
    add_mask(words, key, subtract=True)
    assert not words.any()
