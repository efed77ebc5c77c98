"""Bundles, encoders and how they are made."""

from __future__ import annotations

from indexer.errors.base import CrosslensError


class ModelError(CrosslensError):
    """A bundle or an encoder."""

    code = "model"
    default_remedy = "Run `crosslens models verify`."


class BundleNotFound(ModelError):
    """No bundle of that name or path."""

    code = "bundle_not_found"
    status = 404
    default_remedy = "`crosslens models list` shows what is installed."


class InvalidBundle(ModelError):
    """A bundle with a file missing, a hash that differs or a manifest that does not parse."""

    code = "invalid_bundle"
    default_remedy = "Install the bundle again; its files are not the ones that were published."


class DownloadFailed(ModelError):
    """A bundle's source that cannot be reached, refuses, or breaks off."""

    code = "download_failed"
    status = 502
    default_remedy = (
        "Try again; or pull it where there is a network, copy its folder here and run `crosslens models pull FOLDER`."
    )


class UnknownRecipe(ModelError):
    """A manifest that names a preparation this version does not know."""

    code = "unknown_recipe"
    default_remedy = "Upgrade Crosslens: the bundle was made for a newer version."


class GoldenMismatch(ModelError):
    """An encoder that does not reproduce the bundle's golden vectors on this machine."""

    code = "golden_mismatch"
    default_remedy = "Run `crosslens models verify --json` and report what it prints: vectors made here would be wrong."


class ModelMismatch(ModelError):
    """A collection that holds another bundle's vectors."""

    code = "model_mismatch"
    status = 409
    default_remedy = "Use the collection's own model, or ingest into a new collection with --collection."


class TextsOnly(ModelError):
    """A bundle without an image tower that was given an image."""

    code = "texts_only"
    status = 422
    default_remedy = "Use a model that has an image tower; `crosslens models list` says which do."


class NoReranker(ModelError):
    """A rerank bundle that is not installed."""

    code = "no_reranker"
    status = 409
    default_remedy = "Run `crosslens models export blip2-itm`."


class RerankerAway(ModelError):
    """Reranking is the workers', and none of them is there, or their queue does not answer."""

    code = "reranker_away"
    status = 503
    default_remedy = "Start one: `crosslens worker --rerank`, with CROSSLENS_REDIS_URL as the API has it."


class NoFeatures(ModelError):
    """A picture for which a reranker's graph gives something that is not finite."""

    code = "no_features"
    status = 422


class DeviceUnavailable(ModelError):
    """A device that was asked for and cannot be used."""

    code = "device_unavailable"
    status = 503
    default_remedy = "Install `crosslens[gpu]` in place of onnxruntime, or set CROSSLENS_DEVICE=cpu."


class EncoderFailed(ModelError):
    """A run that failed, and failed again after its session was rebuilt."""

    code = "encoder_failed"
    status = 503
    default_remedy = "See the log. If the device is lost or its memory full, restart, or set CROSSLENS_DEVICE=cpu."


class UnsupportedCheckpoint(ModelError):
    """A checkpoint that cannot become a bundle."""

    code = "unsupported_checkpoint"
    status = 422
    default_remedy = "Export another checkpoint; `crosslens models list` names some."


class HubUnreachable(ModelError):
    """A checkpoint that must be downloaded, and nothing answers."""

    code = "hub_unreachable"
    status = 502
    default_remedy = (
        "Check the network (HTTPS_PROXY, HF_ENDPOINT). Without one: copy the checkpoint's folder here and export that, "
        "or set HF_HOME to a cache that holds it; or export on a machine with a network and copy the bundle."
    )


class ParityFailed(ModelError):
    """A bundle that does not give the vectors of the model that it was made from."""

    code = "parity_failed"
    default_remedy = (
        "Nothing was installed. For int8, a lower --bound accepts the loss; else export in another precision, "
        "or report the checkpoint: it is prepared in a way that the exporter misreads."
    )


class Overloaded(ModelError):
    """More is waiting for the encoder than it may."""

    code = "overloaded"
    status = 503
    default_remedy = "Try again in a moment."
