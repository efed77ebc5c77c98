"""Rerankers of every family become bundles that score as their library does, in every precision, or none at all."""

import gc
import hashlib
import json
import shutil
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from click.testing import CliRunner
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import nn

from indexer.cli import main
from indexer.errors import ParityFailed, UnsupportedCheckpoint, UsageError
from indexer.models.catalog import KnownReranker, find_known, known_rerankers
from indexer.models.manifest import Padding, Precision, Resize
from indexer.models.preprocess import prepare
from indexer.models.rerank.bundle import RerankBundle, load_rerank_bundle
from indexer.models.rerank.golden import GoldenPairs, check_golden_pairs, read_golden_pairs
from indexer.models.rerank.manifest import RerankManifest
from indexer.models.rerank.reranker import Features, Reranker, TextReranker
from onnx_export import graphs
from onnx_export.export import Order
from onnx_export.rerank import parity
from onnx_export.rerank.checkpoint import RerankCheckpoint
from onnx_export.rerank.export import convert, export
from onnx_export.rerank.golden import IMAGES, PASSAGES, TEXTS
from onnx_export.rerank.parity import bounds_of, certify, rank_correlation
from onnx_export.rerank.sources import reranker_of
from tests.onnx_export import checkpoints
from tests.onnx_export import rerank_checkpoints as made

FAMILIES: dict[str, Callable[[Path], str]] = {
    "blip2-itm": made.blip2,
    "blip-itm-base": made.blip,
    "cross-encoder": made.cross_encoder,
}
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Exported:
    """A checkpoint's folder, the bundle that the command made of it, and what the command said."""

    source: str
    folder: Path
    said: str

    @property
    def manifest(self) -> RerankManifest:
        return load_rerank_bundle(self.folder).manifest


def quiet(_message: str) -> None:
    pass


def order(precision: Precision = "fp32", bound: float | None = None) -> Order:
    return Order("small", precision, "MIT", "A small one.", bound=bound)


def opened(source: str) -> Callable[[], RerankCheckpoint]:
    load = reranker_of(source)
    assert load is not None
    return load


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Exported]:
    """Bundles by family, each made once, as anybody would make it: by the command."""
    there: dict[str, Exported] = {}
    data = tmp_path_factory.mktemp("data")

    def get(name: str) -> Exported:
        if name not in there:
            source = FAMILIES[name](tmp_path_factory.mktemp("checkpoints") / name)
            done = CliRunner().invoke(main, ["models", "export", source, "--licence", "MIT", "--data", str(data)])
            assert done.exit_code == 0, done.output
            there[name] = Exported(source, data / "models" / name, done.stdout)
        return there[name]

    return get


@pytest.mark.parametrize("name", FAMILIES)
def test_the_command_makes_a_bundle_that_scores_as_its_library_does(
    name: str, exported: Callable[[str], Exported]
) -> None:
    bundle = load_rerank_bundle(exported(name).folder)
    bundle.verify_files()
    certificate = json.loads(bundle.path("certificate.json").read_text())
    assert certificate["pairs"] == len(TEXTS) * len(PASSAGES if name == "cross-encoder" else IMAGES) == 30
    assert certificate["graphs"]["difference"] <= 1e-4
    assert certificate["graphs"]["rank"] >= 0.999
    assert certificate["kept"]["difference"] <= 5e-3
    assert certificate["kept"]["rank"] >= 0.999
    golden = read_golden_pairs(bundle)
    assert golden.matching.std() > 0.2, "scores that are all alike show nothing"
    reranker = TextReranker(bundle) if name == "cross-encoder" else Reranker(bundle)
    assert check_golden_pairs(reranker).worst <= bundle.manifest.golden_error <= 0.02 * spread_of(golden)


def spread_of(golden: GoldenPairs) -> float:
    return float(np.std(golden.matching + (0 if golden.contrastive is None else golden.contrastive))) * 1.0001


