"""What do mistakes in the text of a spec look like? 01xx."""

from __future__ import annotations

from lpc.specs.examples.example import SHOWN, Example

_DSL = "spec small\nnetwork zoo mlp, args {widths: [64, 10]}\ndata digits\nloss cross_entropy\n"
_DSL += "decompose blocks per_layer\nlearn *: optimizer adam\n"

SPEC: dict[str, Example] = {
    "0100": Example(
        "The file is missing, is no plain file, or is not UTF-8 text.",
        "lpc check spce.yaml",
        "lpc check spec.yaml",
        by=SHOWN,
    ),
    "0101": Example(
        "The text is not YAML: a bracket or quote is open, or lines are indented unevenly.",
        "run: {epochs: 1",
        "run: {epochs: 1}",
    ),
    "0102": Example(
        "A mapping has one value for each key, a term one for each argument.",
        "run: {epochs: 1, epochs: 2}",
        "run: {epochs: 2}",
    ),
    "0103": Example(
        "A spec is bounded in size, depth and number of layers, so that no text can fill the memory.",
        "network: {inputs: {image: [1, 8, 8]}, layers: [flatten, repeat(100000): [linear(64)], out: linear(10)]}\n"
        "decompose: {blocks: per_layer}",
        "network: {inputs: {image: [1, 8, 8]}, layers: [flatten, repeat(10): [linear(64)], out: linear(10)]}\n"
        "decompose: {blocks: per_layer}",
    ),
    "0104": Example(
        "A term is a name, with arguments in parentheses if it has any.",
        'loss: "mse(weight=)"',
        "loss: mse(weight=2.0, target=image)",
    ),
    "0105": Example(
        "`${NAME}` under `data` is an environment variable; it is read when the data is opened.",
        'data: {source: mnist, root: "${DATA}"}      # and DATA is not set',
        "export DATA=/data",
        by=SHOWN,
    ),
    "0106": Example(
        "`extends` names the file of another spec, relative to its own file; never itself, even through others.",
        "extends: bsae.yaml",
        "extends: base.yaml",
        by=SHOWN,
    ),
    "0107": Example(
        "`--set` is a path of keys and positions, `=`, and a value; the path must lead to something.",
        'lpc check spec.yaml --set "learn[7].head=mlp"',
        'lpc check spec.yaml --set "learn[0].head=mlp"',
        by=SHOWN,
    ),
    "0108": Example(
        "The text is not in the DSL: a word, a sign or the indentation stands where it cannot.",
        _DSL + "run epochs: 1",
        _DSL + "run epochs 1",
    ),
    "0110": Example(
        "A section has a key that the language does not have there.", "run: {epoch: 1}", "run: {epochs: 1}"
    ),
    "0111": Example(
        "The language has this word, but this version of lpc cannot build it yet.",
        "network: {zoo: vgg}",
        "network: {zoo: resnet18}",
    ),
    "0112": Example(
        "A section lacks a key that has no default.",
        "decompose: {links: stop}",
        "decompose: {blocks: per_layer, links: stop}",
    ),
    "0113": Example(
        "The value is of another kind than the key takes: a text for a number, a mapping for a list.",
        "run: {epochs: ten}",
        "run: {epochs: 10}",
    ),
    "0114": Example(
        "The value is of the right kind, but not one that makes sense.",
        "data: {source: digits, batch: 0}",
        "data: {source: digits, batch: 64}",
    ),
    "0120": Example(
        "A term's name is not in the vocabulary of its place; docs/vocabulary.md lists them.",
        "loss: cross_entropie",
        "loss: cross_entropy",
    ),
    "0121": Example(
        "The term is known, but it has no argument of this name.",
        'learn: {blocks: "*", head: linear, loss: cross_entropy, optimizer: sgd(rate=0.1)}',
        'learn: {blocks: "*", head: linear, loss: cross_entropy, optimizer: sgd(lr=0.1)}',
    ),
    "0122": Example(
        "The term has an argument without a default, and it is not given.",
        "decompose: {blocks: balanced}",
        "decompose: {blocks: balanced(2)}",
    ),
    "0123": Example(
        "The argument is not of the type that the term takes.",
        "loss: cross_entropy(label_smoothing=10)",
        "loss: cross_entropy(label_smoothing=0.1)",
    ),
    "0124": Example(
        "The term has more arguments than it takes, or one both by position and by name.",
        "decompose: {blocks: balanced(2, memory, 3)}",
        "decompose: {blocks: balanced(2, memory)}",
    ),
    "0130": Example(
        "A network is written as layers, or names a class, or one of the library: one of the three.",
        "network: {zoo: lenet5, module: torchvision:LeNet, inputs: {image: [1, 28, 28]}}",
        "network: {zoo: lenet5, inputs: {image: [1, 28, 28]}}\ndecompose: {blocks: per_layer}",
    ),
    "0131": Example(
        "A module belongs to one block.",
        "decompose: {blocks: {b1: fc1, b2: [fc1, out]}}",
        "decompose: {blocks: {b1: fc1, b2: out}}",
    ),
    "0132": Example(
        "A `learn` entry speaks of blocks by name or by a pattern, and each must match a block.",
        'learn: [{blocks: "*", loss: cross_entropy, optimizer: adam}, {blocks: b7, head: mlp}]',
        'learn: [{blocks: "*", loss: cross_entropy, optimizer: adam}, {blocks: b1, head: mlp}]',
    ),
    "0133": Example(
        "Every block needs an optimizer from some `learn` entry.",
        'learn: {blocks: "*", head: linear, loss: cross_entropy}',
        'learn: {blocks: "*", head: linear, loss: cross_entropy, optimizer: adam}',
    ),
    "0134": Example(
        "Nothing says what to minimise: there is neither a loss at the top level nor one in `learn`.",
        'loss: none\nlearn: {blocks: "*", optimizer: adam}\ndecompose: {blocks: per_layer, links: gradient}',
        'loss: cross_entropy\nlearn: {blocks: "*", optimizer: adam}\ndecompose: {blocks: per_layer, links: gradient}',
    ),
    "0135": Example(
        "Behind `stop` no gradient arrives, so a block without a loss of its own would never learn.",
        'learn: {blocks: "*", optimizer: adam}',
        'learn: {blocks: "*", optimizer: adam, head: linear, loss: cross_entropy}',
    ),
    "0136": Example(
        "A head only serves a local loss; without one it would not learn or be used.",
        'learn: {blocks: "*", head: mlp, optimizer: adam}\ndecompose: {blocks: {b1: fc1, b2: out}, links: gradient}',
        'learn: {blocks: "*", optimizer: adam}\ndecompose: {blocks: {b1: fc1, b2: out}, links: gradient}',
    ),
    "0137": Example(
        "Links stand under a boundary, `a->b` with the names of two blocks, or under `*` for all others.",
        'decompose: {blocks: {b1: fc1, head: out}, links: {"b1->haed": stop, "*": stop}}',
        'decompose: {blocks: {b1: fc1, head: out}, links: {"b1->head": stop, "*": stop}}',
    ),
    "0138": Example(
        "`test` and `validation` take a share of the training data, or the name of a split.",
        "data: {source: digits, validation: 10}",
        "data: {source: digits, validation: 0.1}",
    ),
    "0139": Example(
        "A run ends after `epochs`, after `steps` or with its `phases`; one of them must be given, and no other.",
        "run: {epochs: 1, steps: 100}",
        "run: {steps: 100}",
    ),
    "0145": Example(
        "A run may predict with a readout, by its name; a readout bears no block's name.",
        "run: {epochs: 1, predict: readout(probe)}",
        "readouts: {probe: {from: [b1], optimizer: sgd(lr=0.1)}}\nrun: {epochs: 1, predict: readout(probe)}",
    ),
    "0146": Example(
        "Each phase of a run says what it trains and how long it is: `epochs` or `steps`.",
        "run: {phases: [{train: b1}, {train: head, epochs: 1}]}",
        "run: {phases: [{train: b1, epochs: 1}, {train: head, epochs: 1}]}",
    ),
    "0140": Example(
        "A list of layers cannot be read: a name is used twice, a structure is empty, `from` leads nowhere.",
        "network: {inputs: {image: [1, 8, 8]}, layers: [flatten, fc1: linear(16), fc1: relu, out: linear(10)]}",
        "network: {inputs: {image: [1, 8, 8]}, layers: [flatten, fc1: linear(16), act: relu, out: linear(10)]}",
    ),
    "0141": Example(
        "Sizes are inferred from the shape of one sample, without the batch axis.",
        "network: {layers: [flatten, fc1: linear(16), out: linear(10)]}",
        "network: {inputs: {image: [1, 8, 8]}, layers: [flatten, fc1: linear(16), out: linear(10)]}",
    ),
    "0142": Example(
        "A loss needs a target; without a data source the spec says what batches from Python hold.",
        "data: none",
        "data: none\nfields: {label: {shape: [], dtype: int64}}",
    ),
    "0143": Example(
        "A `learn` entry speaks of blocks, or of parameters: each kind has keys of its own.",
        'learn: [{blocks: "*", loss: cross_entropy, optimizer: adam}, {head: mlp}]',
        'learn: [{blocks: "*", loss: cross_entropy, optimizer: adam}, {blocks: b1, head: mlp}]',
    ),
    "0144": Example(
        "A loss that compares samples with each other is another one on part of a batch; `split=allowed` accepts that.",
        'learn: [{blocks: "*", loss: sim, optimizer: adam(lr=1e-3)}]\nrun: {epochs: 1, accumulate: 2}',
        'learn: [{blocks: "*", loss: sim(split=allowed), optimizer: adam(lr=1e-3)}]\nrun: {epochs: 1, accumulate: 2}',
    ),
    "0147": Example(
        "Some solvers and losses, and the key `reduction`, are for the problem that a link `target` makes.",
        'learn: [{blocks: "*", head: linear, loss: cross_entropy, optimizer: adam, solver: exact}]',
        'learn: [{blocks: "*", head: linear, loss: cross_entropy, optimizer: adam, solver: gradient}]',
    ),
    "0160": Example(
        "A file under `recipes` is missing or is no recipe.",
        "recipes: {ours: orus.yaml}\nrecipe: ours(rate=0.1)",
        "recipes: {ours: ours.yaml}\nrecipe: ours(rate=0.1)",
        by=SHOWN,
    ),
}  # fmt: skip
