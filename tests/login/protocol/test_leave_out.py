"""What a person leaves out of a consent."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.core.limits import Limit, Per
from authz.core.policy import Policy, Rule, Server
from authz.login.protocol.authorization import AuthorizationRequest, leave_out
from authz.login.protocol.resources import MOST_OPTIONAL, ResourceServer, ResourceServers
from authz.login.protocol.values import ClientKind, OAuthClient, OAuthError
from authz.login.web.scope_list import unwanted_scopes

NOTES = "https://mcp.example.test/notes"
LOOPBACK = "http://127.0.0.1:43210/callback"


@pytest.mark.attack("scope-left-out")
@given(
    own=st.frozensets(st.sampled_from("abcd")),
    tools=st.frozensets(st.sampled_from(["a", "b", "c", "d", "groups", "profile"])),
    groups=st.booleans(),
    asked=st.frozensets(st.sampled_from("abcdef")),
    ticked=st.frozensets(st.sampled_from([*(f"scope-{each}" for each in range(8)), "x"])),
)
def test_what_is_left_out_is_gone_and_nothing_else(
    own: frozenset[str],
    tools: frozenset[str],
    groups: bool,
    asked: frozenset[str],
    ticked: frozenset[str],
) -> None:
    """Whatever a form says: what is unticked is not asked of Authelia, what is needed stays, and
    nothing is there that was not on the page.
    """
    target = ResourceServer("s", NOTES, own, own | tools, two_factor=False, groups=groups)
    client = OAuthClient("x", ClientKind.CONFIGURED, "", "", ())
    shown = target.grantable(asked, client, "x")
    wanted = AuthorizationRequest(
        "x", LOOPBACK, None, "", "s", NOTES, tuple(sorted(shown)), two_factor=False,
        optional=tuple(sorted(target.optional(shown))),
    )  # fmt: skip
    form = dict.fromkeys(ticked, "on")
    left = leave_out(wanted, unwanted_scopes(wanted, form), target)
    gone = shown - set(left.scopes)
    assert set(left.scopes) <= shown
    assert shown & target.needed <= set(left.scopes)
    unticked = {each for at, each in enumerate(wanted.optional) if f"scope-{at}" not in ticked}
    assert gone == unticked
    assert left.restricted == bool(gone)
    assert target.upstream(frozenset(left.scopes), offline=False).isdisjoint(gone)
    # A reload may come between page and click: nobody is given what was left out.
    if wanted.optional:
        with pytest.raises(OAuthError, match="has changed meanwhile"):
            leave_out(wanted, shown, replace(target, own=shown))


def test_no_more_can_be_left_out_than_a_form_holds() -> None:
    """With more scopes than that the page has no boxes, and consent is for all, as it says."""
    scopes = frozenset(f"s{number}" for number in range(MOST_OPTIONAL + 1))
    target = ResourceServer("s", NOTES, frozenset(), scopes, two_factor=False, groups=False)
    assert target.optional(scopes) == frozenset()
    assert len(target.optional(scopes - {"s0"})) == MOST_OPTIONAL


@pytest.mark.parametrize("everywhere", [True, False])
def test_groups_are_asked_for_where_a_limit_counts_them(*, everywhere: bool) -> None:
    """Or everybody would be counted with those who have none."""
    limits = (Limit("g", Per.GROUP, 1, 1),)
    one = Server("s", NOTES, NOTES, Rule(limits=() if everywhere else limits))
    policy = Policy("https://a.example", servers={"s": one}, limits=limits if everywhere else ())

    assert ResourceServers(policy).find([NOTES]).groups
