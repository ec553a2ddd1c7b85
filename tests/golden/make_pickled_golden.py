"""Writes small files by torch.save: the goldens of tests/convert/test_pickled.py.

    python tests/golden/make_pickled_golden.py        (needs the parity extra: torch on CPU)

Written beside this script, in pickled/: values are chosen so that the tests can state them again.
"""

from collections import OrderedDict
from pathlib import Path

import torch

HERE = Path(__file__).parent / "pickled"


def main() -> None:
    """Writes all files."""
    HERE.mkdir(exist_ok=True)
    numbers = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    module = torch.nn.Linear(3, 2, bias=False)
    module.weight.data = torch.tensor([[1.0, 2, 3], [4, 5, 6]])
    plain = OrderedDict(
        matrix=numbers,
        rows=numbers[1:3],  # a view into the same storage, contiguous
        half=torch.arange(5).half(),
        brain=torch.arange(6).bfloat16().reshape(3, 2),
        ids=torch.arange(3),
        parameter=torch.nn.Parameter(torch.ones(2)),
        scalar=torch.tensor(7.0),
    )
    torch.save(plain, HERE / "plain.bin")
    torch.save(module.state_dict(), HERE / "state_dict.bin")
    torch.save({"turned": numbers.T, "columns": numbers[:, :2]}, HERE / "views.bin")
    torch.save({"optimizer": {"step": torch.ones(1)}}, HERE / "nested.bin")
    torch.save({"module": module}, HERE / "module.bin")
    torch.save(plain, HERE / "legacy.bin", _use_new_zipfile_serialization=False)


if __name__ == "__main__":
    main()
