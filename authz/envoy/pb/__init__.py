"""Generated protobuf stubs (`python tools/protos.py`), in a descriptor pool of their own.

Invariant: nothing of ours is in protobuf's default pool (tests/envoy/test_protos.py). There each
message name has one owner in a process, and grpcio-health-checking, googleapis-common-protos and
every package of Envoy's own stubs register the same names: whichever is imported last would fail.
"""

from google.protobuf import struct_pb2, timestamp_pb2
from google.protobuf.descriptor_pool import DescriptorPool

POOL = DescriptorPool()
POOL.AddSerializedFile(struct_pb2.DESCRIPTOR.serialized_pb)
POOL.AddSerializedFile(timestamp_pb2.DESCRIPTOR.serialized_pb)
