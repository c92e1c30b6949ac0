"""Who is drawn: the stable parameters of one identity and its Market-1501 attributes."""

from dataclasses import dataclass
from functools import lru_cache

from reid.data.attributes import MARKET_ATTRIBUTES
from reid.data.mannequins import palette
from reid.data.mannequins.palette import Colour
from reid.data.mannequins.random import IDENTITY, Stream

PATTERNS = (
    ("plain", 0.34), ("bands", 0.2), ("columns", 0.09), ("checks", 0.1), ("halves", 0.12),
    ("yoke", 0.08), ("diagonal", 0.07),
)  # fmt: skip
PRINTS = ("disc", "ring", "square", "triangle", "bar", "cross", "diamond", "letters")
HAIR_STYLES = ("crop", "side", "bob", "long", "tail", "bun", "bald")
HATS = ("cap", "beanie", "brim")


@dataclass(frozen=True, slots=True)
class Identity:
    """Everything about a figure that does not change between images.

    Lengths are fractions of the body height.
    """

    number: int
    attributes: dict[str, int]
    # body
    leg: float
    shoulder: float
    hip: float
    girth: float
    limb: float
    head: float
    skin: Colour
    stoop: float
    # head
    hair: Colour
    hair_style: str
    beard: bool
    glasses: bool
    hat: str
    hat_colour: Colour
    hat_band: Colour | None
    # upper garment
    upper: Colour
    upper_second: Colour
    pattern: str
    period: float
    duty: float
    sleeve: float
    sleeve_plain: bool
    hem: float
    cuff: Colour | None
    zip_colour: Colour | None
    open_front: Colour | None
    print_shape: str
    print_colour: Colour
    print_size: float
    print_height: float
    hood: bool
    scarf: Colour | None
    # lower garment
    lower: Colour
    skirt: bool
    lower_length: float
    lower_width: float
    lower_stripe: Colour | None
    lower_band: Colour | None
    belt: Colour | None
    socks: Colour
    # feet
    shoes: Colour
    sole: Colour
    boot: float
    # carried
    backpack: Colour | None
    backpack_size: float
    backpack_pocket: Colour
    bag: Colour | None
    bag_side: float
    bag_size: float
    handbag: Colour | None
    handbag_side: float
    handbag_size: float


def _maybe(stream: Stream, probability: float, colours: tuple[Colour, ...]) -> Colour | None:
    colour = stream.choice(colours)
    return colour if stream.chance(probability) else None


