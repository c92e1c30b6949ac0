"""`reid.Embedder`: every form of input gives the features of the same pixels."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from reid import Embedder, UserError
from reid.config import RunConfig, from_dict
from reid.inference import BoxmotReID, DeepSortEncoder
from reid.models.embedder import Preprocess, ReidModel, preprocess_of, save_model

SIZE = (64, 32)
EPS = float(torch.finfo(torch.float32).eps)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    config: RunConfig = from_dict(
        {
            "data": {"image_size": list(SIZE)},
            "model": {"backbone": "mini", "init": "scratch", "stages": [3, 6, 9]},
        }
    )
    model = ReidModel(config.model, SIZE, 3).eval()
    path = tmp_path_factory.mktemp("run") / "model.safetensors"
    save_model(path, model, config, {})
    return path


@pytest.fixture(scope="module")
def embedder(checkpoint: Path) -> Embedder:
    return Embedder.load(checkpoint, device="cpu", color="rgb")


@pytest.fixture(scope="module")
def frame() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)


@pytest.fixture
def picture(frame: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(frame[:64, :32])


def reference(embedder: Embedder, pictures: list[np.ndarray]) -> np.ndarray:
    """Features of (H, W, 3) RGB pictures of the model's size, by the model alone."""
    batch = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).double() / 255.0
    x = ((batch - 0.5) / 0.5).float()
    with torch.no_grad():
        feature = embedder.model(x).double()
    return (feature / feature.norm(dim=1, keepdim=True)).numpy()


def close(found: np.ndarray, expected: np.ndarray) -> bool:
    # two roundings of every pixel before the network and one of every feature after it
    return float(np.abs(found - expected).max()) <= 64 * EPS


def test_all_forms_of_one_image_agree(
    embedder: Embedder, picture: np.ndarray, tmp_path: Path
) -> None:
    expected = reference(embedder, [picture])
    image = Image.fromarray(picture)
    path = tmp_path / "a.png"
    image.save(path)
    tensor = torch.from_numpy(picture).permute(2, 0, 1)
    forms = {
        "path": path,
        "text": str(path),
        "folder": tmp_path,
        "PIL": image,
        "array": picture,
        "list": [path],
        "list of arrays": [picture],
        "uint8 tensor": tensor,
        "batch": tensor[None],
        "float tensor": tensor.double() / 255.0,
        "array batch": picture[None],
    }
    for name, form in forms.items():
        found = embedder(form)
        assert found.shape == (1, embedder.dim), name
        assert found.dtype == np.float32, name
        assert close(found, expected), name
    assert close(embedder(picture[..., ::-1], color="bgr"), expected)
    assert close(embedder(tensor.flip(0), color="bgr"), expected)
    assert not close(embedder(picture, color="bgr"), expected)


def test_a_list_keeps_its_order_over_batches(checkpoint: Path, frame: np.ndarray) -> None:
    small = Embedder.load(checkpoint, device="cpu", batch_size=2, color="rgb")
    pictures = [np.ascontiguousarray(frame[i : i + 64, i : i + 32]) for i in range(5)]
    expected = np.concatenate([reference(small, [picture]) for picture in pictures])
    mixed = [Image.fromarray(pictures[0]), *pictures[1:]]
    assert close(small(mixed), expected)
    stacked = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
    assert close(small(stacked), expected)


def test_options_of_the_result(checkpoint: Path, picture: np.ndarray) -> None:
    plain = Embedder.load(
        checkpoint.parent,
        device="cpu",
        normalize=False,
        output="torch",
        color="rgb",
        engine=False,
    )
    found = plain(picture)
    assert isinstance(found, torch.Tensor)
    assert not found.is_inference()
    with torch.no_grad():
        x = torch.from_numpy(picture).permute(2, 0, 1)[None]
        expected = plain.model(plain.preprocess(x))
    assert torch.equal(found, expected)
    assert found.norm() != pytest.approx(1.0, abs=0.01)