def test_recipes_are_the_checkpoints_own(exported: Callable[[str], Exported]) -> None:
    blip2, blip, texts = (exported(name).manifest for name in FAMILIES)
    assert [each.family for each in (blip2, blip, texts)] == ["blip2-itm", "blip-itm", "cross-encoder"]
    assert [each.text.context_length for each in (blip2, blip, texts)] == [32, 35, 96]
    assert {each.text.padding for each in (blip2, blip, texts)} == {Padding.LONGEST}
    assert blip2.pixels is not None and blip2.pixels.resize is Resize.SQUASH
    assert blip2.shapes is not None and blip2.shapes.features == (17, 64) and blip2.shapes.queries == (8, 32)
    assert blip.shapes is not None and blip.shapes.queries == (1, 32)
    assert texts.pixels is None and texts.token_types
    assert blip2.contrastive_weight == 1.0
    assert blip2.licence == "MIT"


def test_the_command_says_the_next_step(exported: Callable[[str], Exported]) -> None:
    assert 'crosslens search "WORDS" --rerank --data' in exported("blip2-itm").said
    assert "CROSSLENS_RERANKER" not in exported("blip2-itm").said
    assert "CROSSLENS_RERANKER=blip-itm-base crosslens search" in exported("blip-itm-base").said
    assert "CROSSLENS_TEXT_RERANKER" not in exported("cross-encoder").said
    assert "ranks correlate at 1.0000" in exported("cross-encoder").said


def test_the_list_shows_rerankers_and_those_that_could_be(exported: Callable[[str], Exported]) -> None:
    data = exported("blip2-itm").folder.parents[1]
    document = json.loads(CliRunner().invoke(main, ["models", "list", "--json", "--data", str(data)]).stdout)
    assert "blip2-itm" in [one["name"] for one in document["rerankers"]]
    commands = [one["command"] for one in document["known_rerankers"]]
    assert "crosslens models export blip-itm-large" in commands
    assert "crosslens models export blip2-itm" not in commands
    shown = CliRunner(env={"COLUMNS": "200"}).invoke(main, ["models", "list", "--data", str(data)]).stdout
    assert "blip-itm-large pictures 446 M BSD-3-Clause" in [" ".join(row.split()) for row in shown.splitlines()]


@pytest.mark.parametrize("precision", ["fp16", "int8"])
@pytest.mark.parametrize("name", FAMILIES)
def test_lower_precisions_are_within_their_bounds(
    name: str, precision: Precision, exported: Callable[[str], Exported], tmp_path: Path
) -> None:
    made_of = exported(name)
    manifest = convert(made_of.manifest, order(precision), made_of.folder, tmp_path / "lower", quiet)
    certificate = certify(tmp_path / "lower", "the reference", precision, bounds_of(tmp_path / "lower", precision))
    assert certificate.graphs.difference <= manifest.golden_error
    assert certificate.graphs.rank >= {"fp16": 0.999, "int8": 0.99}[precision]
    assert set(manifest.precision.values()) == {precision}
    assert manifest.fingerprint != made_of.manifest.fingerprint
    assert bytes_of_weights(tmp_path / "lower") < {"fp16": 0.51, "int8": 0.7}[precision] * bytes_of_weights(
        made_of.folder
    )


def bytes_of_weights(folder: Path) -> int:
    return sum(len(each.raw_data) for each in onnx.load(folder / "match.onnx").graph.initializer)


