"""What can be set, in one place: every setting is an environment variable `CROSSLENS_<NAME>`."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


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

    qdrant_url: str | None = Field(None, description="A Qdrant server; unset, the embedded index is used.")
    qdrant_api_key: str | None = Field(None, description="The Qdrant server's key.")

    optimize_after: int = Field(
        20_000,
        gt=0,
        description="New points in the embedded index before it is optimized; a scan is as fast.",
    )

    max_pixels: int = Field(100_000_000, gt=0, description="Images of more pixels are refused undecoded.")
    max_bytes: int = Field(256 * 2**20, gt=0, description="Files of more bytes are refused unread.")

    device: str = Field("auto", description="Where models run: auto, cpu, cuda, cuda:1, ..., several with commas.")
    gpu_memory: int | None = Field(None, gt=0, description="Bytes of GPU memory for a model; unset, what it takes.")
    threads: int | None = Field(None, gt=0, description="CPU threads for encoding and decoding; unset, all cores.")
    batch_size: int = Field(16, gt=0, le=1024, description="Images per encoder run while ingesting.")

    log_level: str = Field("info", description="debug, info, warning or error.")

    @property
    def index_folder(self) -> Path:
        """Where the embedded index lives."""
        return self.data / "index"

    @property
    def uploads_folder(self) -> Path:
        """Where originals that came over HTTP live."""
        return self.data / "uploads"

    @property
    def models_folder(self) -> Path:
        """Where bundles beside the built-in one live."""
        return self.data / "models"
