"""What do mistakes in local problems look like, found when a spec is built? 04xx."""

from __future__ import annotations

from lpc.specs.examples.example import BUILD, Example

_LENGTHS = (
    "network: {inputs: {words: [T, 4]}, layers: [fc1: linear(8), relu, mean(1), out: linear(3)]}\n"
    "data: none\nfields: {label: {shape: [], dtype: int64}}\n"
    "decompose: {blocks: {b1: [fc1, relu1], head: [mean1, out]}}\n"
)
_HEAD = "import torch\nfrom torch import nn\n\n\n"


def _net(name: str, forward: str) -> str:
    return (
        f"class {name}(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.a, self.b = nn.Linear(64, 16), nn.Linear(16, 10)\n\n"
        f"    def forward(self, image):\n        hidden = self.a(image.flatten(1))\n        return self.b({forward})\n"
    )


def _module(name: str) -> str:
    return f'network: {{module: "nets:{name}", inputs: {{image: [1, 8, 8]}}}}\n'


_READER = """\
class Reader(nn.Linear):
    def forward(self, hidden):
        return super().forward(hidden.detach())


"""
_DETACHED = _READER + _net("Detached", "hidden").replace("nn.Linear(16, 10)", "Reader(16, 10)")

_SHARE = """\
class ShareNAME(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient / SIZE


class LayerNAME(nn.Linear):
    def forward(self, x):
        return ShareNAME.apply(super().forward(x))


"""


def _shared(name: str, size: str) -> str:
    network = _net(name, "hidden").replace("self.a, self.b = nn.Linear", f"self.a, self.b = Layer{name}")
    return _SHARE.replace("NAME", name).replace("SIZE", size) + network


_RANK = """\
class Rank(nn.Linear):
    def forward(self, hidden):
        return super().forward(hidden).argmax(1)


"""
_RANKED = _RANK + _net("Ranked", "hidden").replace("nn.Linear(64, 16), nn.Linear", "Rank(64, 16), nn.Embedding")
_CUT = 'decompose: {blocks: {b1: a, head: b}, links: gradient}\nlearn: {blocks: "*", optimizer: adam}'
_LOCAL = "decompose: {blocks: {b1: a, head: b}, links: stop}"

_LEARN = 'learn: [{blocks: "*", head: linear, loss: cross_entropy, optimizer: adam}'
_CORRECTED = (
    'learn: {blocks: "*", head: linear, loss: cross_entropy, correct: bp_offset(period=10), optimizer: adam}\n'
)

_FORWARD = (
    "decompose: {blocks: {b1: a, head: b}, links: gradient}\n"
    'learn: [{blocks: "*", optimizer: adam}, {blocks: "*", estimator: forward}]'
)
_REPLICATED = (
    'learn: [{blocks: "*", head: linear, loss: cross_entropy, optimizer: adam},'
    " {blocks: b1, aggregate: replicated, estimator: forward}]"
)

_AIMED = 'learn: {blocks: "*", loss: matching, optimizer: sgd(lr=1e-3), steps: 5}'
_SOLVED = 'learn: {blocks: "*", loss: matching, optimizer: sgd(lr=1e-3)}'
_GELU = "network: {inputs: {image: [1, 8, 8]}, layers: [flatten, fc1: linear(16), gelu, out: linear(10)]}\n"
_FORK = (
    "network: {inputs: {image: [64]}, layers: [left: linear(16), {right: linear(16, from=image)},"
    " add(from=[left, right]), out: linear(10)]}\n"
)

