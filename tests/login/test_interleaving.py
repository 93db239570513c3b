"""Log-ins that overlap: two people, two clients, several tabs, in every order that is drawn.

Law: whatever the order, each log-in ends with its own person, client, server, methods and grant.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import httpx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from authz.core.principal import LogIn
from authz.demo.issuer.keys import Keys
from authz.demo.person import FORMS, Person
from authz.ledger.keys import Keys as Names
from authz.ledger.log_ins import LogIns
from tests.demo.kit import BOB, JOHN, claims
from tests.login.front import FILES, NOTES, Client, Stage, bob, john, stage
from tests.support.valkey import ValkeyServer

Asked = tuple[str, str, str, bool]  # person, client, resource, whether tabs of one browser
SUBJECTS = {"john": JOHN, "bob": BOB}
# The password alone, where the server asks for no more.
AMR = {FILES: {"pwd", "kba", "otp", "mfa"}, NOTES: {"pwd", "kba"}}
PORTS = {"one": 43210, "two": 43211}
_addresses = itertools.count()


@dataclass
class Flow:
    """One log-in, one request after the other.

    Attributes:
        who, which: the person and the client.
        client: what sends the requests; its browser is one of the person's.
        tokens: what it was given, in its order.
    """

    who: str
    which: str
    client: Client
    tokens: list[str] = field(default_factory=list)

    async def steps(self) -> AsyncIterator[None]:
        """Do one request for each turn."""
        person: Person = {"john": john, "bob": bob}[self.who]()
        url = self.client.url()
        while not url.startswith(self.client.redirect_uri):
            page = await self.client.browser.get(url, follow_redirects=False)
            yield
            url = await person._on(self.client.browser, page, FORMS)
            yield
        back = dict(parse_qsl(urlsplit(url).query))
        assert back["state"] == self.client.state
        answer = await self.client.exchange(back["code"])
        yield
        self._take(answer)
        answer = await self.client.refresh(answer.json()["refresh_token"])
        yield
        self._take(answer)

    def _take(self, answer: httpx.Response) -> None:
        assert answer.status_code == 200, answer.text
        self.tokens.append(answer.json()["access_token"])


async def record(found: Stage, token: str) -> LogIn:
    held = await LogIns(found.ledger.command, Names(found.deployment)).of(token)
    assert held is not None
    return held


async def interleave(
    found: Stage, asked: list[tuple[str, str, str, bool]], order: list[int]
) -> None:
    """Let flows take turns as drawn, the rest one after the other; look at how each ended."""
    registered: dict[str, str] = {}
    for which, port in PORTS.items():
        client = Client(found, redirect_uri=f"http://127.0.0.1:{port}/callback")
        await client.register(client_name=which)
        registered[which] = client.client_id
    address = f"198.18.{next(_addresses) % 250}.7"
    browsers = {who: found.browser(address) for who in SUBJECTS}
    flows: list[Flow] = []
    for who, which, resource, shares in asked:
        client = Client(
            found,
            registered[which],
            f"http://127.0.0.1:{PORTS[which]}/callback",
            resource,
            address,
        )
        if shares:
            client.browser = browsers[who]
        flows.append(Flow(who, which, client))
    turns = [flow.steps() for flow in flows]
    left = set(range(len(turns)))
    for number in itertools.chain(order, itertools.cycle(range(len(turns)))):
        if not left:
            break
        which_one = number % len(turns)
        if which_one in left and await anext(turns[which_one], left) is left:
            left.discard(which_one)

    grants: dict[str, str] = {}
    for flow, (who, which, resource, shares) in zip(flows, asked, strict=True):
        ends = [await record(found, token) for token in flow.tokens]
        for token, end in zip(flow.tokens, ends, strict=True):
            assert (end.subject, claims(token)["sub"]) == (SUBJECTS[who], SUBJECTS[who])
            assert end.client_id == registered[which]
            assert claims(token)["aud"] == [resource]
            # In a browser that another tab has given the code to, it is there as well.
            assert end.amr == AMR[resource] or (shares and end.amr > AMR[resource])
        assert len({end.grant for end in ends}) == 1
        assert ends[0].grant not in grants, "two log-ins with one grant"
        grants[ends[0].grant] = who
    for who, subject in SUBJECTS.items():
        kept = {grant.id for grant in await found.built.means.grants.of(subject)}
        assert {grant for grant, whose in grants.items() if whose == who} <= kept


LOG_IN = st.tuples(
    st.sampled_from(list(SUBJECTS)),
    st.sampled_from(list(PORTS)),
    st.sampled_from([FILES, NOTES]),
    st.booleans(),
)


def test_log_ins_that_overlap_are_never_mixed(
    store: ValkeyServer, keys: Keys, tmp_path: Path
) -> None:
    """Four log-ins of two people with two clients at two servers, from one browser or several."""
    context = stage(store, keys, tmp_path)
    with asyncio.Runner() as runner:
        found = runner.run(context.__aenter__())
        try:

            @settings(
                max_examples=25,
                deadline=None,
                suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
            )
            @given(
                st.lists(LOG_IN, min_size=2, max_size=4),
                st.lists(st.integers(0, 3), max_size=60),
            )
            def example(asked: list[Asked], order: list[int]) -> None:
                runner.run(interleave(found, asked, order))

            example()
        finally:
            runner.run(context.__aexit__(None, None, None))
