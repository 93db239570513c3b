"""Defences taken out one by one: what turns red then.

`python -m tests.attacks.test_defences [NAME...]` takes each, or those that are named, out of a
copy of this tree, runs the tests that should notice, and prints the rows of docs/defences.md. All
of them take some minutes.

Each defence that is named here stands in the source once, so that the table is about what
is there today; and each of them has a test that fails without it.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "docs" / "defences.md"
_LEFT_BEHIND = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist")
_LONGEST = 900  # seconds for one run of tests
_SHOWN = 3  # tests of one defence in the table


@dataclass(frozen=True, slots=True)
class Defence:
    """Say what to take out, and who should notice.

    Attributes:
        name: what it holds.
        file, where: the file and the function.
        old, new: the text that is the defence, and what stands there without it.
        tests: the files that should notice.
    """

    name: str
    file: str
    where: str
    old: str
    new: str
    tests: tuple[str, ...]


_DECISION = ("tests/core/test_decision.py", "tests/server/test_check.py")
_MCP = ("tests/core/test_mcp.py", "tests/attacks/test_official_server.py")
_TOKENS = (
    "tests/tokens/test_jose.py",
    "tests/tokens/test_claims.py",
    "tests/tokens/test_verifier.py",
)
_LEDGER = ("tests/ledger/test_contract.py",)
_ONE_NAME = ("tests/envoy/live/test_one_name_live.py",)
_PAGES = ("tests/core/test_admin_pages.py", "tests/core/test_browser_session.py")
_PAGES_LIVE = ("tests/envoy/live/test_admin_pages_live.py",)
_STREAMS = (
    "tests/core/test_exchanges.py",
    "tests/config/test_budgets.py",
    "tests/attacks/test_streams_of_one_person.py",
)
_OPERATIONS = ("tests/core/test_operations.py",)
_CODEC = ("tests/envoy/test_codec.py", "tests/envoy/test_codec_answers.py")

TEN_WORST = (
    Defence(
        "A token is for one server", "authz/core/evaluation.py", "_CHECKS",
        "    _check_audience,\n", "", (*_DECISION, "tests/attacks/test_rows.py"),
    ),
    Defence(
        "Only configured algorithms", "authz/tokens/jose.py", "_algorithm",
        "if not isinstance(algorithm, str) or algorithm not in allowed:",
        "if not isinstance(algorithm, str):", _TOKENS,
    ),
    Defence(
        "Only access tokens (`typ`)", "authz/tokens/jose.py", "read_jws",
        "return _read(token, algorithms, _check_type)",
        "return _read(token, algorithms, lambda _: None)", _TOKENS,
    ),
    Defence(
        "Unnamed tools are refused", "authz/core/evaluation.py", "_CHECKS",
        "    _check_operation,\n", "", _DECISION,
    ),
    Defence(
        'An empty POST is not "no tool"', "authz/core/decision.py", "_message",
        'if request.method != "POST":', 'if request.method != "POST" or not request.body:',
        _DECISION,
    ),
    Defence(
        "No member twice", "authz/core/strict_json.py", "_members",
        "if len(members) != len(pairs):", "if False:",
        (*_MCP, "tests/core/test_strict_json.py"),
    ),
    Defence(
        "What reading a message costs is bounded", "authz/core/strict_json.py", "_check_structure",
        "if work > max_work:", "if False:",
        ("tests/core/test_mcp.py", "tests/core/test_strict_json.py"),
    ),
    Defence(
        "An unknown method is no handshake", "authz/core/methods.py", "role",
        "return Role.OPERATION if known is None", "return Role.LIST if known is None",
        ("tests/core/test_counts.py", "tests/core/test_methods.py"),
    ),
    Defence(
        "Who is not known is refused by the status", "authz/core/answers.py", "_form",
        "or deny.principal is None ", "", ("tests/core/test_answers.py",),
    ),
    Defence(
        "Headers say what the body says", "authz/core/mcp.py", "read",
        "    _check_mirrors(headers, kind, method, params, required=version == MODERN)\n", "", _MCP,
    ),
    Defence(
        "Revocations are read with every charge", "authz/ledger/take.lua", "the script",
        "if not moment or #moment > 15 or issued_at <= tonumber(moment) then", "if false then",
        _LEDGER,
    ),
    Defence(
        "All limits are charged, or none", "authz/ledger/take.lua", "the script",
        "for n in pairs(ahead) do\n",
        "for n = 3, final do\n"
        "      call('SETRANGE', keys[n + base], '8', pack('>I4', stored[n + place]))\n"
        "    end\n    for n in pairs(ahead) do\n",
        _LEDGER,
    ),
    Defence(
        "Only what is in shadow refuses nothing", "authz/ledger/take.lua", "the script",
        "if byte(text, n + shadow) == 1 then head = head - cost else over = true end",
        "head = head - cost", _LEDGER,
    ),
    Defence(
        "What a shadow has no room for is not counted", "authz/ledger/take.lua", "the script",
        "if byte(text, n + shadow) == 1 then head = head - cost else over = true end",
        "if byte(text, n + shadow) ~= 1 then over = true end", _LEDGER,
    ),
    Defence(
        "A limit in shadow counts apart from those that are enforced", "authz/core/limits.py",
        "longest", " if not each.limit.shadow", "", _LEDGER,
    ),
    Defence(
        "Each group of a person is charged", "authz/core/limits.py", "_group_buckets",
        "for group in sorted(principal.groups)]", "for group in sorted(principal.groups)[:1]]",
        ("tests/core/test_limits_buckets.py", *_LEDGER),
    ),
    Defence(
        "A machine uses up no group of people", "authz/core/limits.py", "bucket_ids",
        " and principal.person is not None", "", ("tests/core/test_limits_buckets.py",),
    ),
    Defence(
        "Whom no override names meets the limit itself", "authz/core/limits.py", "includes",
        "return not any(each.matches(principal) for each in self.before)",
        "return self.selector is not None", ("tests/core/test_limit_audiences.py",),
    ),
    Defence(
        "A day has a bucket of its own", "authz/core/limits.py", "period_bucket",
        "return digest(bucket, period.begins)", "return digest(bucket)",
        ("tests/core/test_calendar_windows.py",),
    ),
    Defence(
        "What is cached per token ends with the day", "authz/core/decision.py", "_query_of",
        "held = id(evaluation), *map(id, unsatisfied), periods",
        "held = id(evaluation), *map(id, unsatisfied)",
        ("tests/core/test_calendar_windows.py",),
    ),
    Defence(
        "Of several costs of a call the greatest is charged", "authz/core/evaluation.py",
        "_most", "return max([1, *[rule.cost for rule in rules]])",
        "return min([1, *[rule.cost for rule in rules]])", ("tests/core/test_limit_costs.py",),
    ),
    Defence(
        "A cost by an argument is the most where the argument is no positive integer",
        "authz/core/argument_cost.py", "ArgumentCost.of",
        "if not isinstance(found, int) or isinstance(found, bool) or found < 1:",
        "if not isinstance(found, int):", ("tests/core/test_limit_costs.py",),
    ),
    Defence(
        "Identity headers take the place of the client's", "authz/envoy/codec.py", "_write",
        "HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD",
        "HeaderValueOption.APPEND_IF_EXISTS_OR_ADD", _CODEC,
    ),
)  # fmt: skip

OTHERS = (
    Defence(
        "Rules are for one upstream", "authz/core/decision.py", "_served",
        "    if is_outdated(request, server):\n        raise RefusedError(Reason.ROUTE_OUTDATED)\n",
        "", _DECISION,
    ),
    Defence(
        "A server whose rules changed with its upstream is not served over its old route",
        "authz/core/policy.py", "before_moves",
        "        if replace(new.servers[name], upstream=server.upstream) == server\n", "",
        ("tests/core/test_policy.py",),
    ),
    Defence(
        "A Host chooses no server of a route that names one", "authz/core/decision.py",
        "_server_of", "if named is not None or policy.places is None:",
        "if policy.places is None:", ("tests/core/test_server_of_url.py",),
    ),
    Defence(
        "A request with two different hosts is refused", "authz/core/decision.py", "_server_of",
        'request.headers.get("host", host) != host', "False",
        ("tests/core/test_server_of_url.py", "tests/envoy/test_data_planes.py"),
    ),
    Defence(
        "No connection becomes a WebSocket", "authz/core/request.py", "check_shape",
        'if "upgrade" in request.headers:', "if False:",
        ("tests/envoy/test_data_planes.py", "tests/envoy/live/test_envoy_gateway_live.py"),
    ),
    Defence(
        "A partial body is detected by its size", "authz/envoy/codec.py", "decode",
        "if plane.exact_size and body and http.size != len(body):", "if False:",
        ("tests/envoy/test_data_planes.py",),
    ),
    Defence(
        "A client's own address header is ignored where the data plane does not set it",
        "authz/envoy/codec.py", "_address",
        "headers.get(_CLIENT_ADDRESS) if plane.address_header else None",
        "headers.get(_CLIENT_ADDRESS)", ("tests/envoy/test_data_planes.py",),
    ),
    Defence(
        "A removed record is missed", "authz/audit/verify.py", "finish",
        "if not _trimmed(gap, floor):", "if False:", ("tests/audit/test_verify.py",),
    ),
    Defence(
        "Only a MAC of ours excuses removed records", "authz/audit/store.py", "floors",
        "if any(is_mac(key, floor_text(chain, link, time), tag) for key in keys.every)", "",
        ("tests/audit/test_store.py",),
    ),
    Defence(
        "Refusals push no records out", "authz/audit/refusals.py", "gets_own_record",
        "if told < _EACH and", "if", ("tests/audit/test_refusals.py",),
    ),
    Defence(
        "A tool's name writes no line of the trail", "authz/audit/query.py", "_word",
        "return value if plain and value else _quoted(value)", "return value",
        ("tests/cli/test_audit.py",),
    ),
    Defence(
        "The signature is verified", "authz/tokens/signature.py", "is_signed_by",
        "        return False\n", "        return True\n", _TOKENS,
    ),
    Defence(
        "A key that may have come since the last fetch is asked for", "authz/tokens/keys.py",
        "_is_settled", "            began >= arrived\n", "            began >= arrived - 5.0\n",
        ("tests/tokens/test_keys.py",),
    ),
    Defence(
        "A key may be replaced under its name", "authz/tokens/keys.py", "key",
        "other_than is None or found.identity != other_than.identity", "True",
        ("tests/tokens/test_keys.py", "tests/tokens/test_verifier.py"),
    ),
    Defence(
        "A connection to a demoted Redis is given up", "authz/ledger/redis.py", "_guard",
        "if needs_new_connection(fault_of(error)):", "if False:", ("tests/ledger/test_redis.py",),
    ),
    Defence(
        "Redis is tried without traffic", "authz/ledger/resilient.py", "_keep_reading",
        "            await self.probe()\n            if self._owed", "            if self._owed",
        ("tests/ledger/test_resilient.py",),
    ),
    Defence(
        "What was sent is not charged afterwards", "authz/ledger/resilient.py", "_answer",
        "        if not sent and query", "        if query",
        ("tests/ledger/test_resilient.py",),
    ),
    Defence(
        "A late batch is charged once", "authz/ledger/charge_late.lua", "the script",
        "if not call('SET', KEYS[1], '1', 'NX', 'PX', ARGV[1]) then return 0 end", "",
        ("tests/ledger/test_late_charges.py",),
    ),
    Defence(
        "One slow answer is not Redis away", "authz/ledger/resilient.py", "_record_failure",
        "            if self._failures <= self._options.tolerated:\n                return\n", "",
        ("tests/ledger/test_resilient.py",),
    ),
    Defence(
        "A worker's counts are looked at by one at a time", "authz/server/metrics_aggregator.py",
        "scrape",
        "        with self._asking:\n", "        if True:\n",
        ("tests/server/test_metrics_aggregator.py",),
    ),
    Defence(
        "A token of a known key waits for no stranger", "authz/server/check.py", "failed",
        "if self._issuer_was_asked and not self._has_good_signature:",
        "if True:",
        ("tests/server/test_check.py",),
    ),
    Defence(
        "Strangers do not make us ask the issuer", "authz/server/check.py", "wait",
        "            raise MustWaitError(seconds)\n", "            pass\n",
        ("tests/server/test_check.py",),
    ),
    Defence(
        "A bad token counts once", "authz/server/refusal_limiter.py", "bad_token",
        "if (self._counted.get(digest) or 0.0) > now:", "if False:",
        ("tests/server/test_refusal_limiter.py", "tests/server/test_check.py"),
    ),
    Defence(
        "An opaque token that was active before waits for no stranger",
        "authz/tokens/verifier.py", "verify",
        "if not self._introspector.is_settled(token):", "if True:",
        ("tests/server/test_shared_address.py",),
    ),
    Defence(
        "A burst of bad tokens is over when it ends", "authz/server/refusal_limiter.py", "spend",
        "min(full_at, now + limit.window)", "full_at", ("tests/server/test_refusal_limiter.py",),
    ),
    Defence(
        "A token that has waited takes turns with no new one",
        "authz/server/refusal_limiter.py", "address_must_wait",
        "elif until <= now:", "elif False:",
        ("tests/server/test_refusal_limiter.py", "tests/server/test_shared_address.py"),
    ),
    Defence(
        "What was lifted is not revoked again", "authz/ledger/merge_revocations.lua",
        "the script",
        "if not note or note == '' or note == ARGV[i + 1] then", "if true then",
        ("tests/ledger/test_data_loss.py",),
    ),
    Defence(
        "Operators at once weaken no revocation", "authz/ledger/replace_revocation.lua",
        "the script", "~= ARGV[2] then return 0 end", "~= ARGV[2] then end",
        ("tests/ledger/test_revocations.py",),
    ),
    Defence(
        "What is revoked anew is not cleared away", "authz/ledger/discard_revocations.lua",
        "the script",
        "if redis.call('HMGET', KEYS[1], ARGV[i])[1] == ARGV[i + 1] then", "if true then",
        ("tests/ledger/test_revocations.py",),
    ),
    Defence(
        "After a failure what is known to be revoked stays so", "authz/ledger/resilient.py", "take",
        "found = revoked(self._revocations, query) if self._may_lack else None",
        "found = None", ("tests/ledger/test_resilient.py", "tests/ledger/test_data_loss.py"),
    ),
    Defence(
        "A Redis that lost data is told what was revoked", "authz/ledger/data_loss.py", "follow",
        "if reading.mark not in self._accepted:", "if False:",
        ("tests/ledger/test_resilient.py", "tests/ledger/test_data_loss.py"),
    ),
    Defence(
        "A mark whose answer was lost counts for no later reading", "authz/ledger/data_loss.py",
        "is_repeated", "if reading.mark != self._next:",
        "self._accepted = self.accepted\n        if True:", ("tests/ledger/test_data_loss.py",),
    ),
    Defence(
        "An older copy is left without a mark", "authz/ledger/read_revocations.lua", "the script",
        "  if mark == ARGV[i] then\n", "  if true then\n", ("tests/ledger/test_data_loss.py",),
    ),
    Defence(
        "What was merged once hides nothing later", "authz/ledger/merge_revocations.lua",
        "the script",
        "  redis.call('PEXPIRE', KEYS[4], '0')\n", "", ("tests/ledger/test_data_loss.py",),
    ),
    Defence(
        "Of two revocations the stricter counts", "authz/ledger/records.py", "stricter",
        "issued_until = _later(one.issued_until, other.issued_until)",
        "issued_until = one.issued_until", ("tests/ledger/test_data_loss.py",),
    ),
    Defence(
        "An older copy is noticed within a second", "authz/ledger/resilient.py", "_keep_reading",
        "(self._degraded_since is None and await self._must_read())",
        "(self._degraded_since is None and self._may_lack)", ("tests/ledger/test_data_loss.py",),
    ),
    Defence(
        "Only a session's own cookie opens a page", "authz/core/admin_pages.py", "read_page",
        "    if _TOKEN.match(token) is None:\n", "    if False:\n", _PAGES,
    ),
    Defence(
        "Another origin does nothing with a page's session", "authz/core/admin_pages.py",
        "check_site", "if sent is not None and sent != origin:", "if False:", _PAGES,
    ),
    Defence(
        "Another site does nothing with a page's session", "authz/core/admin_pages.py",
        "check_site",
        'if site not in {None, "same-origin", "none"} and not (is_read and navigates(request)):',
        "if False:", _PAGES,
    ),
    Defence(
        "A WebSocket says the page's own origin", "authz/core/admin_pages.py", "check_site",
        'if not is_read and sent is None and (upgrade is not None or site != "same-origin"):',
        "if False:", _PAGES,
    ),
    Defence(
        "A route of a server is none of a page", "authz/core/admin_pages.py", "page_of",
        'if page is None or "server" in request.context:', "if page is None:", _PAGES,
    ),
    Defence(
        "A session that was revoked opens nothing", "authz/core/browser_session.py",
        "check_revoked", "if not isinstance(answer, Taken):", "if False:", _PAGES,
    ),
    Defence(
        "A session is of one origin", "authz/tokens/browser_sessions.py", "open_session",
        'if value.get("origin") != origin:', "if False:",
        ("tests/tokens/test_browser_sessions.py", "tests/login/console/test_access.py"),
    ),
    Defence(
        "A session is of one token", "authz/tokens/browser_sessions.py", "open_session",
        'if value.get("of") != digest(token):', "if False:",
        ("tests/tokens/test_browser_sessions.py", "tests/server/test_browser_sessions.py"),
    ),
    Defence(
        "A session that has ended opens nothing", "authz/core/browser_session.py", "check_live",
        "if not session.began - LEEWAY <= now < session.until:", "if False:", _PAGES,
    ),
    Defence(
        "A browser's second factor is asked for", "authz/core/browser_session.py", "admit",
        "    if factor is None:\n", "    if True:\n", _PAGES,
    ),
    Defence(
        "Groups of long ago open nothing", "authz/core/browser_session.py", "group_age",
        "not -LEEWAY <= age < rule.groups_max_age:", "age < -LEEWAY:",
        ("tests/server/test_browser_sessions.py",),
    ),
    Defence(
        "Groups that were not confirmed admit nobody", "authz/core/browser_session.py", "admit",
        "if not -LEEWAY <= now - session.groups_at <= rule.groups_max_age + _ASKED_WITHIN:",
        "if False:", _PAGES,
    ),
    Defence(
        "A log-out is not undone by an answer under way", "authz/ledger/browser_sessions.py",
        "renew", 'text, "XX", "KEEPTTL")', 'text, "KEEPTTL")',
        ("tests/ledger/test_browser_sessions.py",),
    ),
    Defence(
        "A log-in for a page ends in the browser that began it", "authz/login/web/admin_pages.py",
        "open_session", "or not secrets.compare_digest(handover.browser, digest(browser))", "",
        ("tests/login/web/test_admin_pages.py",),
    ),
    Defence(
        "A log-in for a page ends on that page's host", "authz/login/web/admin_pages.py",
        "open_session", "            or handover.origin != host.origin\n", "",
        ("tests/login/web/test_admin_pages.py",),
    ),
    Defence(
        "A code of a page is taken once", "authz/login/store/page_codes.py", "take",
        "if first is None:", "if False:",
        ("tests/login/store/test_page_codes.py", "tests/login/web/test_admin_pages.py"),
    ),
    Defence(
        "Nobody's many groups are more than Redis counts in time", "authz/config/lint/rules.py",
        "_groups_counted", "if count > _MOST_GROUP_WINDOWS:", "if False:",
        ("tests/config/test_mistakes.py",),
    ),
    Defence(
        "A limit in shadow lets nothing pass while Redis is away", "authz/ledger/resilient.py",
        "_answer", "if OutagePolicy.DENY in (enforced or [self._options.policy])",
        "if OutagePolicy.DENY in (policies or [self._options.policy])",
        ("tests/ledger/test_resilient.py",),
    ),
    Defence(
        "What charges nothing does not end degraded mode", "authz/ledger/resilient.py", "take",
        "if query.takes:", "if True:", ("tests/ledger/test_resilient.py",),
    ),
    Defence(
        "No cookie of ours or of Authelia's reaches a page",
        "authz/envoy/render/session_cookie.py", "the script",
        'if cookie ~= "" and not is_kept_back(cookie) then', 'if cookie ~= "" then', _PAGES_LIVE,
    ),
    Defence(
        "No page sets a cookie of ours or of Authelia's",
        "authz/envoy/render/session_cookie.py", "the script",
        'if not is_kept_back(cookie:sub(cookie:find("[^ \\t=]") or 1)) then', "if true then",
        _PAGES_LIVE,
    ),
    Defence(
        "Nobody says to a page who they are", "authz/envoy/render/routes.py", "_admin_page_host",
        "browser_rules(url, strips=True)", "browser_rules(url)", _PAGES_LIVE,
    ),
    Defence(
        "Our paths on a page's host are ours", "authz/envoy/render/routes.py", "_admin_page_host",
        '    routes.append(nothing_here("admin:reserved", RouteMatch(prefix=_PEOPLE)))\n', "",
        _PAGES_LIVE,
    ),
    Defence(
        "Made-up kids cause few fetches", "authz/tokens/keys.py", "_schedule",
        "        self._budget.spend(now + wait)\n", "", ("tests/tokens/test_keys.py",),
    ),
    Defence(
        "Only the configured issuer", "authz/tokens/claims.py", "check_issuer",
        'if claims.get("iss") != issuer:', "if False:", _TOKENS,
    ),
    Defence(
        "What is cached expires", "authz/tokens/cache.py", "get",
        "entry.principal.expires_at <= now", "False", _TOKENS,
    ),
    Defence(
        "What is cached goes with its key", "authz/tokens/verifier.py", "__init__",
        "        keys.on_withdrawn(self._cache.forget_keys)\n", "", _TOKENS,
    ),
    Defence(
        "Every matching tool rule applies", "authz/core/policy.py", "matching",
        "return tuple(target for target in self.operations(kind) if target.matches(name))",
        "return tuple(target for target in self.operations(kind) if target.matches(name))[:1]",
        _DECISION,
    ),
    Defence(
        "Machines pass by name only", "authz/core/evaluation.py", "_check_people",
        "        _check_machine(context)\n", "", _DECISION,
    ),
    Defence(
        "A client uses no more than it is declared with", "authz/core/evaluation.py",
        "_restrict_scopes",
        "if scopes is None or principal.scopes <= scopes:",
        "if True:", (*_DECISION, "tests/attacks/test_findings.py"),
    ),
    Defence(
        "A declaration needs the signed assurance claim besides", "authz/core/evaluation.py",
        "_declared",
        "if not lacks_assurance_claim(principal, known):", "if True:",
        (*_DECISION, "tests/attacks/test_rows.py"),
    ),
    Defence(
        "No answer of the issuer has an assurance claim", "authz/tokens/introspection_result.py",
        "read_introspection_result",
        "unsigned_rules = replace(rules, assurance_claim=None)", "unsigned_rules = rules",
        ("tests/tokens/test_introspection_result.py",),
    ),
    Defence(
        "A second factor that is not proved is asked for", "authz/core/decision.py",
        "_unsatisfied_factors",
        "if not evaluation.asked:", "if True:", _DECISION,
    ),
    Defence(
        "Only a charge is an Allow", "authz/core/decision.py", "conclude",
        "refusal = Deny(reason, quotas=quotas, retry_after=retry_after)",
        "return Allow(server, message, principal, quotas, Mode.LOCAL)", _DECISION,
    ),
    Defence(
        "Whatever breaks is a refusal", "authz/server/check.py", "_broken",
        "return Deny(Reason.INTERNAL, detail), codec.FALLBACK_DENY",
        'return Deny(Reason.INTERNAL, detail), b""', _DECISION,
    ),
    Defence(
        "No members that some parser confuses", "authz/core/mcp.py", "_inner",
        "if inner and not unmistakable(inner):", "if False:", _MCP,
    ),
    Defence(
        "No member of params is overlooked that a parser takes for one", "authz/core/mcp.py",
        "_check_alike", "    if alike:\n", "    if False:\n",
        ("tests/core/test_mcp.py", *_OPERATIONS),
    ),
    Defence(
        "No metadata is overlooked that a parser takes for the version", "authz/core/mcp.py",
        "_check_alike",
        "if any(key not in _DECIDING_META and folded(key) in _FOLDED_META for key in meta):",
        "if False:", ("tests/core/test_mcp.py",),
    ),
    Defence(
        "A part of a body is no body", "authz/envoy/codec.py", "decode",
        'if headers.get(_PARTIAL_BODY, "false") != "false":', "if False:", _CODEC,
    ),
    Defence(
        "Foreign web pages are refused", "authz/core/request.py", "check_shape",
        "if origin is not None and origin not in origins:", "if False:",
        (*_DECISION, "tests/attacks/test_rows.py"),
    ),
    Defence(
        "An identity header that is not set is removed", "authz/core/answers.py", "upstream",
        "for name in IDENTITY if name not in given)", "for name in IDENTITY if False)",
        ("tests/core/test_answers.py",),
    ),
    Defence(
        "A denial is never OK, whatever its HTTP status", "authz/envoy/codec.py", "encode_deny",
        "_CODES.get(answer.status, _PERMISSION_DENIED)", "_CODES.get(answer.status, _OK)", _CODEC,
    ),
    Defence(
        "A token does not say how it is verified", "authz/tokens/jose.py", "_check_members",
        "if not _STEERING.isdisjoint(header):", "if False:", ("tests/tokens/test_jose.py",),
    ),
    Defence(
        "A token is measured before it is read", "authz/tokens/jose.py", "is_opaque",
        "if len(token) > MAX_TOKEN:", "if False:", ("tests/tokens/test_jose.py",),
    ),
    Defence(
        "A token is measured before it is decoded", "authz/tokens/jose.py", "_read",
        "if len(token) > MAX_TOKEN or _JWT.match(token) is None:",
        "if _JWT.match(token) is None:", ("tests/tokens/test_jose.py",),
    ),
    Defence(
        "A token is never in the address", "authz/core/request.py", "check_shape",
        "if query and _names_a_token(query):", "if False:", ("tests/core/test_decision.py",),
    ),
    Defence(
        "Active is true or false and nothing else", "authz/tokens/introspection_result.py",
        "read_introspection_result",
        "if not isinstance(active, bool):", "if active is None:",
        ("tests/tokens/test_introspection_result.py",),
    ),
    Defence(
        "A confirmation is about this token", "authz/tokens/introspection_result.py",
        "intersect_with",
        "raise RefusedError(Reason.TOKEN_INVALID, Detail.OTHER_TOKEN)",
        "pass", ("tests/tokens/test_introspection_result.py",),
    ),
    Defence(
        "What the issuer answers has a size", "authz/http/bounded.py", "read_body",
        "if len(body) > largest:", "if False:", ("tests/tokens/test_issuer.py",),
    ),
    Defence(
        "A compressed body is refused", "authz/core/mcp.py", "_check_framing",
        'if headers.get("content-encoding", "identity").lower() != "identity":', "if False:",
        ("tests/core/test_mcp.py",),
    ),
    Defence(
        "What speaks for others is stripped at the edge", "authz/envoy/render/filters.py",
        "_strip", "for prefix in _SPEAKING_FOR_OTHERS]", "for prefix in ()]",
        ("tests/envoy/live/test_headers_live.py",),
    ),
    Defence(
        "Names of headers of proxies are stripped at the edge", "authz/envoy/render/filters.py",
        "_strip", "for name in _SPEAKING_FOR_OTHERS_EXACTLY]", "for name in ()]",
        ("tests/envoy/live/test_headers_live.py",),
    ),
    Defence(
        "No cookie, token or origin goes on to a server", "authz/envoy/render/routes.py",
        "_NOT_FOR_SERVERS", '("authorization", "cookie", "origin", CLIENT_ADDRESS)',
        "(CLIENT_ADDRESS,)", ("tests/envoy/live/test_headers_live.py",),
    ),
    Defence(
        "Cookies of pages and portal stay apart", "authz/envoy/render/cookies.py", "_SCRIPT",
        'if cookie ~= "" and is_ours == KEEPS_OURS then', 'if cookie ~= "" then', _ONE_NAME,
    ),
    Defence(
        "What a server answers runs nowhere", "authz/envoy/render/response_headers.py",
        "upstream_filters", 'own = ((FROM_SERVER, "1"), *INERT)', 'own = ((FROM_SERVER, "1"),)',
        (*_ONE_NAME, "tests/envoy/live/test_responses_live.py"),
    ),
    Defence(
        "A browser is shown no answer of a server", "authz/envoy/render/routes.py", "gateway_host",
        "                data_only(path, server.name),\n", "", _ONE_NAME,
    ),
    Defence(
        "The portal's path is nobody else's", "authz/config/lint/deployment.py", "_one_name",
        "if [path[1:]] == [each.lower() for each in first]:", "if False:",
        ("tests/config/test_lint.py",),
    ),
    Defence(
        "The portal is not where the gateway's own pages are", "authz/config/lint/deployment.py",
        "_one_name", "if path[1:] in RESERVED:", "if False:", ("tests/config/test_lint.py",),
    ),
    Defence(
        "The route that was judged is the one that is taken", "authz/envoy/render/cookies.py",
        "apart_cookies", "Lua(clear_route_cache=False)", "Lua()", _ONE_NAME,
    ),
    Defence(
        "A server with an authority of its own is trusted by no other",
        "authz/envoy/render/clusters.py", "_authorities", "if upstream.authorities:", "if False:",
        ("tests/envoy/live/test_upstream_authorities_live.py",),
    ),
    Defence(
        "An authority that was not read is not left out", "authz/envoy/render/settings.py",
        "_server", "authorities=settings.authorities[name])",
        'authorities=settings.authorities.get(name, ""))', ("tests/envoy/test_render.py",),
    ),
    Defence(
        "An underscore is no dash", "authz/envoy/render/listener.py", "_manager",
        "HttpProtocolOptionsHeadersWithUnderscoresAction.REJECT_REQUEST",
        "HttpProtocolOptionsHeadersWithUnderscoresAction.ALLOW",
        ("tests/envoy/live/test_headers_live.py",),
    ),
    Defence(
        "An escaped slash is refused", "authz/envoy/render/listener.py", "_manager",
        "HttpConnectionManagerPathWithEscapedSlashesAction.REJECT_REQUEST",
        "HttpConnectionManagerPathWithEscapedSlashesAction.KEEP_UNCHANGED",
        ("tests/envoy/live/test_routes_live.py",),
    ),
    Defence(
        "A path has one spelling", "authz/envoy/render/listener.py", "_manager",
        "        normalize_path=True,\n        merge_slashes=True,\n", "",
        ("tests/envoy/live/test_routes_live.py",),
    ),
    Defence(
        "A handshake that does not come is not waited for", "authz/envoy/render/listener.py",
        "listeners", "main.transport_socket_connect_timeout = duration(_WAIT_FOR_HANDSHAKE)",
        "pass", ("tests/envoy/test_render.py",),
    ),
    Defence(
        "HSTS is said by the gateway", "authz/envoy/render/filters.py", "browser_rules",
        "mutations = [Mutation(append=header) for header in _hsts(url)]",
        "mutations: list[Mutation] = []", ("tests/envoy/live/test_responses_live.py",),
    ),
    Defence(
        "A server's response headers are an allow-list", "authz/envoy/render/response_headers.py",
        "upstream_filters", "for regex in others(ALLOWED)", "for regex in others(ALLOWED)[:0]",
        ("tests/envoy/live/test_responses_live.py",),
    ),
    Defence(
        "A server's 401 and redirects are not passed on", "authz/envoy/render/filters.py",
        "http_filters", "        replace_refused(_hsts(settings.url)),\n", "",
        ("tests/envoy/live/test_responses_live.py",),
    ),
    Defence(
        "Nobody waits for a stranger's body", "authz/envoy/render/routes.py", "gateway_host",
        "                tokenless_route(settings, server, path),\n", "",
        ("tests/envoy/live/test_strangers_live.py",),
    ),
    Defence(
        "No client names the server of a request without a token",
        "authz/envoy/render/routes.py", "_NOWHERE",
        '_NOWHERE: Final = "x_authz_nowhere"', '_NOWHERE: Final = "x-authz-nowhere"',
        ("tests/envoy/live/test_strangers_live.py",),
    ),
    Defence(
        "An address begins few large bodies", "authz/envoy/render/rate_limits.py", "per_address",
        "RateLimit(actions=[_ADDRESS, _TRAFFIC, RateLimitAction(header_value_match=_LARGE)]),", "",
        (
            "tests/envoy/live/test_per_address_live.py",
            "tests/envoy/live/test_http2_bodies_live.py",
        ),
    ),
    Defence(
        "Strangers without a token take nothing from those with one",
        "authz/envoy/render/routes.py", "mcp_route",
        "metadata=of_kind(Traffic.TOKEN),", "",
        ("tests/envoy/live/test_per_address_live.py",),
    ),
    Defence(
        "Junk elsewhere stops no refresh of a consented log-in",
        "authz/envoy/render/routes.py", "_pages_route",
        "Traffic.OAUTH if match.path in _FOR_GRANTS else Traffic.PAGE", "Traffic.OTHER",
        ("tests/envoy/live/test_per_address_live.py",),
    ),
    Defence(
        "No stranger fails at the issuer's endpoints", "authz/envoy/render/routes.py",
        "portal_routes", "*closed_endpoints(portal.closed, below), ", "",
        ("tests/envoy/live/test_pages_live.py", "tests/envoy/test_render.py"),
    ),
    Defence(
        "Nobody else fails in a person's name", "authz/login/store/person_address.py",
        "person_address", "hmac.digest(key, subject.encode(), ", 'hmac.digest(key, b"", ',
        ("tests/login/test_flow.py", "tests/login/store/test_revocation_outbox.py"),
    ),
    Defence(
        "Few passwords are hashed at a time", "authz/envoy/render/clusters.py", "_passwords",
        "limits.max_requests = limits.max_pending_requests = _AT_ONCE", "pass",
        ("tests/envoy/live/test_strangers_live.py",),
    ),
    Defence(
        "An address tries few passwords", "authz/envoy/render/routes.py", "_password_route",
        "    route.typed_per_filter_config[LOCAL_RATE_LIMIT] = pack(limit)\n", "",
        ("tests/envoy/live/test_passwords_live.py",),
    ),
    Defence(
        "Wrong passwords ban no person", "authz/setup/templates/configuration.yml.j2",
        "regulation", "{modes: [ip], max_retries", "{max_retries",
        ("tests/setup/test_write.py",),
    ),
    Defence(
        "Only a POST has a body", "authz/envoy/render/routes.py", "gateway_host",
        "                bodiless_route(settings, server, path),\n", "",
        ("tests/envoy/live/test_strangers_live.py",),
    ),
    Defence(
        "The pages are asked once a body is whole", "authz/envoy/render/routes.py", "_pages_route",
        "            BUFFER: pack(buffered(_LONGEST_BODY)),\n", "",
        ("tests/envoy/live/test_pages_live.py",),
    ),
    Defence(
        "An exchange ends with its token", "authz/core/answers.py", "upstream",
        "seconds = min(principal.expires_at - now, policy.max_stream)",
        "seconds = policy.max_stream", ("tests/core/test_answers.py",),
    ),
    Defence(
        "A listening stream is judged anew", "authz/core/answers.py", "upstream",
        "if allow.exchange is Exchange.STREAM:",
        "if False:", ("tests/core/test_answers.py",),
    ),
    Defence(
        "The streams of a person are counted", "authz/core/evaluation.py", "_evaluate",
        "if kind is Exchange.STREAM and server.streams is not None:", "if False:", _STREAMS,
    ),
    Defence(
        "A person's streams are of all clients together", "authz/config/budgets.py", "_streams",
        'return Limit(f"{name}:streams", Per.USER,',
        'return Limit(f"{name}:streams", Per.CLIENT_USER,', _STREAMS,
    ),
    Defence(
        "A stream is counted for as long as it lives", "authz/config/budgets.py", "_streams",
        "window = ceil(min(gateway.stream_recheck, _LONGEST_WINDOW)) + 1", "window = 60", _STREAMS,
    ),
    Defence(
        "Who listens by POST has a stream, too", "authz/core/exchanges.py", "exchange",
        'if method == LISTEN or (method is None and http_method == "GET"):',
        'if method is None and http_method == "GET":', _STREAMS,
    ),
    Defence(
        "A refused stream ends no session", "authz/core/reason.py", "TOO_MANY_STREAMS",
        "get_status=405,", "get_status=0,", _STREAMS,
    ),
    Defence(
        "The calls of who calls often end earlier", "authz/core/answers.py", "upstream",
        "if meter is not None:", "if False:", _STREAMS,
    ),
    Defence(
        "How long calls last is told by how many there are", "authz/core/exchanges.py", "_lasts",
        "self.sustained * limit.window / max(1, begun)", "longest", _STREAMS,
    ),
    Defence(
        "Envoy is told how long an exchange lasts", "authz/envoy/codec.py", "encode_allow",
        "_lasting(upstream.lasts) + ", "",
        ("tests/envoy/test_codec_answers.py", "tests/envoy/live/test_connections_live.py"),
    ),
    Defence(
        "Who forges a sentinel is told no password", "authz/ledger/location.py", "find_primary",
        "and not node.tls.server_name:", "and False:", ("tests/ledger/test_redis_tls.py",),
    ),
    Defence(
        "What strangers do to the gateway ends no probe", "authz/envoy/render/statistics.py",
        "_listener", "bypass_overload_manager=True,", "",
        ("tests/envoy/live/test_statistics_live.py",),
    ),
    Defence(
        "A full server is said to be full", "authz/envoy/render/clusters.py", "_CONNECTIONS",
        "_CONNECTIONS: Final = 2 * _REQUESTS", "_CONNECTIONS: Final = 3",
        ("tests/envoy/live/test_strangers_live.py", "tests/envoy/test_render.py"),
    ),
    Defence(
        "A flood pushes nothing out of Redis", "authz/local/valkey.py", "_CONFIGURATION",
        "maxmemory-policy noeviction", "maxmemory-policy allkeys-lru",
        ("tests/local/test_valkey.py",),
    ),
    Defence(
        "The kernel bounds the connections of an address",
        "authz/setup/templates/firewall.nft.j2", "connections", "ip saddr ct count over 512",
        "ip saddr ct count over 5120", ("tests/doctor/test_firewall.py",),
    ),
    Defence(
        "Git takes no secret of the folder", "authz/setup/templates/gitignore.j2", "the file",
        "/*\n", "/secrets/\n", ("tests/setup/test_git.py",),
    ),
    Defence(
        "The doctor asks git what its index holds", "authz/doctor/git_secrets.py", "findings",
        "if blob.oid in digests or", "if",
        ("tests/doctor/test_git_secrets.py",),
    ),
    Defence(
        "A target's redirect is not followed", "authz/notify/delivery.py", "notify_client",
        "follow_redirects=False,", "follow_redirects=True,", ("tests/notify/test_delivery.py",),
    ),
    Defence(
        "No name calls a channel in a chat", "authz/notify/messages.py", "_escape",
        '.replace("<", "&lt;")', "", ("tests/notify/test_messages.py",),
    ),
    Defence(
        "Messages name nobody unless asked to", "authz/notify/messages.py", "_json",
        "hidden = () if target.people else _PERSONAL", "hidden = ()",
        ("tests/notify/test_messages.py",),
    ),
    Defence(
        "Messages go to no link-local address", "authz/config/lint/notify.py", "target_fault",
        "if address.is_link_local or address.is_multicast or address.is_unspecified:", "if False:",
        ("tests/config/test_mistakes.py",),
    ),
    Defence(
        "Lines of a security event are bounded", "authz/telemetry/security_events.py", "occur",
        " or window.lines >= row.lines", "", ("tests/telemetry/test_security_events.py",),
    ),
)  # fmt: skip

_DOOR = ("tests/core/test_front_door.py", "tests/tokens/test_front_door.py")

FRONT_DOOR = (
    Defence(
        "A token of ours is nobody's without its log-in", "authz/tokens/front_door.py", "known",
        "raise RefusedError(_UNKNOWN, Detail.NO_LOG_IN_RECORD)", "return principal", _DOOR,
    ),
    Defence(
        "A log-in is of the token's person", "authz/tokens/front_door.py", "known",
        "if login.subject != principal.subject:", "if False:", _DOOR,
    ),
    Defence(
        "What a reload took away lets nobody in", "authz/core/evaluation.py", "_CHECKS",
        "    _check_log_in,\n", "", _DOOR,
    ),
    Defence(
        "Other clients of the issuer need a name here", "authz/core/evaluation.py", "_check_log_in",
        "elif door is not None and (context.known is None or not context.known.direct):",
        "elif False:", _DOOR,
    ),
    Defence(
        "Which clients come through the front door", "authz/core/evaluation.py", "_check_client",
        "        _check_front_door_client(context, door, login)\n", "        pass\n", _DOOR,
    ),
    Defence(
        "A client with a document comes by the host of it", "authz/core/evaluation.py",
        "_check_front_door_client", "if not door.admits(name, login.document_host):",
        'if not door.admits(name, ""):', _DOOR,
    ),
    Defence(
        "A stranger's name is told by its beginning", "authz/core/evaluation.py", "_known",
        "    if principal.is_unconfigured:\n        return None\n", "", _DOOR,
    ),
    Defence(
        "A declaration counts for no token of the front door", "authz/core/evaluation.py",
        "_proofs",
        "if login is None and known is not None and known.assurance is not Method.NONE:",
        "if known is not None and known.assurance is not Method.NONE:", _DOOR,
    ),
    Defence(
        "A step-up is of one grant", "authz/core/decision.py", "_query",
        "StepUpKey(principal.person, principal.grant, evaluation.context.server.name)",
        "StepUpKey(principal.person, principal.client_id, evaluation.context.server.name)", _DOOR,
    ),
    Defence(
        "Opaque tokens of our clients are not the front door's", "authz/tokens/verifier.py",
        "_not_ours",
        "if principal is None or self._front_door is None or not self._front_door.owns(principal):",
        "if True:", _DOOR,
    ),
    Defence(
        "A key withdrawn while a log-in is read", "authz/tokens/verifier.py", "_verify_jwt",
        "            again = self._signatures.known_key(unverified)\n",
        "            again = key\n", _DOOR,
    ),
    Defence(
        "A confirmation is of the client that was signed for",
        "authz/tokens/introspection_result.py",
        "intersect_with", "known.token_client_id or known.client_id", "said.client_id", _DOOR,
    ),
    Defence(
        "A revoked grant ends its tokens", "authz/ledger/records.py", "revocation_fields",
        "        *granted,\n", "", _LEDGER,
    ),
    Defence(
        "A client that asks again is told in words", "authz/core/step_up.py", "step_up_delivery",
        "asked = message.is_continuation or message.method not in INTERACTIVE", "asked = False",
        ("tests/core/test_step_up.py", "tests/server/test_step_up_links.py"),
    ),
)  # fmt: skip

_MCP_IDENTITY = ("tests/integrations/test_mcp_identity.py",)
_BUCKETS = ("tests/core/test_limits_buckets.py",)
_SESSION = ("tests/core/test_session.py",)
_JUDGED = ("tests/core/test_judged_headers.py",)
_METHODS = ("tests/core/test_allowed_methods.py",)

BELONGINGS = (
    Defence(
        "A session is its first user's", "authz/ledger/take.lua", "take",
        "if bound and find(bound, owner, 1, true) ~= 1 then return {now, 'foreign'} end", "",
        _LEDGER,
    ),
    Defence(
        "An old place of a session ends nothing", "authz/ledger/take.lua", "the script",
        " and at == place then", " then", _LEDGER,
    ),
    Defence(
        "A key signs for one alone", "authz/config/secret_files.py", "_shared_key",
        "if half is not None and half == other:", "if False:",
        ("tests/config/test_secret_files.py",),
    ),
    Defence(
        "A use binds a session", "authz/ledger/take.lua", "bind",
        "  call('SET', session, owner .. pack(PLACE, place), 'PX', lifetime)\n", "", _LEDGER,
    ),
    Defence(
        "A person's sessions never push out another's", "authz/ledger/take.lua", "bind",
        "if held and sub(held, 1, 16) == sub(owner, 1, 16) and", "if held and", _LEDGER,
    ),
    Defence(
        "A session is asked for whatever the request is", "authz/core/decision.py", "_judged",
        "query = _query_of(call, evaluation, unsatisfied, now, cache)",
        "query = _query_of(call if message else replace(call, session_id=None), evaluation, "
        "unsatisfied, now, cache)",
        _SESSION,
    ),
    Defence(
        "A session is one client's of a person", "authz/core/session.py", "session_of",
        "owner=digest(*person, named)", "owner=digest(*person)", _SESSION,
    ),
    Defence(
        "Short sessions do not free the count of long ones", "authz/ledger/take.lua", "bind",
        "if call('PTTL', ring) < tonumber(lifetime) then call('PEXPIRE', ring, lifetime) end",
        "call('PEXPIRE', ring, lifetime)", ("tests/ledger/test_script.py",),
    ),
    Defence(
        "Sessions hold while Redis is away", "authz/ledger/resilient.py", "_answer",
        "if session is not None and self._sessions.is_of_another(session, now):", "if False:",
        ("tests/ledger/test_resilient.py",),
    ),
    Defence(
        "Where tools are named, unknown methods are refused", "authz/core/evaluation.py", "_CHECKS",
        "    _check_method,\n", "", _METHODS,
    ),
    Defence(
        "A tool's work is judged by the rules of all tools", "authz/core/evaluation.py",
        "_of_method",
        "rules = (*tools, *named.rules[1:])", "rules = named.rules[1:]", _METHODS,
    ),
    Defence(
        "Who listens for tasks is judged as who asks for them", "authz/core/evaluation.py",
        "_of_method",
        "known.continues or message.follows_tasks", "known.continues", _METHODS,
    ),
    Defence(
        "A resource's URI has one spelling", "authz/core/operations.py", "_operation",
        "elif len(name) > _MAX_URI or not (is_strict_template if template else is_strict_uri)(name)"
        ":", "elif len(name) > _MAX_URI:", _OPERATIONS,
    ),
    Defence(
        "What a listener could name otherwise is refused", "authz/core/operations.py",
        "_subscriptions", "if not _LISTENED.issuperset(notifications) or not isinstance(uris, list)"
        ":", "if not isinstance(uris, list):", _OPERATIONS,
    ),
    Defence(
        "An argument that cannot be judged refuses the call", "authz/core/evaluation.py", "_used",
        "if outcome is Outcome.UNREADABLE:", "if False:", _OPERATIONS,
    ),
    Defence(
        "A header that repeats an argument says what the body says", "authz/core/evaluation.py",
        "_used", "if not repeat_arguments(message.headers, message.arguments):", "if False:",
        ("tests/core/test_parameter_headers.py",),
    ),
    Defence(
        "Two headers that repeat one argument are sent on as one", "authz/core/decision.py",
        "_judged_headers", 'if "," in value and value.isascii()', "if False",
        ("tests/core/test_parameter_headers.py",),
    ),
    Defence(
        "A member alike to an argument's name is not overlooked", "authz/core/json_pointer.py",
        "_member", "return NotFound.ALIKE if alike else", "return",
        (*_OPERATIONS, "tests/core/test_json_pointer.py"),
    ),
    Defence(
        "A path is not resolved but refused", "authz/core/conditions.py", "judge",
        "if not isinstance(found, str) or not is_strict_path(found):",
        "if not isinstance(found, str):", ("tests/core/test_conditions.py",),
    ),
    Defence(
        "A line feed takes nothing out of a pattern's reach", "authz/core/conditions.py", "judge",
        'if "\\n" in found and', "if False and", ("tests/core/test_conditions.py",),
    ),
    Defence(
        "What is written while it is read is not taken", "authz/server/reloader.py",
        "_marked_load", "if self._files is not None and self._files.have_moved():", "if False:",
        ("tests/server/test_reloader.py",),
    ),
    Defence(
        "What a host sends is read in pieces, and others run between them",
        "authz/http/bounded_network.py", "read",
        "        await asyncio.sleep(0)\n", "", ("tests/login/clients/test_fetching.py",),
    ),
    Defence(
        "A stranger's host holds nobody else's log-in", "authz/login/clients/fetching.py", "_get",
        "backend = BoundedNetwork(4 * LARGEST, _MOST_LINES, checked)", "backend = checked",
        ("tests/login/clients/test_fetching.py",),
    ),
    Defence(
        "What an operator did in part has a record", "authz/login/console/actions.py", "do",
        'self._tell(action, operator, " ".join(action.target), (("outcome", "unknown"),))',
        "pass", ("tests/login/console/test_actions.py",),
    ),
    Defence(
        "The SDK's server knows its caller", "authz/integrations/mcp_identity.py", "__call__",
        "            known |= _user(caller)\n", "            pass\n", _MCP_IDENTITY,
    ),
    Defence(
        "An identity header comes once", "authz/integrations/mcp_identity.py", "_told",
        "if key in told or not value:", "if not value:", _MCP_IDENTITY,
    ),
    Defence(
        "A signed identity is for one server", "authz/integrations/mcp_identity.py",
        "__call__", "                audience=self._audience,\n", "",
        ("tests/tokens/test_identity.py",),
    ),
    Defence(
        "A signed identity is the gateway's own kind", "authz/integrations/mcp_identity.py",
        "__call__", 'if header.get("typ") != _TYPE or header.get("alg") not in _ALGORITHMS:',
        "if False:", ("tests/tokens/test_identity.py",),
    ),
    Defence(
        "A client's own signed identity never passes", "authz/core/answers.py", "_identity",
        "unsigned = () if server.signed_identity else (ASSERTION,)",
        "unsigned: tuple[str, ...] = ()", ("tests/server/test_check.py",),
    ),
    Defence(
        "Unconfigured clients have one budget", "authz/core/limits.py", "_whose",
        "    if principal.is_unconfigured:\n", "    if False:\n", _BUCKETS,
    ),
    Defence(
        "The name that was judged is the one that is sent on", "authz/core/decision.py",
        "_judged_headers", "        judged.append((NAME_HEADER, headers[NAME_HEADER]))\n",
        "        pass\n", _JUDGED,
    ),
    Defence(
        "The session that was judged is the one that is sent on", "authz/core/decision.py",
        "_judged_headers",
        "        judged.append((SESSION_HEADER, pending.call.session_id))\n", "        pass\n",
        _JUDGED,
    ),
)  # fmt: skip

_LOGIN = ("tests/login/test_attacks.py",)
_STALE = ("tests/login/test_stale_refresh.py",)
_BROWSER = ("tests/login/web/test_cookies.py",)
_FOUND = ("tests/attacks/test_front_door_findings.py",)
_ENDS = (
    "tests/login/store/test_revocation_outbox.py",
    "tests/login/store/test_store.py",
    "tests/login/service/test_interleavings.py",
)

_AUTHENTICATION = (
    "tests/login/clients/test_assertions.py",
    "tests/login/test_authentication_flow.py",
)
_IDENTITY = ("tests/login/clients/test_registry.py", "tests/login/test_identity_flow.py")

LOG_IN = (
    Defence(
        "A form of another site is no click", "authz/login/web/cookies.py", "check_post",
        'if request.method != "POST" or request.headers.getlist("origin") != [self._origin]:',
        "if False:", _BROWSER,
    ),
    Defence(
        "A form of another browser is no click", "authz/login/web/cookies.py", "check_post",
        'if not any(_same(sealed.get("of"), digest(value)) for value in _csrf(request)):',
        "if False:", _BROWSER,
    ),
    Defence(
        "A transaction is of its state", "authz/login/web/cookies.py", "read",
        'if not _same(sealed.get("state"), digest(key)):', "if False:", _BROWSER,
    ),
    Defence(
        "What is sealed for one purpose opens for no other", "authz/tokens/sealing.py", "open",
        'if header.get("typ") != purpose or not isinstance(plain, dict):',
        "if not isinstance(plain, dict):", ("tests/tokens/test_sealing.py", *_BROWSER),
    ),
    Defence(
        "Only the one word is consent", "authz/login/web/authorize.py", "consent",
        'if form.get("decision") != _APPROVE:', "if False:", _LOGIN,
    ),
    Defence(
        "The answer is the issuer's", "authz/login/upstream/client.py", "check_iss",
        "if iss != self._address.issuer:", "if False:",
        ("tests/login/upstream/test_client.py", "tests/login/web/test_step_up.py"),
    ),
    Defence(
        "An answer counts once", "authz/login/web/upstream_login.py", "accept",
        "if not await self._states.use(state):", "if False:",
        (*_LOGIN, "tests/login/web/test_step_up.py"),
    ),
    Defence(
        "The ID token is of this transaction",
        "authz/login/upstream/id_token.py", "_check_registered",
        'if expected.nonce is not None and claims.get("nonce") != expected.nonce:', "if False:",
        ("tests/login/upstream/test_id_token.py",),
    ),
    Defence(
        "A step-up is of its person", "authz/login/web/step_up.py", "missing_proof",
        "if identity.subject != ticket.subject:", "if False:", ("tests/login/web/test_step_up.py",),
    ),
    Defence(
        "An approval of a call is used up", "authz/ledger/take.lua", "the script",
        "    used = approval == 0 and keys[first + approved]\n", "",
        ("tests/ledger/test_approvals.py",),
    ),
    Defence(
        "What was declined does not pass", "authz/ledger/take.lua", "the script",
        "return word == 'd' and 'declined' or nil", "return nil",
        ("tests/ledger/test_approvals.py",),
    ),
    Defence(
        "An approval goes with the tokens of its time", "authz/ledger/take.lua", "the script",
        "if tonumber(second) <= ended or age < -leeway then", "if age < -leeway then",
        ("tests/ledger/test_approvals.py",),
    ),
    Defence(
        "An approval is of its very call", "authz/core/decision.py", "_approval_of",
        "digest = None if exact is None else exact.digest",
        'digest = None if exact is None else "0" * 64',
        ("tests/server/test_approvals.py",),
    ),
    Defence(
        "An approval is of what was asked", "authz/ledger/keys.py", "approval_name",
        "key.server, key.tool, *numbers)", "key.server, key.tool)",
        ("tests/ledger/test_approvals.py", "tests/server/test_approvals.py"),
    ),
    Defence(
        "What has to be proved is part of what is asked", "authz/core/decision.py", "_approval_of",
        "server, need = evaluation.context.server.name, merge(evaluation.asked)",
        "server, need = evaluation.context.server.name, merge(())",
        ("tests/server/test_approvals.py",),
    ),
    Defence(
        "An approval holds for a time", "authz/core/approval.py", "Approval",
        "if self.lifetime is not None and self.lifetime < 1:", "if False:",
        ("tests/core/test_approval.py",),
    ),
    Defence(
        "A client makes room in its own requests alone", "authz/ledger/keys.py",
        "approval_requests", 'b"approval-requests:" + digest(*person, grant)',
        'b"approval-requests:" + digest(*person)', ("tests/ledger/test_approval_requests.py",),
    ),
    Defence(
        "A click decides what stood beside it", "authz/login/web/approval.py", "_record",
        "if viewing.shown != _shown(asked):", "if False:", ("tests/login/web/test_approval.py",),
    ),
    Defence(
        "No machine follows what a person approves", "authz/core/evaluation.py",
        "_without_limits", "return replace(rule, limits=(), cost=1, cost_by=None, whole=rule)",
        "return replace(rule, limits=(), approval=None, cost_by=None, whole=rule)",
        ("tests/core/test_allowed_methods.py",),
    ),
    Defence(
        "A completion names one thing", "authz/core/operations.py", "_is_plain",
        "key not in known and folded(key) in known for key in members",
        "False for _ in ()", _OPERATIONS,
    ),
    Defence(
        "A protected place is not asked after by way of a template",
        "authz/core/operations.py", "_referred", "if filled == found.name:", "if True:",
        _OPERATIONS,
    ),
    Defence(
        "A completion says the kind of what it names", "authz/core/operations.py", "_referred",
        'named is None or len(_REFERRING.intersection(ref)) != len(("type", named[1])):',
        "named is None:", _OPERATIONS,
    ),
    Defence(
        "No number is approved that readers take for another", "authz/core/exact_call.py",
        "_fraction", " and Decimal(text) == Decimal(repr(number))", "",
        ("tests/core/test_exact_call.py",),
    ),
    Defence(
        "A call that nobody can read is not cut", "authz/core/exact_call.py", "exact_call",
        "if len(text.encode()) > LONGEST:", "if False:", ("tests/core/test_exact_call.py",),
    ),
    Defence(
        "A decision counts once, for what was seen", "authz/ledger/decide_approval.lua",
        "the script",
        "if not held or string.sub(held, 1, #ARGV[1] + 1) ~= ARGV[1] .. ' ' then return 0 end\n",
        "",
        ("tests/ledger/test_approval_requests.py",),
    ),
    Defence(
        "A call is shown to its person alone", "authz/login/web/approval.py", "_callback",
        "if missing is not None:\n            self._log_outcome",
        "if False:\n            self._log_outcome",
        ("tests/login/web/test_approval.py",),
    ),
    Defence(
        "What cannot be seen is shown as an escape", "authz/login/web/visible_json.py",
        "_is_seen",
        "if not character.isprintable() or _UNSEEN.match(character):",
        "if not character.isprintable():",
        ("tests/login/web/test_visible_json.py",),
    ),
    Defence(
        "What looks like a letter or sign of ASCII is shown as an escape",
        "authz/login/web/visible_json.py", "_is_seen",
        "if _LIKE_ASCII.match(character):", "if False:",
        ("tests/login/web/test_visible_json.py",),
    ),
    Defence(
        "No page is framed", "authz/login/web/rendering.py", "policy",
        "\"frame-ancestors 'none'; base-uri 'none'\"", "\"base-uri 'none'\"",
        ("tests/login/web/test_pages.py",),
    ),
    Defence(
        "Redirect URIs are compared whole", "authz/login/clients/redirects.py", "is_registered",
        "if sent in registered:", "if sent.startswith(registered):",
        ("tests/login/clients/test_redirects.py",),
    ),
    Defence(
        "No stranger's log-in ends at our own hosts", "authz/login/clients/redirects.py", "allow",
        'return web is not None and web["host"] not in self.ours', "return web is not None", _FOUND,
    ),
    Defence(
        "A code is good once", "authz/login/store/lua/take_code.lua", "the script",
        "redis.call('SET', KEYS[1], 'u' .. string.sub(held, cut + 1), 'EX', ARGV[1])", "",
        ("tests/login/store/test_store.py",),
    ),
    Defence(
        "A code is its verifier's (PKCE)",
        "authz/login/protocol/authorization_code.py", "check_code",
        "        and hmac.compare_digest(s256_challenge(verifier), code.code_challenge)\n", "",
        _LOGIN,
    ),
    Defence(
        "A code is its client's", "authz/login/protocol/authorization_code.py", "check_code",
        "hmac.compare_digest(digest(client_id), code.client_digest)\n        and ", "", _LOGIN,
    ),
    Defence(
        "A code is its redirect URI's", "authz/login/protocol/authorization_code.py", "check_code",
        "        and redirect_uri in (None, code.redirect_uri)\n", "", _LOGIN,
    ),
    Defence(
        "An unknown client is told before anything else",
        "authz/login/service/client_authentication.py", "authenticate",
        "        clients.recognize(client_id)\n", "", _LOGIN,
    ),
    Defence(
        "A refresh token is its client's", "authz/login/protocol/refresh.py", "check_owner",
        "if not hmac.compare_digest(digest(client_id), token.client_digest):", "if False:", _LOGIN,
    ),
    Defence(
        "A refresh is of a grant that lives", "authz/login/service/refresh.py", "_living",
        "if stored is None:", "if stored is None and not token.grant_id:", _LOGIN,
    ),
    Defence(
        "An old refresh token ends its grant", "authz/login/service/refresh.py", "_locked",
        "if stored.grant.refresh != request.name:", "if False:", _STALE,
    ),
    Defence(
        "A stale refresh token counts in the network of the last refresh alone",
        "authz/login/protocol/refresh.py", "answer_stale",
        "or newest.network != network", "or False", _STALE,
    ),
    Defence(
        "A stale refresh token counts for the time that is set now",
        "authz/login/store/codes.py", "latest",
        "or int(replaced) < since", "or False", _STALE,
    ),
    Defence(
        "A stale refresh token gets the newest answer of its own grant alone",
        "authz/login/service/refresh.py", "_newest",
        'or digest(newest.refresh_token or "") == stored.grant.refresh', "or True", _STALE,
    ),
    Defence(
        "A log-in is for the consented server alone", "authz/login/protocol/granted_audience.py",
        "audience_fault", "return TokenFault.WIDE if any(others) else TokenFault.NONE",
        "return TokenFault.NONE",
        ("tests/login/test_audience.py",),
    ),
    Defence(
        "A token for no server ends its log-in", "authz/login/web/authorize.py", "_finish",
        "if fault := audience_fault(found.tokens.audience, wanted.resource):", "if False:",
        ("tests/login/test_audience.py",),
    ),
    Defence(
        "A refresh under way brings no ended grant back",
        "authz/login/store/lua/renew_grant.lua", "the script",
        "if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end\n", "",
        ("tests/login/service/test_interleavings.py", "tests/login/store/test_store.py"),
    ),
    Defence(
        "Every address of a document's host is public",
        "authz/login/clients/fetching.py", "_addresses",
        " or not all(self._public(each) for each in found):", ":",
        ("tests/login/clients/test_fetching.py",),
    ),
    Defence(
        "A document names its own URL", "authz/login/clients/documents.py", "read_document",
        'if said.get("client_id") != client_id:', "if False:",
        ("tests/login/clients/test_documents.py",),
    ),
    Defence(
        "Whatever goes to Authelia is paced", "authz/login/web/upstream_login.py", "check_rate",
        "        self._limiter.check(APPROVALS, address_of(request))\n", "", _FOUND,
    ),
    Defence(
        "An address has its share of the fetches of documents", "authz/tokens/bulkhead.py", "next",
        "if running[source] < share]", "]",
        ("tests/tokens/test_bulkhead.py", "tests/login/clients/test_documents.py",
         "tests/attacks/test_front_door_findings.py"),
    ),
    Defence(
        "Nobody waits for a document in the line of another", "authz/login/clients/lookup.py",
        "_join", "(search.fetching is not None or requester in search.tasks)", "True",
        ("tests/login/clients/test_documents.py",),
    ),
    Defence(
        "The pages know whose fetch it is", "authz/login/web/requests.py", "begin_request",
        "    NETWORK.set(whose)\n", "",
        ("tests/attacks/test_front_door_findings.py",),
    ),
    Defence(
        "Strangers' hosts are asked at a pace", "authz/login/web/authorize.py", "_read",
        "if self._clients.fetches(client_id):", "if False:", _FOUND,
    ),
    Defence(
        "Who is blocked meanwhile gets nothing", "authz/login/service/code_exchange.py", "_issue",
        "blocked = begun and await self._blocks.blocked(client_id, names_of(identity))",
        "blocked = False", _FOUND,
    ),
    Defence(
        "Refreshes of a grant are paced", "authz/login/service/refresh.py", "_refresh_upstream",
        "if self._limiter.count_attempt_of(REFRESHES, token.grant_id):", "if False:", _FOUND,
    ),
    Defence(
        "Log-ins of a person are paced", "authz/login/web/authorize.py", "_finish",
        "if self._limiter.count_attempt_of(LOG_INS, found.identity.subject):", "if False:", _FOUND,
    ),
    Defence(
        "What is ended at Authelia is not ended again",
        "authz/login/upstream/client.py", "revoke",
        "if name in self._ended:", "if False:", _FOUND,
    ),
    Defence(
        "Nothing is granted that the server does not have", "authz/login/protocol/resources.py",
        "grantable",
        "client.allowed((frozenset(asked) - TOLERATED) & self.scopes)",
        "client.allowed(frozenset(asked) - TOLERATED)",
        ("tests/login/test_attacks.py",),
    ),
    Defence(
        "Nothing is granted beyond a client's ceiling", "authz/login/protocol/values.py", "allowed",
        "return scopes if self.scopes is None else scopes & self.scopes", "return scopes",
        ("tests/login/test_attacks.py",),
    ),
    Defence(
        "A form leads to our own pages alone", "authz/login/web/rendering.py", "policy",
        "form = \"'self'\" if has_form else \"'none'\"", 'form = "*"',
        ("tests/login/web/test_pages.py",),
    ),
    Defence(
        "A consent is by the rules of the click", "authz/login/web/authorize.py", "_begin",
        "            wanted = revalidate(wanted, client, identity, self._servers)\n", "",
        ("tests/login/test_attacks.py",),
    ),
    Defence(
        "What a person leaves out is asked of nobody", "authz/login/protocol/authorization.py",
        "leave_out", "scopes=tuple(sorted(scopes - gone)),", "scopes=request.scopes,",
        ("tests/login/protocol/test_leave_out.py",),
    ),
    Defence(
        "What a server needs is not left out", "authz/login/protocol/authorization.py",
        "leave_out", "    if needed:\n", "    if False:\n",
        ("tests/login/protocol/test_leave_out.py",),
    ),
    Defence(
        "No script runs but ours", "authz/login/web/rendering.py", "policy",
        'script-src {_source_hash(self.script)}"', "script-src 'unsafe-inline'\"",
        ("tests/login/web/test_pages.py",),
    ),
    Defence(
        "A form of the console counts once", "authz/login/console/actions.py", "do",
        "if not await self._used.use(action.once):", "if False:",
        ("tests/login/console/test_actions.py",),
    ),
    Defence(
        "Sessions of browsers are judged at every request", "authz/server/browser_sessions.py",
        "judge", "admit(rule, confirmed, answer, self._clock())", "pass",
        ("tests/login/console/test_access.py", "tests/server/test_browser_sessions.py"),
    ),
    Defence(
        "Lines of a log count from their own services", "authz/telemetry/log_writers.py", "takes",
        "if not _names(line.writer).isdisjoint(ours):", "if True:",
        ("tests/telemetry/test_log_writers.py",),
    ),
    Defence(
        "The outermost collector says who wrote a line", "authz/telemetry/log_reader.py",
        "read_line", "        if is_outermost:\n", "        if True:\n",
        ("tests/telemetry/test_log_writers.py",),
    ),
    Defence(
        "Who is revoked is asked about nowhere", "authz/server/browser_sessions.py",
        "judge", "check_revoked(answer)", "pass", ("tests/server/test_browser_sessions.py",),
    ),
    Defence(
        "Groups of another person open nothing", "authz/tokens/userinfo.py", "groups",
        'if claims.get("sub") != subject:', "if False:", ("tests/tokens/test_userinfo.py",),
    ),
    Defence(
        "An old log-in begins no session at the console", "authz/login/console/access.py",
        "_begin", "if not -LEEWAY <= age <= self._settings.lifetime + LEEWAY:", "if False:",
        ("tests/login/console/test_access.py",),
    ),
    Defence(
        "A change counts in the session that was asked", "authz/login/console/actions.py",
        "_check_session", "if action.session != person.name:", "if False:",
        ("tests/login/console/test_actions.py",),
    ),
    Defence(
        "What the list holds does nothing by itself", "authz/login/console/actions.py", "do",
        "action = self._cookies.check_post(request, form, _DO_FORM)",
        "action = self._cookies.check_post(request, form, _ASK_FORM)",
        ("tests/login/console/test_actions.py",),
    ),
    Defence(
        "A refresh is by the rules of now", "authz/login/protocol/refresh.py",
        "check_server",
        "if server.two_factor and not token.two_factor:", "if False:",
        ("tests/login/test_attacks.py",),
    ),
    Defence(
        "Who is blocked comes no further", "authz/login/web/client_validation.py", "validate",
        "if await self._blocks.blocked(client.client_id, names_of(identity)):", "if False:",
        ("tests/login/test_attacks.py",),
    ),
    Defence(
        "A document names log-ins at its own origin alone",
        "authz/login/clients/identity.py", "_name",
        "if host and _is_of_origin(redirect_uri, host):", "if host:", _IDENTITY,
    ),
    Defence(
        "A blocked host is blocked whichever way it came",
        "authz/login/clients/identity.py", "blocked_by",
        "return frozenset({name, *_names_of(ends_at), *_names_of(document_host)})",
        "return frozenset({name})", _IDENTITY,
    ),
    Defence(
        "A name that two have names neither", "authz/login/protocol/people.py", "find_person",
        "case [person], []:", "case [person, *_], _:", ("tests/login/protocol/test_people.py",),
    ),
    Defence(
        "Who is called as another's subject is not that person",
        "authz/cli/revocation_names.py", "_unless_subject",
        'return KnownPerson(person_digest(other), name, "", "", 0) if is_subject else found',
        "return found", ("tests/cli/test_revocation_names.py",),
    ),
    Defence(
        "Nobody is put in another's place", "authz/login/store/people.py", "_opened",
        "if self._name(record.subject) == name:", "if True:",
        ("tests/login/store/test_people.py",),
    ),
    Defence(
        "Nobody vouches for a program on this machine",
        "authz/login/web/client_description.py", "trust_of",
        "if client.ends_at and is_on_device(client.ends_at):", "if False:",
        ("tests/login/web/test_pages.py", "tests/attacks/test_front_door_findings.py"),
    ),
    Defence(
        "A client that has to authenticate is never a public one",
        "authz/login/service/client_authentication.py", "check_authenticated",
        "if client is not None and client.authentication is not None and not authenticated:",
        "if False:", _AUTHENTICATION,
    ),
    Defence(
        "What the page said of a client is what it is", "authz/login/protocol/authorization.py",
        "check_same_client", "if identity.name != request.name:", "if False:", _AUTHENTICATION,
    ),
    Defence(
        "An assertion counts once", "authz/login/service/client_authentication.py", "_check",
        "if not await self._used.use(client.client_id, verified.token_id, verified.lifetime):",
        "if not await self._used.use("
        "client.client_id, verified.token_id, verified.lifetime) and False:",
        _AUTHENTICATION,
    ),
    Defence(
        "An assertion is for us alone", "authz/login/clients/assertions.py", "_check_claims",
        "if not isinstance(audience, str) or audience not in self._audiences:", "if False:",
        _AUTHENTICATION,
    ),
    Defence(
        "An assertion is of its client", "authz/login/clients/assertions.py", "_check_claims",
        'if claims.get("iss") != client_id or claims.get("sub") != client_id:', "if False:",
        _AUTHENTICATION,
    ),
    Defence(
        "What every token has is consented to where it permits something",
        "authz/login/protocol/resources.py", "grantable",
        "client.allowed(self._always & self.scopes)", "frozenset[str]()",
        ("tests/login/test_attacks.py",),
    ),
    Defence(
        "A scheme that is taken back ends what ended there",
        "authz/login/clients/identity.py", "identity_again",
        "given or redirect_uri in client.redirect_uris", "True",
        ("tests/login/test_identity_flow.py",),
    ),
    Defence(
        "Forged names of keys fetch at a pace", "authz/login/clients/lookup.py", "newer",
        "if now < known.tried_at + age:", "if False:", _AUTHENTICATION,
    ),
    Defence(
        "A log-in is refreshed as what it was", "authz/login/protocol/refresh.py",
        "check_client",
        "if identity is None or identity.name != token.client:", "if False:",
        ("tests/login/test_attacks.py",),
    ),
    Defence(
        "A browser keeps no code of Authelia's", "authz/login/web/app.py", "_explain",
        'elif page in _REDIRECTED and is_callback(request.scope["path"]):', "elif False:",
        ("tests/login/web/test_history.py",),
    ),
    Defence(
        "No address holds all places", "authz/login/web/app.py", "_counted",
        "if self._under_way[whose] >= EACH:", "if False:", _FOUND,
    ),
    Defence(
        "A form is not waited for", "authz/login/web/cookies.py", "read_form",
        "async with asyncio.timeout(PATIENCE):", "async with asyncio.timeout(30):", _FOUND,
    ),
    Defence(
        "An end is told to every worker", "authz/login/store/lua/end_grant.lua", "the script",
        "redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])", "", _FOUND,
    ),
    Defence(
        "What is past its age is ended with its client",
        "authz/login/store/grants.py", "all_grants",
        "for grant in await self._kept_at(key):", "for grant in await self._all(key):", _ENDS,
    ),
    Defence(
        "An end here is one at Authelia", "authz/login/store/lua/end_grant.lua", "the script",
        "redis.call('HSET', KEYS[3], ARGV[1], upstream)", "", _ENDS,
    ),
    Defence(
        "What one issuer gave is shown to no other",
        "authz/login/store/sealed.py", "open_upstream",
        "    token = _UPSTREAM.open(sealer, text)\n    if token.issuer != issuer:",
        "    token = _UPSTREAM.open(sealer, text)\n    if False:", _ENDS,
    ),
)  # fmt: skip

_CATALOGUE = ("tests/core/test_catalogue.py",)
_CATALOGUES = ("tests/server/test_tool_catalogues.py",)

TOOL_LISTS = (
    Defence(
        "A changed definition is refused", "authz/core/evaluation.py", "_CHECKS",
        "    _check_definition,\n", "", _CATALOGUE,
    ),
    Defence(
        "A tool that nobody has listed is the strictest", "authz/core/catalogue.py", "annotations",
        "return STRICTEST if known is None", "return frozenset() if known is None", _CATALOGUE,
    ),
    Defence(
        "A guard by annotation opens nothing", "authz/core/evaluation.py", "_find_rules",
        "return _Matching(rules, len(by_name)", "return _Matching(rules, len(rules)", _CATALOGUE,
    ),
    Defence(
        "What anybody was shown counts", "authz/core/catalogue.py", "pin_state",
        "if known.digests == {approved}", "if approved in known.digests", _CATALOGUE,
    ),
    Defence(
        "What cannot be read has changed", "authz/server/tool_catalogues.py", "_read",
        "return stand_in(name)", "return None", _CATALOGUES,
    ),
    Defence(
        "Who lists too much is believed nothing", "authz/server/tool_catalogues.py", "_bound",
        "            self._blocked[server] = now + OVERLAP\n", "", _CATALOGUES,
    ),
    Defence(
        "A server that keeps changing a definition fills no store",
        "authz/server/tool_catalogues.py", "_catch_up",
        "            await self._store.forget(server, gone)\n", "            pass\n", _CATALOGUES,
    ),
    Defence(
        "A person's page shows their own approvals", "authz/login/web/own_proofs.py", "of",
        "if listed.subject == person.subject and (listed.grant, listed.server) in clients:",
        "if (listed.grant, listed.server) in clients:", ("tests/login/web/test_approval.py",),
    ),
    Defence(
        "A form ends what is its person's", "authz/login/web/sessions.py", "_owner",
        "if session is not None and session.subject == subject:", "if session is not None:",
        ("tests/login/web/test_sessions.py",),
    ),
    Defence(
        "A server's text does not act on a terminal", "authz/cli/revocation_commands.py",
        "shown_text", "return json.dumps(text)[1:-1]", "return text", ("tests/cli/test_tools.py",),
    ),
)  # fmt: skip

_LISTING = ("tests/core/test_listing.py",)
_LIST_FILTER = ("tests/server/test_list_filter.py",)

LIST_FILTER = (
    Defence(
        "What a list shows is what may be called", "authz/core/listing.py", "visibility",
        "return could_be_allowed(", "return True or could_be_allowed(", _LISTING,
    ),
    Defence(
        "A list in another spelling is not overlooked", "authz/core/listing.py", "_read",
        '_check_names(names, {"result"})', "pass", _LISTING,
    ),
    Defence(
        "A list of another media type does not pass", "authz/server/list_filter.py", "_body",
        "raise ListError(ListFault.MEDIA_TYPE)", "return _UnchangedBody()", _LIST_FILTER,
    ),
    Defence(
        "A compressed list does not pass", "authz/server/list_filter.py", "_body",
        "raise ListError(ListFault.ENCODING)", "return _UnchangedBody()", _LIST_FILTER,
    ),
    Defence(
        "A list in another encoding than UTF-8 does not pass", "authz/server/list_filter.py",
        "_body", 'if not is_utf8(headers.get(list_codec.TYPE, "")):', "if False:", _LIST_FILTER,
    ),
    Defence(
        "A refusal that clients may read as JSON does not pass", "authz/server/list_filter.py",
        "_is_refusal", "any(\n        each in media for each in (JSON, EVENTS)\n    )", "any(())",
        _LIST_FILTER,
    ),
    Defence(
        "A filtered list is for no shared cache", "authz/core/listing.py", "filtered",
        "if self._found and self._shared is not None:", "if False:", (*_LISTING, *_LIST_FILTER),
    ),
    Defence(
        "Reading one value of a list stops no decision for long", "authz/core/json_splice.py",
        "_check", "check_work(piece, _MAX_VALUE_WORK)", "pass", ("tests/core/test_json_splice.py",),
    ),
    Defence(
        "A long list of one server does not wait for another's", "authz/server/list_filter.py",
        "filtered", "async with self._of.threads[self._server.name]:",
        'async with self._of.threads[""]:', _LIST_FILTER,
    ),
    Defence(
        "A server that never ends its lists stops no other", "authz/server/list_filter.py",
        "_hold", "if length and of.held_of[server] > MAX_HELD_OF_SERVER:", "if False:",
        _LIST_FILTER,
    ),
    Defence(
        "An event is read whatever it begins with", "authz/server/list_filter.py", "_event",
        'if data is None or b"{" not in data:',
        'if data is None or not data.lstrip().startswith((b"{", b"[")):', _LIST_FILTER,
    ),
    Defence(
        "An event that clients read differently is an error", "authz/server/list_filter.py",
        "_event", "if is_ambiguous(event):", "if False:", _LIST_FILTER,
    ),
    Defence(
        "The last event of a stream is filtered without its end",
        "authz/server/list_filter.py", "chunk",
        "events.append(self._splitter.rest())",
        'return b"".join(events) + self._splitter.rest()', _LIST_FILTER,
    ),
)  # fmt: skip

DIAGNOSIS = (
    Defence(
        "What a caller wrote into another program's log is no record",
        "authz/telemetry/log_reader.py", "_without_prefix",
        "    raise ValueError(_NO_LINE)\n\n\ndef _kind",
        '    return text[text.find(b"{") :], ""\n\n\ndef _kind',
        ("tests/telemetry/test_log_reader.py",),
    ),
    Defence(
        "A library's message is not logged", "authz/telemetry/library_output.py", "emit",
        'self._record("logging", record.name,', 'self._record("logging", record.getMessage(),',
        ("tests/telemetry/test_library_output.py",),
    ),
    Defence(
        "A stranger pushes out no other network's story", "authz/telemetry/connections.py",
        "_make_room", "if len(self._unproved.get(network, ())) >= _NETWORK_STORIES:", "if False:",
        ("tests/telemetry/test_connections.py",),
    ),
    Defence(
        "An id in a log is none that acts on a terminal or a shell",
        "authz/telemetry/connection_events.py", "_id",
        'return found if _ID.fullmatch(found) else ""', "return found",
        ("tests/cli/test_connections.py",),
    ),
    Defence(
        "doctor is led into no private network", "authz/doctor/outside_http.py", "addresses",
        "if not self.private and not all(map(is_public, found)):", "if False:",
        ("tests/doctor/test_outside.py",),
    ),
)  # fmt: skip

COLLECTOR = (
    Defence(
        "A stranger's flag keeps no trace", "authz/telemetry/traces.py", "is_sampled",
        "if trace.is_parent_trusted and trace.parent is not None:",
        "if trace.parent is not None:",
        ("tests/telemetry/test_traces.py",),
    ),
    Defence(
        "A flood of refusals is bounded in traces", "authz/telemetry/traces.py", "take",
        "if self._left < 1.0:", "if False:", ("tests/telemetry/test_traces.py",),
    ),
    Defence(
        "What waits for a collector is bounded", "authz/telemetry/otlp/exporter.py", "spans",
        "if len(self._traces) >= _MOST_TRACES:", "if False:",
        ("tests/telemetry/otlp/test_exporter.py",),
    ),
    Defence(
        "A collector's redirect leads no key elsewhere", "authz/telemetry/otlp/senders.py",
        "__init__", "follow_redirects=False", "follow_redirects=True",
        ("tests/telemetry/otlp/test_senders.py",),
    ),
    Defence(
        "A collector's answer is bounded", "authz/telemetry/otlp/senders.py", "_answered",
        "read_body(response.aiter_raw(), _LARGEST)", "read_body(response.aiter_raw(), 1 << 40)",
        ("tests/telemetry/otlp/test_senders.py",),
    ),
    Defence(
        "A session's id is in no span", "authz/telemetry/decision_spans.py", "_of_request",
        'yield "mcp.session.id", session_digest(session)', 'yield "mcp.session.id", session',
        ("tests/telemetry/test_decision_spans.py",),
    ),
    Defence(
        "No query is in the span of a call", "authz/telemetry/traced_http.py", "_record",
        "path = request.url.path", "path = str(request.url)",
        ("tests/telemetry/test_traced_http.py",),
    ),
    Defence(
        "A stranger's path names no span", "authz/login/web/app.py", "_route",
        'return path if path in self._paths else ""', "return path",
        ("tests/login/web/test_traced_requests.py",),
    ),
)  # fmt: skip

DEFENCES = (
    *TEN_WORST,
    *OTHERS,
    *FRONT_DOOR,
    *BELONGINGS,
    *LOG_IN,
    *TOOL_LISTS,
    *LIST_FILTER,
    *DIAGNOSIS,
    *COLLECTOR,
)


@pytest.mark.parametrize("defence", [pytest.param(each, id=each.name) for each in DEFENCES])
def test_the_table_is_about_what_is_there(defence: Defence) -> None:
    """A defence is in the source once, in a table of the docs, and who should notice exists."""
    assert (ROOT / defence.file).read_text().count(defence.old) == 1
    assert f"| {_told(defence)} |" in TABLE.read_text()
    assert all((ROOT / tests).is_file() for tests in defence.tests)


def test_the_tests_that_are_named_exist() -> None:
    """What the docs say turned red can be run, and no row is of a defence that nothing holds."""
    named = re.findall(r"`([a-z_/]+\.py)::(\w+)`", TABLE.read_text())

    assert len(named) > len(DEFENCES)
    for file, test in named:
        assert f"def {test}(" in (ROOT / "tests" / file).read_text(), (file, test)
    assert "**none**" not in TABLE.read_text()


# --- the run ------------------------------------------------------------------------------------


def failed(copy: Path, tests: Iterable[str]) -> list[str]:
    """Run tests in the copy; return which of them fail."""
    command = [sys.executable, "-m", "pytest", "-q", "-rfE", "-p", "no:cacheprovider", *tests]
    found = subprocess.run(
        command, cwd=copy, capture_output=True, text=True, timeout=_LONGEST, check=False
    )
    return re.findall(r"^(?:FAILED|ERROR) (\S+)", found.stdout, re.MULTILINE)


def turned_red(copy: Path, defence: Defence) -> list[str]:
    """Take a defence out of the copy, run the tests, put it back; return what failed."""
    path = copy / defence.file
    whole = path.read_text()
    path.write_text(whole.replace(defence.old, defence.new))
    try:
        return failed(copy, defence.tests)
    finally:
        path.write_text(whole)


def _row(defence: Defence, red: list[str]) -> str:
    names = list(dict.fromkeys(each.partition("[")[0] for each in red))
    shown = ", ".join(f"`{each.removeprefix('tests/')}`" for each in names[:_SHOWN])
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"| {_told(defence)} | {len(red)} | {shown or '**none**'}{more} |"


def _told(defence: Defence) -> str:
    place = f"`{defence.file}`, `{defence.where}`"
    taken = f"`{_line(defence.old)}`" + (f" → `{_line(defence.new)}`" if defence.new else "")
    return f"{defence.name} | {place} | {taken}"


def _line(text: str) -> str:
    return " ".join(text.split())


def rows(defences: Sequence[Defence]) -> Iterator[str]:
    """Yield rows of the table, as they are found."""
    with tempfile.TemporaryDirectory(prefix="defences-") as folder:
        copy = Path(folder) / "tree"
        shutil.copytree(ROOT, copy, ignore=_LEFT_BEHIND)
        red = failed(copy, sorted({path for each in defences for path in each.tests}))
        if red:
            raise SystemExit(f"red with every defence in its place: {' '.join(red)}")
        for defence in defences:
            yield _row(defence, turned_red(copy, defence))


if __name__ == "__main__":
    for row in rows([each for each in DEFENCES if each.name in sys.argv[1:] or not sys.argv[1:]]):
        sys.stdout.write(f"{row}\n")
        sys.stdout.flush()
