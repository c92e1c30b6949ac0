"""Settings shared by every test: few threads, no compiled graphs of old, a fixed seed."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
# A graph compiled by another revision calls operators by the schemas of that revision.
os.environ.setdefault("TORCHINDUCTOR_FORCE_DISABLE_CACHES", "1")

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The root of a tiny generated data set of 64 x 32 images."""
    from reid.data import mannequins

    root = tmp_path_factory.mktemp("mannequins") / "occluded"
    mannequins.generate(
        root, protocol="occluded-mannequins", size="tiny", image_size=(64, 32), workers=1
    )
    return str(root)


@pytest.fixture
def tiny_overrides(tiny_data: str) -> list[str]:
    """Overrides of the demo recipe that make a run of seconds."""
    return [
        f"data.root={tiny_data}",
        "data.size=tiny",
        "data.image_size=[64, 32]",
        "model.init=scratch",
        "train.identities=4",
        "train.instances=2",
        "train.log_every=1",
        "train.max_steps=4",
    ]
