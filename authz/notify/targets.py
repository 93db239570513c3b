"""Make targets of what authz.yaml says."""

from pydantic import SecretStr

from authz.config.load import Settings
from authz.config.secret_files import NotifySecrets
from authz.notify.messages import NotifyForm, NotifyTarget
from authz.telemetry.security_events import SecurityEvent


def notify_targets(settings: Settings) -> tuple[NotifyTarget, ...]:
    """Return the targets, with their secrets where these were read."""
    return tuple(
        NotifyTarget(
            name,
            NotifyForm(each.form),
            each.url or _text(secrets.url),
            _text(secrets.token),
            _text(secrets.signing_key),
            each.ca_file or "",
            each.events or tuple(event.label for event in SecurityEvent),
            each.people,
        )
        for name, each in settings.config.notify.items()
        for secrets in (settings.secrets.notify.get(name, NotifySecrets()),)
    )


def _text(secret: SecretStr | None) -> str:
    return "" if secret is None else secret.get_secret_value()
