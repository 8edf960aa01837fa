from __future__ import annotations

import hashlib
import io
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stpatch.dataset.formats.tar import END, TarShard, header, parse_sample
from stpatch.errors import DatasetError

keys = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,60}", fullmatch=True)
fields = st.dictionaries(
    st.from_regex(r"[a-z][a-z_]{0,20}\.(npy|json|blosc)", fullmatch=True), st.binary(max_size=1100), min_size=1
)


def by_tarfile(samples):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for key, members in samples:
            for field, data in members.items():
                info = tarfile.TarInfo(f"{key}.{field}")
                info.size, info.mode, info.mtime, info.uid, info.gid = len(data), 0o644, 0, 0, 0
                tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


@given(st.lists(st.tuples(keys, fields), min_size=1, max_size=4))
@settings(max_examples=50, deadline=None)
def test_bytes_equal_tarfile_and_ranges_give_samples_back(samples):
    file = io.BytesIO()
    shard = TarShard(file)
    ranges = [shard.add(key, members) for key, members in samples]
    sha256 = shard.finish()
    data = file.getvalue()
    assert hashlib.sha256(data).hexdigest() == sha256
    assert len(data) == shard.size
    theirs = by_tarfile(samples)
    assert theirs.startswith(data)
    assert not theirs[len(data) :].strip(b"\0")  # tarfile pads to 10 kB records
    assert data.endswith(END)
    assert ranges[0][0] == 0
    for (key, members), (offset, nbytes) in zip(samples, ranges, strict=True):
        assert parse_sample(data[offset : offset + nbytes]) == (key, members)


def test_golden():
    file = io.BytesIO()
    shard = TarShard(file)
    assert shard.add("a-000000", {"x.npy": b"abc", "meta.json": b"{}"}) == (0, 2048)
    assert shard.add("a-000001", {"x.npy": b"", "meta.json": bytes(512)}) == (2048, 1536)
    assert shard.finish() == GOLDEN


GOLDEN = "af8a5e03e7945f57a19b64d67884359e51b555480d6f5e619ea7790de6452fc0"


def test_what_no_header_can_tell_is_refused():
    with pytest.raises(DatasetError, match="USTAR"):
        header(b"a" * 101, 0)
    with pytest.raises(DatasetError, match="USTAR"):
        header(b"a", 8**11)
    assert int(header(b"a" * 100, 8**11 - 1)[124:135], 8) == 8**11 - 1


def test_damage_is_an_error():
    file = io.BytesIO()
    shard = TarShard(file)
    _, nbytes = shard.add("a", {"x.npy": bytes(600), "meta.json": b"{}"})
    _, more = shard.add("b", {"x.npy": b""})
    data = file.getvalue()
    with pytest.raises(DatasetError, match="more than one sample"):
        parse_sample(data[: nbytes + more])
    with pytest.raises(DatasetError, match="no member"):
        parse_sample(b"")
    with pytest.raises(DatasetError, match="header is damaged"):
        parse_sample(data[10:nbytes])
    with pytest.raises(DatasetError):
        parse_sample(data[: 512 + 100])
    for place in range(512):
        flipped = bytearray(data[:nbytes])
        flipped[place] ^= 0x40
        with pytest.raises(DatasetError):
            parse_sample(bytes(flipped))