def test_no_graph_names_files_of_the_machine_that_made_it(exported: Callable[[str], Exported]) -> None:
    for graph in exported("blip2-itm").folder.glob("*.onnx"):
        content = graph.read_bytes()
        assert str(Path.cwd()).encode() not in content
        assert b".py" not in content


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("name", ["blip2-itm", "blip-itm-base"])
def test_texts_of_mixed_length_in_a_batch_score_as_one_by_one(
    name: str, precision: Precision, exported: Callable[[str], Exported], tmp_path: Path
) -> None:
    made_of = exported(name)
    folder = made_of.folder
    if precision == "int8":
        folder = tmp_path / "int8"
        convert(made_of.manifest, order(precision), made_of.folder, folder, quiet)
    match = onnxruntime.InferenceSession(str(folder / "match.onnx"))
    shapes = made_of.manifest.shapes
    assert shapes is not None
    chance = np.random.default_rng(0)
    features = chance.normal(size=(6, *shapes.features)).astype(np.float32)
    queries = chance.normal(size=(6, *shapes.queries)).astype(np.float32)
    texts = [Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids[:32] for text in (*TEXTS[:4], "x")]
    ids, mask = padded(texts)
    rows = np.array([2, 0, 3, 1, 0, 4])
    together = match.run(
        None, {"input_ids": ids, "attention_mask": mask, "rows": rows, "features": features, "queries": queries}
    )
    for at, row in enumerate(rows):
        own, whole = padded([texts[row]])
        alone = match.run(
            None,
            {
                "input_ids": own,
                "attention_mask": whole,
                "rows": np.zeros(1, np.int64),
                "features": features[at : at + 1],
                "queries": queries[at : at + 1],
            },
        )
        np.testing.assert_allclose([each[at] for each in together], [each[0] for each in alone], atol=2e-5)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_passage_scores_alike_beside_longer_ones(
    precision: Precision, exported: Callable[[str], Exported], tmp_path: Path
) -> None:
    made_of = exported("cross-encoder")
    folder = made_of.folder
    if precision == "int8":
        folder = tmp_path / "int8"
        convert(made_of.manifest, order(precision), made_of.folder, folder, quiet)
    match = onnxruntime.InferenceSession(str(folder / "match.onnx"))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    pairs = [tokenizer.encode(TEXTS[0], passage) for passage in PASSAGES[:5]]
    ids, mask = padded([each.ids for each in pairs])
    types, _ = padded([each.type_ids for each in pairs])
    (together,) = match.run(None, {"input_ids": ids, "attention_mask": mask, "token_type_ids": types})
    for at, pair in enumerate(pairs):
        own, whole = padded([pair.ids])
        feed = {"input_ids": own, "attention_mask": whole, "token_type_ids": np.array([pair.type_ids])}
        assert match.run(None, feed)[0][0] == pytest.approx(together[at], abs=2e-5)


