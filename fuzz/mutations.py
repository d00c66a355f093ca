"""Random changes of files, by file type. The same generator state gives the same change."""

from __future__ import annotations

import io
import json
import os
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

Bytes = Callable[[random.Random, bytes], bytes]

INTEGERS = (
    0,
    1,
    -1,
    2,
    3,
    127,
    255,
    65_536,
    10**6,
    10**9,
    2**31 - 1,
    2**31,
    -(2**31),
    2**62,
    2**63 - 1,
    -(2**63),
    10**40,
)
NUMBERS = (0.0, -1.5, 1e-45, 1e38, 1e308, float("nan"), float("inf"), -float("inf"))
TEXTS = (
    *("", "x", "\x00", "\x1b[31m", "\u202e", "../../etc/passwd", "/dev/zero", "hf:owner/name", "a" * 3000, "9" * 5000),
    *("<script>", "torch", "float32", "None", "os:system", "[PAD]", "image", "http://127.0.0.1/x", "\ud800"),
)
VALUES: tuple[Any, ...] = (None, True, False, *INTEGERS, *NUMBERS, *TEXTS, [], {}, [[]], [0], {"a": 1}, [1] * 70)
YAML_TOKENS = (
    *("&a", "*a", "!!python/object/apply:os.system [ls]", "!!binary aGk=", "<<: {a: 1}", "? [a]\n: b", "---\n", "|\n"),
    *("{", "}", "[", "]", ": ", "#", "0x10", "1_000", "1e400", ".nan", "~", "2001-99-99", "1:60:60", "\t", '"\\x00"'),
)
MAX_FILE = 2**20  # bytes of a file that still grows