def test_none_at_all(embedder: Embedder, frame: np.ndarray, tmp_path: Path) -> None:
    empty = (0, embedder.dim)
    assert embedder([]).shape == empty
    assert embedder(torch.empty(0, 3, *SIZE)).shape == empty
    assert embedder(np.empty((0, 9, 9, 3), np.uint8)).shape == empty
    assert embedder(frame, boxes=[]).shape == empty
    assert embedder(frame, boxes=np.empty((0, 4))).shape == empty
    with pytest.raises(UserError, match="holds no image"):
        embedder(tmp_path)


def test_boxes_are_clipped_crops(embedder: Embedder, frame: np.ndarray, tmp_path: Path) -> None:
    boxes = [[10.0, 5.0, 42.0, 69.0], [-8, -16, 24, 48], [100, 60, 400, 400], [3, 3, 3.1, 3.1]]
    crops = [frame[5:69, 10:42], frame[0:48, 0:24], frame[60:90, 100:120], frame[3:4, 3:4]]
    size = (SIZE[1], SIZE[0])
    resized = [
        np.asarray(
            Image.fromarray(np.ascontiguousarray(cut)).resize(size, Image.Resampling.BICUBIC)
        )
        for cut in crops
    ]
    expected = np.concatenate([reference(embedder, [cut]) for cut in resized])
    assert close(embedder(frame, boxes=boxes), expected)
    as_tlwh = [[x, y, x2 - x, y2 - y] for x, y, x2, y2 in boxes]
    assert close(embedder(frame, boxes=as_tlwh, box_format="tlwh"), expected)
    path = tmp_path / "frame.png"
    Image.fromarray(frame).save(path)
    assert close(embedder(path, boxes=boxes), expected)
    assert close(embedder(Image.fromarray(frame), boxes=boxes), expected)
    assert close(embedder(frame, boxes=boxes[0]), expected[:1])


def test_a_box_outside_the_frame(embedder: Embedder, frame: np.ndarray) -> None:
    boxes = [[0, 0, 32, 64], [120, 0, 150, 64], [-9, -9, 0, 0]]
    with pytest.raises(UserError, match=r"box 1 .*outside the frame of 120x90"):
        embedder(frame, boxes=boxes)
    found = embedder(frame, boxes=boxes, outside="zeros")
    assert np.array_equal(found[0], embedder(frame, boxes=boxes[:1])[0])
    assert not found[1:].any()


def test_trackers_get_what_they_expect(embedder: Embedder, frame: np.ndarray) -> None:
    bgr = np.ascontiguousarray(frame[..., ::-1])
    tlwh, xyxy = [[10, 5, 32, 64]], [[10, 5, 42, 69]]
    expected = embedder(frame, boxes=xyxy)
    deep_sort, boxmot = DeepSortEncoder(embedder), BoxmotReID(embedder)
    assert np.array_equal(deep_sort(bgr, tlwh), expected)
    assert np.array_equal(boxmot(bgr, xyxy), expected)
    assert np.array_equal(boxmot.get_features(xyxy, bgr), expected)
    assert np.array_equal(boxmot([bgr[5:69, 10:42]]), expected)
    assert deep_sort(bgr, np.empty((0, 4))).shape == (0, embedder.dim)
    assert not deep_sort(bgr, [[500, 0, 10, 10]]).any()


