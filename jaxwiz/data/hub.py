"""Data sets on the Hugging Face hub as sources: which files of a repository are read, and where they lie once fetched.

Only plain data files are fetched, JSON, JSONL and Parquet, never code. The hub's own cache keeps them, so a run that
was killed, or a second one, does not fetch them again. Everything after works on local files.
"""

import fnmatch
import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import Field

from jaxwiz.config import section
from jaxwiz.console import say
from jaxwiz.data.entries import SourceError

_FORMATS = (".parquet", ".jsonl", ".json")  # the first that a repository has is taken; many have several of the same
_OTHER_SPLITS = {"test", "tests", "val", "valid", "validation", "dev", "eval", "evaluation", "heldout"}
_METADATA = {"dataset_infos.json", "dataset_dict.json", "dataset_info.json", "state.json", "config.json"}


@section
class HubDataset:
    """A data set on the Hugging Face hub, of which JSON, JSONL and Parquet files are read.

    Attributes:
      kind: "hub".
      repo_id: "owner/name".
      revision: branch, tag or commit; a commit makes the run repeatable.
      files: patterns of the files to read, such as "data/train-*.parquet". Empty: all of one format, Parquet before
        JSONL before JSON, but those whose name or folder says that they are another split, such as "test".
    """

    kind: Literal["hub"] = "hub"
    repo_id: Annotated[str, Field(pattern=r"^[^/\s]+/[^/\s]+$")]
    revision: str = "main"
    files: tuple[str, ...] = ()


def local_files(sources: Iterable[Path | HubDataset]) -> list[Path]:
    """Returns the files of all sources, in order, after fetching those on the hub; a data set's are sorted by name.

    Raises:
      SourceError: a data set cannot be fetched or has no such files.
    """
    found: list[Path] = []
    for source in sources:
        found += fetch_dataset(source) if isinstance(source, HubDataset) else [source]
    return found


def fetch_dataset(dataset: HubDataset) -> list[Path]:
    """Returns the local files of a data set, sorted by their names on the hub.

    Raises:
      SourceError: the hub or the data set cannot be reached, or it has no such files.
    """
    import huggingface_hub

    say(f"data: fetching {dataset.repo_id} at {dataset.revision} from the Hugging Face hub")
    commit, names = list_dataset(dataset)
    try:
        folder = Path(
            huggingface_hub.snapshot_download(
                dataset.repo_id, repo_type="dataset", revision=commit, allow_patterns=[_literal(name) for name in names]
            )
        )
    except Exception as error:
        raise _unreachable(dataset, error) from None
    return [folder / name for name in names]


def list_dataset(dataset: HubDataset) -> tuple[str, list[str]]:
    """Returns the commit of a data set and the names of its files that would be read, without fetching them.

    Raises:
      SourceError: the hub or the data set cannot be reached, or it has no such files.
    """
    import huggingface_hub

    try:
        info = huggingface_hub.HfApi().dataset_info(dataset.repo_id, revision=dataset.revision)
    except Exception as error:  # the client's own, those of the HTTP library beneath it, and the system's
        raise _unreachable(dataset, error) from None
    names = sorted(sibling.rfilename for sibling in info.siblings or ())
    chosen = choose_files(names, dataset.files)
    if not chosen:
        rule = f"files = {list(dataset.files)}" if dataset.files else "files ending in " + ", ".join(_FORMATS)
        raise SourceError(
            f"repo_id = {dataset.repo_id!r}: has no {rule}; it has: {', '.join(names[:20]) or 'no files'}; "
            "name the files to read in 'files'"
        )
    return str(info.sha), chosen


def choose_files(names: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """Returns those of a repository's files that are read: see `HubDataset.files`."""
    if patterns:
        return [name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]
    data = [name for name in names if PurePosixPath(name).name not in _METADATA and not name.startswith(".")]
    data = [name for name in data if not _OTHER_SPLITS & set(re.split(r"[^a-z]+", name.lower()))]
    for suffix in _FORMATS:
        found = [name for name in data if name.endswith(suffix)]
        if found:
            return found
    return []


def _literal(name: str) -> str:
    """Returns the pattern that matches a name alone."""
    return re.sub(r"([*?[])", r"[\1]", name)


def _unreachable(dataset: HubDataset, error: Exception) -> SourceError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return SourceError(
        f"repo_id = {dataset.repo_id!r}, revision = {dataset.revision!r}: cannot fetch it ({reason}); check the name, "
        "your access (`hf auth login`) and the network, or give local files"
    )
