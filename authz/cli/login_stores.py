"""The stores of the front door, as commands of operators read them."""

import time
from dataclasses import dataclass

from authz.cli.revocation_commands import LedgerRequest
from authz.ledger.login_records import LoginRecords
from authz.ledger.redis import RedisLedger
from authz.login.protocol.people import KnownPerson
from authz.login.store.blocklist import Blocklist
from authz.login.store.grants import GrantStore
from authz.login.store.known_clients import KnownClient, known_clients
from authz.login.store.known_people import known_people
from authz.login.store.people import PeopleStore
from authz.tokens.sealing import Sealer, sealing_secrets


@dataclass(frozen=True, slots=True)
class LoginStores:
    """Hold the stores of one deployment with a front door."""

    grants: GrantStore
    blocks: Blocklist
    people: PeopleStore
    records: LoginRecords

    async def known_people(self) -> tuple[KnownPerson, ...]:
        """Return who has logged in; raise UnavailableError where Redis does not answer."""
        return await known_people(self.people, self.grants, self.records)

    async def known_clients(self) -> tuple[KnownClient, ...]:
        """Return which clients have come; raise UnavailableError where Redis does not answer."""
        return await known_clients(self.grants, self.blocks)


def login_stores(ledger: RedisLedger, request: LedgerRequest) -> LoginStores | None:
    """Return the stores of a deployment; None where it has no front door."""
    config, secrets = request.settings.config, request.settings.secrets
    if config.front_door is None or secrets.front_door is None:
        return None
    file = None if secrets.sealing is None else secrets.sealing.get_secret_value()
    sealer = Sealer(sealing_secrets(file, secrets.front_door.get_secret_value()), time.time)
    keys = request.options.keys
    grants = GrantStore(
        ledger.command,
        keys,
        config.issuer.url,
        max_age=int(config.front_door.grant_max_age),
        max_lifetime=int(config.issuer.max_lifetime + config.issuer.leeway),
        clock=lambda: request.now,
    )
    people = PeopleStore(
        ledger.command,
        keys,
        config.issuer.url,
        sealer=sealer,
        lifetime=grants.kept,
        clock=lambda: request.now,
    )
    return LoginStores(
        grants, Blocklist(ledger.command, keys), people, LoginRecords(ledger.command, keys)
    )
