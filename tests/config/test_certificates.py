"""What is wrong with a certificate, its chain or its key: each fault alone, and no other."""

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from authz.config.certificates import CertificateFlaw, certificate_faults, read_certificate
from tests.support.certificates import MadeCertificate, made

HOST = "mcp.example.com"
ROOT = made(is_authority=True, subject="root")
MIDDLE = made(by=ROOT, is_authority=True, subject="middle")
OWN = made(HOST, "auth.example.com", by=MIDDLE)
OTHER = made(HOST)
ALONE = made(HOST, by=MIDDLE, issuers_file=True)
NOW = datetime.now(UTC).timestamp()
DAY = 86400


def pem(*chain: MadeCertificate) -> bytes:
    return b"".join(each.pem for each in chain)


def flaws(chain: bytes, key: bytes | None, *hosts: str, now: float = NOW) -> list[CertificateFlaw]:
    return [each.flaw for each in certificate_faults(chain, key, hosts or (HOST,), now)]


@pytest.mark.parametrize(
    ("chain", "key"),
    [
        (pem(OWN, MIDDLE), OWN.key_pem),
        (pem(OWN, MIDDLE, ROOT), OWN.key_pem),
        (pem(OWN), None),
        (pem(OTHER), OTHER.key_pem),
        (b"Bag Attributes\n" + pem(OWN, MIDDLE) + b"\n\n", b"comment\n" + OWN.key_pem),
    ],
    ids=["chain", "with root", "key unread", "signed by itself", "with comments"],
)
def test_right_ones(chain: bytes, key: bytes | None) -> None:
    """A chain with or without its root, and a certificate of an authority of one's own."""
    assert flaws(chain, key) == []


@pytest.mark.parametrize(
    ("chain", "key", "found"),
    [
        (b"", OWN.key_pem, CertificateFlaw.UNREADABLE),
        (OWN.key_pem, OWN.key_pem, CertificateFlaw.UNREADABLE),
        (pem(OWN).replace(b"MII", b"MIJ"), OWN.key_pem, CertificateFlaw.UNREADABLE),
        (pem(OWN, MIDDLE), pem(OWN), CertificateFlaw.KEY_UNREADABLE),
        (pem(OWN, MIDDLE), OWN.encrypted_key, CertificateFlaw.KEY_UNREADABLE),
        (pem(OWN, MIDDLE), OTHER.key_pem, CertificateFlaw.KEY_MISMATCH),
        (pem(OWN, ROOT), OWN.key_pem, CertificateFlaw.CHAIN_ORDER),
        (pem(OWN, MIDDLE, OTHER), OWN.key_pem, CertificateFlaw.CHAIN_ORDER),
        (pem(ALONE), ALONE.key_pem, CertificateFlaw.CHAIN_INCOMPLETE),
    ],
)
def test_each_fault_alone(chain: bytes, key: bytes, found: CertificateFlaw) -> None:
    """What Envoy or clients refuse, by its kind."""
    assert flaws(chain, key) == [found]


def test_the_own_one_comes_first() -> None:
    """Envoy takes the first for its own: a chain upside down does not fit the key."""
    found = flaws(pem(MIDDLE, OWN), OWN.key_pem)

    assert found[0] is CertificateFlaw.NOT_FIRST
    assert CertificateFlaw.AUTHORITY in found


@pytest.mark.parametrize(
    ("days_before_end", "found"),
    [
        (-1, [CertificateFlaw.EXPIRED]),
        (0.1, [CertificateFlaw.EXPIRES_SOON]),
        (13.9, [CertificateFlaw.EXPIRES_SOON]),
        (14.1, []),
        (91, [CertificateFlaw.NOT_YET_VALID]),
    ],
)
def test_dates(days_before_end: float, found: list[CertificateFlaw]) -> None:
    """Ended, ending within two weeks, and not yet begun."""
    end = OWN.certificate.not_valid_after_utc.timestamp()

    assert flaws(pem(OWN, MIDDLE), OWN.key_pem, now=end - days_before_end * DAY) == found


def test_a_certificate_for_six_days_is_not_ending_from_its_first() -> None:
    """Soon is a fifth of its time, where that is less than two weeks."""
    begin = datetime.now(UTC)
    short = made(HOST, lives=(begin, begin + timedelta(days=6)))
    end = short.certificate.not_valid_after_utc.timestamp()

    assert flaws(short.pem, short.key_pem, now=end - 1.3 * DAY) == []
    assert flaws(short.pem, short.key_pem, now=end - 1.1 * DAY) == [CertificateFlaw.EXPIRES_SOON]


@pytest.mark.parametrize(
    ("names", "host", "fits"),
    [
        (["mcp.example.com"], "MCP.example.com", True),
        (["*.example.com"], "mcp.example.com", True),
        (["*.example.com"], "a.mcp.example.com", False),
        (["*.example.com"], "example.com", False),
        (["m*.example.com"], "mcp.example.com", False),
        (["example.com"], "mcp.example.com", False),
        (["evilmcp.example.com"], "mcp.example.com", False),
        (["192.0.2.1"], "192.0.2.1", True),  # as a DNS name: read by what it says
        (["*.0.2.1"], "192.0.2.1", False),
        ([], "mcp.example.com", False),
    ],
)
def test_names(names: list[str], host: str, *, fits: bool) -> None:
    """One label for `*`, none for parts of it; the common name counts for nothing."""
    one = made(*names, subject=host)
    found = flaws(one.pem, one.key_pem, host)

    assert found == ([] if fits else [CertificateFlaw.NAME_MISSING])


def test_an_address_is_a_name() -> None:
    """IPv6 in any spelling, with the brackets of a URL."""
    one = made(extra=[x509.IPAddress(ip_address("2001:db8::1"))])

    assert read_certificate(one.pem).is_for("[2001:DB8:0::1]")
    assert not read_certificate(one.pem).is_for("2001:db8::2")


def test_every_host_is_looked_for() -> None:
    """The gateway's and the portal's: one that is missing is named."""
    (found,) = certificate_faults(OTHER.pem, None, (HOST, "auth.example.com"), NOW)

    assert '"auth.example.com"' in found.wrong
    assert HOST in found.wrong


def test_no_key_is_repeated() -> None:
    """Whatever is given in the place of the other."""
    for chain, key in ((OWN.key_pem, OWN.pem), (OWN.pem, OTHER.key_pem), (b"x", OWN.key_pem)):
        told = str(list(certificate_faults(chain, key, (HOST,), NOW)))
        assert not any(line.decode() in told for line in OWN.key_pem.splitlines()[1:-1])


@given(
    chain=st.one_of(st.binary(max_size=2000), st.just(pem(OWN, MIDDLE))),
    cut=st.integers(0, 2500),
    noise=st.binary(max_size=40),
)
def test_nothing_is_raised_whatever_a_file_holds(chain: bytes, cut: int, noise: bytes) -> None:
    """Cut, mixed and random files are faults, never errors."""
    text = chain[:cut] + noise + chain[cut:]

    for each in certificate_faults(text, text, (HOST,), NOW):
        assert each.wrong.isprintable()
