"""Where the demonstration's programs listen."""

from pathlib import Path

from authz_demo.serving import LOOPBACK, Address, bind


def test_a_port_is_of_loopback_unless_another_address_is_named() -> None:
    """A container names one; everybody else gets 127.0.0.1."""
    with bind(Address()) as here, bind(Address(host="127.0.0.2")) as named:
        assert here.getsockname()[0] == LOOPBACK
        assert named.getsockname()[0] == "127.0.0.2"


def test_a_socket_is_its_owners(tmp_path: Path) -> None:
    """Mode 600, from the first moment."""
    path = tmp_path / "s"
    with bind(Address(uds=path)):
        assert path.stat().st_mode & 0o777 == 0o600
