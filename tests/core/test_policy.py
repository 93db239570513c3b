"""The walk over rules and what they apply to."""

from dataclasses import replace

from authz.core.policy import OperationKind, Policy, Rule, RuleTarget
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
