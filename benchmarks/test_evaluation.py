"""From features to metrics at the size of MSMT17, against rankers that sort whole rows."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import evaluation
from reid.evaluation import Features, evaluate

SIZE = {"queries": 11_659, "gallery": 82_161, "width": 384, "people": 3_060}
SMALL = {"queries": 60, "gallery": 500, "width": 16, "people": 20}
PART = 24
"""The rivals take one query in so many, and what they take is scaled: whole they need 15 GB."""
ROUNDS = 3


def admit() -> None:
    """Fail where a rival's numbers differ on the distances that ours defines, sorted stably."""
    (q, *ids), (g, *others) = evaluation.make(**SMALL)
    g[::7] = g[0]
    unit = torch.nn.functional.normalize
    distances = (1.0 - unit(q.double()) @ unit(g.double()).t()).float().numpy()
    result = evaluate(Features(q, *ids), Features(g, *others))
    own = evaluation.numbers(result.mAP, result.mINP, result.cmc)
    rivals = [evaluation.numpy_ranker(distances, *ids, *others, kind="stable")]
    if evaluation.compiler():
        rivals.append(evaluation.compiled_ranker()(distances, *ids, *others))
    for rival in rivals:
        assert rival == pytest.approx(own, rel=1e-12)


@pytest.mark.benchmark(group="evaluation")
def test_msmt17(contest: Callable[..., dict[str, Any]], device: torch.device, tiny: bool) -> None:
    """Time all queries with ours and a part with the rivals, in turns."""
    if device.type != "cpu":
        pytest.skip("the rankers that sort rows are timed on a CPU")
    admit()
    size = SMALL if tiny else SIZE
    part = -(-size["queries"] // PART)
    rivals = {"NumPy argsort": "with_numpy"}
    if evaluation.compiler():
        rivals["std::sort"] = "with_sort"
    scale = size["queries"] / part
    found = contest(
        "benchmarks.evaluation",
        {
            "ours": ("ours", {"part": size["queries"], **size}),
            **{name: (function, {"part": part, **size}) for name, function in rivals.items()},
        },
        op="evaluation",
        mode="cosine",
        case=f"{size['queries']} x {size['gallery']}, width {size['width']}",
        size=(size["queries"], size["gallery"]),
        scales=dict.fromkeys(rivals, scale),
        rounds=1 if tiny else ROUNDS,
    )
    same = evaluation.ours(part, **size)()
    for name in rivals:
        for metric, value in found[name]["result"].items():
            # float32 products order rows at nearly one distance as they please
            assert np.isclose(value, same[metric], rtol=1e-3, atol=1e-3), (name, metric)
