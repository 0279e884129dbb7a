"""Which losses are there? One table: name -> how it is made, what it reads, its formula and its source."""

from __future__ import annotations

from lpc.compiler.losses.classification import METRICS, classes, cross_entropy, hinge
from lpc.compiler.losses.consistency import consistency
from lpc.compiler.losses.contrastive import infonce, nt_xent, supcon
from lpc.compiler.losses.goodness import SIDES, cwc, ff_bce, ff_softplus, peer
from lpc.compiler.losses.kind import LossFunction, LossKind, Sight
from lpc.compiler.losses.regression import binary_cross_entropy, elements, inverse, mse, recon, recon_input
from lpc.compiler.losses.similarity import sim, sim_x

LOSSES: dict[str, LossKind] = {
    "cross_entropy": LossKind(
        cross_entropy, "-log softmax(p)_y, mean over rows", "", width=classes, metrics=METRICS
    ),
    "hinge": LossKind(
        hinge,
        "max(1 - p_y, 0) + sum over other classes of max(p, 0), mean over elements",
        "Taylor et al. 2016, arXiv 1605.02026",
        width=classes,
        metrics=METRICS,
    ),
    "mse": LossKind(mse, "(p - y)^2, mean over elements", "", width=elements),
    "binary_cross_entropy": LossKind(
        binary_cross_entropy, "-y log p - (1 - y) log(1 - p), mean over elements; p = sigmoid(head)", "", width=elements
    ),
    "ff_bce": LossKind(
        ff_bce,
        "binary cross-entropy of sum(h^2) - threshold against `positive`, mean over B",
        "Hinton 2022, arXiv 2212.13345",
        heads=False,
        metrics=SIDES,
    ),
    "ff_softplus": LossKind(
        ff_softplus,
        "log(1 + exp(±(threshold - mean(h^2)))), mean over B",
        "Hinton 2022, arXiv 2212.13345",
        heads=False,
        metrics=SIDES,
    ),
    "peer": LossKind(
        peer,
        "(mean(m) - m_j)^2, mean over units j; m: running mean of h over positive samples",
        "Hinton 2022, arXiv 2212.13345",
        heads=False,
        separable=False,
    ),
    "cwc": LossKind(
        cwc,
        "-log softmax(g)_y, mean over B; g_c = mean(h^2) over class c's channels",
        "Papachristodoulou et al. 2024, arXiv 2312.12668",
        width=classes,
        heads=False,
        metrics=METRICS,
    ),
    "sim": LossKind(
        sim,
        "(S(p) - S(onehot(y)))^2, mean over pairs; S: cosines of rows centred by their means",
        "Nøkland and Eidnes 2019, arXiv 1901.06656",
        heads=False,
        separable=False,
    ),
    "sim_x": LossKind(
        sim_x,
        "(S(p) - S(block's input))^2, mean over pairs",
        "Nøkland and Eidnes 2019, arXiv 1901.06656",
        reads="input",
        heads=False,
        separable=False,
    ),
    "recon": LossKind(
        recon,
        "cross-entropy of sigmoid(p) with the network's input image in [0, 1], mean over elements",
        "Wang et al. 2021, InfoPro",
        reads="image",
        heads=False,
    ),
    "recon_input": LossKind(
        recon_input,
        "(p - block's input)^2, mean over elements",
        "Nøkland and Eidnes 2019, arXiv 1901.06656",
        reads="input",
        heads=False,
    ),
    "inverse": LossKind(
        inverse,
        "(g(f(x + e)) - (x + e))^2, summed over elements, mean over B; f: the block, g: the head, e: noise in training",
        "Lee et al. 2015, arXiv 1412.7525",
        reads="input",
        heads=False,
        confined=True,
    ),
    "infonce": LossKind(
        infonce,
        "-log softmax(c_r W_k z_(r+k+skip), negatives)_0, mean over positions, then over k; along rows or tokens",
        "Löwe et al. 2019, arXiv 1905.11786",
        reads="none",
        heads=False,
        separable=False,
    ),
    "nt_xent": LossKind(
        nt_xent,
        "-log softmax(cosines / temperature) at the other view, over all others, mean over B",
        "Chen et al. 2020, arXiv 2002.05709",
        reads="none",
        separable=False,
    ),
    "supcon": LossKind(
        supcon,
        "-log softmax(cosines / temperature) at samples of the class, mean over these, then over B",
        "Khosla et al. 2020, arXiv 2004.11362",
        separable=False,
    ),
    "consistency": LossKind(
        consistency,
        "the penalty of the `variable` link between h and what the block computes",
        "",
        reads="variable",
        heads=False,
    ),
}

__all__ = ["LOSSES", "METRICS", "LossFunction", "LossKind", "Sight"]
