"""What of the golden inputs `bridge` is held against: its own, which were chosen first and are published."""

IMAGES = ("sunset.png", "balloon.png", "signs.png", "turned.png")

TEXTS = [
    "a dog running on the beach",
    "Two Children, playing football in the RAIN!",
    "a photo of a red bicycle leaning against a brick wall",
    "café naïve 東京 🙂 co-operative don't",
    "x",
    "people " * 200,  # longer than the context: it must be cut where the reference cuts it
]
