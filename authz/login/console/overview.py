"""The overview: how every part is, and what was decided in the last hour and day."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from authz.config.digest import parse_digest
from authz.config.restarts import SERVE
from authz.ledger.activity import (
    ActivityStore,
    CountedStep,
    ProgramReport,
    Resolution,
    UpstreamState,
)
from authz.login.console.access import AdmittedPerson, ConsoleAccess
from authz.login.console.charts import Chart, by_reason, by_server, draw
from authz.login.console.frame import ConsoleFrame, Section

_LIVE: Final = 15  # seconds
_SILENT: Final = 60  # seconds since a program's last word
_SOON: Final = 21 * 86_400  # seconds before the end of a certificate


@dataclass(frozen=True, slots=True)
class _ShownProgram:
    """A program as the page shows it.

    Attributes:
        report: what it says.
        name: what to call it.
        problems: what is wrong, each in a sentence.
        is_silent: whether it has not said anything lately.
    """

    report: ProgramReport
    name: str
    problems: tuple[str, ...]
    is_silent: bool


@dataclass(frozen=True, slots=True)
class _ShownSpan:
    title: str
    by_server: Chart
    by_reason: Chart


class OverviewPage:
    """Show the overview."""

    def __init__(
        self,
        frame: ConsoleFrame,
        activity: ActivityStore,
        digest: str,
        clock: Callable[[], float],
    ) -> None:
        """Take the frame, where figures are, and the digest of the configuration in force here."""
        self._frame = frame
        self._activity = activity
        self._digest = digest
        self._clock = clock

    def routes(self, access: ConsoleAccess) -> list[Route]:
        """Return the routes."""
        path = Section.OVERVIEW.path
        return [Route(path, access.guard(self.show, is_home=True), methods=["GET"])]

    async def show(self, request: Request, person: AdmittedPerson) -> Response:
        """Show it."""
        now = self._clock()
        programs = await self._activity.programs(now)
        shown = [self._shown(each, now) for each in programs]
        spans = [
            _span(title, await self._activity.decisions(resolution, now), resolution)
            for title, resolution in (
                ("Last hour", Resolution.HOUR),
                ("Last day", Resolution.DAY),
            )
        ]
        live = [each for each in shown if not each.is_silent]
        upstreams = _worst(each.report.upstreams for each in live)
        content = {
            "programs": shown,
            "spans": spans,
            "digest": self._digest,
            "deciding": sum(each.report.program == SERVE for each in live),
            "troubled": sum(bool(each.problems) for each in live),
            "upstreams": upstreams,
            "away": sum(state is UpstreamState.AWAY for state in upstreams.values()),
            "at": int(now),
        }
        return self._frame.page(request, person, Section.OVERVIEW, content, live=_LIVE)

    def _shown(self, report: ProgramReport, now: float) -> _ShownProgram:
        worker = "" if report.worker < 0 else f", worker {report.worker}"
        problems = [
            f"{part}: {words}"
            for said in (report.parts, report.notes)
            for part, words in said.items()
            if words
        ]
        if report.config and not parse_digest(report.config).agrees(parse_digest(self._digest)):
            problems.append(f"configuration: it runs {report.config}, and these pages another one")
        if report.certificate_until and report.certificate_until - now < _SOON:
            ended = report.certificate_until <= now
            problems.append(
                "certificate: it has ended" if ended else "certificate: it ends within three weeks"
            )
        return _ShownProgram(
            report,
            f"{report.program} at {report.host}{worker}",
            tuple(problems),
            now - report.at > _SILENT,
        )


_BY_TROUBLE: Final = (UpstreamState.AWAY, UpstreamState.WELL, UpstreamState.UNUSED)


def _worst(said: Iterable[Mapping[str, UpstreamState]]) -> Mapping[str, UpstreamState]:
    """Return how each upstream is by whichever Envoy it is worst for."""
    found = dict[str, UpstreamState]()
    for states in said:
        for name, state in states.items():
            found[name] = min(found.get(name, state), state, key=_BY_TROUBLE.index)
    return dict(sorted(found.items()))


def _span(title: str, steps: Sequence[CountedStep], resolution: Resolution) -> _ShownSpan:
    return _ShownSpan(
        title,
        draw(steps, resolution.step, by_server),
        draw(steps, resolution.step, by_reason),
    )
