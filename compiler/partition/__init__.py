"""Which block owns each part of the network? From a traced network and a spec to the PartitionGraph."""

from lpc.compiler.partition.data import from_data, to_data
from lpc.compiler.partition.stage import partition

__all__ = ["from_data", "partition", "to_data"]