def mutate_bytes(rng: random.Random, content: bytes) -> bytes:
    """Flip, cut, repeat or replace a few bytes."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        place, kind = rng.randrange(len(data) + 1), rng.randrange(6)
        if kind == 0 and data:
            data[place % len(data)] = rng.randrange(256)
        elif kind == 1 and data:
            data[place % len(data)] ^= 1 << rng.randrange(8)
        elif kind == 2:
            del data[place : place + rng.choice((1, 4, 64, len(data)))]
        elif kind == 3 and len(data) < MAX_FILE:
            start = rng.randrange(len(data) + 1)
            data[place:place] = data[start : start + rng.choice((1, 8, 512))]
        elif kind == 4:
            data[place : place + 8] = struct.pack("<q", rng.choice([n for n in INTEGERS if abs(n) < 2**63]))
        else:
            data[place:place] = rng.randbytes(rng.choice((1, 8, 64)))
    return bytes(data)


def mutate_value(rng: random.Random, value: Any) -> Any:
    """Replace, remove or add one value somewhere in a JSON value."""
    if isinstance(value, (dict, list)) and value and rng.random() < 0.9:
        key = rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
        change, copied = rng.random(), value.copy()
        if isinstance(value[key], (dict, list)) and change < 0.7:
            copied[key] = mutate_value(rng, value[key])
        elif change < 0.85:
            copied[key] = rng.choice(VALUES)
        elif change < 0.93:
            del copied[key]
        elif isinstance(copied, dict):
            copied[rng.choice(("shape", "size", "__class__", "", "dtype", *TEXTS[:4]))] = rng.choice(VALUES)
        else:
            copied.extend(copied[:1] * rng.choice((1, 64)))
        return copied
    return rng.choice(VALUES)


def mutate_json(rng: random.Random, content: bytes) -> bytes:
    """Change values of a JSON document, nest it deeply, or change its bytes."""
    if rng.random() < 0.15:
        return mutate_bytes(rng, content)
    if rng.random() < 0.03:
        return rng.choice((b"", b"null", b"[" * 100_000, b"9" * 5000, b"\xff\xfe", b'{"a":' * 50_000, b"[1,NaN]"))
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return mutate_bytes(rng, content)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        value = mutate_value(rng, value)
    return json.dumps(value).encode("utf-8", "surrogatepass")


def mutate_lines(rng: random.Random, content: bytes) -> bytes:
    """Change lines of a text: YAML, lists, records."""
    lines = content.decode("utf-8", "replace").split("\n")
    for _ in range(rng.choice((1, 1, 2, 3))):
        number, kind = rng.randrange(len(lines)), rng.randrange(6)
        key, colon, _ = lines[number].partition(":")
        if kind == 0:
            lines[number] = f"{key}{colon} {rng.choice((*YAML_TOKENS, *map(str, INTEGERS), *TEXTS))}"
        elif kind == 1:
            lines.insert(number, rng.choice(lines))
        elif kind == 2:
            lines[number] = " " * rng.randrange(6) + lines[number].strip()
        elif kind == 3 and len(lines) > 1:
            del lines[number]
        elif kind == 4:
            place = rng.randrange(len(lines[number]) + 1)
            lines[number] = lines[number][:place] + rng.choice((*YAML_TOKENS, *TEXTS)) + lines[number][place:]
        else:
            return mutate_bytes(rng, content)
        lines = lines or [""]
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def mutate_safetensors(rng: random.Random, content: bytes) -> bytes:
    """Change the header, with a length that fits or not, or the bytes."""
    if rng.random() < 0.3 or len(content) < 8:
        return mutate_bytes(rng, content)
    (length,) = struct.unpack("<Q", content[:8])
    header, rest = content[8 : 8 + length], content[8 + length :]
    header = mutate_json(rng, header)
    stated = len(header) if rng.random() < 0.95 else rng.choice((0, 2**63, len(content), 10**9))
    return struct.pack("<Q", stated) + header + rest


def mutate_npz(rng: random.Random, content: bytes) -> bytes:
    """Change the header or the bytes of one array, or the bytes of the archive."""
    if rng.random() < 0.25:
        return mutate_bytes(rng, content)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
    except Exception:  # an archive that was changed before can fail in any way
        return mutate_bytes(rng, content)
    if not members:
        return mutate_bytes(rng, content)
    name, kind = rng.choice(sorted(members)), rng.randrange(5)
    if kind == 0:
        members[name] = mutate_bytes(rng, members[name])
    elif kind == 1:
        members[rng.choice(("x.npy", "labels.npy", "../x.npy", "y", "a/b.npy", ""))] = members.pop(name)
    elif kind == 2:
        members[name] = _npy(rng)
    else:
        head, _, body = members[name][10:].partition(b"\n")
        text = head.decode("latin-1")
        old = rng.choice([part for part in ("shape", "descr", "(", ",", "'", "<", "False") if part in text] or [""])
        new = rng.choice((*map(str, INTEGERS), "'|O'", "'<U9'", "(", "True", "'<f2'", "'>i8'", "'|V7'", "'<M8[s]'", ""))
        changed = text.replace(old, new, 1).encode("latin-1") + b"\n"
        members[name] = members[name][:8] + struct.pack("<H", len(changed) % 65_536) + changed + body
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, data in members.items():
            archive.writestr(member or "x", data)
    return out.getvalue()


def _npy(rng: random.Random) -> bytes:
    """Return an array file of an unusual type or shape."""
    import numpy as np

    arrays: tuple[Any, ...] = (
        *(np.zeros(0), np.zeros((3, 0, 2)), np.array(["a", "b"]), np.array([b"x"]), np.zeros((2,) * 20, np.uint8)),
        *(np.array([np.nan] * 8), np.full(8, 1e30), np.arange(8, dtype=np.uint64) * 2**60, np.zeros(8, complex)),
        *(np.zeros(8, "M8[s]"), np.zeros(8, [("a", "i4")]), np.zeros((8, 3, 8, 8), np.float16), np.array(1)),
    )
    file = io.BytesIO()
    np.save(file, rng.choice(arrays), allow_pickle=False)
    return file.getvalue()


def mutate_onnx(rng: random.Random, content: bytes) -> bytes:
    """Change sizes, constants, wires, operators, attributes or names of a graph, or the bytes."""
    import onnx
    from google.protobuf.message import DecodeError

    if rng.random() < 0.25:
        return mutate_bytes(rng, content)
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except DecodeError:
        return mutate_bytes(rng, content)
    for _ in range(rng.choice((1, 1, 2, 3))):
        _change_graph(rng, model.graph)
    return bytes(model.SerializeToString())


OPERATORS = (
    *("Conv", "ConvTranspose", "Relu", "Gemm", "MatMul", "Add", "Mod", "BitShift", "Where", "Expand", "Tile", "Range"),
    *("OneHot", "Resize", "NonZero", "TopK", "GatherND", "Einsum", "LSTM", "DFT", "EyeLike", "RandomNormal", "CumSum"),
    *("SequenceConstruct", "StringNormalizer", "Compress", "MaxUnpool", "RoiAlign", "NonMaxSuppression", "GridSample"),
    *("Pad", "Cast", "ConstantOfShape", "Squeeze", "Reshape", "Transpose", "Slice", "Split", "Concat", "Identity"),
    *("QLinearConv", "MatMulInteger", "DequantizeLinear", "Gelu", "Col2Im", "Multinomial", "Unique", "Loop", "If"),
)


def _change_graph(rng: random.Random, graph: Any) -> None:
    small = [n for n in INTEGERS if abs(n) < 2**63]
    kind, node = rng.randrange(8), rng.choice(graph.node) if graph.node else None
    if kind == 0 and graph.initializer:
        tensor = rng.choice(graph.initializer)
        sizes = list(tensor.dims) or [1]
        sizes[rng.randrange(len(sizes))] = rng.choice(small)
        del tensor.dims[:]
        tensor.dims.extend(sizes * rng.choice((1, 1, 1, 30)))
    elif kind == 1 and graph.initializer:
        tensor = rng.choice(graph.initializer)
        tensor.raw_data = mutate_bytes(rng, tensor.raw_data or b"\0" * 8)
        tensor.data_type = tensor.data_type if rng.random() < 0.7 else rng.randrange(30)
    elif kind == 2 and node is not None and node.input:
        names = [*(t.name for t in graph.initializer), *(o for n in graph.node for o in n.output), "x", "", "nope"]
        node.input[rng.randrange(len(node.input))] = rng.choice(names)
    elif kind == 3 and node is not None:
        node.op_type, node.domain = rng.choice(OPERATORS), rng.choice(("", "", "", "com.microsoft", "ai.onnx.ml"))
    elif kind == 4 and node is not None and node.attribute:
        attribute = rng.choice(node.attribute)
        attribute.i = rng.choice(small)
        if attribute.ints:
            attribute.ints[rng.randrange(len(attribute.ints))] = rng.choice(small)
    elif kind == 5 and graph.input:
        shape = graph.input[0].type.tensor_type
        shape.elem_type = shape.elem_type if rng.random() < 0.5 else rng.randrange(24)
        for size in shape.shape.dim:
            if rng.random() < 0.4:
                size.dim_value = rng.choice(small)
    elif kind == 6 and node is not None:
        graph.node.add().CopyFrom(node) if rng.random() < 0.5 else graph.node.remove(node)
    elif graph.initializer:
        tensor = rng.choice(graph.initializer)
        tensor.data_location = 1
        for key, value in (("location", rng.choice(("w.bin", *TEXTS[3:8]))), ("offset", str(rng.choice(INTEGERS)))):
            entry = tensor.external_data.add()
            entry.key, entry.value = key, value.encode("utf-8", "replace").decode()


BY_SUFFIX: dict[str, Bytes] = {
    **dict.fromkeys((".json", ".jsonl"), mutate_json),
    **dict.fromkeys((".yaml", ".txt", ".csv", ".records"), mutate_lines),
    ".safetensors": mutate_safetensors,
    ".npz": mutate_npz,
    ".onnx": mutate_onnx,
}
ODD_NAMES = ("\x1b[31m", "ü", "a\nb", "x" * 200, "-x", " ", "train", "test", "0", "10", "__MACOSX")


def mutate_folder(rng: random.Random, folder: Path) -> None:
    """Change one or a few files of a folder; seldom their kind, name or presence."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    for _ in range(rng.choice((1, 1, 1, 2))):
        if not files:
            return
        file = rng.choice(files)
        if rng.random() < 0.93:
            file.write_bytes(BY_SUFFIX.get(file.suffix, mutate_bytes)(rng, file.read_bytes()))
            continue
        files.remove(file)
        _change_kind(rng, file)


def _change_kind(rng: random.Random, file: Path) -> None:
    """Replace a file by nothing, a link, a pipe, a folder, an LFS pointer, or the same file of another name."""
    kind, content = rng.randrange(8), file.read_bytes()
    file.unlink()
    if kind == 0:
        file.symlink_to(rng.choice(("/etc/passwd", "/dev/zero", file.name, "..", "nowhere")))
    elif kind == 1:
        os.mkfifo(file)
    elif kind == 2:
        file.mkdir()
    elif kind == 3:
        file.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 9\n")
    elif kind == 4:
        file.write_bytes(b"")
    elif kind == 5:
        file.with_name(rng.choice(ODD_NAMES) + file.suffix).write_bytes(content)
    elif kind == 6:
        file.write_bytes(content)
        file.chmod(0)
