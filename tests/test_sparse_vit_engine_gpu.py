"""What the engine does on a GPU, as far as a processor can tell."""

import pytest
import torch
from test_sparse_vit_engine import build, images, sparse
from test_sparse_vit_engine_adaptive import Thresholds
from torch import Tensor

from sparse_vit.engine import optimize
from sparse_vit.engine.gpu import Graphs, Outputs, Replay, bucket_of

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def test_buckets() -> None:
    assert [bucket_of(n) for n in (1, 2, 3, 5, 8, 9, 300)] == [1, 2, 4, 8, 8, 16, 512]


class Recorder:
    """Stands for a graph: replays by running the function on the memory it was captured with."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def __call__(self, function: object, memory: Tensor) -> Replay:
        self.sizes.append(len(memory))
        output, kept = function(memory)  # type: ignore[operator]

        def run() -> None:
            fresh, masks = function(memory)  # type: ignore[operator]
            output.copy_(fresh)
            for mask, new in zip(kept, masks, strict=True):
                mask.copy_(new)

        return Replay(memory, run, (output, kept))


@pytest.mark.parametrize("adaptive", [None, Thresholds((-0.7, -0.7, -0.7), 2, 11)])
def test_graphs_serve_any_batch_from_their_bucket(adaptive: Thresholds | None) -> None:
    run = optimize(sparse(build()), adaptive=adaptive)
    for stage in run.stages.values():
        stage.waits = False
    recorder = Recorder()
    graphs = Graphs(run._run, recorder)
    x = images(7)
    with torch.inference_mode():
        expected, masks = run._run(x)
        for part in (slice(0, 3), slice(3, 7), slice(2, 3), slice(0, 7), slice(1, 4)):
            output, kept = graphs(x[part])
            torch.testing.assert_close(output, expected[part], rtol=1e-4, atol=1e-5)
            assert all(torch.equal(a, b[part]) for a, b in zip(kept, masks, strict=True))
        # Results are the caller's: a later replay does not change them.
        before = output.clone()
        graphs(images(3, seed=9))
    assert torch.equal(output, before)
    assert recorder.sizes == [4, 1, 8]


@pytest.mark.parametrize("adaptive", [None, Thresholds((-0.7, -0.7, -0.7), 2, 11)])
@pytest.mark.parametrize("selector", ["predictor", "class_attention"])
def test_the_compiler_takes_all_in_one_graph(selector: str, adaptive: Thresholds | None) -> None:
    run = optimize(sparse(build(), selector=selector), adaptive=adaptive)
    for stage in run.stages.values():
        stage.waits = False
    x = images()
    with torch.inference_mode():
        expected: Outputs = run._run(x)
        output, kept = torch.compile(run._run, backend="eager", fullgraph=True)(x)
    torch.testing.assert_close(output, expected[0], rtol=1e-4, atol=1e-5)
    assert all(torch.equal(a, b) for a, b in zip(kept, expected[1], strict=True))


@GPU
@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_engine_on_a_gpu(dtype: torch.dtype) -> None:
    model, x = sparse(build()).cuda(), images(5).cuda()
    run = optimize(model, dtype=dtype)
    for batch in (5, 1, 3):
        with torch.no_grad():
            expected = model(x[:batch])
        similar = torch.nn.functional.cosine_similarity(run(x[:batch]), expected)
        assert similar.min() > 0.99
