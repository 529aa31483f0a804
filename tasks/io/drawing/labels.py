"""The labels of mini-Broden, by category in the order of the planes of its label maps."""

LABELS: dict[str, tuple[str, ...]] = {
    "object": (
        *("car", "bus", "house", "tree", "flower", "boat", "fish", "cat", "person"),
        *("ball", "cloud", "star"),  # without parts
    ),
    "part": ("wheel", "window", "door", "roof", "trunk", "crown", "petal", "stem", "sail", "fin", "eye", "leg"),
    "scene": ("beach", "desert", "forest", "meadow", "mountain", "night", "room", "street"),
    "material": ("brick", "wood", "stone", "metal", "fabric", "water"),
    "texture": ("striped", "dotted", "chequered", "grid", "zigzagged", "cracked", "blotchy"),
    "color": ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white", "grey"),
}
CATEGORIES = tuple(LABELS)
PAIRS = tuple((name, category) for category, names in LABELS.items() for name in names)
NUMBERS = {pair: number for number, pair in enumerate(PAIRS, 1)}
