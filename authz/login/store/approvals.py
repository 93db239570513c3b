"""What the list of a person's approvals says of one, sealed: Redis is not trusted to tell it."""

from dataclasses import dataclass
from typing import ClassVar, Final

from pydantic import ConfigDict

from authz.login.protocol.members import STRICT, MembersCodec
from authz.login.store.sealed import SealedValue


@dataclass(frozen=True, slots=True)
class ListedApproval:
    """Hold an approval as its person's list has it.

    Attributes:
        subject: who approved.
        grant: of the front door; for a client of `login: direct` its client id.
        client: as rules call it.
        server, tool: what was approved.
        at: when, seconds since the epoch.
        until: the second at which it ends by itself.
        each_call: whether it is for one exact call, which uses it up.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    subject: str
    grant: str
    client: str
    server: str
    tool: str
    at: int
    until: int
    each_call: bool


LISTED_APPROVAL: Final = SealedValue("listed-approval", MembersCodec(ListedApproval))
