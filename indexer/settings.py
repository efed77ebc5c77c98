"""What can be set, in one place: every setting is an environment variable `CROSSLENS_<NAME>`."""

import re
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

MAX_ARCHIVE_BYTES = 256 * 2**30
MAX_ARCHIVE_MEMBERS = 1_000_000


_ORIGIN = re.compile(r"https?://[a-z0-9.-]+(:[0-9]{1,5})?|https?://\[[0-9a-f:]+\](:[0-9]{1,5})?")


def _entries(text: str) -> tuple[str, ...]:
    return tuple(entry.strip() for entry in text.split(",") if entry.strip())


def _origins(text: str) -> str:
    for entry in _entries(text):
        if entry != "*" and not _ORIGIN.fullmatch(entry):
            raise ValueError(f"{entry!r} is no origin as browsers send it, such as https://example.org:8443")
    return text


def _networks(text: str) -> str:
    for entry in _entries(text):
        ip_network(entry)
    return text


Origins = Annotated[str, AfterValidator(_origins)]
Networks = Annotated[str, AfterValidator(_networks)]


class Settings(BaseSettings):
    """Crosslens' settings. Command-line options outrank them.

    Usage:
        settings = Settings()                       # from the environment
        settings = Settings(data=Path("elsewhere"))  # outranks the environment
    """

    model_config = SettingsConfigDict(env_prefix="CROSSLENS_", frozen=True, extra="ignore")

    data: Path = Field(Path("crosslens-data"), description="The data folder: index, uploads, logs.")
    collection: str = Field("media", description="The collection used when none is named.")
    model: str = Field("bridge", description="The bundle that embeds new collections: a name or a folder.")

    reranker: str = Field("blip2-itm", description="The bundle that reranks pictures: a name or a folder.")
    text_reranker: str = Field("cross-encoder", description="The bundle that reranks texts: a name or a folder.")
    rerank_cache_bytes: int = Field(
        4 * 2**30, ge=0, description="Bytes of pictures' features on disk, for reranking; the longest unused go first."
    )
    rerank_in: Literal["server", "worker"] = Field(
        "server", description="Where searches are reranked: in the API itself, or by workers through the queue."
    )
    rerank_memory_bytes: int = Field(512 * 2**20, ge=0, description="Bytes of them that a process keeps in memory.")

    qdrant_url: str | None = Field(None, description="A Qdrant server; unset, the embedded index is used.")
    qdrant_api_key: str | None = Field(None, description="The Qdrant server's key.")
    qdrant_prefer_grpc: bool = Field(True, description="Speak gRPC to the server where it can; else HTTP alone.")
    qdrant_grpc_port: int = Field(6334, gt=0, le=65535, description="The server's gRPC port, on the host of its URL.")
    qdrant_timeout: int = Field(60, gt=0, description="Seconds that the server has for an answer.")
    qdrant_shards: int | None = Field(None, gt=0, description="Shards of a new collection; unset, the server's choice.")
    qdrant_replicas: int | None = Field(None, gt=0, description="Copies of each shard; unset, the server's choice.")
    qdrant_write_consistency: int | None = Field(
        None, gt=0, description="Copies that must have a write before it is acknowledged; unset, the server's choice."
    )
    qdrant_on_disk: bool = Field(False, description="Keep the vectors of new collections on disk, not in memory.")
    qdrant_quantization: Literal["none", "int8", "binary"] = Field(
        "int8", description="What new collections search on in memory; the best are scored again with the originals."
    )

    optimize_after: int = Field(
        20_000,
        gt=0,
        description="New points in the embedded index before it is optimized; a scan is as fast.",
    )

    max_pixels: int = Field(100_000_000, gt=0, description="Images of more pixels are refused undecoded.")
    max_bytes: int = Field(256 * 2**20, gt=0, description="Files of more bytes are refused unread.")
    max_archive_bytes: int = Field(
        MAX_ARCHIVE_BYTES, gt=0, description="An archive's members beyond so many unpacked bytes are refused."
    )
    max_archive_members: int = Field(
        MAX_ARCHIVE_MEMBERS, gt=0, description="An archive's members beyond so many are refused."
    )
    video_interval: float = Field(5.0, gt=0, allow_inf_nan=False, description="Seconds of a video from frame to frame.")
    video_scenes: bool = Field(False, description="Take a video's frames where the scene changes, not by the clock.")
    video_frames: int = Field(200, gt=0, description="Frames of a video at most, spread evenly over a long one.")
    animation_frames: int = Field(16, gt=0, description="Frames of an animation at most, spread evenly.")
    pdf_pages: int = Field(500, gt=0, description="Pages of a PDF at most, from the first.")
    metadata: bool = Field(
        True, description="Put what files say of themselves (EXIF, IPTC, XMP: time, camera, place) into the payload."
    )
    picture_hashes: bool = Field(
        True, description="Keep a hash (PDQ) of each picture, by which copies of it are found."
    )
    caption_items: bool = Field(False, description="Index the captions of pictures as texts of their own, too.")
    sidecars: bool = Field(True, description="Read captions (.txt) and fields (.json) beside images in folders.")
    table_file: str | None = Field(None, description="The column of paths or URLs in tables; unset, by usual names.")
    table_caption: str | None = Field(None, description="The column of captions in tables; unset, by usual names.")
    table_id: str | None = Field(None, description="The column of ids in tables; unset, `id`.")

    fetch_allow: str = Field(
        "",
        description="Private hosts that URLs may name: host names, host:port and networks (10.0.0.0/8), with commas.",
    )
    fetch_deadline: float = Field(60.0, gt=0, description="Seconds that fetching one URL may take.")

    media_url: str | None = Field(
        None,
        description="Where uploads, copies and thumbnails live: a folder, s3://, gs://, az://; unset, in `data`.",
    )
    copy_originals: bool = Field(False, description="Keep a copy of every original that is indexed, not uploads alone.")
    thumbnail_bytes: int = Field(
        2**30, ge=0, description="Bytes of thumbnails in a store that is a folder; those not seen for longest go first."
    )

    device: str = Field("auto", description="Where models run: auto, cpu, cuda, cuda:1, ..., several with commas.")
    gpu_memory: int | None = Field(None, gt=0, description="Bytes of GPU memory for a model; unset, what it takes.")
    threads: int | None = Field(None, gt=0, description="CPU threads for encoding and decoding; unset, all cores.")
    batch_size: int = Field(16, gt=0, le=1024, description="Images per encoder run while ingesting.")

    redis_url: str | None = Field(None, description="The queue's Redis; unset, `crosslens serve` has its own.")
    workers: int = Field(1, ge=0, le=256, description="Worker processes that `crosslens serve` starts.")
    shard_size: int = Field(512, gt=0, le=10_000, description="Items of a job that a worker takes at once.")
    queue_limit: int = Field(64, gt=0, description="Shards that may wait; planning pauses beyond.")
    job_limit: int = Field(100, gt=0, description="Unfinished jobs; the API answers 429 beyond.")
    worker_seconds: float = Field(15.0, gt=0, description="A worker that said nothing for so long is dead.")
    quarantine_after: int = Field(3, gt=0, description="Workers that an item may kill while alone in work.")

    admin_key: SecretStr | None = Field(None, description="A key for everything, besides those made: for containers.")
    admin_key_file: Path | None = Field(None, description="A file that holds it: a mounted secret.")
    key_rate: float = Field(50.0, gt=0, allow_inf_nan=False, description="Requests a second of a key, in the long run.")
    key_burst: int = Field(100, gt=0, description="Requests of a key at once.")
    key_requests_per_day: int | None = Field(None, gt=0, description="Requests of a key in a day (UTC); unset, any.")
    key_bytes_per_day: int | None = Field(None, gt=0, description="Bytes that a key uploads in a day; unset, any.")
    key_items_per_day: int | None = Field(None, gt=0, description="Items that a key hands in in a day; unset, any.")
    address_rate: float = Field(
        10.0, gt=0, allow_inf_nan=False, description="Requests a second without a key from an address, in the long run."
    )
    address_burst: int = Field(50, gt=0, description="Requests without a key from an address at once.")
    address_failures: int = Field(10, gt=0, description="Wrong keys from an address in a minute.")
    metrics_access: Literal["nobody", "local", "anybody"] = Field(
        "local", description="Who reads /metrics without a key: nobody, this machine, or anybody."
    )
    cors_origins: Origins = Field("", description="Origins of other sites' pages that may ask, with commas; or *.")
    trusted_proxies: Networks = Field(
        "", description="Networks of proxies whose X-Forwarded-For is believed, with commas; keys are demanded then."
    )
    behind_tls: bool = Field(False, description="A proxy before the API speaks TLS: browsers are told to insist on it.")
    audit_days: int = Field(90, gt=0, description="Days for which the audit log is kept.")

    webhook_url: str | None = Field(
        None, description="Where verdicts that change are posted to, over https://; unset, nowhere."
    )
    webhook_secret: SecretStr | None = Field(
        None, description="What these messages are signed with: whsec_ and 24 to 64 random bytes in base64."
    )
    log_blocked_queries: bool = Field(False, description="Log what was searched for when a policy blocks a search.")
    log_level: str = Field("info", description="debug, info, warning or error.")

    @property
    def fetch_allowed(self) -> tuple[str, ...]:
        """The entries of `fetch_allow`."""
        return tuple(entry.strip() for entry in self.fetch_allow.split(",") if entry.strip())

    @property
    def allowed_origins(self) -> tuple[str, ...]:
        """The entries of `cors_origins`."""
        return _entries(self.cors_origins)

    @property
    def proxy_networks(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """The entries of `trusted_proxies`."""
        return tuple(ip_network(entry) for entry in _entries(self.trusted_proxies))

    @property
    def has_queue(self) -> bool:
        """Whether there is a queue: `crosslens serve`'s own, or one at `redis_url`."""
        return self.redis_url is not None or self.workers > 0

    @property
    def index_folder(self) -> Path:
        """Where the embedded index lives."""
        return self.data / "index"

    @property
    def media_folder(self) -> Path | None:
        """The media store, if it is a folder that was chosen."""
        return Path(self.media_url) if self.media_url is not None and "://" not in self.media_url else None

    @property
    def uploads_folder(self) -> Path:
        """Where originals that came over HTTP live."""
        return self.data / "uploads"

    @property
    def rerank_folder(self) -> Path:
        """Where pictures' features for reranking are kept."""
        return self.data / "rerank"

    @property
    def models_folder(self) -> Path:
        """Where bundles beside the built-in one live."""
        return self.data / "models"
