"""`authz notify`: who is told of security events, and whether a test message arrives."""

import asyncio
import json
import os
import ssl
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from uuid import uuid4

import click

from authz.cli.common import (
    AUTHZ_YAML,
    DONE,
    FAILED,
    CommandError,
    command,
    config_option,
    json_option,
    keep_config,
    nearest,
    print_table,
)
from authz.config.load import load
from authz.config.location import find_configuration
from authz.notify.delivery import DeliveryAnswer, attempt, notify_client
from authz.notify.messages import NotifyTarget, TimedNotice
from authz.notify.targets import notify_targets

_EXAMPLES: Final = """\
examples:
  authz notify                 the targets of authz.yaml
  authz notify --test          one test message to each
  authz notify --test phone --json
It sends from where it runs: `authz serve` may reach more or less. URLs and tokens are not shown.
exit status: 0 done, 1 a target did not take the message, 2 asked wrongly
"""


@command("notify", _EXAMPLES)
@click.argument("name", required=False, metavar="[TARGET]")
@config_option
@click.option("--test", is_flag=True, help="Send a test message, once, to TARGET or to each.")
@json_option("The answer as JSON.")
def run(*, name: str | None, config: Path | None, test: bool, as_json: bool) -> int:
    """List targets, or send to them."""
    path = find_configuration(config or AUTHZ_YAML)
    keep_config(path)
    targets = _chosen(notify_targets(load(path, os.environ)), name)
    answers = asyncio.run(_send_all(targets)) if test else [None] * len(targets)
    if as_json:
        print(json.dumps([_said(*each) for each in zip(targets, answers, strict=True)], indent=2))
    else:
        rows = [("target", "form", "events", "answer" if test else "")]
        for target, answer in zip(targets, answers, strict=True):
            events = ", ".join(target.events)
            rows += [(target.name, target.form.value, events, _words(answer))]
        print_table(rows)
    return DONE if all(each is None or each.is_good for each in answers) else FAILED


def _chosen(targets: Sequence[NotifyTarget], name: str | None) -> Sequence[NotifyTarget]:
    if not targets:
        raise CommandError("authz.yaml has no `notify`: nobody is told")
    if name is None:
        return targets
    found = [each for each in targets if each.name == name]
    if not found:
        near = nearest(name, [each.name for each in targets])
        raise CommandError(f"`notify` of authz.yaml has no such target{near}")
    return found


async def _send_all(targets: Sequence[NotifyTarget]) -> Sequence[DeliveryAnswer]:
    return await asyncio.gather(*(_send(each) for each in targets))


async def _send(target: NotifyTarget) -> DeliveryAnswer:
    try:
        client = notify_client(target)
    except (OSError, ssl.SSLError):
        return DeliveryAnswer(0, "the file of its authority cannot be read")
    async with client:
        return await attempt(client, target, TimedNotice(None, time.time()), str(uuid4()))


def _said(target: NotifyTarget, answer: DeliveryAnswer | None) -> dict[str, object]:
    said: dict[str, object] = {
        "target": target.name,
        "form": target.form.value,
        "events": list(target.events),
    }
    if answer is not None:
        said |= {"sent": answer.is_good, "status": answer.status, "detail": answer.detail}
    return said


def _words(answer: DeliveryAnswer | None) -> str:
    if answer is None:
        return ""
    return f"sent ({answer.detail})" if answer.is_good else f"not sent: {answer.detail}"
