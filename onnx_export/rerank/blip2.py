"""BLIP-2's image-text matching: transformers' `Blip2ForImageTextRetrieval`, cut into what a picture and a pair cost.

A pair's score is what LAVIS ranks by (`compute_sim_matrix`, lavis/models/blip2_models/blip2.py): the logit of the
second class, averaged over the query tokens, plus the cosine of the text with the nearest of them. Texts are read to
32 tokens, as in training (`max_txt_len`).

Traps, all of transformers 5:
- The processor puts an image token per query before the text, and the model takes as many from its front again, each
  by a setting of its own (`num_query_tokens`, `image_token_index`). Where only the model's is set, it takes the
  text's first words. The reference has both from the model.
- The image token's id has no row in the token table of the hub's checkpoints: a text that spells `<image>` must not
  give it (`vocabularies.within`).
- The processor takes the image tokens off `max_length`, and fails if it has none. The tokenizer's own limit is free of
  that.
- A picture smaller than the model's own is taken, and its patches get wrong positions.
"""

from __future__ import annotations

from typing import Any

import torch
import transformers
from PIL import Image
from torch import nn

from indexer.errors import UnsupportedCheckpoint
from indexer.models.manifest import Padding, TextRecipe
from onnx_export.hub import explained
from onnx_export.rerank.checkpoint import PictureSide, RerankCheckpoint, Scores
from onnx_export.rerank.loading import complete, recipe_of
from onnx_export.vocabularies import of_transformers, within

_LENGTH = 32


def load(name: str) -> RerankCheckpoint:
    """Read a model by its name on the hub or its folder.

    Raises:
        UsageError: there is none.
        UnsupportedCheckpoint: weights are missing, or it was configured in a way that bundles do not know.
        HubUnreachable: it must be downloaded, and nothing answers.
    """
    source = f"transformers:{name}"
    with explained(source):
        model = complete(transformers.Blip2ForImageTextRetrieval, name)
        images = transformers.AutoImageProcessor.from_pretrained(name, backend="pil")
        tokenizer = transformers.AutoTokenizer.from_pretrained(name)
    return from_parts(model, images, tokenizer, source=source)


def from_parts(model: Any, images: Any, tokenizer: Any, *, source: str) -> RerankCheckpoint:
    """A checkpoint of a loaded model, its image processor (Pillow's) and its tokenizer.

    Raises:
        UnsupportedCheckpoint: it was configured in a way that bundles do not know.
    """
    if not model.config.qformer_config.use_qformer_text_input:
        raise UnsupportedCheckpoint(f"The Q-Former of {source} reads no texts (`use_qformer_text_input` is off).")
    return RerankCheckpoint(
        family="blip2-itm",
        source=source,
        library=f"transformers {transformers.__version__}",
        pictures=PictureSide(_Pictures(model), recipe_of(images, model.config.vision_config.image_size)),
        match=_Pairs(model),
        text=TextRecipe(context_length=_LENGTH, padding=Padding.LONGEST, pad_id=int(tokenizer.pad_token_id)),
        tokenizer=within(of_transformers(tokenizer), model.config.qformer_config.vocab_size),
        token_types=False,
        reference=_reference(model, images, tokenizer),
    )


class _Pictures(nn.Module):  # type: ignore[misc]
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        model = self.model
        features = model.vision_model(pixel_values=pixels).last_hidden_state
        tokens = model.query_tokens.expand(features.shape[0], -1, -1)
        # The reference masks no feature; without a mask the graph is the same, and smaller.
        seen = model.qformer(
            query_embeds=tokens, query_length=model.config.num_query_tokens, encoder_hidden_states=features
        ).last_hidden_state
        return features, nn.functional.normalize(model.vision_projection(seen), dim=-1)


class _Pairs(nn.Module):  # type: ignore[misc]
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        rows: torch.Tensor,
        features: torch.Tensor,
        queries: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        model, count = self.model, self.model.config.num_query_tokens
        words = model.embeddings(input_ids=input_ids)
        alone = model.qformer(query_embeds=words, query_length=0, attention_mask=attention_mask).last_hidden_state
        texts = nn.functional.normalize(model.text_projection(alone[:, 0]), dim=-1)
        contrastive = (queries @ texts[rows].unsqueeze(-1)).squeeze(-1).amax(dim=1)
        tokens = model.query_tokens.expand(features.shape[0], -1, -1)
        together = model.qformer(
            query_embeds=torch.cat([tokens, words[rows]], dim=1),
            query_length=count,
            attention_mask=torch.cat([torch.ones_like(tokens[:, :, 0], dtype=torch.int64), attention_mask[rows]], 1),
            encoder_hidden_states=features,
        ).last_hidden_state
        return model.itm_head(together[:, :count]).mean(dim=1)[:, 1], contrastive


def _reference(model: Any, images: Any, tokenizer: Any) -> Any:
    tokens = None if model.config.image_token_index is None else model.config.num_query_tokens
    tokenizer.model_max_length = _LENGTH
    processor = transformers.Blip2Processor(images, tokenizer, num_query_tokens=tokens)

    def reference(image: Image.Image, text: str) -> Scores:
        inputs = processor(images=image, text=text, truncation=True, return_tensors="pt")
        with torch.inference_mode():
            matching = model(**inputs, use_image_text_matching_head=True).logits_per_image
            contrastive = model(**inputs, use_image_text_matching_head=False).logits_per_image
        return Scores(float(matching[0, 1]), float(contrastive[0, 0]))

    return reference
