"""What do mistakes in networks look like? 02xx."""

from __future__ import annotations

from lpc.specs.examples.example import NETWORK, Example

_HEAD = "import torch\nfrom torch import nn\n\n"


def _net(forward: str, before: str = "", more: str = "", width: int = 64) -> str:
    """Return the text of a class `Net` of two layers `a` and `b`."""
    return (
        f"{before}class Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        f"        self.a, self.b = nn.Linear({width}, 32), nn.Linear(32, 10)\n{more}\n"
        f"    def forward(self, image):\n        image = image.flatten(1)\n{forward}"
    )


def _two(wrong: str, right: str, before: str = "") -> str:
    """Return a file with the wrong class and the right one."""
    return (
        _HEAD + before + wrong.replace("class Net", "class Wrong") + "\n\n" + right.replace("class Net", "class Right")
    )


_WRONG = 'network: {module: "nets:Wrong", inputs: {image: [1, 8, 8]}}'
_RIGHT = 'network: {module: "nets:Right", inputs: {image: [1, 8, 8]}}'
_LINEAR = 'network: {module: "torch.nn:Linear", config: {in_features: 64, out_features: 10}, inputs: {input: [64]}}'

_PLAIN = "        return self.b(self.a(image).relu())\n"
_SIGN = """\
class Sign(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.sign()

    @staticmethod
    def backward(ctx, gradient):
        return gradient


"""
_SIGNS = """\
class Signs(nn.Module):
    def forward(self, x):
        return Sign.apply(x)


"""
_CHOICE = "        if image.shape[1] > 4:\n            image = 2 * image\n"

NETWORKS: dict[str, Example] = {
    "0200": Example(
        "A layer cannot take what the layers before it give.",
        "network: {inputs: {image: [1, 8, 8]}, layers: [flatten, fc1: linear(16), out: conv(10, 3)]}",
        "network: {inputs: {image: [1, 8, 8]}, layers: [flatten, fc1: linear(16), out: linear(10)]}",
        NETWORK,
    ),
    "0201": Example(
        "A layer's name is a word that PyTorch leaves free for submodules.",
        "network: {inputs: {image: [1, 8, 8]}, layers: [flatten, forward: linear(16), out: linear(10)]}",
        "network: {inputs: {image: [1, 8, 8]}, layers: [flatten, fc1: linear(16), out: linear(10)]}",
        NETWORK,
    ),
    "0202": Example(
        "`from` reads inputs and layers before; most layers read one.",
        "network: {inputs: {image: [1, 8, 8]}, layers: [flatten, fc1: linear(16), relu(from=[fc1, flatten1])]}",
        "network: {inputs: {image: [1, 8, 8]}, layers: [flatten, fc1: linear(16), relu(from=fc1)]}",
        NETWORK,
    ),
    "0203": Example(
        "The inputs of a class are the arguments of its `forward`, by name.",
        'network: {module: "torch.nn:Linear", config: {in_features: 64, out_features: 10}, inputs: {image: [64]}}',
        _LINEAR,
        NETWORK,
    ),
    "0204": Example(
        "`module` names a class of a package that may be imported; others need `--allow PACKAGE`.",
        'network: {module: "torch.nn:Liner", config: {in_features: 64, out_features: 10}, inputs: {input: [64]}}',
        _LINEAR,
        NETWORK,
    ),
    "0205": Example(
        "What `module` names is there, but is no class of networks.",
        'network: {module: "torch:Tensor", inputs: {input: [64]}}',
        _LINEAR,
        NETWORK,
    ),
    "0206": Example(
        "The class refuses the arguments in `config`, or the network of the library those in `args`.",
        'network: {module: "torch.nn:Linear", config: {in_features: 64}, inputs: {input: [64]}}',
        _LINEAR,
        NETWORK,
    ),
    "0207": Example(
        "The weights are not where the spec says, or are another network's.",
        "network: {zoo: mlp, args: {widths: [64, 10]}, weights: none.safetensors}",
        "network: {zoo: mlp, args: {widths: [64, 10]}, weights: random}",
        NETWORK,
    ),
    "0208": Example(
        "A pattern under `init` matches no parameter, or its law cannot fill one that it matches.",
        'network: {inputs: {image: [64]}, layers: [fc1: linear(16), out: linear(10)], init: {"conv*": zeros}}',
        'network: {inputs: {image: [64]}, layers: [fc1: linear(16), out: linear(10)], init: {"fc*": zeros}}',
        NETWORK,
    ),
    "0209": Example(
        "Which lines of Python run depends on the values of tensors, so there is no one graph of the network.",
        _WRONG,
        _RIGHT,
        NETWORK,
        _two(
            _net("        if image.sum() > 0:\n            image = -image\n" + _PLAIN),
            _net("        image = torch.where(image.sum() > 0, -image, image)\n" + _PLAIN),
        ),
    ),
    "0210": Example(
        "The network itself fails when it is called with inputs of the declared shapes.",
        _WRONG,
        _RIGHT,
        NETWORK,
        _two(_net(_PLAIN, width=63), _net(_PLAIN)),
    ),
    "0211": Example(
        "The network writes a batch size into its graph, so that it would fit batches of this size only.",
        _WRONG,
        _RIGHT,
        NETWORK,
        _two(
            _net("        return self.b(self.a(image.view(4, -1)[:, :64]).relu())\n"),
            _net("        return self.b(self.a(image.view(image.shape[0], -1)).relu())\n"),
        ),
    ),
    "0212": Example(
        "Such a network is traced with torch.export, which would replace a custom backward by the ordinary one.",
        _WRONG,
        _RIGHT,
        NETWORK,
        _two(
            _net(_CHOICE + "        return self.b(Sign.apply(self.a(image)))\n"),
            _net(
                "        return self.b(self.signs(self.a(image)))\n",
                more="        self.signs = Signs()\n",
            ),
            _SIGN + _SIGNS,
        ),
    ),
    "0213": Example(
        "The network returns several tensors, and `output` names none of them.",
        _WRONG,
        'network: {module: "nets:Wrong", inputs: {image: [1, 8, 8]}, output: logits}',
        NETWORK,
        _two(
            _net("        hidden = self.a(image)\n        return {'hidden': hidden, 'logits': self.b(hidden)}\n"), ""
        ).rstrip()
        + "\n",
    ),
    "0214": Example(
        "Python's random numbers would be drawn once, when the network is traced, and be the same ever after.",
        _WRONG,
        _RIGHT,
        NETWORK,
        "import random\n"
        + _two(
            _net("        return self.b(random.random() * self.a(image))\n"),
            _net("        return self.b(torch.rand_like(image[:, :1]) * self.a(image))\n"),
        ),
    ),
    "0216": Example(
        "The package that `module` names, or one that it imports, is not installed.",
        'network: {module: "transformers.nothing:Linear", inputs: {input: [64]}}',
        _LINEAR,
        NETWORK,
    ),
    "0217": Example(
        "An adapter goes to linear and convolution layers, and its `targets` match none, or one that cannot have it.",
        'adapters: [lora(rank=2, targets="fc9")]',
        'adapters: [lora(rank=2, targets="fc1")]',
        NETWORK,
    ),
}
