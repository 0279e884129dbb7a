"""What do mistakes in running a plan on several processes look like? 0150, 0151, 0580 to 0585, 0674 to 0684."""

from __future__ import annotations

from lpc.specs.examples.example import BUILD, SHOWN, Example

NORMED = (
    "network: {inputs: {image: [1, 8, 8]}, layers: [flatten, fc1: linear(16), bn: batch_norm, relu, out: linear(10)]}\n"
    "decompose: {blocks: {b1: [fc1, bn], head: out}, links: stop}\n"
)

RANKS: dict[str, Example] = {
    "0150": Example(
        "The placement leaves a block or a rank out.",
        "run: {epochs: 1, placement: {b1: 0}}",
        "run: {epochs: 1, placement: {b1: 0, head: 1}}",
    ),
    "0151": Example(
        "Parameters are sharded over replicas that there are not, or whose steps overlap.",
        "run: {epochs: 1, shard: true}",
        "run: {epochs: 1, replicas: 2, shard: true}",
    ),
    "0580": Example(
        "There are more workers than blocks, or blocks that share a tensor are placed apart.",
        "run: {epochs: 1, workers: 3}",
        "run: {epochs: 1, workers: 2}",
        BUILD,
    ),
    "0581": Example(
        "Several ranks would have to hold the same, such as running statistics that a later phase computes with.",
        f"{NORMED}run: {{replicas: 2, workers: 2, phases: [{{train: '*', steps: 9}}, {{train: head, steps: 9}}]}}",
        f"{NORMED}run: {{workers: 2, phases: [{{train: '*', steps: 9}}, {{train: head, steps: 9}}]}}",
        BUILD,
    ),
    "0582": Example(
        "The ranks' programs do not fit together: what one sends, the other does not receive, or something else.",
        "rank 0: send h1 to 1\nrank 1: h2 = receive from 0",
        "rank 0: send h1 to 1\nrank 1: h1 = receive from 0",
        SHOWN,
    ),
    "0583": Example(
        "Each of some ranks waits for the next one before it sends what that one waits for.",
        "rank 0: d1 = receive from 1, send h1 to 1\nrank 1: h1 = receive from 0, send d1 to 0",
        "rank 0: send h1 to 1, d1 = receive from 1\nrank 1: h1 = receive from 0, send d1 to 0",
        SHOWN,
    ),
    "0584": Example(
        "What comes back between ranks is a derivative, and would come to other weights than it is of.",
        "decompose: {blocks: {b1: fc1, head: out}, links: gradient}\nrun: {epochs: 1, workers: 2, staleness: 1}",
        "decompose: {blocks: {b1: fc1, head: out}, links: stop}\nrun: {epochs: 1, workers: 2, staleness: 1}",
        BUILD,
    ),
    "0585": Example(
        "The block's optimizer, or something else, needs more of a parameter than the part that a replica has.",
        'learn: [{blocks: "*", head: linear, loss: cross_entropy, optimizer: muon(lr=0.01)}, {params: "*bias", '
        "train: false}]\nrun: {epochs: 1, replicas: 2, shard: true}",
        'learn: [{blocks: "*", head: linear, loss: cross_entropy, optimizer: adamw(lr=0.01)}, {params: "*bias", '
        "train: false}]\nrun: {epochs: 1, replicas: 2, shard: true}",
        BUILD,
    ),
    "0674": Example(
        "What is to be replayed is damaged, or of a run that did not end: an order is whole, or of no use.",
        "lpc run spec.yaml --replay spec.yaml",
        "lpc run runs/digits/run.plan --replay runs/digits/order.jsonl",
        SHOWN,
    ),
    "0675": Example(
        "An order belongs to one plan; another seed makes another one.",
        "lpc run spec.yaml --set run.seed=1 --replay runs/digits/order.jsonl",
        "lpc run runs/digits/run.plan --replay runs/digits/order.jsonl",
        SHOWN,
    ),
    "0676": Example(
        "The replay did what was recorded and came to other bits: other kernels did the arithmetic.",
        "another version of torch",
        "the torch that the order names",
        SHOWN,
    ),
    "0680": Example(
        "The plan of one rank is run without the other ranks.",
        "a trainer of one rank's plan, without a transport",
        "lpc run spec.yaml --workers 2",
        SHOWN,
    ),
    "0681": Example(
        "A rank sends nothing, or takes nothing, for longer than `--patience`. The message names edge, value and step.",
        "lpc run spec.yaml --workers 2 --patience 0.01",
        "lpc run spec.yaml --workers 2",
        SHOWN,
    ),
    "0682": Example(
        "Another rank's process has ended, so that this one cannot go on; `lpc run --workers` starts all again.",
        "kill -9 WORKER",
        "lpc run spec.yaml --workers 2 --resume",
        SHOWN,
    ),
    "0683": Example(
        "A rank receives another value than its program says: the ranks do not do the same steps.",
        "rank 0 in step 7, rank 1 in step 8",
        "all ranks in step 8",
        SHOWN,
    ),
    "0684": Example(
        "The number of processes is not the number of workers, or an option does not go with several workers.",
        "torchrun --nproc-per-node 4 -m lpc run spec.yaml --workers 2",
        "torchrun --nproc-per-node 2 -m lpc run spec.yaml",
        SHOWN,
    ),
}
