"""The grpcio transport: Envoy's ext_authz call and grpc.health.v1, on asyncio."""

from collections.abc import AsyncIterator

import grpc.aio

from authz.core.answers import TRACEPARENT
from authz.envoy import codec, list_codec
from authz.server.grpc_calls import CHECK_OVERHEAD, MAX_PART, Calls

_Context = grpc.aio.ServicerContext[bytes, bytes]

_OPTIONS_KEEPALIVE = (
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
)


class GrpcTransport:
    """Serve a check over gRPC."""

    name = "grpcio"

    def __init__(self, calls: Calls) -> None:
        """Register the services; nothing listens yet."""
        self._check = calls.check
        self._traced = calls.traced
        self._process = calls.process
        self._health = calls.health
        longest = max(calls.max_body + CHECK_OVERHEAD, MAX_PART)
        options = (*_OPTIONS_KEEPALIVE, ("grpc.max_receive_message_length", longest))
        self._server = grpc.aio.server(options=options)
        self._server.add_generic_rpc_handlers((self._authorization(), self._health_service()))
        if calls.process is not None:
            self._server.add_generic_rpc_handlers((self._processor(),))

    def _authorization(self) -> grpc.GenericRpcHandler:
        return grpc.method_handlers_generic_handler(
            codec.AUTHORIZATION,
            {
                "Check": grpc.unary_unary_rpc_method_handler(
                    self._on_check if self._traced is None else self._on_traced_check
                )
            },
        )

    def _processor(self) -> grpc.GenericRpcHandler:
        return grpc.method_handlers_generic_handler(
            list_codec.PROCESSOR,
            {"Process": grpc.stream_stream_rpc_method_handler(self._on_process)},
        )

    def _health_service(self) -> grpc.GenericRpcHandler:
        return grpc.method_handlers_generic_handler(
            codec.HEALTH,
            {
                "Check": grpc.unary_unary_rpc_method_handler(self._on_health),
                "Watch": grpc.unary_stream_rpc_method_handler(self._on_watch),
            },
        )

    async def _on_check(self, raw: bytes, _: object) -> bytes:
        return await self._check(raw)

    async def _on_traced_check(self, raw: bytes, context: _Context) -> bytes:
        assert self._traced is not None
        return await self._traced(raw, _traceparent(context))

    async def _on_process(
        self, parts: AsyncIterator[bytes], context: _Context
    ) -> AsyncIterator[bytes]:
        """Answer part by part; what ends before its response is whole ends with an error.

        On status OK Envoy forwards the rest unfiltered (seen on 1.39.3).
        """
        assert self._process is not None
        processing = self._process(_traceparent(context))
        if processing is None:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED)
            return
        try:
            async for part in parts:
                yield await processing.answer(part)
        except Exception:  # noqa: BLE001 - recorded where it arose; its text is nobody's business
            await context.abort(grpc.StatusCode.INTERNAL)
        finally:
            processing.close()
        if not processing.ended:
            await context.abort(grpc.StatusCode.CANCELLED)

    async def _on_health(self, _raw: bytes, _: object) -> bytes:
        return codec.encode_health(serving=self._health.ready)

    async def _on_watch(self, _raw: bytes, _: object) -> AsyncIterator[bytes]:
        async for ready in self._health.watch():
            yield codec.encode_health(serving=ready)

    def listen(self, address: str) -> int:
        """Bind `unix:/path` or `host:port` and return the port; 0 for a socket file.

        Raises:
            OSError: where the address cannot be bound.
        """
        try:
            port = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {address}") from error
        return 0 if address.startswith("unix:") else port

    async def start(self) -> None:
        """Begin to answer."""
        await self._server.start()

    async def stop(self, grace: float) -> None:
        """Take nothing new, answer what is in flight, at most `grace` seconds long."""
        await self._server.stop(grace)


def _traceparent(context: _Context) -> str:
    """Return the one `traceparent` of a call's metadata; empty where there is none, or several."""
    said = [value for name, value in context.invocation_metadata() or () if name == TRACEPARENT]
    found = said[0] if len(said) == 1 else ""
    return found if isinstance(found, str) else ""
