"""What reports mean: the odd one out is named, with what to do; and hosts that are alike and sound are left alone."""

import dataclasses

import pytest

from jaxwiz.doctor.host import HostReport
from jaxwiz.doctor.verdict import faults, line

SOUND = HostReport(
    process=0,
    host="h0",
    versions={"jax": "0.10.2", "source of jaxwiz": "abc"},
    driver="NVIDIA 580.1",
    free_gib=100.0,
    folder="ok, nfs4",
    clock_s=0.004,
    ports="ok",
    devices="8 x NVIDIA H100",
    memory_gib=80.0,
    seen="3 process(es), 24 device(s), 1 slice(s)",
    collective="180.00 GB/s",
    attention="cudnn, 1e-02",
)


def pod(**odd: object) -> list[HostReport]:
    """Three hosts, of which the last is odd."""
    hosts = [dataclasses.replace(SOUND, process=index, host=f"h{index}") for index in range(3)]
    return [*hosts[:2], dataclasses.replace(hosts[2], **odd)]


def test_hosts_that_are_alike_and_sound_have_no_faults() -> None:
    assert faults(pod(), min_free_gib=50, processes=3, devices=8) == []
    assert faults([dataclasses.replace(SOUND, ports="alone", collective="one device")]) == []


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        (
            {"versions": {"jax": "0.9.1", "source of jaxwiz": "abc"}},
            "jax is 0.9.1, elsewhere 0.10.2; make this host like",
        ),
        ({"versions": {"jax": "0.10.2"}}, "source of jaxwiz is absent, elsewhere abc"),
        ({"driver": "NVIDIA 570.2"}, "driver: NVIDIA 570.2, elsewhere NVIDIA 580.1; make this host like the others"),
        ({"driver": "failed: nvidia-smi hangs"}, "driver failed: nvidia-smi hangs; restart the host"),
        ({"devices": "7 x NVIDIA H100"}, "devices: 7 x NVIDIA H100, elsewhere 8 x NVIDIA H100"),
        ({"seen": "1 process(es), 8 device(s), 1 slice(s)"}, "it has joined another job"),
        ({"folder": "failed: [Errno 13] Permission denied"}, "folder failed: [Errno 13] Permission denied; mount"),
        ({"folder": "ok, ext4"}, "file system: ext4, elsewhere nfs4; make this host like the others: mount the same"),
        ({"ports": "failed: process 0 at 10.0.0.1:4711: timed out"}, "open all ports between the hosts"),
        ({"clock_s": -3.0}, "its clock is off by -3.0 s; start its NTP client"),
        ({"free_gib": 9.5}, "9.5 GiB are free, 50 needed; remove old runs"),
        ({"collective": "failed: a sum over 24 devices is wrong by up to 2"}, "its links corrupt data"),
        ({"attention": "failed: kernel 'cudnn' is wrong"}, "set compute.attention = 'xla'"),
        ({"attention": "xla, 1e-02"}, "attention kernel: xla, elsewhere cudnn"),
    ],
)
def test_the_odd_one_is_named_with_what_to_do(odd: dict[str, object], message: str) -> None:
    (found,) = faults(pod(**odd), min_free_gib=50)
    assert found.startswith("process 2 (h2): ") and message in found


def test_what_the_spec_expects_is_held_against_all() -> None:
    found = faults(pod(), processes=4, devices=4)
    assert found[0] == "the job has 3 process(es), the spec 4; start one on every host"
    assert [text.partition(":")[0] for text in found[1:]] == ["process 0 (h0)", "process 1 (h1)", "process 2 (h2)"]
    assert all("it has 8 x NVIDIA H100, the spec says 4" in text for text in found[1:])


def test_a_host_is_one_line() -> None:
    assert line(SOUND) == (
        "process 0 | h0 | 8 x NVIDIA H100, 80.0 GiB each | jax 0.10.2 | driver NVIDIA 580.1 | clock +4 ms | "
        "100 GiB free | folder ok, nfs4 | ports ok | sees 3 process(es), 24 device(s), 1 slice(s) | "
        "all-reduce 180.00 GB/s | attention cudnn, 1e-02"
    )
