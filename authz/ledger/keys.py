"""Redis keys, and fields of the hash of revocations.

Invariant: no spelling of an id reaches another record or deployment
(tests/ledger/test_contract.py::test_hostile_names_keep_their_own_counts): what a caller or an
issuer may choose is digested. One hash tag keeps all keys of a deployment in one slot of a Redis
Cluster, so that one script may touch them all.
"""

import re
from typing import Final

from authz.core.approval import ApprovalKey
from authz.core.ledger import Session, StepUpKey
from authz.core.limits import digest
from authz.core.principal import Client, Person

_DEPLOYMENT: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")

EVERYTHING: Final = b"everything"


class RedisKeys:
    """The keys of one deployment."""

    def __init__(self, deployment: str) -> None:
        """Check the deployment's name.

        Raises:
            ValueError: where it is empty (Redis Cluster ignores an empty hash tag), or could end
                the tag early.
        """
        if _DEPLOYMENT.fullmatch(deployment) is None:
            raise ValueError("a deployment is named with letters, digits, dots, dashes, underlines")
        self._tag = b"{%s}:" % deployment.encode()
        self.revocations = self._tag + b"revocations"
        self.generation = self._tag + b"generation"
        self.restored = self._tag + b"restored"
        self.catalogue_index = self._tag + b"catalogue-index"

    def mark(self, reader: str) -> bytes:
        """Return the key of the mark that a reader of the revocations leaves."""
        return self._tag + b"mark:" + reader.encode("ascii")

    def step_up(self, key: StepUpKey) -> bytes:
        """Return the key of a step-up record."""
        name = digest(*key.person, key.grant, key.server)
        return self._tag + b"step-up:" + name.encode()

    def approval(self, key: ApprovalKey) -> bytes:
        """Return the key of the record of an approval."""
        return self.approval_of_name(approval_name(key))

    def approval_of_name(self, name: str) -> bytes:
        """Return the key of the record of an approval, by its `approval_name`."""
        return self._tag + b"approval:" + name.encode("ascii")

    def approval_request(self, name: str) -> bytes:
        """Return the key of what a person is asked to approve, by its `approval_name`."""
        return self._tag + b"approval-request:" + name.encode("ascii")

    def approval_requests(self, person: Person, grant: str) -> bytes:
        """Return the key of the ring of what a person is asked by one grant."""
        return self._tag + b"approval-requests:" + digest(*person, grant).encode()

    def approvals_of(self, person: Person) -> bytes:
        """Return the key of the list of a person's approvals."""
        return self._tag + b"approvals-of:" + person_digest(person).encode()

    def session(self, session: Session) -> bytes:
        """Return the key of a session's binding."""
        return self._tag + b"session:" + session.id.encode("ascii")

    def session_ring(self, session: Session) -> bytes:
        """Return the key of the ring of sessions that a person or machine has bound."""
        return self._tag + b"sessions:" + session.person.encode("ascii")

    def login_record(self, token: str) -> bytes:
        """Return the key of the login record of a token, given the token's hex SHA-256."""
        return self._tag + b"log-in:" + token.encode("ascii")

    def catalogue(self, server: str) -> bytes:
        """Return the key of the definitions that a server has listed."""
        return self._tag + b"catalogue:" + server.encode("ascii")

    def record(self, kind: str, name: str) -> bytes:
        """Return the key of another record: a fixed kind, and a digest or a random name."""
        return self._tag + f"{kind}:{name}".encode("ascii")

    def record_set(self, kind: str) -> bytes:
        """Return the key of a collection of records: a fixed kind."""
        return self._tag + kind.encode("ascii")

    @property
    def login_fault(self) -> bytes:
        """Return the key of the last login that failed because of the issuer's configuration."""
        return self._tag + b"log-in-fault"

    def bucket(self, bucket: str) -> bytes:
        """Return the key of a limit's bucket (`authz.core.limits.bucket_id`)."""
        return self._tag + b"limit:" + bucket.encode("utf-8", "surrogatepass")


def approval_name(key: ApprovalKey) -> str:
    """Return what names an approval, and what a person is asked before it.

    The call's digest stands there whole: whoever chooses two calls must not find two of one name.
    """
    asked = key.approval.lifetime, int(key.need.method), key.need.max_login_age
    numbers = ("" if each is None else str(each) for each in asked)
    return digest(*key.person, key.grant, key.server, key.tool, *numbers) + (key.call or "")


def token_field(token_id: str) -> bytes:
    """Return the field that revokes one token."""
    return b"token:" + token_id.encode("utf-8", "surrogatepass")


def person_digest(person: Person) -> str:
    """Return what names a person in Redis: the same in every key and field that is one person's."""
    return digest(*person)


def person_field(person: Person) -> bytes:
    """Return the field that revokes a person's tokens."""
    return b"person:" + person_digest(person).encode()


def client_field(client: Client) -> bytes:
    """Return the field that revokes a client's tokens."""
    return b"client:" + digest(*client).encode()


def grant_field(issuer: str, grant: str) -> bytes:
    """Return the field that revokes a front door grant: its tokens and its step-ups."""
    return b"grant:" + digest(issuer, grant).encode()
