"""What the console says of rules and limits."""

from dataclasses import replace

from authz.core.argument_cost import ArgumentCost
from authz.core.json_pointer import parse
from authz.core.limits import Limit, Per
from authz.core.policy import OperationKind, Rule, RuleTarget
from authz.login.console.rules import describe_limit, describe_target

LIMIT = Limit("few", Per.USER, 60, 3600)


def test_a_cost_by_an_argument_is_told_with_its_bounds() -> None:
    """Both bounds and the argument; of a fixed cost the number alone."""
    by_count = Rule(cost=40, cost_by=ArgumentCost(parse("/count"), 2, 40))

    def told(rule: Rule) -> tuple[str, ...]:
        return describe_target(RuleTarget("files", rule, OperationKind.TOOL, "search")).demands

    assert told(by_count) == ("a call counts as 2 to 40 (/count) requests",)
    assert told(Rule(cost=40)) == ("a call counts as 40 requests",)


def test_when_a_limit_warns_is_told() -> None:
    """Where it does, and nothing where it does not."""
    quiet = describe_limit(LIMIT)

    assert "warns" not in quiet
    assert describe_limit(replace(LIMIT, warn_at=80)) == f"{quiet}, warns at 80 %"
