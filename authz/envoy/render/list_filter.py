"""The filter of list responses: only a response that Check has marked is shown to authz.

Invariant: the mark is dynamic metadata of ext_authz, which no request and no response can write; a
response that authz could not filter is an error (tests/e2e/test_lists.py).
"""

from typing import Final

from envoy_data_plane.envoy.config.core.v3 import (
    GrpcService,
    GrpcServiceEnvoyGrpc,
    TypedExtensionConfig,
)
from envoy_data_plane.envoy.extensions.filters.http.composite.v3 import (
    Composite,
    ExecuteFilterAction,
)
from envoy_data_plane.envoy.extensions.filters.http.ext_proc.v3 import (
    ExternalProcessor,
    HeaderForwardingRules,
    MetadataOptions,
    MetadataOptionsMetadataNamespaces,
    ProcessingMode,
    ProcessingModeBodySendMode,
    ProcessingModeHeaderSendMode,
)
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpFilter
from envoy_data_plane.envoy.extensions.matching.common_inputs.network.v3 import (
    DynamicMetadataInput,
    DynamicMetadataInputPathSegment,
)
from envoy_data_plane.envoy.extensions.matching.input_matchers.metadata.v3 import Metadata
from envoy_data_plane.envoy.type.matcher.v3 import ListStringMatcher, ValueMatcher
from envoy_data_plane.xds.core.v3 import TypedExtensionConfig as XdsTypedExtensionConfig
from envoy_data_plane.xds.type.matcher.v3 import (
    Matcher,
    MatcherMatcherList,
    MatcherMatcherListFieldMatcher,
    MatcherMatcherListPredicate,
    MatcherMatcherListPredicateSinglePredicate,
    MatcherOnMatch,
)

from authz.core.answers import LIST
from authz.envoy import list_codec
from authz.envoy.render.clusters import AUTHZ
from authz.envoy.render.messages import duration, exactly, http_filter
from authz.envoy.render.proto_json import pack

# Seconds for one part; the longest list takes half of it (core/listing.py).
_TIMEOUT: Final = 2.0
_EXT_PROC: Final = "envoy.filters.http.ext_proc"
FORWARDED: Final = (
    list_codec.STATUS, list_codec.TYPE, list_codec.ENCODING, list_codec.LENGTH,
)  # fmt: skip


def list_filter() -> HttpFilter:
    """Return the filter, which stands after ext_authz and does nothing for other requests.

    ExtensionWithMatcher would enter it on a refusal, too.
    """
    marked = MatcherMatcherListPredicate(
        single_predicate=MatcherMatcherListPredicateSinglePredicate(
            input=XdsTypedExtensionConfig(
                name="told",
                typed_config=pack(
                    DynamicMetadataInput(
                        filter=list_codec.EXT_AUTHZ,
                        path=[DynamicMetadataInputPathSegment(key=LIST)],
                    )
                ),
            ),
            custom_match=XdsTypedExtensionConfig(
                name="present",
                typed_config=pack(Metadata(value=ValueMatcher(present_match=True))),
            ),
        )
    )
    action = ExecuteFilterAction(
        typed_config=TypedExtensionConfig(name=_EXT_PROC, typed_config=pack(_processor()))
    )
    row = MatcherMatcherListFieldMatcher(
        predicate=marked,
        on_match=MatcherOnMatch(
            action=XdsTypedExtensionConfig(name="filter", typed_config=pack(action))
        ),
    )
    matcher = Matcher(matcher_list=MatcherMatcherList(matchers=[row]))
    return http_filter("envoy.filters.http.composite", Composite(matcher=matcher))


def _processor() -> ExternalProcessor:
    """Return how a response is shown to authz, in the worker that answers Check.

    STREAMED and not BUFFERED: Envoy's bound of what it buffers is that of requests. Not
    FULL_DUPLEX_STREAMED, which ignores message_timeout (seen on 1.39.3).
    """
    return ExternalProcessor(
        grpc_service=GrpcService(envoy_grpc=GrpcServiceEnvoyGrpc(cluster_name=AUTHZ)),
        failure_mode_allow=False,
        processing_mode=ProcessingMode(
            request_header_mode=ProcessingModeHeaderSendMode.SKIP,
            response_header_mode=ProcessingModeHeaderSendMode.SEND,
            response_body_mode=ProcessingModeBodySendMode.STREAMED,
        ),
        message_timeout=duration(_TIMEOUT),
        disable_immediate_response=True,
        forward_rules=HeaderForwardingRules(
            allowed_headers=ListStringMatcher(patterns=[exactly(name) for name in FORWARDED])
        ),
        metadata_options=MetadataOptions(
            forwarding_namespaces=MetadataOptionsMetadataNamespaces(untyped=[list_codec.EXT_AUTHZ])
        ),
        stat_prefix="lists",
    )