def test_a_tracker_follows_two_people_through_a_clip(tmp_path: Path, checkpoint: Path) -> None:
    """DeepSORT's loop in small: zero, one and many boxes; gallery by nearest cosine distance."""
    config = from_dict(
        {"data": {"image_size": list(SIZE)}, "model": {"backbone": "mini", "init": "mini"}}
    )
    model = ReidModel(config.model, SIZE, 1)
    encoder = DeepSortEncoder(Embedder(model, preprocess_of(config.data), device="cpu"))
    people = [_person((200, 40, 40), (30, 30, 90)), _person((40, 180, 60), (200, 200, 60))]
    tracks: dict[int, np.ndarray] = {}
    for step, present in enumerate([(), (0,), (0, 1), (1, 0), (), (1,), (0, 1)]):
        clip = np.full((80, 160, 3), 128, np.uint8)
        boxes = []
        for place, person in enumerate(present):
            left, top = 10 + 60 * place + 2 * step, 8
            clip[top : top + 64, left : left + 32] = people[person]
            boxes.append([left, top, 32, 64])
        features = encoder(clip[..., ::-1], boxes)
        assert features.shape == (len(present), encoder._embedder.dim)
        for person, feature in zip(present, features, strict=True):
            if person in tracks:
                nearest = min(tracks, key=lambda other: 1.0 - float(tracks[other] @ feature))
                assert nearest == person, step
            tracks[person] = feature


def _person(top: tuple[int, int, int], bottom: tuple[int, int, int]) -> np.ndarray:
    picture = np.full((64, 32, 3), 128, np.uint8)
    picture[4:14, 11:21] = (210, 170, 140)
    picture[14:36, 7:25] = top
    picture[36:62, 9:23] = bottom
    return picture


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda f: np.empty((0, 5, 3), np.uint8), "holds no pixel"),
        (lambda f: f.astype(np.float32), "float32; expected uint8"),
        (lambda f: f[..., 0], r"shape \(90, 120\)"),
        (lambda f: f.transpose(2, 0, 1), "channels last"),
        (lambda f: torch.from_numpy(f), "channels first"),
        (lambda f: torch.full((1, 3, 8, 8), float("nan")), "image 0 .* NaN"),
        (lambda f: torch.full((1, 3, 8, 8), 3.0), "go from 3 to 3"),
        (lambda f: torch.zeros(1, 3, 8, 8, dtype=torch.int64), "int64"),
        (lambda f: torch.zeros(1, 3, 0, 8), "holds no pixel"),
        (lambda f: 7, "cannot read a int"),
        (lambda f: [f, 7], "cannot read a int"),
        (lambda f: "no/such.jpg", "no/such.jpg"),
    ],
)
def test_bad_images_are_named(
    embedder: Embedder, frame: np.ndarray, make: object, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        embedder(make(frame))  # type: ignore[operator]


@pytest.mark.parametrize(
    ("boxes", "options", "message"),
    [
        ([[1, 2, 3]], {}, r"shape \(1, 3\)"),
        ([[1, 2, float("nan"), 4]], {}, "box 0 .*finite"),
        ([[1, 2, 9, 9], [5, 5, 2, 9]], {}, "box 1 .*no area as xyxy"),
        ([[1, 2, 0, 9]], {"box_format": "tlwh"}, "box 0 .*no area as tlwh"),
        ([[1, 2, 3, 4]], {"box_format": "xywh"}, "'xywh'"),
        ([[1, 2, 3, 4]], {"outside": "drop"}, "'drop'"),
        ([["a", 2, 3, 4]], {}, "not a table of numbers"),
        ([[1, 2, 3, 4]], {"color": "gbr"}, "'gbr'"),
    ],
)
def test_bad_boxes_are_named(
    embedder: Embedder, frame: np.ndarray, boxes: object, options: dict[str, str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        embedder(frame, boxes=boxes, **options)  # type: ignore[arg-type]


def test_the_colour_order_of_arrays_must_be_named(checkpoint: Path, frame: np.ndarray) -> None:
    unnamed = Embedder.load(checkpoint, device="cpu")
    with pytest.raises(UserError, match="color='bgr' for frames of OpenCV"):
        unnamed(frame)
    with pytest.raises(UserError, match="color='bgr'"):
        unnamed(frame, boxes=[[1, 1, 9, 9]])
    assert unnamed(Image.fromarray(frame)).shape == (1, unnamed.dim)


def test_preprocessing_is_read_from_the_file(checkpoint: Path) -> None:
    found = Embedder.load(checkpoint, device="cpu").preprocess
    assert found == Preprocess(image_size=SIZE)
