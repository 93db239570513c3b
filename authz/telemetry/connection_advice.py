"""What a connection that stopped was missing, and what to do, by how far it came."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from authz.core.reason import Reason
from authz.telemetry.connection_events import OK, ConnectionEvent, Stage


class Advice(NamedTuple):
    """What was missing, and what to do."""

    missing: str
    fix: str


_OUTSIDE: Final = "`authz doctor --outside URL` looks from where it runs: run it on another network"
_REMOVE: Final = "remove the connection from the client and add it again"
# After a good step: the next one never came.
_AFTER: Final[Mapping[Stage, Advice]] = MappingProxyType({
    Stage.CHALLENGE: Advice(
        "the client got the 401 and asked for no metadata document",
        "the client may only probe, or takes no OAuth here: look whether it was given the server's "
        f"exact URL. {_OUTSIDE}",
    ),
    Stage.DOCUMENT: Advice(
        "the client read the documents, and nobody opened the log-in page",
        "a client that cannot register needs `front_door.registration`, or a metadata document of "
        "its own (`front_door.metadata_hosts`); one in a browser needs its origin in "
        "`gateway.origins`; or the person has not clicked yet",
    ),
    Stage.REGISTER: Advice(
        "the client registered, and nobody opened the log-in page",
        "look at the person's side: a pop-up that was blocked, a window that was closed",
    ),
    Stage.CLIENT_DOCUMENT: Advice(
        "the client's metadata document was fetched, and no consent page was shown",
        "the log line `authorize` with the same `attempt` says why; without one the person has "
        "closed the page",
    ),
    Stage.AUTHORIZE: Advice(
        "the consent page was shown, and nobody answered it",
        f"the person left the page, or waited longer than ten minutes: {_REMOVE}",
    ),
    Stage.CONSENT: Advice(
        "the person was sent to Authelia and did not come back",
        "look into Authelia's log at that time: the password or second factor failed, its rules "
        "refuse the person, or the callback is not registered there (`authz authelia-config`)",
    ),
    Stage.CALLBACK: Advice(
        "the client was sent its code and never came for the tokens",
        "the client did not take the answer (a program that had ended, a state that it did not "
        f"know), or its servers do not reach `/token`: {_OUTSIDE}",
    ),
    Stage.TOKEN: Advice(
        "the client has its tokens and has called nothing with them",
        "look whether its URL is the server's own, to the last slash; some clients keep tokens for "
        f"another URL: {_REMOVE}",
    ),
    Stage.CALL: Advice("nothing: the client is connected", "nothing"),
    Stage.REFRESH: Advice("nothing: the client has refreshed its tokens", "nothing"),
})  # fmt: skip
# An outcome that says more than its stage.
_OUTCOMES: Final[Mapping[str, Advice]] = MappingProxyType({
    "no_document": Advice(
        "the client's metadata document is of no use",
        "the detail says what is wrong with it; where it cannot be fetched, the gateway has no way "
        "out to the Internet, or `front_door.metadata_hosts` leaves its host out",
    ),
    "not_found": Advice(
        "the client asked for a metadata document that does not exist",
        "clients look at several addresses; it counts only where no other document follows: then "
        "look whether the client has the server's exact URL",
    ),
    "wrong_redirect_uri": Advice(
        "the client wants the log-in to end at an address that it has not registered",
        f"a configured client: add it to `clients.<client>.redirect_uris`; another one: {_REMOVE}",
    ),
    "blocked": Advice(
        "an operator has blocked the client", "`authz clients` lists and lifts blocks",
    ),
    "invalid_client": Advice(
        "the client is not known here",
        "its registration was made with an older sealing key, or it is of another gateway: "
        f"{_REMOVE}",
    ),
    "invalid_target": Advice(
        "the client asks for a server that is none of this gateway's",
        "give it the URL that `authz client-config` prints",
    ),
    "invalid_scope": Advice(
        "the client may have none of the scopes that it asks for",
        "`clients.<client>.scopes` and the server's scopes in authz.yaml say what it may have",
    ),
    "invalid_client_metadata": Advice(
        "the registration was refused",
        "the detail says why; `front_door.registration` turns it on",
    ),
    "invalid_redirect_uri": Advice(
        "the registration names a redirect URI that is not allowed",
        "the detail says why; `front_door.private_redirect_uris` allows more",
    ),
    "access_denied": Advice(
        "the person declined, or Authelia did not let them in",
        "ask the person; Authelia's log names a rule that refused them",
    ),
    "server_error": Advice(
        "Authelia refused the gateway's request, or its answer was not what was asked for",
        "the detail says which; `authz doctor` compares Authelia's clients with what is needed "
        "(`authz authelia-config`)",
    ),
    "temporarily_unavailable": Advice(
        "Authelia or Redis did not answer", "look at both: `authz doctor` asks them",
    ),
    "unavailable": Advice(
        "Authelia or Redis did not answer",
        "look at both: `authz doctor` asks them; where one person's refreshes alone end so "
        "(`issuer: status 500`), Authelia has no such user any more: removed, disabled or renamed",
    ),
    "invalid_grant": Advice(
        "the code or refresh token was not good: used before, too old, or of another client",
        "a code is good for a minute and once; two copies of a client that share one refresh token "
        f"end each other: {_REMOVE}",
    ),
    "replayed": Advice(
        "the code came a second time, which ended what the first one gave",
        "the client sent its token request twice, or somebody has a copy of the code",
    ),
})  # fmt: skip


def advise(event: ConnectionEvent) -> Advice:
    """Return what a connection that ended with an event was missing, and what to do."""
    if event.is_page:
        return Advice(
            f"a person saw an error page: {event.outcome}",
            f"`authz explain --request-id {event.request_id} --log LOG` says what it means"
            if event.request_id
            else "`authz explain` says what it means",
        )
    if event.outcome == OK or event.stage is Stage.CHALLENGE:
        return _AFTER[event.stage]
    if event.stage is Stage.CALL:
        reason = next((each for each in Reason if each.label == event.outcome), None)
        if reason is not None:
            return Advice(f"the call was refused: {reason.row.meaning}", reason.row.fix)
    what = "no_document" if event.stage is Stage.CLIENT_DOCUMENT else event.outcome
    known = _OUTCOMES.get(what)
    return known or Advice(
        f"the step `{event.stage.name.lower()}` ended with {event.outcome}",
        "the detail and the request id say more: `authz explain --request-id ID --log LOG`",
    )
