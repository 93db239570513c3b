"""When the certificate ends, as its file has it at the scrape."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from prometheus_client import generate_latest

from authz.telemetry.certificate_expiry import CertificateExpiry
from authz.telemetry.metrics import Metrics
from tests.support.certificates import MadeCertificate, made

NAME = 'authz_certificate_expiry_timestamp_seconds{certificate="gateway"}'


def end(pair: MadeCertificate) -> float:
    return pair.certificate.not_valid_after_utc.timestamp()


def test_a_renewed_file_is_read_anew(tmp_path: Path) -> None:
    """Renamed into place or written over; one that is broken or gone leaves the last answer."""
    path, metrics = tmp_path / "tls.crt", Metrics()
    now = datetime.now(UTC)
    first, second = (made(lives=(now, now + timedelta(days=days))) for days in (10, 20))
    path.write_bytes(first.pem)
    expiry = CertificateExpiry(lambda: path)
    metrics.follow_certificate(expiry)
    seen = [_scraped(metrics)]

    (tmp_path / "new").write_bytes(second.pem)
    (tmp_path / "new").replace(path)
    seen.append(_scraped(metrics))
    path.write_text("half of a file")
    seen.append(_scraped(metrics))
    path.unlink()
    seen.append(_scraped(metrics))

    assert seen == [end(first), end(second), end(second), end(second)]


def _scraped(metrics: Metrics) -> float:
    lines = generate_latest(metrics.registry).decode().splitlines()
    (line,) = [line for line in lines if line.startswith(NAME)]
    return float(line.split()[-1])


def test_a_file_on_another_machine_is_no_figure(tmp_path: Path) -> None:
    """In containers only Envoy has it: an alert must not read 0 as an end in 1970."""
    assert not CertificateExpiry(lambda: tmp_path / "tls.crt").is_known()
    assert not CertificateExpiry(lambda: None).is_known()
    assert NAME not in generate_latest(Metrics().registry).decode()
