"""Checkpoints small enough to export in a test: real architectures, real tokenizers, random weights, written as files.

Nothing is fetched: each is a folder, or a file of weights, as the source library itself writes it.
"""

import gzip
import json
from pathlib import Path

import sentencepiece
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

WORDS = [
    "a dog running on the beach", "two children playing football in the rain", "a red bicycle leaning against a wall",
    "the quick brown fox jumps over the lazy dog", "people walking through a city at night", "café naïve straße",
    "東京の夜景とラーメン", "красный велосипед у стены", "قطة تنام على الأريكة", "एक लाल साइकिल", "ein rotes fahrrad",
] * 20  # fmt: skip


def open_clip_file(folder: Path, model: str) -> str:
    """A model of open_clip's own list, its weights in a file; gives the source."""
    import open_clip

    torch.manual_seed(0)
    path = folder / f"{model}.pt"
    torch.save(open_clip.create_model(model).state_dict(), path)
    return f"open_clip:{model}@{path}"


def open_clip_folder(folder: Path, kind: str = "clip") -> str:
    """A small model as a folder of open_clip's: `clip`, `coca`, `mobileclip` (a FastViT) or `siglip` (map pooling)."""
    import open_clip

    folder.mkdir(parents=True, exist_ok=True)
    common = {"width": 64, "heads": 2, "layers": 2}
    preprocess: dict[str, object] = {"interpolation": "bicubic", "resize_mode": "shortest"}
    vision: dict[str, object] = {"image_size": 64, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16}
    text: dict[str, object] = {**common, "context_length": 77}
    model: dict[str, object] = {"embed_dim": 48, "vision_cfg": vision, "text_cfg": text}
    if kind == "coca":
        pooler = {"attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True}
        text |= {"context_length": 76, "embed_cls": True, "output_tokens": True}
        model |= {
            "vision_cfg": vision | pooler,
            "multimodal_cfg": {**common, "context_length": 76},
            "custom_text": True,
        }
    elif kind == "mobileclip":
        timm = {"timm_model_name": "fastvit_t8", "timm_model_pretrained": False, "timm_pool": "avg", "timm_proj": None}
        model |= {"embed_dim": 768, "vision_cfg": {**timm, "image_size": 128}, "custom_text": True}
        text |= {"no_causal_mask": True}  # as MobileCLIP-S1: what is padding is seen
        preprocess = {"mean": [0, 0, 0], "std": [1, 1, 1], "interpolation": "bilinear", "resize_mode": "shortest"}
    elif kind == "siglip":
        unigram_tokenizer(folder)
        model = {
            "embed_dim": 192,
            "init_logit_bias": -10,
            "custom_text": True,
            "vision_cfg": {
                "image_size": 224,
                "timm_model_name": "vit_tiny_patch16_224",
                "timm_model_pretrained": False,
                "timm_pool": "map",
                "timm_proj": "none",
            },
            "text_cfg": {
                **common,
                "context_length": 64,
                "vocab_size": 1200,
                "hf_tokenizer_name": "local",
                "tokenizer_kwargs": {"clean": "canonicalize"},
                "no_causal_mask": True,
                "proj_bias": True,
                "pool_type": "last",
                "norm_kwargs": {"eps": 1e-6},
            },
        }
        preprocess = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"}
    write(folder / "open_clip_config.json", {"model_cfg": model, "preprocess_cfg": preprocess})
    torch.manual_seed(0)
    made = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    torch.save(made.state_dict(), folder / "open_clip_pytorch_model.bin")
    return str(folder)


def transformers_clip(folder: Path) -> str:
    """A small CLIP of transformers', with CLIP's real vocabulary."""
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

    tokenizer = clip_tokenizer()
    config = CLIPConfig(
        text_config={**_text(49408), "eos_token_id": 49407, "bos_token_id": 49406, "max_position_embeddings": 77},
        vision_config={**_vision(), "image_size": 60, "patch_size": 12},
        projection_dim=40,
    )
    torch.manual_seed(0)
    CLIPModel(config).save_pretrained(folder)
    # 63 to 60: a margin of three, where half rounded down is not half rounded to even
    CLIPImageProcessorPil(size={"shortest_edge": 63}, crop_size={"height": 60, "width": 60}).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def transformers_siglip(folder: Path) -> str:
    """A small SigLIP of transformers', with a SentencePiece vocabulary."""
    from transformers import SiglipConfig, SiglipImageProcessorPil, SiglipModel, SiglipTokenizer

    tokenizer = SiglipTokenizer(str(sentencepiece_model(folder)))
    text = {**_text(len(tokenizer)), "max_position_embeddings": 64, "projection_size": 64}
    config = SiglipConfig(text_config=text, vision_config={**_vision(), "image_size": 64, "patch_size": 16})
    torch.manual_seed(0)
    SiglipModel(config).save_pretrained(folder)
    SiglipImageProcessorPil(size={"height": 64, "width": 64}, resample=2).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def sentence_clip(folder: Path) -> str:
    """A CLIP as sentence-transformers saves it."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules.clip_model import CLIPModel

    clip = transformers_clip(folder / "clip")
    SentenceTransformer(modules=[CLIPModel(clip)], device="cpu").save(str(folder / "st"))
    return str(folder / "st")


def multilingual_student(folder: Path, dimension: int = 40) -> str:
    """A multilingual text tower in another model's space: DistilBERT, mean pooling, a projection."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Dense, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling
    from transformers import DistilBertConfig, DistilBertModel

    tokenizer = wordpiece_tokenizer()
    config = DistilBertConfig(vocab_size=len(tokenizer), dim=64, hidden_dim=128, n_heads=2, n_layers=2)
    torch.manual_seed(0)
    DistilBertModel(config).save_pretrained(folder / "bert")
    tokenizer.save_pretrained(folder / "bert")
    transformer = Transformer(str(folder / "bert"), max_seq_length=128)
    parts = [transformer, Pooling(64), Dense(64, dimension, bias=False, activation_function=torch.nn.Identity())]
    SentenceTransformer(modules=parts, device="cpu").save(str(folder / "st"))
    return str(folder / "st")


def clip_tokenizer():  # type: ignore[no-untyped-def]  # transformers has no types
    """transformers' CLIP tokenizer with CLIP's real vocabulary, from the merges that open_clip ships."""
    from open_clip.tokenizer import default_bpe
    from transformers import CLIPTokenizer

    from onnx_export.vocabularies import clip_bpe

    names = ("<|startoftext|>", "<|endoftext|>")
    vocab = clip_bpe(Path(default_bpe()), names).get_vocab()
    with gzip.open(default_bpe(), "rt", encoding="utf-8") as file:
        merges = [tuple(line.split()) for line in file.read().split("\n")[1 : 49152 - 256 - 2 + 1]]
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=77)


def wordpiece_tokenizer():  # type: ignore[no-untyped-def]
    """A cased WordPiece tokenizer of many scripts, as multilingual BERT's."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(WORDS, trainers.WordPieceTrainer(vocab_size=1000, special_tokens=special))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    )
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), special, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=512, **names)


def unigram_tokenizer(folder: Path) -> None:
    """A fast unigram tokenizer with an end mark, as SigLIP's on open_clip's hub, saved into the folder."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=1000, special_tokens=special, unk_token="<unk>")
    tokenizer.train_from_iterator(WORDS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=64
    )
    fast.save_pretrained(folder)


def sentencepiece_model(folder: Path) -> Path:
    """A trained SentencePiece model's file, with the special pieces of SigLIP's."""
    folder.mkdir(parents=True, exist_ok=True)
    prefix = folder / "spiece"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(WORDS), model_prefix=str(prefix), vocab_size=230, character_coverage=1.0,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    return prefix.with_suffix(".model")


def write(path: Path, document: object) -> None:
    path.write_text(json.dumps(document), encoding="utf-8")


def _text(vocabulary: int) -> dict[str, int]:
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    return {**sizes, "vocab_size": vocabulary}


def _vision() -> dict[str, int]:
    return {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
