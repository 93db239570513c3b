"""Tell Redis what this process decided lately and how it is, for the operators' console.

It reads the counters that a decision has incremented in any case, on a connection of its own, so
that no decision waits for it. Without a console in authz.yaml nothing is written.
"""

import asyncio
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from authz import __version__
from authz.core.ledger import UnavailableError
from authz.ledger.activity import ActivityStore, DecisionKind, ProgramReport, UpstreamState
from authz.ledger.redis import RedisLedger, RedisOptions
from authz.server.health import Health
from authz.telemetry.recorder import Recorder

_EVERY: Final = 5.0  # seconds
_PATIENCE: Final = 2.0  # seconds for one call of Redis


@dataclass(frozen=True, slots=True)
class ReportedState:
    """Hold what a report needs of the configuration in force.

    Attributes:
        options: where Redis is; None where nobody reads reports.
        mode: who counts limits; empty where the program counts none.
        certificate_until: when the certificate that Envoy serves ends; 0 where that is not known.
        upstreams: asks how the upstreams are; None where nobody knows.
    """

    options: RedisOptions | None
    mode: str = ""
    certificate_until: int = 0
    upstreams: Callable[[], Mapping[str, UpstreamState]] | None = None


class ActivityReporter:
    """Report for one process."""

    def __init__(
        self,
        program: str,
        state: Callable[[], ReportedState],
        recorder: Recorder,
        health: Health,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Take the program's name, what is in force, its counters and its parts."""
        self._program = program
        self._state = state
        self._recorder = recorder
        self._health = health
        self._clock = clock
        self._told: Mapping[DecisionKind, int] = {}
        self._fault = ""
        self._options: RedisOptions | None = None
        self._redis: RedisLedger | None = None

    async def run(self) -> None:
        """Report every few seconds."""
        try:
            while True:
                try:
                    await self.report()
                except Exception as error:  # noqa: BLE001 - a defect here must not end the service
                    self._recorder.crash(error)
                await asyncio.sleep(_EVERY)
        finally:
            await self.aclose()

    async def report(self) -> None:
        """Report once; what could not be told is dropped, and a new fault is logged."""
        counted = self._counted()
        new = {
            kind: count - self._told.get(kind, 0)
            for kind, count in counted.items()
            if count > self._told.get(kind, 0)
        }
        self._told = counted
        state, fault = self._state(), ""
        if state.options is None:
            await self.aclose()
            return
        try:
            said = await self._with_upstreams(self._said(state), state)
            await (await self._store(state.options)).add(said, new)
        except UnavailableError as error:
            fault = error.detail
        if fault and fault != self._fault:
            self._recorder.event("console_not_told", detail=fault)
        self._fault = fault

    def _counted(self) -> Mapping[DecisionKind, int]:
        found = self._recorder.metrics.decisions.counted()
        return {DecisionKind(*labels): count for labels, count in found.items()}

    def _said(self, state: ReportedState) -> ProgramReport:
        return ProgramReport(
            program=self._program,
            host=socket.gethostname(),
            worker=-1 if self._recorder.worker is None else self._recorder.worker,
            instance=self._health.instance,
            at=int(self._clock()),
            version=__version__,
            config=self._health.config,
            parts=self._health.parts,
            notes=self._health.notes,
            mode=state.mode,
            certificate_until=state.certificate_until,
        )

    async def _with_upstreams(self, said: ProgramReport, state: ReportedState) -> ProgramReport:
        if state.upstreams is None:
            return said
        try:
            return replace(said, upstreams=await asyncio.to_thread(state.upstreams))
        except UnavailableError as error:
            return replace(said, notes={**said.notes, "envoy": error.detail})

    async def _store(self, options: RedisOptions) -> ActivityStore:
        if self._redis is None or options != self._options:
            await self.aclose()
            self._redis = RedisLedger(replace(options, timeout=_PATIENCE, connections=1))
            self._options = options
        return ActivityStore(self._redis.command, options.keys)

    async def aclose(self) -> None:
        """Close the connection; a later report opens another."""
        redis, self._redis = self._redis, None
        if redis is not None:
            await redis.aclose()
