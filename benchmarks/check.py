"""The gate in front of every clock: what is timed agrees with float64."""

import math
import warnings
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks import problems
from benchmarks.peers.base import Bound, Peer
from benchmarks.shapes import Case
from kernels import reference


class Verdict(NamedTuple):
    """`status` "ok", "wrong" or "unavailable", the reason, and the call when it may be timed."""

    status: str
    reason: str
    bound: Bound | None


def admit(peer: Peer, case: Case, inputs: Any, device: torch.device) -> Verdict:
    """Bind a peer, call it once and compare; what ours raises is raised."""
    reasons = peer.reasons(case, device)
    if reasons:
        return Verdict("unavailable", "; ".join(reasons), None)
    try:
        # No loss reads the rows for which it promises nothing.
        checked = inputs
        if peer.kept_only:
            checked = inputs._replace(grad=problems.gate(inputs.grad, inputs.keep))
        with peer.context(), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            bound = peer.bind(checked, case)
            found = bound.named(bound.call())
    except Exception as error:
        if peer.own:
            raise
        return Verdict("unavailable", _reason(error, [str(w.message) for w in caught]), None)
    fault = compare(peer, case, inputs, found, device)
    return Verdict("wrong", fault, None) if fault else Verdict("ok", "", bound)


def compare(
    peer: Peer, case: Case, inputs: Any, found: dict[str, Tensor], device: torch.device
) -> str:
    """Say what is wrong with the tensors of a peer; empty when nothing is."""
    if "attention" in case.op:
        return _compare_attention(peer, case, inputs, found, device)
    faults = []
    for name, right in _rows(case, inputs).items():
        if name not in found:
            faults.append(f"{name} is missing")
        elif right.dtype.is_floating_point and case.mode == "gather_norm" and name == "normed":
            worst = float((found[name].double() - right).abs().max())
            allowed = 8 * torch.finfo(case.dtype).eps * float(right.abs().max())
            if not worst <= allowed:
                faults.append(f"{name} is off by {worst:.1e}, allowed {allowed:.1e}")
        elif not torch.equal(found[name].to(right.dtype), right):
            faults.append(f"{name} differs")
    return "; ".join(faults)


def _rows(case: Case, inputs: Any) -> dict[str, Tensor]:
    if case.op == "token_select":
        mask = (
            reference.select_top_k(inputs.scores, inputs.k)
            if case.mode == "top_k"
            else reference.select_threshold(inputs.scores, inputs.threshold, 1)
        )
        indices, cu_seqlens = reference.pack(mask)
        return {"mask": mask, "indices": indices, "cu_seqlens": cu_seqlens}
    if case.mode == "scatter":
        total = case.batch * case.tokens
        return {"rows": reference.scatter_rows(inputs.x, inputs.indices, total)}
    rows = reference.gather_rows(inputs.x, inputs.indices)
    if case.mode == "gather":
        return {"rows": rows}
    normed = torch.nn.functional.layer_norm(
        rows.double(), rows.shape[-1:], inputs.weight.double(), inputs.bias.double(), 1e-6
    )
    return {"rows": rows, "normed": normed}


def _compare_attention(
    peer: Peer, case: Case, inputs: Any, found: dict[str, Tensor], device: torch.device
) -> str:
    right = problems.expected(case, device, peer.definition, peer.kept_only, torch.float64)
    plain = problems.expected(case, device, peer.definition, peer.kept_only, case.dtype)
    # Largest term that cancels in the sums of the gradients, dO_i . v_j.
    terms = float(inputs.grad.norm(dim=-1).max() * inputs.v.norm(dim=-1).max())
    sums = math.sqrt(case.tokens) * torch.finfo(torch.float32).eps
    allowance = sums + torch.finfo(case.dtype).eps + peer.slack
    faults = []
    for name, value in found.items():
        x, a, e = right[name], value.detach().double(), plain[name].double()
        if peer.kept_only and name == "o":
            x, a, e = (problems.gate(t, inputs.keep) for t in (x, a, e))
        size = float(x.abs().max())
        size = size if name == "o" else max(size, terms)
        for measure in (torch.max, torch.mean):
            error = float(measure((a - x).abs()))
            allowed = 2 * float(measure((e - x).abs())) + allowance * size
            if not error <= allowed:
                faults.append(
                    f"{measure.__name__} error of {name} is {error:.1e}, allowed {allowed:.1e}"
                )
    return "; ".join(faults)


def _reason(error: Exception, caught: list[str]) -> str:
    """Return the first sentence of an error and of the warnings before it."""
    texts = [str(error).strip() or type(error).__name__, *caught]
    firsts = [" ".join(text.split()).split(" This could be")[0][:200] for text in texts]
    return "; ".join(dict.fromkeys(firsts[:4]))
