"""Does the placement name blocks that exist, and every rank? Are there replicas to shard blocks over?"""

from __future__ import annotations

from fnmatch import fnmatchcase

from lpc.specs.check_learning import block_names
from lpc.specs.model import Path, Spec
from lpc.specs.problems import Problems


def ranks(spec: Spec, problems: Problems) -> None:
    """0150: the placement uses the ranks from 0, and as many as there are workers."""
    workers, used = spec.run.workers, set(spec.run.placement.values())
    if not used:
        return
    path: Path = ("run", "placement")
    idle = sorted(set(range(max(used) + 1)) - used)
    if idle:
        problems.add("0150", f"nothing is placed on rank {idle[0]}", spec.key_origin(*path), path)
    elif workers is not None and workers != (max(used) + 1) * spec.run.replicas:
        times = f", in each of {spec.run.replicas} replicas" if spec.run.replicas > 1 else ""
        message = f"there are {workers} workers, and blocks are placed on {max(used) + 1}{times}"
        problems.add("0150", message, spec.key_origin(*path), path, help="remove `workers`")


def names(spec: Spec, problems: Problems) -> None:
    """0132: each pattern of the placement matches a block. 0150: each block is placed."""
    blocks, patterns = block_names(spec), spec.run.placement
    if blocks is None or not patterns:
        return
    for pattern in patterns:
        if not any(fnmatchcase(block, pattern) for block in blocks):
            path: Path = ("run", "placement", pattern)
            message, otherwise = f"`{pattern}` matches no block", f"the blocks are {', '.join(blocks)}"
            problems.misspelt("0132", message, spec.key_origin(*path), path, pattern, blocks, otherwise)
    missing = [block for block in blocks if not any(fnmatchcase(block, pattern) for pattern in patterns)]
    if missing:
        path = ("run", "placement")
        problems.add("0150", f"block `{missing[0]}` is placed nowhere", spec.key_origin(*path), path)


def shards(spec: Spec, problems: Problems) -> None:
    """0151: blocks are sharded over replicas, whose steps do not overlap. 0132: each pattern matches a block."""
    path: Path = ("run", "shard")
    if not spec.run.shard:
        return
    if spec.run.replicas == 1:
        message = "`shard` divides parameters among replicas, and there is one"
        problems.add("0151", message, spec.key_origin(*path), path)
    if spec.run.staleness:
        message = "`shard` needs the weights of one step on all replicas, and with `staleness` their steps overlap"
        problems.add("0151", message, spec.key_origin(*path), path, help="write `staleness: 0`")
    blocks = block_names(spec)
    for index, pattern in enumerate(spec.run.shard if blocks is not None else ()):
        if blocks and not any(fnmatchcase(block, pattern) for block in blocks):
            place = (*path, index)
            message, otherwise = f"`{pattern}` matches no block", f"the blocks are {', '.join(blocks)}"
            problems.misspelt("0132", message, spec.origin(*place), place, pattern, blocks, otherwise)