def padded(rows: list[list[int]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    length = max(map(len, rows))
    mask = np.array([[1] * len(row) + [0] * (length - len(row)) for row in rows])
    return np.array([row + [0] * (length - len(row)) for row in rows]), mask


def test_image_tokens_or_none_are_the_same_model(exported: Callable[[str], Exported], tmp_path: Path) -> None:
    """The hub's processor puts image tokens before the text, older ones do not: the scores must not hang on it."""
    bare = made.blip2(tmp_path / "bare", image_tokens=False)
    processor = json.loads((Path(bare) / "processor_config.json").read_text())
    assert processor.get("num_query_tokens") is None
    golden = read_golden_pairs(load_rerank_bundle(exported("blip2-itm").folder))
    reference = opened(bare)().reference
    image = Image.open(exported("blip2-itm").folder / "golden" / golden.names[0]).convert("RGB")
    for at, text in enumerate(TEXTS):
        ours = (golden.matching[0, at], golden.contrastive[0, at])  # type: ignore[index]
        assert ours == pytest.approx(reference(image, text), abs=1e-5)


def test_a_text_that_spells_the_image_token_is_words(exported: Callable[[str], Exported]) -> None:
    """Its id lies behind the token table of the hub's checkpoints: looked up, it would fail, or read what is there."""
    reranker = Reranker(load_rerank_bundle(exported("blip2-itm").folder))
    features = reranker.features([Image.new("RGB", (30, 20), "red")])
    assert np.isfinite(reranker.scores("<image> of a dog", features).score).all()
    whole = Tokenizer.from_file(str(exported("blip2-itm").folder / "tokenizer.json"))
    rows = load_file(Path(exported("blip2-itm").source) / "model.safetensors")["embeddings.word_embeddings.weight"]
    assert max(whole.encode("<image>").ids) < len(rows)


def test_blip_matches_with_its_own_first_token(exported: Callable[[str], Exported], tmp_path: Path) -> None:
    """[ENC] in the place of [CLS] where a text is matched, as BLIP was trained; [CLS] where it is compared."""
    from transformers import BlipForImageTextRetrieval, BlipProcessor

    folder, source = exported("blip-itm-base").folder, exported("blip-itm-base").source
    model = BlipForImageTextRetrieval.from_pretrained(source).eval()
    golden = read_golden_pairs(load_rerank_bundle(folder))
    image = Image.open(folder / "golden" / golden.names[0]).convert("RGB")
    inputs = BlipProcessor.from_pretrained(source, backend="pil")(image, TEXTS[0], return_tensors="pt")
    last = model.config.text_config.vocab_size - 1
    with torch.inference_mode():
        plain = float(model(**inputs).itm_score[0, 1])
        cosine = float(model(**inputs, use_itm_head=False).itm_score[0, 0])
        inputs["input_ids"][0, 0] = last
        marked = float(model(**inputs).itm_score[0, 1])
    assert golden.contrastive is not None
    assert golden.matching[0, 0] == pytest.approx(marked, abs=1e-4)
    assert abs(marked - plain) > 0.01
    assert golden.contrastive[0, 0] == pytest.approx(cosine, abs=1e-5)
    bare = opened(made.blip(tmp_path / "bare", first_token=False))()
    assert bare.reference(image, TEXTS[0]).matching == pytest.approx(matched(bare, image, TEXTS[0]), abs=1e-4)


def matched(checkpoint: RerankCheckpoint, image: Image.Image, text: str) -> float:
    """By the modules that are traced, before they are."""
    assert checkpoint.pictures is not None
    ids = torch.tensor([checkpoint.tokenizer.encode(text).ids])
    with torch.inference_mode():
        pixels = torch.from_numpy(prepare(image, checkpoint.pictures.recipe))[None]
        parts = checkpoint.pictures.module(pixels)
        return float(checkpoint.match(ids, torch.ones_like(ids), torch.zeros(1, dtype=torch.int64), *parts)[0][0])


def test_a_cross_encoder_without_token_types_and_one_of_sentence_transformers(tmp_path: Path) -> None:
    from sentence_transformers import CrossEncoder

    plain = made.cross_encoder(tmp_path / "plain", kind="distilbert")
    CrossEncoder(plain, device="cpu").save(str(tmp_path / "saved"))
    assert (tmp_path / "saved" / "modules.json").is_file()
    certificate = export(opened(str(tmp_path / "saved")), order(), tmp_path / "small", quiet)
    assert certificate.graphs.difference <= 1e-4
    manifest = load_rerank_bundle(tmp_path / "small").manifest
    assert not manifest.token_types
    assert manifest.family == "cross-encoder"


BREAKS: dict[str, dict[str, dict[str, object]]] = {
    "another mean": {"pixels": {"mean": [0.5, 0.5, 0.5]}},
    "cropped": {"pixels": {"resize": "shortest+crop"}},
    "texts cut short": {"text": {"context_length": 12}},
}


@pytest.mark.parametrize("broken", BREAKS)
def test_a_recipe_that_was_misread_is_no_parity(
    broken: str, exported: Callable[[str], Exported], tmp_path: Path
) -> None:
    folder = shutil.copytree(exported("blip-itm-base").folder, tmp_path / "broken")
    manifest = json.loads((folder / "manifest.json").read_text())
    for part, change in BREAKS[broken].items():
        manifest[part] |= change
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ParityFailed, match="does not agree with the reference"):
        certify(folder, "the reference", "fp32", bounds_of(folder, "fp32"))


class OtherSign(nn.Module):  # type: ignore[misc]
    """As whoever takes the wrong class for a match would export it."""

    def __init__(self, match: nn.Module) -> None:
        super().__init__()
        self.match = match

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor
    ) -> torch.Tensor:
        return -self.match(input_ids, attention_mask, token_type_ids)


def test_what_does_not_agree_leaves_what_was_there(exported: Callable[[str], Exported], tmp_path: Path) -> None:
    out = tmp_path / "models" / "small"
    out.mkdir(parents=True)
    (out / "manifest.json").write_text("what was there")
    load = opened(exported("cross-encoder").source)

    def broken() -> RerankCheckpoint:
        checkpoint = load()
        return replace(checkpoint, match=OtherSign(checkpoint.match))

    with pytest.raises(ParityFailed, match="does not agree with sentence-transformers") as caught:
        export(broken, order("int8", bound=0.01), out, quiet)
    assert caught.value.details["certificate"]["precision"] == "fp32", "fp32 must agree, whatever is ordered"
    assert [path.name for path in out.parent.iterdir()] == ["small"]
    assert (out / "manifest.json").read_text() == "what was there"