@lru_cache(maxsize=4096)
def identity(seed: int, number: int) -> Identity:
    """The identity of this number in the population of this seed."""
    stream = Stream(seed, IDENTITY, number)
    age = stream.weighted(((1, 0.05), (2, 0.3), (3, 0.5), (4, 0.15)))
    female = stream.chance(0.45)
    build = stream.normal()
    up_name = stream.weighted(palette.UPPER_SHARES)
    down_name = stream.weighted(palette.LOWER_SHARES)
    upper = stream.choice(palette.UPPER[up_name])
    pattern = stream.weighted(PATTERNS)
    second_name = stream.choice([name for name in palette.UPPER if name != up_name])
    short_sleeve = stream.chance(0.45)
    skirt = stream.chance(0.35 if female else 0.0)
    short_lower = stream.chance(0.75 if skirt else 0.28)
    style = stream.weighted(
        (("long", 0.36), ("tail", 0.22), ("bob", 0.2), ("bun", 0.14), ("crop", 0.08))
        if female
        else (("crop", 0.46), ("side", 0.28), ("bald", 0.14), ("tail", 0.06), ("bob", 0.06))
    )
    grey = stream.chance(0.75 if age == 4 else 0.02)
    hair = palette.GREY_HAIR if grey else stream.choice(palette.HAIR)
    hat = stream.choice(HATS) if stream.chance(0.26) else ""
    hat_colour = stream.choice(palette.CARRIED)
    backpack = _maybe(stream, 0.3, palette.CARRIED)
    bag = _maybe(stream, 0.28, palette.CARRIED)
    handbag = _maybe(stream, 0.3 if female else 0.16, palette.CARRIED)
    printed = stream.chance(0.6 if pattern == "plain" else 0.18)
    fastening = stream.random()
    child = age == 1

    attributes = {
        "age": age,
        "gender": 2 if female else 1,
        "hair": 2 if style in ("long", "tail", "bob") else 1,
        "up": 2 if short_sleeve else 1,
        "down": 2 if short_lower else 1,
        "clothes": 1 if skirt else 2,
        "hat": 2 if hat else 1,
        "backpack": 2 if backpack else 1,
        "bag": 2 if bag else 1,
        "handbag": 2 if handbag else 1,
    }
    for name in MARKET_ATTRIBUTES:
        if name not in attributes:
            attributes[name] = 2 if name in (f"up{up_name}", f"down{down_name}") else 1

    return Identity(
        number=number,
        attributes=attributes,
        leg=stream.uniform(0.45, 0.52) - (0.04 if child else 0.0),
        shoulder=(0.112 + 0.008 * build - (0.012 if female else 0.0)) * stream.uniform(0.94, 1.06),
        hip=(0.074 + 0.006 * build + (0.008 if female else 0.0)) * stream.uniform(0.94, 1.06),
        girth=(0.092 + 0.013 * build) * stream.uniform(0.92, 1.08),
        limb=1.0 + 0.13 * build + stream.uniform(-0.08, 0.08),
        head=stream.uniform(0.064, 0.074) + (0.016 if child else 0.0),
        skin=stream.choice(palette.SKIN),
        stoop=stream.uniform(0.05, 0.16) if age == 4 else stream.uniform(-0.02, 0.05),
        hair=hair,
        hair_style=style,
        beard=not female and stream.chance(0.25),
        glasses=stream.chance(0.2),
        hat=hat,
        hat_colour=hat_colour,
        hat_band=_maybe(stream, 0.4, palette.ACCENT),
        upper=upper,
        upper_second=stream.choice(palette.UPPER[second_name]),
        pattern=pattern,
        period=stream.choice((0.04, 0.062, 0.09, 0.13)) * stream.uniform(0.95, 1.05),
        duty=stream.choice((0.3, 0.5, 0.68)),
        sleeve=stream.uniform(0.3, 0.55) if short_sleeve else stream.uniform(0.88, 1.0),
        sleeve_plain=stream.chance(0.4),
        hem=stream.choice((-0.01, 0.02, 0.06, 0.13)) + stream.uniform(-0.008, 0.008),
        cuff=_maybe(stream, 0.3, palette.ACCENT),
        zip_colour=stream.choice(palette.ACCENT) if fastening < 0.16 else None,
        open_front=stream.choice(palette.ACCENT) if 0.16 <= fastening < 0.36 else None,
        print_shape=stream.choice(PRINTS) if printed and fastening >= 0.36 else "",
        print_colour=stream.choice(palette.ACCENT),
        print_size=stream.choice((0.026, 0.038, 0.05)),
        print_height=stream.uniform(0.6, 0.76),
        hood=stream.chance(0.22),
        scarf=_maybe(stream, 0.12, palette.ACCENT),
        lower=stream.choice(palette.LOWER[down_name]),
        skirt=skirt,
        lower_length=stream.uniform(0.36, 0.56) if short_lower else stream.uniform(0.84, 0.98),
        lower_width=stream.uniform(0.9, 1.45),
        lower_stripe=_maybe(stream, 0.22, palette.ACCENT),
        lower_band=_maybe(stream, 0.16, palette.ACCENT),
        belt=_maybe(stream, 0.3, palette.ACCENT),
        socks=stream.choice(palette.ACCENT[:3]),
        shoes=stream.choice(palette.SHOES),
        sole=stream.choice(((240, 240, 236), (40, 38, 38), (150, 110, 70))),
        boot=stream.uniform(0.25, 0.5) if stream.chance(0.22) else 0.0,
        backpack=backpack,
        backpack_size=stream.uniform(0.8, 1.25),
        backpack_pocket=stream.choice(palette.ACCENT),
        bag=bag,
        bag_side=1.0 if stream.chance(0.5) else -1.0,
        bag_size=stream.uniform(0.75, 1.3),
        handbag=handbag,
        handbag_side=1.0 if stream.chance(0.5) else -1.0,
        handbag_size=stream.uniform(0.75, 1.35),
    )