LEARNING: dict[str, Example] = {
    "0401": Example(
        "A block with a local loss must compute something that has a gradient; whole numbers have none.",
        f"{_module('Ranked')}decompose: {{blocks: {{b1: a, head: b}}}}",
        f"{_module('Ranked')}decompose: {{blocks: {{all: [a, b]}}}}\n"
        'learn: {blocks: "*", loss: cross_entropy, optimizer: adam}',
        BUILD,
        _HEAD + _RANKED,
    ),
    "0402": Example(
        "A loss names as its target what no batch holds.",
        "loss: cross_entropy(target=lable)",
        "loss: cross_entropy(target=label)",
        BUILD,
    ),
    "0403": Example(
        "Without `target` a loss takes the only field of a batch that is no input, and there are several or none.",
        "data: none\nfields: {digit: {shape: [], dtype: int64}, parity: {shape: [], dtype: int64}}",
        "data: none\nfields: {digit: {shape: [], dtype: int64}, parity: {shape: [], dtype: int64}}\n"
        "loss: cross_entropy(target=digit)\n"
        'learn: {blocks: "*", head: linear, loss: cross_entropy(target=digit), optimizer: adam}',
        BUILD,
    ),
    "0404": Example(
        "The head cannot read what its block computes: a length that batches choose, for example, is no fixed size.",
        f'{_LENGTHS}learn: {{blocks: "*", head: linear, loss: cross_entropy, optimizer: adam}}',
        f'{_LENGTHS}learn: {{blocks: "*", head: linear(pool=mean), loss: cross_entropy, optimizer: adam}}',
        BUILD,
    ),
    "0405": Example(
        "Blocks that the spec does not name itself are known when it is built; one of them has no optimizer.",
        "decompose: {blocks: per_layer}\nlearn: {blocks: fc1, head: linear, loss: cross_entropy, optimizer: adam}",
        'decompose: {blocks: per_layer}\nlearn: {blocks: "*", head: linear, loss: cross_entropy, optimizer: adam}',
        BUILD,
    ),
    "0406": Example(
        "The block with the network's output has no loss, at the top level or in `learn`.",
        "loss: none\ndecompose: {blocks: per_layer}\n"
        'learn: [{blocks: "*", optimizer: adam}, {blocks: fc1, head: linear, loss: cross_entropy}]',
        "loss: cross_entropy\ndecompose: {blocks: per_layer}\n"
        'learn: [{blocks: "*", optimizer: adam}, {blocks: fc1, head: linear, loss: cross_entropy}]',
        BUILD,
    ),
    "0407": Example(
        "No gradient reaches a block: it has no loss of its own, and `stop` is behind it.",
        'decompose: {blocks: per_layer}\nlearn: [{blocks: "*", optimizer: adam}, {blocks: out, loss: cross_entropy}]',
        "decompose: {blocks: per_layer, links: gradient}\n"
        'learn: [{blocks: "*", optimizer: adam}, {blocks: out, loss: cross_entropy}]',
        BUILD,
    ),
    "0408": Example(
        "The links let gradients through, but the network itself keeps them from a block.",
        _module("Detached") + _CUT,
        _module("Plain") + _CUT,
        BUILD,
        _HEAD + _DETACHED + "\n\n" + _net("Plain", "hidden"),
    ),
    "0409": Example(
        "Layers and batch fields share one space of names in a plan.",
        "network: {inputs: {image: [64]}, layers: [label: linear(16), out: linear(10)]}\n"
        "decompose: {blocks: {b1: label, head: out}}",
        "network: {inputs: {image: [64]}, layers: [fc1: linear(16), out: linear(10)]}\n"
        "decompose: {blocks: {b1: fc1, head: out}}",
        BUILD,
    ),
    "0410": Example(
        "A plan draws its random numbers itself, by a few laws; this operator draws by another.",
        _module("Poisson") + _LOCAL,
        _module("Normal") + _LOCAL,
        BUILD,
        _HEAD
        + _net("Poisson", "hidden + torch.poisson(hidden.abs())")
        + "\n\n"
        + _net("Normal", "hidden + torch.randn_like(hidden)"),
    ),
    "0411": Example(
        "Kernels for a device are captured where it is.",
        "run: {epochs: 1, target: cuda}      # on a machine without CUDA",
        "run: {epochs: 1, target: portable}",
        BUILD,
    ),
    "0412": Example(
        "Forwards the batch is of any size, and a custom backward takes the size that it was traced with for a number.",
        _module("Held") + _LOCAL,
        _module("Free") + _LOCAL,
        BUILD,
        _HEAD + _shared("Held", "int(gradient.shape[0])") + "\n\n" + _shared("Free", "gradient.shape[0]"),
    ),
    "0414": Example(
        "Only in a chain, and with one reach on all of it, is there one furthest loss for each block.",
        "decompose: {blocks: {b1: fc1, head: out}, links: gradient(only=furthest)}",
        "decompose: {blocks: {b1: fc1, head: out}, links: gradient(reach=1, only=furthest)}",
        BUILD,
    ),
    "0415": Example(
        "A correction compares the local gradient with that of backpropagation, on the same mean over one batch.",
        _CORRECTED + "run: {epochs: 1, accumulate: 2}",
        _CORRECTED + "run: {epochs: 1}",
        BUILD,
    ),
    "0416": Example(
        "A loss cannot compare the prediction with its target: 16 features and one class, for example.",
        'learn: {blocks: "*", head: identity, loss: mse, optimizer: adam}',
        'learn: {blocks: "*", head: linear, loss: cross_entropy, optimizer: adam}',
        BUILD,
    ),
    "0417": Example(
        "A loss that reads the block's output itself, or brings its own head, does not read the block's head.",
        'learn: {blocks: "*", head: linear, loss: cwc, optimizer: adam}',
        'learn: {blocks: "*", head: linear, loss: cross_entropy, optimizer: adam}',
        BUILD,
    ),
    "0418": Example(
        "A readout learns class scores from blocks' outputs; a label written over the input must fit into it.",
        "readouts: {probe: {from: [b1], with: 'label_overlay(neutral, classes=99)', optimizer: sgd(lr=0.1)}}",
        "readouts: {probe: {from: [b1], with: label_overlay(neutral), optimizer: sgd(lr=0.1)}}",
        BUILD,
    ),
    "0420": Example(
        "A gradient cannot go on through a block that has none itself, only directions.",
        "decompose: {blocks: {b1: fc1, head: out}, links: gradient}\n"
        'learn: [{blocks: "*", optimizer: adam}, {blocks: head, estimator: forward}]',
        "decompose: {blocks: {b1: fc1, head: out}, links: gradient}\n"
        'learn: [{blocks: "*", optimizer: adam}, {blocks: b1, estimator: forward}]',
        BUILD,
    ),
    "0421": Example(
        "The derivative along a direction needs an operator whose derivative can be differentiated.",
        _module("Distances") + _FORWARD,
        _module("Products") + _FORWARD,
        BUILD,
        _HEAD
        + _net("Distances", "hidden + torch.cdist(hidden[:, :, None], hidden[:, :, None]).sum(2)")
        + "\n\n"
        + _net("Products", "hidden + (hidden[:, :, None] * hidden[:, None]).sum(2)"),
    ),
    "0422": Example(
        "Units are groups of channels, all of the same size: 16 channels make no 3 groups.",
        "decompose: {blocks: {b1: fc1, head: out}, units: {groups: 3}}\n" + _REPLICATED,
        "decompose: {blocks: {b1: fc1, head: out}, units: {groups: 4}}\n" + _REPLICATED,
        BUILD,
    ),
    "0423": Example(
        "Variables are solved together, from the last to the first: links beside them are `variable`, `gradient` or"
        " `stop`, what holds for the whole step is said alike, and a block that they stand for is fitted to them.",
        "decompose: {blocks: {b1: fc1, head: out}, links: variable}\n"
        'learn: [{blocks: "*", head: linear, loss: cross_entropy, optimizer: adam}]',
        "decompose: {blocks: {b1: fc1, head: out}, links: variable}\n"
        'learn: [{blocks: "*", head: linear, loss: [cross_entropy, consistency], optimizer: adam}]',
        BUILD,
    ),
    "0438": Example(
        "Formulas solve a network that is split into linear layers: with relu between, and a loss that they know.",
        "decompose: {blocks: {b1: fc1, head: out}, links: split}\nlearn: []\nloss: cross_entropy",
        "decompose: {blocks: {b1: fc1, head: out}, links: split}\nlearn: []\nloss: hinge",
        BUILD,
    ),
    "0439": Example(
        "A block's head reads the last tensor that leaves the block; what computes another one is judged by nothing.",
        f"{_FORK}decompose: {{blocks: {{b1: [left, right], head: [add1, out]}}}}",
        f"{_FORK}decompose: {{blocks: {{b1: left, b2: right, head: [add1, out]}}}}",
        BUILD,
    ),
    "0430": Example(
        "An entry says what is trained, and its pattern matches no parameter, or nothing is left to train.",
        f'{_LEARN}, {{params: "fc9.*", train: false}}]',
        f'{_LEARN}, {{params: "fc1.bias", train: false}}]',
        BUILD,
    ),
    "0431": Example(
        "A block gets a loss by its name, but nothing that this loss reaches is trained.",
        f'{_LEARN}, {{blocks: b1, loss: cross_entropy}}, {{params: "fc1.*", train: false}}]',
        f'{_LEARN}, {{params: "fc1.*", train: false}}]',
        BUILD,
    ),
    "0432": Example(
        "A block learns from the gradient that comes back through another one, and a phase trains the first alone.",
        "decompose: {blocks: {b1: fc1, head: out}, links: gradient}\nrun: {phases: [{train: b1, epochs: 1}]}",
        "decompose: {blocks: {b1: fc1, head: out}, links: gradient}\nrun: {phases: [{train: '*', epochs: 1}]}",
        BUILD,
    ),
    "0434": Example(
        "What comes back over a link `target` teaches one last layer, by a loss that compares with targets.",
        f"decompose: {{blocks: {{b1: fc1, head: out}}, links: target(step=10)}}\n{_LEARN}]",
        f"decompose: {{blocks: {{b1: fc1, head: out}}, links: target(step=10)}}\n{_AIMED}",
        BUILD,
    ),
    "0435": Example(
        "A matching loss exists where the function behind a layer rises everywhere; GELU, for one, does not.",
        f"{_GELU}decompose: {{blocks: per_layer, links: target(step=10)}}\n{_AIMED}",
        f"{_GELU}decompose: {{blocks: per_layer, links: target(step=10)}}\n{_AIMED.replace('matching', 'squared')}",
        BUILD,
    ),
    "0436": Example(
        "A solver by formula wants a linear or convolution layer, and what it speaks of: `prox`, or plain steps.",
        f"decompose: {{blocks: per_layer, links: target(step=10)}}\n{_SOLVED[:-1]}, solver: exact}}",
        f"decompose: {{blocks: per_layer, links: target(step=10)}}\n{_SOLVED[:-1]}, solver: exact, prox: 0.1}}",
        BUILD,
    ),
    "0437": Example(
        "An optimizer by Kronecker factors wants a block with a layer, and its exact gradient once on a batch.",
        'learn: {blocks: "*", head: linear, loss: cross_entropy, optimizer: kfac(lr=0.01), steps: 5}',
        'learn: {blocks: "*", head: linear, loss: cross_entropy, optimizer: kfac(lr=0.01)}',
        BUILD,
    ),
    "0433": Example(
        "Several steps on a batch need its whole local problem: accumulated gradients or corrections have none.",
        f"{_LEARN[:-1]}, steps: 5}}]\nrun: {{epochs: 1, accumulate: 2}}",
        f"{_LEARN[:-1]}, steps: 5}}]\nrun: {{epochs: 1}}",
        BUILD,
    ),
}
