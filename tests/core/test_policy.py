"""The walk over rules and what they apply to."""

from dataclasses import replace

import pytest

from authz.core.policy import OperationKind, Policy, Rule, RuleTarget, Server, before_moves
from tests.support.values import server

READ, WRITE, OWN = (Rule(scopes=frozenset({name})) for name in ("read", "write", "own"))
FILES = server(OWN, {"read_*": READ, "*": WRITE})


def test_a_walk_meets_every_rule_with_its_place() -> None:
    """Each server's own rule comes first, then its operations' in their order, nothing twice."""
    notes = replace(server(READ), name="notes")
    policy = Policy("https://issuer.test", servers={"files": FILES, "notes": notes})

    assert list(policy.targets()) == [
        RuleTarget("files", OWN),
        RuleTarget("files", READ, OperationKind.TOOL, "read_*"),
        RuleTarget("files", WRITE, OperationKind.TOOL, "*"),
        RuleTarget("notes", READ),
    ]
    assert [(target.path, target.place) for target in policy.targets()] == [
        (("servers", "files"), "files"),
        (("servers", "files", "tools", "read_*"), "files:read_*"),
        (("servers", "files", "tools", "*"), "files:*"),
        (("servers", "notes"), "notes"),
    ]


def test_every_pattern_that_matches_is_found() -> None:
    """Matching takes all the patterns of the kind that fit, case and all; never the server's."""
    assert [each.rule for each in FILES.matching(OperationKind.TOOL, "read_it")] == [READ, WRITE]
    assert [each.rule for each in FILES.matching(OperationKind.TOOL, "READ_IT")] == [WRITE]
    assert FILES.rules_for(OperationKind.TOOL, "read_it") == [READ, WRITE]
    assert FILES.rules_for(OperationKind.TOOL, "READ_IT") == [WRITE]
    assert FILES.rules_for(OperationKind.PROMPT, "read_it") == []


NOTES = replace(server(READ), name="notes", upstream="old")
MOVED = replace(NOTES, upstream="new")


def _policy(*servers: Server, max_body: int = 1000) -> Policy:
    named = {each.name: each for each in servers}
    return Policy("https://issuer.test", servers=named, max_body=max_body)


def test_what_only_moved_is_served_at_both_upstreams() -> None:
    """By the rules that are in force, and no other server with it."""
    found = before_moves(_policy(NOTES, FILES), _policy(MOVED, FILES))

    assert found == _policy(NOTES)


@pytest.mark.attack("route-of-another-upstream")
@pytest.mark.parametrize(
    "new",
    [
        _policy(NOTES),
        _policy(),
        _policy(replace(MOVED, rule=OWN)),
        _policy(replace(MOVED, name="other")),
        _policy(MOVED, max_body=2000),
    ],
    ids=["as-before", "removed", "another-rule", "another-name", "other-bounds"],
)
def test_what_changed_otherwise_is_not_served_at_its_former_upstream(new: Policy) -> None:
    """The old rules may be too loose by now, and the new ones too loose for where it was."""
    assert before_moves(_policy(NOTES), new) is None


def test_of_two_that_moved_the_one_with_its_old_rules_is_served() -> None:
    """Each server is judged for itself."""
    files = replace(FILES, upstream="old")
    new = _policy(MOVED, replace(files, upstream="new", tools=()))

    assert before_moves(_policy(NOTES, files), new) == _policy(NOTES)
