"""What does a user read who wrote a network that cannot be built or traced? The table of mistakes."""

from __future__ import annotations

import re
from typing import Any

import pytest

from lpc.compiler.frontend.network import build_network
from lpc.compiler.frontend.trace import trace
from lpc.specs.codes import CODES
from lpc.specs.diagnostics import LpcError
from lpc.specs.source import Source, Span
from lpc.specs.term import Term

IMAGE = {"image": [1, 8, 8]}


def layers(tools: Any, *ops: Any) -> tuple[Any, ...]:
    return tuple(tools.layer(op[0], *op[1:]) if isinstance(op, tuple) else tools.layer(op) for op in ops)


# what it is: code, message, network as a function of the tools
BAD: dict[str, tuple[str, str, Any]] = {
    "conv on a row": ("0200", r"`conv\(4, 3\)`.*\[B, 8\]", lambda t: {"layers": layers(t, ("conv", 4, 3))}),
    "kernel beyond the image": (
        "0200",
        r"`conv\(4, 9\)` \(layer `conv1`\).*\[B, 1, 8, 8\]",
        lambda t: {"layers": layers(t, ("conv", 4, 9)), "shapes": IMAGE},
    ),
    "linear on a free length": (
        "0200",
        r"`linear\(3\)`.*\[B, T\]",
        lambda t: {"layers": layers(t, ("linear", 3)), "shapes": {"x": ["T"]}},
    ),
    "heads that do not divide": (
        "0200",
        r"`attention\(3\)`",
        lambda t: {"layers": layers(t, ("attention", 3)), "shapes": {"x": [5, 8]}},
    ),
    "embedding of floats": ("0200", "embedding", lambda t: {"layers": layers(t, ("embedding", 9, 4))}),
    "the batch as an axis": ("0200", r"`softmax\(0\)`", lambda t: {"layers": layers(t, ("softmax", 0))}),
    "reshape to another size": ("0200", "reshape", lambda t: {"layers": layers(t, ("reshape", [3, 3]))}),
    "residual that changes shape": (
        "0200",
        r"`residual1` cannot add its ends of shape \[B, 8\] and \[B, 4\]",
        lambda t: {"layers": (t.layer("residual", body=[t.layer("linear", 4)]),)},
    ),
    "sum of unequal shapes": (
        "0200",
        r"\[B, 4\] and \[B, 8\]",
        lambda t: {"layers": (t.layer("linear", 4, name="a"), t.layer("add", from_=["a", "x"]))},
    ),
    "unknown layer": ("0200", "there is no layer `liner`", lambda t: {"layers": layers(t, ("liner", 4))}),
    "name used twice": (
        "0201",
        "`a` is already the name",
        lambda t: {"layers": (t.layer("relu", name="a"), t.layer("tanh", name="a"))},
    ),
    "name of an input": ("0201", "`x` is already", lambda t: {"layers": (t.layer("relu", name="x"),)}),
    "reserved name": ("0201", "`forward` cannot name", lambda t: {"layers": (t.layer("relu", name="forward"),)}),
    "unknown source": ("0202", "`from` names no layer .*`y`", lambda t: {"layers": (t.layer("relu", from_="y"),)}),
    "two sources": ("0202", "`relu` reads one", lambda t: {"layers": (t.layer("relu", from_=["x", "x"]),)}),
    "no inputs": ("0203", "not declared", lambda t: {"layers": layers(t, "relu"), "shapes": {}}),
    "batch in the shape": ("0203", "length `B`", lambda t: {"layers": layers(t, "relu"), "shapes": {"x": ["B", 3]}}),
    "no word": ("0203", "`a b` cannot name", lambda t: {"layers": layers(t, "relu"), "shapes": {"a b": [3]}}),
    "input that forward lacks": (
        "0203",
        "takes no `y`",
        lambda t: {"module": "sample_networks:Small", "shapes": {"y": [8]}},
    ),
    "input that is missing": (
        "0203",
        "also needs mask",
        lambda t: {"module": "sample_networks:WantsWidth", "config": {"width": 3}},
    ),
    "package that is not allowed": ("0204", "importing `os` runs its code", lambda t: {"module": "os:PathLike"}),
    "no colon": ("0204", "not of the form", lambda t: {"module": "torch"}),
    "class that is not there": ("0204", "no `Linaer`", lambda t: {"module": "torch.nn:Linaer"}),
    "function": ("0205", "not a subclass", lambda t: {"module": "torch:load"}),
    "number": ("0205", "an object of type `int`", lambda t: {"module": "sample_networks:NOT_A_MODULE"}),
    "missing argument": ("0206", "refuses its arguments", lambda t: {"module": "sample_networks:WantsWidth"}),
    "unknown network": ("0206", "no network `lenet`", lambda t: {"zoo": "lenet"}),
    "unknown argument": ("0206", "no argument `clases`", lambda t: {"zoo": "lenet5", "args": {"clases": 3}}),
    "unknown activation": (
        "0206",
        "refuses",
        lambda t: {"zoo": "mlp", "args": {"widths": [8, 8, 2], "activation": "relo"}},
    ),
    "groups that do not divide": (
        "0206",
        "8 channels cannot be divided into 3 groups",
        lambda t: {"zoo": "localmixer", "args": {"channels": 8, "groups": 3}, "shapes": {}},
    ),
    "image without channels": (
        "0206",
        r"`image` is \[channels, height, width\]",
        lambda t: {"zoo": "localmixer", "args": {"image": [8, 8]}, "shapes": {}},
    ),
    "patches that do not divide": (
        "0200",
        "7 rows cannot be cut into patches of 2",
        lambda t: {"layers": layers(t, ("patches", 2)), "shapes": {"x": [3, 7, 8]}},
    ),
    "no groups": (
        "0200",
        r"\[..., groups, channels\]",
        lambda t: {"layers": layers(t, ("grouped_linear", 2)), "shapes": {"x": [8]}},
    ),
    "no weights": ("0207", "no file", lambda t: {"layers": layers(t, ("linear", 3)), "weights": "none.safetensors"}),
    "hub weights of another class": (
        "0207",
        "for transformers models",
        lambda t: {"module": "sample_networks:Small", "weights": "hf:gpt2"},
    ),
    "pattern that matches nothing": (
        "0208",
        r"`conv\*` matches no parameter",
        lambda t: {"layers": layers(t, ("linear", 3)), "init": {"conv*": Term("zeros")}},
    ),
    "law for matrices": (
        "0208",
        "cannot fill `linear1.bias` of shape",
        lambda t: {"layers": layers(t, ("linear", 3)), "init": {"*": Term("kaiming_normal")}},
    ),
    "data-dependent branch": ("0209", "can be traced neither", lambda t: {"module": "sample_networks:LooksAtData"}),
    "wrong width": ("0210", r"fails at `b` \(Linear\).*\[B, 16\]", lambda t: {"module": "sample_networks:WrongWidth"}),
    "fixed batch": ("0211", "fixes its batch size at `view`", lambda t: {"module": "sample_networks:FixesBatch"}),
    "compared batch": ("0211", "fixes a length", lambda t: {"module": "sample_networks:ComparesBatch"}),
    "compared batch inside": (
        "0211",
        "fixes its batch size at `part`",
        lambda t: {"module": "sample_networks:ComparesBatchInside"},
    ),
    "batch averaged away": ("0211", "does not follow", lambda t: {"module": "sample_networks:DropsBatch"}),
    "lost backward": ("0212", "custom autograd function", lambda t: {"module": "sample_networks:CustomRoot"}),
    "output not chosen": ("0213", "one must be chosen", lambda t: {"module": "sample_networks:TwoModes"}),
    "output not there": ("0213", "no `q`", lambda t: {"module": "sample_networks:TwoModes", "output": "q"}),
    "output that is a number": (
        "0213",
        "is no tensor",
        lambda t: {"module": "sample_networks:NoTensor", "output": "size"},
    ),
    "output of no layer": ("0213", "names no layer", lambda t: {"layers": layers(t, "relu"), "output": "rleu1"}),
    "chance in Python": ("0214", "random numbers", lambda t: {"module": "sample_networks:PythonChance"}),
    "missing package": ("0216", "not installed", lambda t: {"module": "sample_missing:Network"}),
    "adapter of nothing": (
        "0217",
        "`b7` matches no layer",
        lambda t: {"module": "sample_networks:Small", "adapters": [Term("lora", ("b7",))]},
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_mistake(tools: Any, what: str, capfd: Any) -> None:
    code, message, network = BAD[what]
    spec = tools.spec_of(network(tools))
    with pytest.raises(LpcError) as caught:
        trace(build_network(spec, [tools.networks]), spec)
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == code, diagnostic.render()
    assert re.search(message, diagnostic.render()), diagnostic.render()
    assert diagnostic.span or diagnostic.place
    out, err = capfd.readouterr()
    assert not out
    assert not err


def test_every_code_has_a_mistake() -> None:
    assert {code for code, _, _ in BAD.values()} == {code for code in CODES if code.startswith("02")}


def test_python_lines_are_named(tools: Any) -> None:
    for name in ("WrongWidth", "FixesBatch", "LooksAtData", "CustomRoot"):
        spec = tools.spec_of({"module": f"sample_networks:{name}"})
        with pytest.raises(LpcError) as caught:
            trace(build_network(spec, [tools.networks]), spec)
        assert re.search(r"sample_networks\.py:\d+", caught.value.diagnostics[0].place or ""), name


def test_a_layer_s_own_span_is_shown(tools: Any) -> None:
    source = Source("net.yaml", "layers: [relu, conv(4, 3)]")
    spec = tools.spec_of({"layers": layers(tools, "relu", ("conv", 4, 3))})
    spec._spans[("network", "layers", 1)] = Span(source, 1, 16, 1, 26)
    with pytest.raises(LpcError) as caught:
        build_network(spec)
    assert "net.yaml:1:16" in str(caught.value)
    assert "^^^^^^^^^^" in str(caught.value)


def test_an_unknown_config_option_of_transformers(tools: Any) -> None:
    pytest.importorskip("transformers")
    network = {"module": "transformers:GPT2LMHeadModel", "config": {"n_layers": 2}, "shapes": {"input_ids": [4]}}
    with pytest.raises(LpcError, match="GPT2Config` has no option `n_layers`") as caught:
        build_network(tools.spec_of(network))
    assert caught.value.diagnostics[0].code == "0206"
    assert "n_layer" in (caught.value.diagnostics[0].help or "")
