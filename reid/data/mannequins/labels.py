"""Numbers that the drawing of every part shares."""

BACKGROUND, HEAD, TORSO, ARMS, LEGS, FEET, CARRIED, OCCLUDER = range(8)
"""Labels of a mask."""

SHOULDER_HEIGHT = 0.815
"""Height of the shoulders, in body heights."""
