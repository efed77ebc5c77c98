"""Cross-encoders: a sequence classifier of one label over a query and a passage, read by sentence-transformers.

The score is the logit, before the sigmoid that some checkpoints put behind it: the order is the same, and differences
at the top are not squeezed away.
"""

from __future__ import annotations

import inspect
from typing import Any

import sentence_transformers
import torch
import transformers
from torch import nn

from indexer.errors import UnsupportedCheckpoint
from indexer.models.manifest import Padding, TextRecipe
from onnx_export.hub import explained
from onnx_export.rerank.checkpoint import RerankCheckpoint, Scores
from onnx_export.rerank.loading import complete
from onnx_export.vocabularies import of_transformers, within


def load(name: str) -> RerankCheckpoint:
    """Read a model by its name on the hub or its folder.

    Raises:
        UsageError: there is none.
        UnsupportedCheckpoint: it has several labels, weights are missing, or there is more to it than one classifier.
        HubUnreachable: it must be downloaded, and nothing answers.
    """
    source = f"sentence_transformers:{name}"
    with explained(source):
        complete(transformers.AutoModelForSequenceClassification, name)
        model = sentence_transformers.CrossEncoder(name, device="cpu")
    if model.num_labels != 1:
        raise UnsupportedCheckpoint(f"{name} sorts into {model.num_labels} classes; a reranker gives one score.")
    if len(model) != 1 or model.default_prompt_name:
        raise UnsupportedCheckpoint(f"{name} has more than a classifier of pairs, which bundles do not know.")
    tokenizer = model[0].tokenizer
    taken = inspect.signature(model.model.forward).parameters
    token_types = "token_type_ids" in tokenizer.model_input_names and "token_type_ids" in taken
    return RerankCheckpoint(
        family="cross-encoder",
        source=source,
        library=f"sentence-transformers {sentence_transformers.__version__}",
        pictures=None,
        match=_Pairs(model.model),
        text=TextRecipe(
            context_length=int(model.max_seq_length), padding=Padding.LONGEST, pad_id=int(tokenizer.pad_token_id)
        ),
        tokenizer=within(of_transformers(tokenizer), model.model.get_input_embeddings().num_embeddings),
        token_types=token_types,
        reference=_reference(model),
    )


class _Pairs(nn.Module):  # type: ignore[misc]
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor | None = None
    ) -> torch.Tensor:
        typed = {} if token_type_ids is None else {"token_type_ids": token_type_ids}  # not every model takes them
        return self.model(input_ids=input_ids, attention_mask=attention_mask, **typed).logits[:, 0]


def _reference(model: Any) -> Any:
    logit = nn.Identity()

    def reference(passage: str, text: str) -> Scores:
        return Scores(float(model.predict([(text, passage)], activation_fn=logit, show_progress_bar=False)[0]))

    return reference