def test_a_conversion_that_fails_leaves_what_was_there(
    exported: Callable[[str], Exported], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(source: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(graphs, "weights_in_int8", full_disk)
    source = exported("cross-encoder").source
    data = tmp_path / "data"
    (data / "models" / "small").mkdir(parents=True)
    (data / "models" / "small" / "manifest.json").write_text("what was there")
    command = ["models", "export", source, "--precision", "int8", "--name", "small", "--force", "--data", str(data)]
    assert CliRunner().invoke(main, command).exit_code != 0
    assert [path.name for path in (data / "models").iterdir()] == ["small"]
    assert (data / "models" / "small" / "manifest.json").read_text() == "what was there"


def test_the_source_model_is_gone_before_the_bundle_opens(
    exported: Callable[[str], Exported], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both together are more than a machine of 16 GB holds of BLIP-2."""
    alive: list[weakref.ref[nn.Module]] = []
    load = opened(exported("cross-encoder").source)

    def noted() -> RerankCheckpoint:
        checkpoint = load()
        alive.append(weakref.ref(checkpoint.match))
        return checkpoint

    def watched(folder: Path) -> RerankBundle:
        assert [each() for each in alive] == [None]
        return load_rerank_bundle(folder)

    monkeypatch.setattr(parity, "load_rerank_bundle", watched)
    gc.disable()  # so that it is not gone by chance
    try:
        export(noted, order(), tmp_path / "small", quiet)
    finally:
        gc.enable()
    assert len(alive) == 1


def test_large_graphs_keep_their_weights_beside_them(
    exported: Callable[[str], Exported], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graphs, "LARGE", 1000)
    export(opened(exported("cross-encoder").source), order(), tmp_path / "fp32", quiet)
    full = load_rerank_bundle(tmp_path / "fp32").manifest
    lower: tuple[Precision, ...] = ("fp16", "int8")
    for precision in lower:
        folder = tmp_path / precision
        manifest = convert(full, order(precision), tmp_path / "fp32", folder, quiet)
        assert "match.onnx.data" in manifest.files
        assert (folder / "match.onnx").stat().st_size < 300_000
        assert (folder / "match.onnx.data").stat().st_size > 100_000
        certify(folder, "the reference", precision, bounds_of(folder, precision))


class Shared(nn.Module):  # type: ignore[misc]
    """One weight in two products, as a text alone and beside a picture are read by one Q-Former."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(600, 600)  # larger than what the tracer folds

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(torch.relu(self.layer(x)))


def test_a_weight_that_two_parts_share_is_written_once_and_quantized(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, x = Shared(), torch.randn(2, 3, 600)
    graphs.trace(module, {"x": x}, ["y"], free=2, path=tmp_path / "fp32.onnx")
    graphs.weights_in_int8(tmp_path / "fp32.onnx", tmp_path / "int8.onnx")
    for name, product, most, bytes_each in (("fp32", "MatMul", 1e-5, 4), ("int8", "MatMulNBits", 0.05, 1.2)):
        graph = onnx.load(tmp_path / f"{name}.onnx").graph
        assert [node.op_type for node in graph.node] == [product, "Add", "Relu", product, "Add"]
        assert sum(len(each.raw_data) for each in graph.initializer) < 600 * 600 * bytes_each + 3000
        y = onnxruntime.InferenceSession(str(tmp_path / f"{name}.onnx")).run(None, {"x": x.numpy()})[0]
        np.testing.assert_allclose(y, module(x).detach().numpy(), atol=most)


def test_whoever_gives_a_least_rank_correlation_cares_for_the_order(exported: Callable[[str], Exported]) -> None:
    folder = exported("cross-encoder").folder
    usual, own = bounds_of(folder, "int8"), bounds_of(folder, "int8", 0.9)
    assert (own.rank, usual.rank) == (0.9, 0.99)
    assert own.graphs == pytest.approx(5 * usual.graphs)
    assert bounds_of(folder, "fp32", 0.9) == bounds_of(folder, "fp32"), "fp32 has no loss to accept"
    assert bounds_of(folder, "fp32").graphs == 1e-4


def test_what_cannot_be_a_reranker_is_refused(exported: Callable[[str], Exported], tmp_path: Path) -> None:
    with pytest.raises(UnsupportedCheckpoint, match="3 classes"):
        opened(made.cross_encoder(tmp_path / "classes", labels=3))()
    other = Path(made.blip2(tmp_path / "size"))
    config = json.loads((other / "processor_config.json").read_text())
    config["image_processor"]["size"] = {"height": 42, "width": 42}
    (other / "processor_config.json").write_text(json.dumps(config))
    with pytest.raises(UnsupportedCheckpoint, match="at 42 pixels, and its model takes 56"):
        opened(str(other))()
    headless = Path(made.blip(tmp_path / "headless"))
    weights = load_file(headless / "model.safetensors")
    del weights["itm_head.weight"]
    save_file(weights, headless / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UnsupportedCheckpoint, match=r"itm_head\.weight for one"):
        opened(str(headless))()
    wordy = Path(made.cross_encoder(tmp_path / "wordy"))
    tokenizer = json.loads((wordy / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["beyond"] = 5000
    (wordy / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(UnsupportedCheckpoint, match="a token 5000"):
        opened(str(wordy))()
    damaged = Path(made.blip(tmp_path / "damaged"))
    (damaged / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(UsageError, match=r"no checkpoint that its library reads|cannot be read"):
        opened(str(damaged))()
    with pytest.raises(UsageError, match="names no checkpoint"):
        reranker_of("nothing-of-the-kind")


def test_encoders_are_no_rerankers_and_the_other_way_round(exported: Callable[[str], Exported], tmp_path: Path) -> None:
    assert reranker_of(checkpoints.transformers_clip(tmp_path / "clip")) is None
    assert reranker_of(f"transformers:{tmp_path / 'clip'}") is None
    assert reranker_of("open_clip:ViT-B-32/openai") is None
    assert reranker_of(f"transformers:{exported('blip-itm-base').source}") is not None
    for broken in ("{", "[]", '{"architectures": []}', '{"architectures": null}', '{"model_type": "bert"}'):
        (tmp_path / "clip" / "config.json").write_text(broken)
        assert reranker_of(f"transformers:{tmp_path / 'clip'}") is None
    done = CliRunner().invoke(
        main, ["models", "export", exported("blip-itm-base").source, "--name", "x", "--image-tower", "clip-b32"]
    )
    assert done.exit_code == 2
    assert "is a reranker" in done.stderr


def test_the_catalog_knows_rerankers_by_the_names_that_settings_have() -> None:
    assert [one.name for one in known_rerankers()] == [
        "blip2-itm", "blip2-itm-coco", "blip-itm-base", "blip-itm-large", "cross-encoder",
    ]  # fmt: skip
    for one in known_rerankers():
        assert find_known(one.name) == one
    known = find_known("cross-encoder")
    assert isinstance(known, KnownReranker) and known.reads == "texts"


def test_ranks_correlate_as_they_are_defined() -> None:
    up = np.arange(5, dtype=np.float32)
    assert rank_correlation(up, up**3) == pytest.approx(1)
    assert rank_correlation(up, -up) == pytest.approx(-1)
    # Spearman (1904), with shared ranks: 1 - 6 * 0.5 / (4 * 15) is not it, the formula for no ties.
    tied = np.array([1, 2, 2, 3], np.float32)
    assert rank_correlation(tied, np.array([1, 2, 3, 4], np.float32)) == pytest.approx(0.9486833)
    assert np.isnan(rank_correlation(up, np.ones(5, np.float32))), "no order agrees with none"


def test_features_in_half_are_what_the_second_comparison_sees(exported: Callable[[str], Exported]) -> None:
    bundle = load_rerank_bundle(exported("blip2-itm").folder)
    (kept,) = Reranker(bundle).features([Image.new("RGB", (30, 20), "red")])
    assert isinstance(kept, Features) and kept.features.dtype == np.float16
    digest = hashlib.sha256((exported("blip2-itm").folder / "certificate.json").read_bytes()).hexdigest()
    assert bundle.manifest.files["certificate.json"].sha256 == digest
