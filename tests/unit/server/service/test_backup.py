"""What a backup of a server holds beside its runs."""

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from wardround.common.security.peers import read_peers, write_peers
from wardround.server.service.backup import back_up_server, restore_server
from wardround.server.service.installation import init_server


def test_a_restored_server_knows_the_sites_keys(tmp_path: Path) -> None:
    server, file = tmp_path / "server", tmp_path / "server.tar"
    init_server(server, "lab", ["127.0.0.1"], "127.0.0.1", 8443)
    write_peers(server, {"south": Ed25519PrivateKey.generate().public_key()})
    back_up_server(server, file)
    restore_server(file, tmp_path / "back")
    assert list(read_peers(tmp_path / "back")) == ["south"]
