"""BLIP's image-text matching: transformers' `BlipForImageTextRetrieval`, cut into what a picture and a pair cost.

A pair's score is what BLIP ranks by (`evaluation`, train_retrieval.py of salesforce/BLIP; LAVIS alike): the logit of
the second class plus the cosine of text and picture. Texts are read to 35 tokens.

A trap: in that evaluation, as in training, a text that is matched begins with [ENC] in the place of [CLS]. The hub's
tokenizer has no such token, and transformers' documentation goes without (huggingface/transformers#25629), though the
token table has its row, behind that of [DEC]. Here the graph puts it there, and so does the reference, whose model is
given the ids.
"""

from __future__ import annotations

from typing import Any

import torch
import transformers
from PIL import Image
from torch import nn

from indexer.models.manifest import Padding, TextRecipe
from onnx_export.hub import explained
from onnx_export.rerank.checkpoint import PictureSide, RerankCheckpoint, Scores
from onnx_export.rerank.loading import complete, recipe_of
from onnx_export.vocabularies import of_transformers, within

_LENGTH = 35


def load(name: str) -> RerankCheckpoint:
    """Read a model by its name on the hub or its folder.

    Raises:
        UsageError: there is none.
        UnsupportedCheckpoint: weights are missing, or its pictures are prepared in a way that bundles do not know.
        HubUnreachable: it must be downloaded, and nothing answers.
    """
    source = f"transformers:{name}"
    with explained(source):
        model = complete(transformers.BlipForImageTextRetrieval, name)
        images = transformers.AutoImageProcessor.from_pretrained(name, backend="pil")
        tokenizer = transformers.AutoTokenizer.from_pretrained(name)
    return RerankCheckpoint(
        family="blip-itm",
        source=source,
        library=f"transformers {transformers.__version__}",
        pictures=PictureSide(_Pictures(model), recipe_of(images, model.config.vision_config.image_size)),
        match=_Pairs(model),
        text=TextRecipe(context_length=_LENGTH, padding=Padding.LONGEST, pad_id=int(tokenizer.pad_token_id)),
        tokenizer=within(of_transformers(tokenizer), model.config.text_config.vocab_size),
        token_types=False,
        reference=_reference(model, images, tokenizer),
    )


def _first_token(model: Any) -> int | None:
    """The id of [ENC], which is the last of the token table; None where the table ends before it."""
    text = model.config.text_config
    return text.bos_token_id + 1 if text.bos_token_id + 2 == text.vocab_size else None


class _Pictures(nn.Module):  # type: ignore[misc]
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.model.vision_model(pixel_values=pixels).last_hidden_state
        return features, nn.functional.normalize(self.model.vision_proj(features[:, :1]), dim=-1)


class _Pairs(nn.Module):  # type: ignore[misc]
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model, self.first = model, _first_token(model)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        rows: torch.Tensor,
        features: torch.Tensor,
        queries: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        model = self.model
        alone = model.text_encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        texts = nn.functional.normalize(model.text_proj(alone[:, 0]), dim=-1)
        contrastive = (queries @ texts[rows].unsqueeze(-1)).squeeze(-1).amax(dim=1)
        if self.first is not None:
            input_ids = torch.cat([torch.full_like(input_ids[:, :1], self.first), input_ids[:, 1:]], dim=1)
        together = model.text_encoder(
            input_ids=input_ids[rows], attention_mask=attention_mask[rows], encoder_hidden_states=features
        ).last_hidden_state
        return model.itm_head(together[:, 0])[:, 1], contrastive


def _reference(model: Any, images: Any, tokenizer: Any) -> Any:
    tokenizer.model_max_length = _LENGTH
    processor = transformers.BlipProcessor(images, tokenizer)
    first = _first_token(model)

    def reference(image: Image.Image, text: str) -> Scores:
        inputs = processor(images=image, text=text, truncation=True, return_tensors="pt")
        with torch.inference_mode():
            contrastive = model(**inputs, use_itm_head=False).itm_score
            if first is not None:
                inputs["input_ids"][:, 0] = first
            matching = model(**inputs, use_itm_head=True).itm_score
        return Scores(float(matching[0, 1]), float(contrastive[0, 0]))

    return reference
