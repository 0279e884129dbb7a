"""Is nothing that a spec says passed over? What would be ignored, or write elsewhere, is refused where it stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from lpc.specs import LpcError, check, load_spec

GOOD = """\
name: small
network: {inputs: {image: [1, 8, 8]}, layers: [flatten, fc1: linear(16), relu, out: linear(10)]}
data: {source: digits}
loss: cross_entropy
decompose: {blocks: {b1: fc1, head: out}, links: gradient}
learn: [{blocks: "*", loss: none, optimizer: sgd(lr=0.1)}]
run: {epochs: 1}
"""


@pytest.mark.parametrize(
    ("old", "new", "where", "says"),
    [
        ("name:", "extends: base.yaml\nname:", "spec.yaml:1:10", "0106.*holds the text `hello`"),
        ("small", "../../small", "spec.yaml:1:7", "0114.*folder"),
        ("small", "small" * 60, "spec.yaml:1:7", "0114.*folder"),
        ("small", '""', "spec.yaml:1:7", "0114.*folder"),
        ("data:", "fields: {image: {shape: [3]}}\ndata:", "spec.yaml:3:10", "0102.*input"),
        ("epochs: 1", "epochs: 1, dtype: float64, precision: bf16", "spec.yaml:7:45", "0114.*float64"),
        ("sgd(lr=0.1)", "SGD(lr=0.1)", "spec.yaml:6:46", "0120.*`sgd`?"),
        ("learn: [", "recipe: forward_gradient\nlearn: [", "recipe forward_gradient:4:22", "0132.*readout=[.]{3}"),
    ],
)
def test_it_is_refused(old: str, new: str, where: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("hello")
    (tmp_path / "spec.yaml").write_text(GOOD.replace(old, new, 1))
    with pytest.raises(LpcError, match=f"(?s){says}") as caught:
        check(load_spec(tmp_path / "spec.yaml"))
    assert any(str(problem.span).endswith(where) for problem in caught.value.diagnostics)


def test_a_long_line_is_shown_around_the_mistake() -> None:
    text = "{" + GOOD.replace("\n", ", ").removesuffix(", ") + ", learn: [" + "x, " * 500 + "]}"
    with pytest.raises(LpcError) as caught:
        load_spec(text)
    assert "`learn` is given twice" in str(caught.value)
    assert max(map(len, str(caught.value).splitlines())) < 200
