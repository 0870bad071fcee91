"""What ``pacs.toml`` may say, and where secrets may be."""

from pathlib import Path

import pytest

from wardround.client.clinic.pacs.settings import read_pacs_file, read_secret
from wardround.common.errors import InputError

WEB = '[dicomweb]\nurl = "https://pacs.example.org/dicom-web"\n'
CLASSIC = '[classic]\nhost = "pacs"\nport = 104\ntitle = "PACS"\n'
RECEIVER = '[receiver]\nallowed = [{title = "PACS", address = "127.0.0.1"}]\n'


def _read(site: Path, text: str) -> None:
    (site / "pacs.toml").write_text(text)
    read_pacs_file(site)


@pytest.mark.parametrize(
    "text",
    [
        WEB,
        WEB + 'user = "me"\npassword_file = "password"\n',
        WEB + 'token_variable = "TOKEN"\n',
        CLASSIC,
        CLASSIC + 'retrieve = "move"\n' + RECEIVER,
        CLASSIC + RECEIVER + "[serve]\nreceive = true\n",
        '[dicomweb]\nurl = "http://127.0.0.1:8042/dicom-web"\ntoken_file = "token"\n',
    ],
)
def test_what_can_be_is_read(text: str, tmp_path: Path) -> None:
    _read(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", r"needs one table of \[dicomweb\] and \[classic\]"),
        (WEB + CLASSIC, r"needs one table of \[dicomweb\] and \[classic\]"),
        ('[dicomweb]\nurl = "https://me:secret@pacs/x"\n', "without user and password"),
        ('[dicomweb]\nurl = "file:///etc/passwd"\n', "an address such as https"),
        (WEB.replace("https", "http") + 'token_file = "t"\n', "unencrypted over the network"),
        ('[dicomweb]\nurl = "http://127.0.0.1.evil.org/x"\ntoken_file = "t"\n', "unencrypted"),
        (WEB + 'user = "me"\n', "a password .* go together"),
        (WEB + 'password_file = "x"\ntoken_file = "y"\n', "more than one of"),
        (WEB + 'password = "secret"\n', "password is not a key of this file"),
        (CLASSIC + 'retrieve = "move"\n', r"add a table\s+\[receiver\]"),
        (CLASSIC + "[serve]\nreceive = true\n", r"needs a table \[receiver\]"),
        (CLASSIC + 'retrieve = "move"\n' + RECEIVER + "[serve]\nreceive = true\n", "both need"),
        (CLASSIC.replace('"PACS"', '"A TITLE OF MANY LETTERS"'), "1 to 16 characters"),
        (WEB + "[receiver]\nallowed = []\n", "receiver.allowed"),
    ],
)
def test_what_cannot_be_is_refused_in_words(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        _read(tmp_path, text)


def test_a_folder_without_the_file_is_told_what_to_write(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"pacs\.toml is not there"):
        read_pacs_file(tmp_path)


def test_a_secret_comes_from_a_private_file_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "password"
    path.write_text("with a blank \n")
    path.chmod(0o644)
    with pytest.raises(InputError, match="chmod 600"):
        read_secret(tmp_path, "password", "")
    path.chmod(0o600)
    assert read_secret(tmp_path, "password", "") == "with a blank "
    monkeypatch.setenv("TOKEN", "abc")
    assert read_secret(tmp_path, "", "TOKEN") == "abc"


@pytest.mark.parametrize("content", [b"", b"\n", b"two\nlines\n", b"\xff\xfe", b"a" * 20_000])
def test_what_is_no_secret_is_refused_without_repeating_it(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(InputError) as refused:
        read_secret(tmp_path, "password", "")
    assert "lines" not in str(refused.value)
